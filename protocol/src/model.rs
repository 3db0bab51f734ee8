//! Models: what can be asked for, and where a worker finds it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::ModelName;

/// Where the weights are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ModelSource {
    /// Files on the worker's host.
    #[serde(rename_all = "camelCase")]
    Path {
        /// The checkpoint, or a folder that holds `model.pth` and `config.json`.
        path: String,
        /// The configuration, where it is not beside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config_path: Option<String>,
    },
    /// A name on Coqui's hub; the library's own cache is used.
    Hub {
        /// Such as `tts_models/en/ljspeech/vits`.
        hub: String,
    },
    /// Inside the engine itself (`null`, `checkable`).
    Builtin {
        /// The engine's own name of it.
        builtin: String,
    },
}

/// A model of the catalogue (`ModelDefinition` of plan.md §8, which leaves its fields open).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelDefinition {
    /// Its name.
    pub name: ModelName,
    /// The kind of engine that speaks it: `coqui`, `null`, `checkable`, or one of a plugin's.
    pub engine: String,
    /// Where it is.
    pub source: ModelSource,
    /// Other names that clients may ask for it by, as `voice` or `model`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Whether it is meant when a request names none.
    #[serde(default)]
    pub default: bool,
    /// Speakers, where it has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voices: Vec<String>,
    /// Languages, where it has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// The longest segment it takes, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_text_chars: Option<u32>,
    /// SHA-256 of the checkpoint, in hex: what the cache is keyed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Options of the engine.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
}

impl ModelDefinition {
    /// A model of which no more is known than what it takes to load it.
    pub fn new(name: ModelName, engine: impl Into<String>, source: ModelSource) -> Self {
        Self {
            name,
            engine: engine.into(),
            source,
            aliases: Vec::new(),
            default: false,
            voices: Vec::new(),
            languages: Vec::new(),
            max_text_chars: None,
            sha256: None,
            options: Map::new(),
        }
    }
}
