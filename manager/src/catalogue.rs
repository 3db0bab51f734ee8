//! What can be asked for: the models of the catalogue, as this manager sees them now.
//!
//! `watch` follows the KV bucket `tts-models` and replaces the view at each change; `resolve` is pure: it turns what
//! a request names (model, voice, language) into a model of the view and a [`Speech`](chorus_protocol::plan::Speech), or
//! into an error that names what is known. A view is never changed in place, so a request sees one state of the
//! catalogue from beginning to end.

mod nearest;
mod resolve;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_protocol::{ModelDefinition, ModelName};

pub use resolve::Resolved;

/// One state of the catalogue, sorted by name so that every manager chooses alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CatalogueView {
    models: BTreeMap<ModelName, Arc<ModelDefinition>>,
}

impl CatalogueView {
    /// The view with one model added or replaced.
    #[must_use]
    pub fn with(mut self, definition: ModelDefinition) -> Self {
        self.models.insert(definition.name.clone(), Arc::new(definition));
        self
    }

    /// The view with one model taken away.
    #[must_use]
    pub fn without(mut self, name: &ModelName) -> Self {
        self.models.remove(name);
        self
    }

    /// The model of exactly this name.
    pub fn get(&self, name: &ModelName) -> Option<&Arc<ModelDefinition>> {
        self.models.get(name)
    }

    /// All models, by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelDefinition>> + Clone {
        self.models.values()
    }

    /// How many models there are.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The model that is meant when a request names none: the one marked so (the first by name of several), else the only
    /// one.
    pub fn default_model(&self) -> Option<&Arc<ModelDefinition>> {
        let marked = self.models().find(|model| model.default);
        let only = || self.models().next().filter(|_| self.len() == 1);
        marked.or_else(only)
    }
}
