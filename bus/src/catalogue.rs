//! The catalogue: which models can be asked for, kept in a KV bucket so that it outlives every process.
//!
//! Entries are JSON, one per model. One that cannot be read is logged and left out: a broken entry must not take the
//! others with it.

mod watch;

use std::future::Future;

use async_nats::jetstream::kv;
use bytes::Bytes;
use chorus_protocol::{ModelDefinition, ModelName, names};

use crate::bus::{Bus, bounded};
use crate::error::{BusError, BusErrorKind};

pub use watch::CatalogueWatch;

/// The catalogue of models. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    bus: Bus,
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
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Adds or replaces a model.
    ///
    /// # Errors
    /// `NotFound` when the bucket is missing (see [`Bus::ensure_layout`]), `Refused`, `Timeout`, `Disconnected`.
    pub async fn put(&self, model: &ModelDefinition) -> Result<(), BusError> {
        let (key, value) = entry_of(model)?;
        let store = self.store().await?;
        self.within(store.put(key, value)).await?.map_err(|e| refused("put", e)).map(|_| ())
    }

    /// Adds a model; `false` when one of its name is there already.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn create(&self, model: &ModelDefinition) -> Result<bool, BusError> {
        let (key, value) = entry_of(model)?;
        let store = self.store().await?;
        match self.within(store.create(key, value)).await? {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == kv::CreateErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(refused("create", error)),
        }
    }

    /// A model, if it is there.
    ///
    /// # Errors
    /// As of [`Catalogue::put`]; `Malformed` when the entry cannot be read.
    pub async fn get(&self, model: &ModelName) -> Result<Option<ModelDefinition>, BusError> {
        let store = self.store().await?;
        let value = self.within(store.get(names::model_key(model))).await?.map_err(|e| refused("get", e))?;
        let parse = |value: Bytes| {
            serde_json::from_slice(&value).map_err(|error| {
                let message = format!("the catalogue entry of {model} cannot be read");
                BusError::caused(BusErrorKind::Malformed, message, error)
            })
        };
        value.map(parse).transpose()
    }

    /// Takes a model out; nothing happens when it is not there.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn remove(&self, model: &ModelName) -> Result<(), BusError> {
        let store = self.store().await?;
        self.within(store.delete(names::model_key(model))).await?.map_err(|e| refused("remove", e))
    }

    /// All models, in order of their keys.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn list(&self) -> Result<Vec<ModelDefinition>, BusError> {
        let mut watch = self.watch().await?;
        let collecting = async {
            let mut models = Vec::new();
            while let Some(change) = watch.next().await {
                match change {
                    CatalogueChange::Put(model) => models.push(model),
                    CatalogueChange::Removed(_) => {}
                    CatalogueChange::Ready => return Ok(models),
                }
            }
            Err(self.bus.inner.disconnected())
        };
        let mut models = self.within(collecting).await??;
        models.sort_by_cached_key(|model| names::model_key(&model.name));
        Ok(models)
    }

    /// What is there, then [`CatalogueChange::Ready`], then every change.
    ///
    /// # Errors
    /// As of [`Catalogue::put`].
    pub async fn watch(&self) -> Result<CatalogueWatch, BusError> {
        CatalogueWatch::open(self.clone()).await
    }

    pub(crate) async fn store(&self) -> Result<&kv::Store, BusError> {
        let inner = &self.bus.inner;
        inner.ready(inner.request_timeout).await?;
        let opening = inner.models.get_or_try_init(|| inner.jetstream.get_key_value(names::MODELS_BUCKET));
        self.within(opening).await?.map_err(|error| {
            let message = format!("the KV bucket {} cannot be opened", names::MODELS_BUCKET);
            BusError::caused(BusErrorKind::NotFound, message, error)
        })
    }

    pub(crate) async fn within<T>(&self, operation: impl Future<Output = T>) -> Result<T, BusError> {
        let timeout = || BusError::new(BusErrorKind::Timeout, "the catalogue did not answer in time");
        bounded(2 * self.bus.inner.request_timeout, operation).await.ok_or_else(timeout)
    }
}

fn entry_of(model: &ModelDefinition) -> Result<(String, Bytes), BusError> {
    let value = serde_json::to_vec(model).map_err(|error| {
        BusError::caused(BusErrorKind::Malformed, "the model definition cannot be written", error)
    })?;
    Ok((names::model_key(&model.name), value.into()))
}

fn refused(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> BusError {
    BusError::caused(BusErrorKind::Refused, format!("the catalogue cannot {what} the model"), error)
}
