//! What a parent process and `chorus stdio` say to one another: the internal model of every client version.
//!
//! 2.0 and 2.1 carry these types in envelopes; 1.0's bare lines are turned into them and back by [`crate::adapt`]. A request
//! names its `method`; one without is `synthesize`, since plan.md's request payload is a bare `SynthesisRequest`.

mod read;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audio::AudioChunk;
use crate::fleet::FleetEvent;
use crate::ids::MessageId;
use crate::model::ModelDefinition;
use crate::request::SynthesisRequest;
use crate::service::UnloadModel;
use crate::version::Deprecation;

pub use read::{Asked, Heard, Unreadable, read, read_value};

/// The largest message that a parent may send, in bytes.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// The largest message that a parent must be ready to read, in bytes: inline audio in base64 and what stands around it.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// The most encoded audio inside one result, in bytes; more goes into a file or a stream.
pub const MAX_INLINE_AUDIO_BYTES: usize = 16 * 1024 * 1024;

/// The most encoded audio in one event of a stream, in bytes.
pub const MAX_EVENT_AUDIO_BYTES: usize = 64 * 1024;

/// Requests that may be under way at once.
pub const MAX_IN_FLIGHT: usize = 256;

/// The longest piece of a text that comes in pieces, in bytes.
pub const MAX_PIECE_BYTES: usize = crate::MAX_UNPLANNED_BYTES;

/// Pieces of one text, flushes among them, that may wait to be taken.
pub const MAX_PIECES: usize = 64;

/// Bytes of one text that may wait to be taken.
pub const MAX_WAITING_TEXT_BYTES: usize = 4 * MAX_PIECE_BYTES;

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What can be asked of the gateway.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Method {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// As it stands in `method`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

methods! {
    /// Which version, and what is there.
    Hello = "hello";
    /// Speak, and answer with the whole.
    Synthesize = "synthesize";
    /// Speak, and send the audio as it comes.
    SynthesizeStream = "synthesizeStream";
    /// More of a text that comes in pieces.
    Text = "text";
    /// Speak what has come of a text, though its last sentence may not look complete.
    Flush = "flush";
    /// No more of a text will come.
    End = "end";
    /// Give a request up.
    Cancel = "cancel";
    /// How the fleet is.
    Status = "status";
    /// Its figures.
    Metrics = "metrics";
    /// The catalogue.
    ListModels = "listModels";
    /// Put a model into the catalogue and on the workers.
    LoadModel = "loadModel";
    /// Take a model off the workers.
    UnloadModel = "unloadModel";
    /// Forget spoken segments.
    ClearCache = "clearCache";
    /// Be told what happens in the fleet.
    Subscribe = "subscribe";
    /// Be told no more.
    Unsubscribe = "unsubscribe";
    /// Are you there?
    Ping = "ping";
    /// Finish, and exit.
    Shutdown = "shutdown";
}

impl Method {
    /// The method of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.as_str() == name)
    }
}

/// A request of a parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GatewayRequest {
    /// See [`Hello`].
    Hello(Hello),
    /// Speak.
    Synthesize(Box<SynthesisRequest>),
    /// Speak, as a stream.
    SynthesizeStream(Box<StreamRequest>),
    /// See [`TextPiece`].
    Text(TextPiece),
    /// Speak what has come of a text.
    Flush(OfText),
    /// No more of a text will come.
    End(OfText),
    /// Give a request up.
    Cancel(CancelRequest),
    /// How the fleet is.
    Status,
    /// Its figures.
    Metrics,
    /// The catalogue.
    ListModels,
    /// See [`LoadModelRequest`].
    LoadModel(Box<LoadModelRequest>),
    /// Take a model off the workers.
    UnloadModel(UnloadModel),
    /// Forget spoken segments.
    ClearCache,
    /// See [`Subscribe`].
    Subscribe(Subscribe),
    /// Be told no more.
    Unsubscribe,
    /// Are you there?
    Ping,
    /// Finish, and exit.
    Shutdown,
}

impl GatewayRequest {
    /// Its method.
    pub fn method(&self) -> Method {
        match self {
            Self::Hello(_) => Method::Hello,
            Self::Synthesize(_) => Method::Synthesize,
            Self::SynthesizeStream(_) => Method::SynthesizeStream,
            Self::Text(_) => Method::Text,
            Self::Flush(_) => Method::Flush,
            Self::End(_) => Method::End,
            Self::Cancel(_) => Method::Cancel,
            Self::Status => Method::Status,
            Self::Metrics => Method::Metrics,
            Self::ListModels => Method::ListModels,
            Self::LoadModel(_) => Method::LoadModel,
            Self::UnloadModel(_) => Method::UnloadModel,
            Self::ClearCache => Method::ClearCache,
            Self::Subscribe(_) => Method::Subscribe,
            Self::Unsubscribe => Method::Unsubscribe,
            Self::Ping => Method::Ping,
            Self::Shutdown => Method::Shutdown,
        }
    }
}

/// The first words of a parent that knows versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The version range accepted; the version of the message itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Who asks, for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayHello {
    /// The version agreed on: what follows this answer is in it.
    pub version: semver::Version,
    /// All that are spoken, oldest first.
    pub supported: Vec<semver::Version>,
    /// What answers.
    pub server: ServerInfo,
    /// Its process.
    pub pid: u32,
    /// The audio formats it can write.
    pub formats: Vec<String>,
    /// What can be asked of it.
    pub methods: Vec<String>,
    /// Its bounds.
    pub limits: GatewayLimits,
    /// Versions that will go.
    #[serde(default)]
    pub deprecations: Vec<Deprecation>,
}

/// What answers a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// `chorus`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The bounds of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayLimits {
    /// Requests under way at once.
    pub in_flight: usize,
    /// Bytes of one message to it.
    pub message_bytes: usize,
    /// Bytes of encoded audio inside one result.
    pub inline_audio_bytes: usize,
    /// Bytes of text in one request.
    pub text_bytes: usize,
    /// Bytes of one piece of a text that comes in pieces; 0 where none can be taken.
    #[serde(default)]
    pub piece_bytes: usize,
    /// Pieces of one text that may wait for their answers.
    #[serde(default)]
    pub pieces: usize,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            in_flight: MAX_IN_FLIGHT,
            message_bytes: MAX_REQUEST_BYTES,
            inline_audio_bytes: MAX_INLINE_AUDIO_BYTES,
            text_bytes: crate::MAX_TEXT_BYTES,
            piece_bytes: MAX_PIECE_BYTES,
            pieces: MAX_PIECES,
        }
    }
}

/// What a stream is asked for with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamRequest {
    /// What is asked for.
    #[serde(flatten)]
    pub request: SynthesisRequest,
    /// How many audio events may be sent before the parent grants more; no bound but stdout's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u32>,
    /// More of the text will come, in pieces; its own text, which may be empty, is the first of them. Plain text only.
    #[serde(default, skip_serializing_if = "crate::plan::is_false")]
    pub text_comes: bool,
}

/// More of the text of a stream that was asked for with `textComes`. Answered once it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TextPiece {
    /// The `messageId` of the stream's request.
    pub message_id: MessageId,
    /// What comes next, at most [`MAX_PIECE_BYTES`].
    pub text: String,
}

/// Which text is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfText {
    /// The `messageId` of the stream's request.
    pub message_id: MessageId,
}

/// Which request is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    /// The `messageId` of the request.
    pub message_id: MessageId,
}

/// The answer to [`CancelRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelAnswer {
    /// Whether such a request was under way; it ends with its own answer.
    pub cancelled: bool,
}

/// Which model shall be loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadModelRequest {
    /// A name, or all there is to know.
    pub model: ModelArg,
}

/// A model as a client names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ModelArg {
    /// A model of the catalogue, a voice of this machine, `NAME=PATH`, or a name on Coqui's hub.
    Named(String),
    /// Its definition.
    Defined(Box<ModelDefinition>),
}

/// Which events a parent wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subscribe {
    /// Their kinds; all but `outcome` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
}

/// An answer that says no more than that it was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

/// An event, in either direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GatewayEvent {
    /// A piece of a stream.
    Audio(AudioChunk),
    /// Something happened in the fleet.
    Fleet(FleetEvent),
    /// From the parent: so many more audio events of a stream may be sent.
    Grant(Grant),
}

/// Room for more audio events of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The `messageId` of the stream's request.
    pub message_id: MessageId,
    /// How many more.
    pub chunks: u32,
}
