//! What a worker and a session say to one another about one run of a job.
//!
//! `started` and `result` are questions: the session alone decides which run counts (DESIGN.md, "the session is the
//! arbiter"). Chunks are told, and every [`CHUNKS_PER_GRANT`]th is asked, to widen the transport window.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::audio::AudioData;
use crate::error::ServiceError;
use crate::ids::{Attempt, Incarnation, JobId, RunId, SegmentIndex, SessionId, WorkerId};
use crate::plan::Speech;
use crate::request::{JobClass, Warning};

/// The largest piece of PCM in a chunk, in bytes (facts: 64 KiB chunks without pacing lost a fifth of them).
pub const MAX_CHUNK_BYTES: usize = 16 * 1024;

/// Every so many chunks, one is a request whose reply grants as many more.
pub const CHUNKS_PER_GRANT: u32 = 16;

/// A job on the queue. Inbox, failures and tried workers travel in headers, readable even where the payload is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The session that asks.
    pub session: SessionId,
    /// The segment asked for.
    pub segment: SegmentIndex,
    /// The attempt, from 1.
    pub attempt: Attempt,
    /// What to say.
    pub text: String,
    /// How to say it.
    pub speech: Speech,
    /// The class it was queued in.
    pub class: JobClass,
    /// Whether the worker shall store its take, for whoever asks for the same words later.
    #[serde(default, skip_serializing_if = "crate::plan::is_false")]
    pub keep: bool,
}

impl Job {
    /// Its id.
    pub fn id(&self) -> JobId {
        JobId { session: self.session, segment: self.segment, attempt: self.attempt }
    }
}

/// Which run a message is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRef {
    /// The session.
    pub session: SessionId,
    /// The segment.
    pub segment: SegmentIndex,
    /// The attempt.
    pub attempt: Attempt,
    /// The run: one pull of the job.
    pub run: RunId,
}

impl RunRef {
    /// The job that it is a run of.
    pub fn job(&self) -> JobId {
        JobId { session: self.session, segment: self.segment, attempt: self.attempt }
    }
}

/// `started`: "I have pulled this job. Go, or stop?"
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// The run.
    pub run: RunRef,
    /// Who runs it.
    pub worker: WorkerId,
    /// Which start of that worker.
    pub incarnation: Incarnation,
    /// Deliveries of the job so far, this one included.
    pub deliveries: u64,
    /// Whether inference has begun already (the job came on a waiting pull).
    pub overlapped: bool,
}

/// Why a run shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StopReason {
    /// A newer run or attempt counts.
    Superseded,
    /// The client gave up.
    Cancelled,
    /// The deadline has passed.
    Expired,
    /// Another run was accepted already.
    Accepted,
    /// The session is not known here (any more).
    Unknown,
}

/// The answer to [`Started`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum StartedAnswer {
    /// This run counts: speak.
    Go,
    /// It does not: end the delivery for good.
    Stop {
        /// Why.
        reason: StopReason,
    },
}

/// A piece of a run's audio: s16le mono PCM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunChunk {
    /// The run.
    pub run: RunRef,
    /// Its place in the run, from 0.
    pub seq: u32,
    /// The samples, at most [`MAX_CHUNK_BYTES`].
    pub data: AudioData,
}

/// The reply to a chunk sent as a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChunkGrant {
    /// Further chunks that may be sent before the next grant; 0 means that the run does not count any more.
    pub chunks: u32,
}

/// How a run ended, as its worker saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RunOutcome {
    /// Spoken to the end; carries the last piece.
    Spoken(Spoken),
    /// It was not.
    Failed(Failed),
}

/// A run that was spoken to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spoken {
    /// The last piece, whose place is `chunks - 1`.
    pub data: AudioData,
    /// How many pieces there are, this one included.
    pub chunks: u32,
    /// How many samples they hold.
    pub samples: u64,
    /// Samples per second.
    pub sample_rate: u32,
    /// CRC-32 of all PCM bytes.
    pub crc32: u32,
    /// Milliseconds the engine worked, as it reports them.
    pub engine_ms: f64,
    /// What the engine left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Why.
    pub error: ServiceError,
    /// The last lines of the engine's stderr, where it died.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr: Vec<String>,
}

/// `result`: "I have finished. Does it count?"
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// The run.
    pub run: RunRef,
    /// Who ran it.
    pub worker: WorkerId,
    /// How it ended.
    pub outcome: RunOutcome,
}

/// The answer to [`RunResult`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum ResultAnswer {
    /// It counts (a failure too: the session will ask again as it sees fit).
    Accepted,
    /// It does not: another run counts, or none any more.
    Stale {
        /// What was wrong with the run itself: its worker's fault, and to be told as the run's outcome.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<RunFault>,
    },
    /// Pieces are missing from this one on: send them again, and the result.
    Resend {
        /// The first piece that is missing.
        from: u32,
    },
}

impl ResultAnswer {
    /// Another run counts, or none any more; nothing was wrong with this one.
    pub const STALE: Self = Self::Stale { fault: None };
}

/// What a session found wrong with the audio of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = any_other_word)]
pub enum RunFault {
    /// It is not what the result says it is: count of chunks or samples, checksum, sample rate.
    Corrupt,
    /// Chunks stayed missing, however often they were asked for again.
    Incomplete,
    /// It made no progress for as long as an attempt may, and was given up.
    Silent,
    /// Something that a newer session tells apart.
    #[serde(other)]
    Other,
}

/// A schema that names the words of today, for a field that takes any.
fn any_other_word(schema: &mut Schema) {
    if let Some(Value::Array(mut known)) = schema.remove("oneOf") {
        known.pop();
        known.push(json!({"type": "string", "description": "Something that a newer session tells apart."}));
        schema.insert("anyOf".into(), known.into());
    }
}

impl RunFault {
    /// As an error of the worker's.
    pub fn error(self) -> ServiceError {
        use crate::error::Reason;
        let (reason, message) = match self {
            Self::Corrupt => (Reason::BadAudio, "the session got other audio than the result says"),
            Self::Incomplete => {
                (Reason::BadAudio, "chunks of the audio stayed missing, however often they were asked for")
            }
            Self::Silent => {
                (Reason::AttemptTimeout, "the run made no progress for too long and was given up")
            }
            Self::Other => (Reason::BadAudio, "the session found a fault in the run"),
        };
        ServiceError::new(reason, message)
    }
}

/// The four outcomes that breakers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutcomeKind {
    /// Spoken and accepted.
    Success,
    /// The request was at fault.
    ClientFault,
    /// There was no room.
    BackPressure,
    /// The worker was at fault.
    WorkerFault,
}

impl OutcomeKind {
    /// What an error says about the worker that answered it.
    pub fn of(error: &ServiceError) -> Self {
        use crate::error::{ErrorCode, Reason};
        match (error.code, error.reason()) {
            (_, Some(Reason::Cancelled)) | (ErrorCode::InvalidRequest | ErrorCode::ModelNotFound, _) => {
                Self::ClientFault
            }
            (ErrorCode::ResourceExhausted, _) => Self::BackPressure,
            _ => Self::WorkerFault,
        }
    }
}

/// The one outcome of a run, told on `tts.events.outcome`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The run.
    pub run: RunRef,
    /// Who ran it.
    pub worker: WorkerId,
    /// With which model.
    pub model: crate::ModelName,
    /// In which class.
    pub class: JobClass,
    /// One of four.
    pub outcome: OutcomeKind,
    /// Milliseconds the engine worked.
    pub engine_ms: f64,
    /// Milliseconds from the pull to the session's answer.
    pub run_ms: f64,
    /// Length of the text in characters.
    pub text_chars: u32,
    /// Length of the audio in samples.
    pub samples: u64,
    /// Samples per second.
    pub sample_rate: u32,
    /// The reason, where it was no success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ServiceError>,
}
