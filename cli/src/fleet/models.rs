//! What `--model` may name, turned into definitions for the catalogue.
//!
//! Pure but for a look whether a path exists: the configuration's `[models]`, the installed voices and the rules below are
//! all there is. `NAME=PATH` names both; else it is a name of `[models]`, an installed voice, a name on Coqui's hub
//! (`tts_models/…`), a built-in of the test engines, or a path, whose last part becomes the name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chorus_bus::{Bus, Layout};
use chorus_protocol::{ModelDefinition, ModelName, ModelSource, Reason, ServiceError};
use chorus_provision::Voice;

use crate::config::EngineKind;
use crate::error::CliError;

/// What is known of models on this machine.
#[derive(Debug, Clone, Default)]
pub struct KnownModels {
    /// `[models]` of the configuration.
    pub configured: BTreeMap<String, String>,
    /// Voices in CHORUS_HOME.
    pub installed: Vec<Voice>,
}

impl KnownModels {
    /// What `spec` means for this engine.
    ///
    /// # Errors
    /// MODEL_NOT_FOUND naming what there is, or a name that cannot be one.
    pub fn resolve(&self, spec: &str, engine: EngineKind) -> Result<ModelDefinition, CliError> {
        if engine != EngineKind::Coqui {
            let name = spec.split_once('=').map_or(spec, |(name, _)| name);
            return built_in(name, engine);
        }
        if let Some((name, place)) = spec.split_once('=') {
            return definition(name, engine, source_of(place)?);
        }
        if let Some(place) = self.configured.get(spec) {
            return definition(spec, engine, source_of(place)?);
        }
        if let Some(voice) = self.installed.iter().find(|voice| voice.name == spec) {
            return definition(spec, engine, at(&voice.path));
        }
        if is_hub_name(spec) {
            return definition(spec, engine, ModelSource::Hub { hub: spec.to_owned() });
        }
        let path = PathBuf::from(spec);
        if path.exists() {
            let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
            let name = stem.map_or_else(|| spec.to_owned(), |name| name.to_string_lossy().into_owned());
            return definition(&name, engine, source_of(spec)?);
        }
        Err(self.unknown(spec))
    }

    fn unknown(&self, spec: &str) -> CliError {
        let configured = self.configured.keys().cloned();
        let known: Vec<String> =
            configured.chain(self.installed.iter().map(|voice| voice.name.clone())).collect();
        let listed = if known.is_empty() { "none is installed".to_owned() } else { known.join(", ") };
        let message = format!("there is no model {spec:?} on this machine ({listed})");
        CliError::Service(ServiceError::new(Reason::UnknownModel, message).with("known", known))
    }
}

/// The model inside a test engine.
pub fn built_in(name: &str, engine: EngineKind) -> Result<ModelDefinition, CliError> {
    definition(name, engine, ModelSource::Builtin { builtin: engine.as_str().to_owned() })
}

/// The definition of an installed voice.
pub fn of_voice(voice: &Voice) -> Result<ModelDefinition, CliError> {
    definition(&voice.name, EngineKind::Coqui, at(&voice.path))
}

/// Puts these models into the catalogue of a broker of our own, as they are now: places may have changed since the store was
/// written, and only one model is meant when a request names none.
pub async fn prepare_catalogue(bus: &Bus, definitions: &[ModelDefinition]) -> Result<(), CliError> {
    bus.ensure_layout(&Layout::default()).await?;
    let catalogue = bus.catalogue();
    for stored in catalogue.list().await? {
        let named_now = definitions.iter().any(|definition| definition.name == stored.name);
        if stored.default && !named_now {
            catalogue.put(&ModelDefinition { default: false, ..stored }).await?;
        }
    }
    for definition in definitions {
        catalogue.put(definition).await?;
    }
    Ok(())
}

fn is_hub_name(spec: &str) -> bool {
    ["tts_models/", "vocoder_models/", "voice_conversion_models/"]
        .iter()
        .any(|prefix| spec.starts_with(prefix))
}

fn source_of(place: &str) -> Result<ModelSource, CliError> {
    if is_hub_name(place) {
        return Ok(ModelSource::Hub { hub: place.to_owned() });
    }
    let path = std::path::absolute(place).map_err(CliError::io(format!("cannot find {place:?}")))?;
    if !path.exists() {
        let message = format!("there is no model at {}", path.display());
        return Err(ServiceError::new(Reason::UnknownModel, message).into());
    }
    Ok(at(&path))
}

fn at(path: &Path) -> ModelSource {
    ModelSource::Path { path: path.display().to_string(), config_path: None }
}

fn definition(name: &str, engine: EngineKind, source: ModelSource) -> Result<ModelDefinition, CliError> {
    let name = ModelName::new(name).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(ModelDefinition::new(name, engine.as_str(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_in_many_ways() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_str().unwrap();
        let known = KnownModels {
            configured: [("ann".to_owned(), here.to_owned())].into(),
            installed: vec![Voice { name: "joe".into(), path: folder.path().join("joe") }],
        };
        let resolve = |spec: &str| known.resolve(spec, EngineKind::Coqui);
        let path = |spec: &str| match resolve(spec).unwrap().source {
            ModelSource::Path { path, .. } => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path("ann"), here);
        assert_eq!(path("joe"), folder.path().join("joe").to_str().unwrap());
        assert_eq!(path(&format!("bob={here}")), here);
        assert_eq!(resolve(&format!("bob={here}")).unwrap().name.as_str(), "bob");
        assert_eq!(
            resolve(here).unwrap().name.as_str(),
            folder.path().file_name().unwrap().to_str().unwrap()
        );
        let hub = resolve("tts_models/en/ljspeech/vits").unwrap();
        assert_eq!(hub.source, ModelSource::Hub { hub: "tts_models/en/ljspeech/vits".into() });
        assert!(matches!(resolve("bob=/no/such/file"), Err(CliError::Service(_))));
        assert!(matches!(resolve("=x"), Err(CliError::Service(_) | CliError::Usage(_))));
        match resolve("zoe") {
            Err(CliError::Service(error)) => {
                assert_eq!(error.details.unwrap()["known"], serde_json::json!(["ann", "joe"]));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn test_engines_have_what_they_are_built_with() {
        let model = KnownModels::default().resolve("m", EngineKind::Null).unwrap();
        assert_eq!(model.source, ModelSource::Builtin { builtin: "null".into() });
        assert_eq!(model.engine, "null");
    }
}
