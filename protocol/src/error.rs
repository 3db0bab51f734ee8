//! Errors as clients see them: the plan's six codes, and a reason that tells more.
//!
//! A [`ServiceError`] is made from a [`Reason`] alone, which fixes its code and whether trying again can help, so that
//! `retryable` is right by construction.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The six codes of plan.md §4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ErrorCode {
    /// An engine or model could not be made ready.
    #[serde(rename = "INIT_FAILED")]
    InitializationFailed,
    /// The model is not in the catalogue.
    #[serde(rename = "MODEL_NOT_FOUND")]
    ModelNotFound,
    /// The text could not be spoken.
    #[serde(rename = "SYNTHESIS_FAILED")]
    SynthesisFailed,
    /// A deadline passed.
    #[serde(rename = "TIMEOUT")]
    Timeout,
    /// No room, or nobody to do it now.
    #[serde(rename = "RESOURCE_EXHAUSTED")]
    ResourceExhausted,
    /// The request cannot be honoured as it stands.
    #[serde(rename = "INVALID_REQUEST")]
    InvalidRequest,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident, $retryable:literal;)*) => {
        /// What happened, in one word; each belongs to one code and is retryable or not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Reason {
            /// All of them, for tests and documents.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// As it stands in `details.reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The code it belongs to.
            pub fn code(self) -> ErrorCode {
                match self { $(Self::$name => ErrorCode::$code),* }
            }

            /// Whether the same request may succeed later.
            pub fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable),* }
            }
        }
    };
}

reasons! {
    /// A field is missing, of the wrong type, or outside its range.
    Malformed = "malformed", InvalidRequest, false;
    /// The text, or what is left of it, holds nothing that the voice can say.
    Unspeakable = "unspeakable", InvalidRequest, false;
    /// Over a size limit.
    TooLarge = "too_large", InvalidRequest, false;
    /// A known option that this model or transport cannot honour.
    UnsupportedOption = "unsupported_option", InvalidRequest, false;
    /// No mutual protocol version.
    Version = "version", InvalidRequest, false;
    /// A method that is not in the protocol.
    UnknownMethod = "unknown_method", InvalidRequest, false;
    /// The messageId is that of another request.
    IdReused = "id_reused", InvalidRequest, false;
    /// No request of that messageId is under way (any more).
    UnknownRequest = "unknown_request", InvalidRequest, false;
    /// There is no such durable job (any more).
    UnknownJob = "unknown_job", InvalidRequest, false;
    /// The model or voice is not in the catalogue.
    UnknownModel = "unknown_model", ModelNotFound, false;
    /// The queue of this model and class is at its bound.
    QueueFull = "queue_full", ResourceExhausted, true;
    /// First audio would come after the deadline.
    WouldBeLate = "would_be_late", ResourceExhausted, true;
    /// The breakers of all workers of the model are open.
    BreakerOpen = "breaker_open", ResourceExhausted, true;
    /// No worker is able to speak it now.
    NoWorker = "no_worker", ResourceExhausted, true;
    /// No manager answers on the broker.
    NoManager = "no_manager", ResourceExhausted, true;
    /// The broker cannot be reached.
    NoBroker = "no_broker", ResourceExhausted, true;
    /// The durable job is not spoken yet.
    NotDone = "not_done", ResourceExhausted, true;
    /// The client asks for more than its share.
    RateLimited = "rate_limited", ResourceExhausted, true;
    /// First audio did not come by the deadline.
    FirstAudio = "first_audio", Timeout, true;
    /// One attempt ran out of its time.
    AttemptTimeout = "attempt", Timeout, true;
    /// No progress while the listener waited.
    Stalled = "stalled", Timeout, true;
    /// The engine died.
    EngineCrashed = "engine_crashed", SynthesisFailed, true;
    /// The worker that had begun it is gone.
    WorkerLost = "worker_lost", SynthesisFailed, true;
    /// The engine answered with an error of its own.
    EngineError = "engine_error", SynthesisFailed, true;
    /// The engine broke the pipe protocol.
    EngineProtocol = "engine_protocol", SynthesisFailed, true;
    /// Silence, clipping, or a duration that the text cannot have.
    BadAudio = "bad_audio", SynthesisFailed, true;
    /// It failed wherever it was tried.
    Poison = "poison", SynthesisFailed, false;
    /// The client gave it up.
    Cancelled = "cancelled", SynthesisFailed, false;
    /// The audio could not be written or encoded.
    Output = "output", SynthesisFailed, false;
    /// A model could not be loaded.
    LoadFailed = "load_failed", InitializationFailed, false;
    /// The engine did not start or shake hands.
    EngineStart = "engine_start", InitializationFailed, true;
}

/// An error on the wire (plan.md §4.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct ServiceError {
    /// One of six.
    pub code: ErrorCode,
    /// For a person: what is wrong and what to do.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// For a program: `reason`, `field`, `retryAfterMs`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Map<String, Value>>,
}

impl ServiceError {
    /// An error of this reason; code and `retryable` follow from it.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut details = Map::new();
        details.insert("reason".into(), Value::from(reason.as_str()));
        Self {
            code: reason.code(),
            message: message.into(),
            retryable: reason.retryable(),
            details: Some(details),
        }
    }

    /// A field that cannot be taken as it is.
    pub fn field(reason: Reason, field: &str, message: impl Into<String>) -> Self {
        Self::new(reason, message).with("field", field)
    }

    /// With one more detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.get_or_insert_default().insert(key.to_owned(), value.into());
        self
    }

    /// With the time after which trying again is worth it.
    #[must_use]
    pub fn retry_after_ms(self, ms: u64) -> Self {
        self.with("retryAfterMs", ms)
    }

    /// The reason, where it is one that we know.
    pub fn reason(&self) -> Option<Reason> {
        let text = self.details.as_ref()?.get("reason")?.as_str()?;
        Reason::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_the_plan_names_it() {
        let error =
            ServiceError::field(Reason::Malformed, "speed", "speed must be 0.25 to 4.0").retry_after_ms(5);
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(json["code"], "INVALID_REQUEST");
        assert_eq!(json["retryable"], false);
        assert_eq!(json["details"]["field"], "speed");
        assert_eq!(serde_json::from_value::<ServiceError>(json).unwrap().reason(), Some(Reason::Malformed));
    }

    #[test]
    fn client_faults_are_never_retryable_and_back_pressure_always_is() {
        for reason in Reason::ALL {
            match reason.code() {
                ErrorCode::InvalidRequest | ErrorCode::ModelNotFound => {
                    assert!(!reason.retryable(), "{reason:?}")
                }
                ErrorCode::ResourceExhausted | ErrorCode::Timeout => {
                    assert!(reason.retryable(), "{reason:?}")
                }
                ErrorCode::SynthesisFailed | ErrorCode::InitializationFailed => {}
            }
        }
    }
}
