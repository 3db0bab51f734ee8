//! Every name on the broker: subjects, streams, consumers, buckets. Built here, never parsed back elsewhere.
//!
//! Model names hold slashes, dots and any script; a subject token may not. [`encode_token`] keeps ASCII letters, digits,
//! `-` and `_`, and writes every other byte as `=XX` (upper-case hex): reversible, without collisions, and good for
//! subjects, consumer names and KV keys alike.

use crate::ids::{Incarnation, JobId, ManagerId, MessageId, ModelName, SessionId, WorkerId};
use crate::request::JobClass;

/// Stream of queued jobs.
pub const JOBS_STREAM: &str = "TTS_JOBS";
/// Stream of poison and expired durable work.
pub const DEAD_STREAM: &str = "TTS_DEAD";
/// KV bucket: the catalogue of models that can be asked for.
pub const MODELS_BUCKET: &str = "tts-models";
/// KV bucket: breaker state per worker.
pub const BREAKERS_BUCKET: &str = "tts-breakers";
/// KV bucket: which models workers were told to serve.
pub const PLACEMENT_BUCKET: &str = "tts-placement";
/// KV bucket: durable jobs and idempotency records.
pub const DURABLE_JOBS_BUCKET: &str = "tts-jobs";
/// Object bucket: audio of plain replies and durable jobs.
pub const AUDIO_BUCKET: &str = "tts-audio";
/// Object bucket: speaker reference clips, by content ([`crate::clip`]).
pub const CLIPS_BUCKET: &str = "tts-clips";
/// Object bucket: spoken segments, by content.
pub const CACHE_BUCKET: &str = "tts-cache";
/// KV bucket: what is known of each key of [`CACHE_BUCKET`]: stored, or being spoken.
pub const TAKES_BUCKET: &str = "tts-takes";

/// Plain request to a SynthesisResult.
pub const SYNTHESIZE: &str = "tts.synthesize";
/// A session opens.
pub const OPEN: &str = "tts.open";
/// A session asks on.
pub const ADVANCE: &str = "tts.advance";
/// A session has ended.
pub const FINISH: &str = "tts.finish";
/// Every manager hears it and deletes what is queued.
pub const CANCEL: &str = "tts.cancel";
/// ServiceStatus.
pub const STATUS: &str = "tts.status";
/// ServiceMetrics.
pub const METRICS: &str = "tts.metrics";
/// The catalogue.
pub const MODELS_LIST: &str = "tts.models.list";
/// Adds a model to the catalogue and to workers.
pub const MODELS_LOAD: &str = "tts.models.load";
/// Takes a model from workers.
pub const MODELS_UNLOAD: &str = "tts.models.unload";
/// All stored takes are forgotten.
pub const CACHE_CLEAR: &str = "tts.cache.clear";
/// How large the cache is and how it serves.
pub const CACHE_STATUS: &str = "tts.cache.status";
/// A durable job is asked for.
pub const JOBS_SUBMIT: &str = "tts.jobs.api.submit";
/// How a durable job is.
pub const JOBS_STATUS: &str = "tts.jobs.api.status";
/// The audio of a durable job.
pub const JOBS_FETCH: &str = "tts.jobs.api.fetch";
/// A durable job is given up.
pub const JOBS_CANCEL: &str = "tts.jobs.api.cancel";
/// The queue group in which managers serve requests.
pub const MANAGERS_GROUP: &str = "managers";
/// All jobs, as a filter within their stream.
pub const ALL_JOBS: &str = "tts.jobs.*.*";
/// All jobs, as the stream listens for them: by their classes, so that questions about durable jobs
/// (`tts.jobs.api.submit`, …) are none of its subjects, and `api` may be a model's name like any other.
pub const JOB_SUBJECTS: [&str; 4] =
    ["tts.jobs.*.urgent", "tts.jobs.*.high", "tts.jobs.*.normal", "tts.jobs.*.low"];
/// KV bucket: what plain requests were answered, by messageId.
pub const REPLIES_BUCKET: &str = "tts-replies";
/// Kind of record in [`DURABLE_JOBS_BUCKET`]: how a durable job is.
pub const JOB_RECORDS: &str = "job";
/// Kind of record in [`DURABLE_JOBS_BUCKET`]: what a durable job says.
pub const JOB_TEXTS: &str = "text";
/// The principal of everybody while nobody has to say who he is.
pub const DEFAULT_PRINCIPAL: &str = "default";
/// Kind of record in [`PLACEMENT_BUCKET`]: a model that all workers of its engine were told to serve.
pub const MODEL_ORDERS: &str = "model";
/// All dead letters, as the stream listens for them.
pub const ALL_DEAD: &str = "tts.dead.*";
/// All heartbeats.
pub const ALL_HEARTBEATS: &str = "tts.heartbeat.*";
/// All events.
pub const ALL_EVENTS: &str = "tts.events.*";

/// Header: the inbox of the session that asks (the reply subject carries the publish ack).
pub const HEADER_INBOX: &str = "Chorus-Inbox";
/// Header: worker faults that this segment has met so far.
pub const HEADER_FAILURES: &str = "Chorus-Failures";
/// Header: workers that have tried this segment, comma-separated.
pub const HEADER_TRIED: &str = "Chorus-Tried";
/// Header: the protocol version of the payload, readable when the payload is not.
pub const HEADER_VERSION: &str = "Chorus-Version";

/// Why a token is not one that [`encode_token`] made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token {token:?} is not an encoded name: {why}")]
pub struct TokenError {
    token: String,
    why: &'static str,
}

fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A name as one subject token.
pub fn encode_token(name: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut token = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        if stays(byte) {
            token.push(char::from(byte));
        } else {
            token.push('=');
            token.push(char::from(HEX[usize::from(byte >> 4)]));
            token.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    token
}

/// The name that [`encode_token`] turned into `token`.
///
/// # Errors
/// When `token` is not exactly what the encoder makes (so that two tokens never mean one name).
pub fn decode_token(token: &str) -> Result<String, TokenError> {
    let wrong = |why| TokenError { token: token.chars().take(96).collect(), why };
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'=' {
            bytes.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (rest.next(), rest.next()) else { return Err(wrong("cut short")) };
        let digit = |d: u8| match d {
            b'0'..=b'9' => Some(d - b'0'),
            b'A'..=b'F' => Some(d - b'A' + 10),
            _ => None,
        };
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return Err(wrong("not upper-case hex"));
        };
        bytes.push(high << 4 | low);
    }
    let name = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
    if encode_token(&name) == token { Ok(name) } else { Err(wrong("not in canonical form")) }
}

/// The subject of a job.
pub fn job_subject(model: &ModelName, class: JobClass) -> String {
    format!("tts.jobs.{}.{}", encode_token(model.as_str()), class.as_str())
}

/// The subjects of all jobs of a model: what is purged when it is removed.
pub fn model_jobs(model: &ModelName) -> String {
    format!("tts.jobs.{}.*", encode_token(model.as_str()))
}

/// The durable consumer of one (model, class).
pub fn job_consumer(model: &ModelName, class: JobClass) -> String {
    format!("{}_{}", class.as_str(), encode_token(model.as_str()))
}

/// The key of a model in [`MODELS_BUCKET`].
pub fn model_key(model: &ModelName) -> String {
    encode_token(model.as_str())
}

/// The dead-letter subject of a model.
pub fn dead_subject(model: &ModelName) -> String {
    format!("tts.dead.{}", encode_token(model.as_str()))
}

/// The heartbeat subject of a worker.
pub fn worker_heartbeat(worker: &WorkerId) -> String {
    format!("tts.heartbeat.{worker}")
}

/// The heartbeat subject of a manager.
pub fn manager_heartbeat(manager: &ManagerId) -> String {
    format!("tts.heartbeat.{manager}")
}

/// The event subject of a kind of event, such as `outcome` or `workerStarted`.
pub fn event_subject(kind: &str) -> String {
    format!("tts.events.{kind}")
}

/// Control subjects of one incarnation of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkerControl {
    /// Alive, and how far are you?
    Ping,
    /// Give these runs up.
    Stop,
    /// Open or close the gate.
    Gate,
    /// Finish, hand back, leave.
    Drain,
    /// Load a model.
    Load,
    /// Unload a model.
    Unload,
}

impl WorkerControl {
    /// The last token of the subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Stop => "stop",
            Self::Gate => "gate",
            Self::Drain => "drain",
            Self::Load => "load",
            Self::Unload => "unload",
        }
    }
}

/// The control subject of a worker. Pings carry the incarnation in their payload: a revived zombie must not answer for its
/// successor.
pub fn worker_control(worker: &WorkerId, control: WorkerControl) -> String {
    format!("tts.worker.{worker}.{}", control.as_str())
}

/// All control subjects of a worker, as it listens for them.
pub fn worker_controls(worker: &WorkerId) -> String {
    format!("tts.worker.{worker}.*")
}

/// What a worker says to, or asks of, a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionSubject {
    /// A piece of audio.
    Chunk,
    /// "I have begun: go, or stop?"
    Started,
    /// "I have finished: accepted, stale, or resend?"
    Result,
}

impl SessionSubject {
    /// The last token of the subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::Started => "started",
            Self::Result => "result",
        }
    }

    /// Reads the last token of a subject below a session's inbox.
    pub fn from_token(token: &str) -> Option<Self> {
        [Self::Chunk, Self::Started, Self::Result].into_iter().find(|s| s.as_str() == token)
    }
}

/// The inbox of a session, below the inbox that its process listens on.
pub fn session_inbox(process_inbox: &str, session: SessionId) -> String {
    format!("{process_inbox}.{session}")
}

/// What a process subscribes to, for all its sessions at once.
pub fn all_sessions(process_inbox: &str) -> String {
    format!("{process_inbox}.*.*")
}

/// A subject below a session's inbox.
pub fn session_subject(inbox: &str, subject: SessionSubject) -> String {
    format!("{inbox}.{}", subject.as_str())
}

/// Which session and which kind of message a subject under [`all_sessions`] is for.
pub fn parse_session_subject(subject: &str) -> Option<(SessionId, SessionSubject)> {
    let mut tokens = subject.rsplit('.');
    let kind = SessionSubject::from_token(tokens.next()?)?;
    Some((tokens.next()?.parse().ok()?, kind))
}

/// The id by which the broker drops a doubled publish.
pub fn message_id(job: &JobId) -> String {
    job.to_string()
}

/// The name under which a plain reply's audio is kept in [`AUDIO_BUCKET`].
pub fn reply_audio_key(session: SessionId, extension: &str) -> String {
    format!("reply-{session}.{extension}")
}

/// The key of a durable job's records in [`DURABLE_JOBS_BUCKET`].
pub fn durable_job_key(principal: &str, job: &MessageId) -> String {
    format!("{principal}/{job}")
}

/// The name under which a piece of a durable job's PCM is kept in [`AUDIO_BUCKET`].
pub fn job_piece_key(job_key: &str, epoch: u32, piece: u32) -> String {
    format!("job/{job_key}/{epoch}/{piece}.pcm")
}

/// The name under which a durable job's audio is kept in [`AUDIO_BUCKET`].
pub fn job_audio_key(job_key: &str, epoch: u32, extension: &str) -> String {
    format!("job/{job_key}/{epoch}/whole.{extension}")
}

/// A worker's name when none is configured: host and a short token of its incarnation.
pub fn default_worker_id(host: &str, incarnation: Incarnation) -> String {
    default_id("w", host, incarnation)
}

/// A manager's name when none is configured.
pub fn default_manager_id(host: &str, incarnation: Incarnation) -> String {
    default_id("m", host, incarnation)
}

fn default_id(prefix: &str, host: &str, incarnation: Incarnation) -> String {
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    let id = incarnation.to_string();
    format!("{prefix}-{host}-{}", &id[id.len() - 8..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_names_of_known_models() {
        let model = ModelName::new("tts_models/en/ljspeech/vits").unwrap();
        assert_eq!(job_subject(&model, JobClass::High), "tts.jobs.tts_models=2Fen=2Fljspeech=2Fvits.high");
        assert_eq!(job_consumer(&model, JobClass::Urgent), "urgent_tts_models=2Fen=2Fljspeech=2Fvits");
        assert_eq!(encode_token("xtts_v2.0.2"), "xtts_v2=2E0=2E2");
        assert_eq!(encode_token("声"), "=E5=A3=B0");
    }

    #[test]
    fn the_stream_of_jobs_hears_every_class_and_no_question() {
        let heard = |subject: &str| {
            let last = |subject: &str| subject.rsplit('.').next().map(str::to_owned);
            JOB_SUBJECTS.iter().any(|known| last(known) == last(subject))
        };
        let api = ModelName::new("api").unwrap();
        assert!(JobClass::BY_URGENCY.into_iter().all(|class| heard(&job_subject(&api, class))));
        assert!(![JOBS_SUBMIT, JOBS_STATUS, JOBS_FETCH, JOBS_CANCEL].into_iter().any(heard));
    }

    #[test]
    fn session_subjects_read_back() {
        let session = SessionId::from_u128(5);
        let inbox = session_inbox("_INBOX.abc", session);
        let subject = session_subject(&inbox, SessionSubject::Started);
        assert_eq!(parse_session_subject(&subject), Some((session, SessionSubject::Started)));
        assert_eq!(parse_session_subject("_INBOX.abc.zzz.started"), None);
        assert_eq!(parse_session_subject("started"), None);
    }

    proptest! {
        #[test]
        fn tokens_read_back(name in "\\PC{0,40}") {
            let token = encode_token(&name);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)));
            prop_assert_eq!(decode_token(&token).unwrap(), name);
        }

        #[test]
        fn only_canonical_tokens_decode(token in "[-_=a-zA-Z0-9.%]{0,24}") {
            if let Ok(name) = decode_token(&token) {
                prop_assert_eq!(encode_token(&name), token);
            }
        }
    }
}
