//! How long a run waits for whom, and how often it asks.

use std::time::Duration;

/// The largest job that is read when all that is left to do is to refuse it, in bytes: the default max_payload.
pub(crate) const MAX_JOB_BYTES: usize = chorus_protocol::codec::MAX_MESSAGE_BYTES;

/// Figures of a run (DESIGN.md, "the session is the arbiter").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long a question to the session waits for its answer, and the pace at which `result` is asked again.
    pub answer_within: Duration,
    /// Delay of a job that is handed back because no session answered.
    pub retry_after: Duration,
    /// After so many deliveries without an answer to `started`, a job is terminated.
    pub max_deliveries: u64,
    /// After `go`, how long a silent session is asked again.
    pub patience: Duration,
    /// How often a session is asked, while the engine works on, whether the run still counts; well under the least
    /// `timeoutMs` of an attempt, which each such question gives anew.
    pub ask_again_every: Duration,
    /// How often a session may ask for pieces again.
    pub max_resends: u32,
    /// How long an engine may be silent on a request it works on.
    pub silence: Duration,
    /// How long an engine may take to end a request that was cancelled.
    pub cancel_within: Duration,
    /// The most audio of one run, in bytes of PCM.
    pub max_audio_bytes: usize,
    /// Whether a job that an engine has failed before is run alone; off only to show what that is good for.
    pub isolate: bool,
    /// Whether a job that cannot be run here is handed back; off only to show what that is good for.
    pub hand_back: bool,
    /// Whether the session is asked `started`; off only to show what the question is good for.
    pub ask_started: bool,
    /// Whether what the engine says of its audio is compared with what came; off only to show what that is good for.
    pub check_audio: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_millis(250),
            retry_after: Duration::from_millis(250),
            max_deliveries: 12,
            patience: Duration::from_secs(3),
            ask_again_every: Duration::from_millis(500),
            max_resends: 8,
            silence: Duration::from_secs(60),
            cancel_within: Duration::from_secs(10),
            max_audio_bytes: 64 * 1024 * 1024,
            isolate: true,
            hand_back: true,
            ask_started: true,
            check_audio: true,
        }
    }
}
