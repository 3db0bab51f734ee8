//! The catalogue: which models can be asked for, kept in a KV bucket so that it outlives every process.
//!
//! The models are [`Records`] under their own names. An entry that cannot be read, or that stands under another model's
//! name, is logged and left out: a broken entry must not take the others with it.

use chorus_protocol::{ModelDefinition, ModelName};

use crate::bus::Bus;
use crate::error::BusError;
use crate::records::{Bucket, CasError, RecordChange, RecordWatch, Records};

/// The catalogue of models. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    models: Records<ModelDefinition>,
}

/// A change of the catalogue.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "changes are rare and read one by one")]
pub enum CatalogueChange {
    /// A model is there, new or changed (or told again after a reconnect).
    Put(ModelDefinition),
    /// A model is gone.
    Removed(ModelName),
    /// What was there at the start has all been told. Once per watch.
    Ready,
}

impl Catalogue {
    pub(crate) fn new(bus: &Bus) -> Self {
        Self { models: bus.records(Bucket::MODELS) }
    }

    /// Adds or replaces a model.
    ///
    /// # Errors
    /// `NotFound` when the bucket is missing (see [`Bus::ensure_layout`]), `TooLarge`, `Refused`, `Timeout`,
    /// `Disconnected`.
    pub async fn put(&self, model: &ModelDefinition) -> Result<(), BusError> {
        self.models.put(model.name.as_str(), model).await.map(|_| ())
    }

    /// Adds a model; `false` when one of its name is there already.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn create(&self, model: &ModelDefinition) -> Result<bool, BusError> {
        match self.models.create(model.name.as_str(), model).await {
            Ok(_) => Ok(true),
            Err(CasError::Exists | CasError::Conflict) => Ok(false),
            Err(CasError::Bus(error)) => Err(error),
        }
    }

    /// A model, if it is there.
    ///
    /// # Errors
    /// As of [`Catalogue::put`]; `Malformed` when the entry cannot be read.
    pub async fn get(&self, model: &ModelName) -> Result<Option<ModelDefinition>, BusError> {
        Ok(self.models.get(model.as_str()).await?.map(|record| record.value))
    }

    /// Takes a model out; nothing happens when it is not there.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn remove(&self, model: &ModelName) -> Result<(), BusError> {
        match self.models.delete(model.as_str(), None).await {
            Err(CasError::Bus(error)) => Err(error),
            // Without a revision there is nothing to conflict with.
            Ok(()) | Err(CasError::Exists | CasError::Conflict) => Ok(()),
        }
    }

    /// All models, in order of their keys.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn list(&self) -> Result<Vec<ModelDefinition>, BusError> {
        let records = self.models.list().await?;
        Ok(records.into_iter().filter_map(|(key, record)| in_its_place(&key, record.value)).collect())
    }

    /// What is there, then [`CatalogueChange::Ready`], then every change.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn watch(&self) -> Result<CatalogueWatch, BusError> {
        Ok(CatalogueWatch { models: self.models.watch().await? })
    }
}

/// Changes of the catalogue, in order.
pub struct CatalogueWatch {
    models: RecordWatch<ModelDefinition>,
}

impl CatalogueWatch {
    /// The next change; `None` when the connection was closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<CatalogueChange> {
        loop {
            if let Some(change) = read(self.models.next().await?) {
                return Some(change);
            }
        }
    }
}

fn read(change: RecordChange<ModelDefinition>) -> Option<CatalogueChange> {
    match change {
        RecordChange::Put { key, value, .. } => in_its_place(&key, value).map(CatalogueChange::Put),
        RecordChange::Malformed { .. } => None,
        RecordChange::Removed { key } => match ModelName::new(&key) {
            Ok(model) => Some(CatalogueChange::Removed(model)),
            Err(error) => {
                tracing::warn!(key, %error, "a catalogue entry with a key of no model is gone");
                None
            }
        },
        RecordChange::Ready => Some(CatalogueChange::Ready),
    }
}

fn in_its_place(key: &str, model: ModelDefinition) -> Option<ModelDefinition> {
    let fits = model.name.as_str() == key;
    if !fits {
        tracing::warn!(key, model = %model.name, "a catalogue entry under another model's key; left out");
    }
    fits.then_some(model)
}
