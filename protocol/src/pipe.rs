//! What a worker and its engine say to one another through the pipe, protocol 2.1.
//!
//! Each frame is an envelope in MessagePack. Requests go to the engine; responses, errors and events come back, and name
//! their request by `metadata.correlationId`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::audio::AudioData;
use crate::fleet::{Device, Tuning};
use crate::ids::MessageId;
use crate::job::RunRef;
use crate::model::ModelDefinition;

/// The largest frame, in bytes.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// A request to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum EngineRequest {
    /// Who are you, and which versions do you speak?
    Hello {
        /// The version range accepted.
        accept: String,
        /// The worker that asks.
        worker: String,
    },
    /// Load a model.
    Load {
        /// The model.
        model: Box<ModelDefinition>,
    },
    /// Forget a model.
    Unload {
        /// Its name.
        model: String,
    },
    /// Speak one segment.
    Synthesize(Box<EngineSpeech>),
    /// Give a request up.
    Cancel {
        /// The `messageId` of the request.
        message_id: MessageId,
    },
    /// Are you there?
    Ping,
    /// Exit.
    Shutdown,
}

/// What an engine is asked to speak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineSpeech {
    /// A loaded model.
    pub model: String,
    /// The words.
    pub text: String,
    /// A speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// A file on this machine with somebody's speech, whose voice the model shall take on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker_clip: Option<String>,
    /// A language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Rate of speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Semitones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pitch: Option<f64>,
    /// Seed of the take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The run that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<RunRef>,
}

impl EngineSpeech {
    /// A text as the model speaks it by itself.
    pub fn plain(model: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            text: text.into(),
            voice: None,
            speaker_clip: None,
            language: None,
            speed: None,
            pitch: None,
            seed: None,
            job: None,
        }
    }
}

/// What an engine can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Sends audio before a segment is complete.
    pub streaming: bool,
    /// Honours `speed`.
    pub speed: bool,
    /// Honours `pitch`.
    pub pitch: bool,
    /// Honours `seed`.
    pub seed: bool,
    /// Honours `cancel`.
    pub cancel: bool,
    /// Honours `speakerClip`, with those of its models that can take on a voice.
    pub speaker_clip: bool,
    /// Requests it works on at the same time.
    pub lanes: u32,
    /// Requests it can speak in one batch.
    pub max_batch: u32,
}

/// What an engine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineInfo {
    /// Its kind.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The library behind it, with its version.
    #[serde(default)]
    pub library: String,
}

/// The answer to `hello`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HelloAnswer {
    /// The version agreed on.
    pub version: semver::Version,
    /// What it is.
    pub engine: EngineInfo,
    /// Its process.
    pub pid: u32,
    /// What it computes on.
    pub device: Device,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// The answer to `load`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadAnswer {
    /// Samples per second of its audio.
    pub sample_rate: u32,
    /// Speakers.
    #[serde(default)]
    pub voices: Vec<String>,
    /// Languages.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Milliseconds to load.
    pub load_ms: f64,
    /// Milliseconds to warm up.
    #[serde(default)]
    pub warmup_ms: f64,
    /// The longest segment, in characters.
    #[serde(default)]
    pub max_text_chars: Option<u32>,
    /// Memory of the engine after it, in bytes.
    #[serde(default)]
    pub rss_bytes: u64,
    /// Memory of the GPU that the engine holds after it, in bytes, where it computes on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_bytes: Option<u64>,
    /// The files that its voice is made of (weights, configuration), in an order that is always the same. None where the
    /// engine does not tell: its takes are not stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// How the engine runs it, where it has a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
}

/// The answer to `unload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UnloadAnswer {
    /// Memory of the engine after it, in bytes.
    pub rss_bytes: u64,
    /// Memory of the GPU that the engine holds after it, in bytes, where it computes on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_bytes: Option<u64>,
}

/// The answer to `synthesize`: the last piece, and what the whole is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpokenAnswer {
    /// Place of the last piece.
    pub seq: u32,
    /// The last piece.
    pub data: AudioData,
    /// Number of pieces.
    pub chunks: u32,
    /// Number of samples.
    pub samples: u64,
    /// Samples per second.
    pub sample_rate: u32,
    /// CRC-32 of all PCM bytes.
    pub crc32: u32,
    /// Milliseconds from the request read to the last sample made.
    pub engine_ms: f64,
    /// What was left out.
    #[serde(default)]
    pub warnings: Vec<EngineWarning>,
}

/// Something an engine left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineWarning {
    /// One word: `unspeakable`.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// The characters it is about.
    #[serde(default)]
    pub characters: String,
}

/// An event of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum EngineEvent {
    /// A piece of audio.
    Chunk {
        /// Its place, from 0.
        seq: u32,
        /// The samples.
        data: AudioData,
    },
    /// It has moved on.
    Progress {
        /// Where it is.
        stage: String,
        /// More of the engine's own.
        #[serde(flatten)]
        other: Map<String, Value>,
    },
}
