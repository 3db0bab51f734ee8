//! The circuit breaker of a worker as it lies in KV: plan.md §3's states, and the window that they are judged by.
//!
//! A manager judges (the one that rendezvous hashing gives the worker to) and writes by compare-and-set; the worker's
//! gate watches its key and enforces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{RunId, WorkerId};

/// The three states of plan.md §3.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Works: pulls freely.
    #[default]
    Closed,
    /// Fails: pulls nothing.
    Open,
    /// On trial: pulls one job at a time.
    HalfOpen,
}

/// Plan.md §3.1's configuration with our two additions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CircuitBreakerConfig {
    /// The share of failures in the window at which it opens, 0 to 1 (a rate, as plan.md codes it).
    pub failure_threshold: f64,
    /// Milliseconds that one attempt may go without progress.
    pub timeout_ms: u64,
    /// Milliseconds from opening to the first trial; doubles with each opening in a row.
    pub reset_timeout_ms: u64,
    /// The most that `reset_timeout_ms` grows to.
    pub max_reset_timeout_ms: u64,
    /// Successes in half-open that close it.
    pub success_threshold: u32,
    /// Runs that the window remembers.
    pub sliding_window_size: u32,
    /// Runs that the window must hold before it is judged.
    pub minimum_calls: u32,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 0.5,
            timeout_ms: 10_000,
            reset_timeout_ms: 60_000,
            max_reset_timeout_ms: 600_000,
            success_threshold: 3,
            sliding_window_size: 10,
            minimum_calls: 5,
        }
    }
}

/// In the details of an error: which end of an engine it tells of. Every run that was under way then bears the same.
pub const DETAIL_CRASH: &str = "crash";

/// As what breakers count a failed run: all that one end of an engine has failed count once, as that end.
pub fn counted_as(run: RunId, error: &crate::ServiceError) -> RunId {
    let crash = error.details.as_ref().and_then(|details| details.get(DETAIL_CRASH)?.as_str());
    crash.and_then(|crash| crash.parse().ok()).unwrap_or(run)
}

/// One run in the window, or one end of an engine ([`counted_as`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowEntry {
    /// The run: a doubled event counts once, and poison can be taken back.
    pub run: RunId,
    /// Whether it succeeded.
    pub success: bool,
    /// Remembered, so that a doubled event is known, but judged no more: begun before the last change of state, or taken
    /// back with poison.
    #[serde(default, skip_serializing_if = "is_false")]
    pub spent: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What is known of a worker's breaker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerRecord {
    /// The state.
    pub state: BreakerState,
    /// Unix milliseconds at which it came into this state, on the clock of the manager that wrote it.
    pub since_ms: u64,
    /// When open: milliseconds from `since_ms` to the first trial.
    pub reset_after_ms: u64,
    /// Openings in a row without a closing in between.
    pub openings: u32,
    /// Successes so far in half-open.
    pub successes: u32,
    /// How often the worker was given fresh probes in this half-open, because nothing was heard of the last ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub renewals: u32,
    /// The latest runs, oldest first.
    pub window: Vec<WindowEntry>,
}

/// A segment that failed wherever it was tried, with its whole history: what lies in the dead-letter stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// What the client calls the request.
    pub request_id: crate::MessageId,
    /// The session.
    pub session: crate::SessionId,
    /// The segment.
    pub segment: u32,
    /// What it says.
    pub text: String,
    /// How it was to be spoken.
    pub speech: crate::plan::Speech,
    /// Unix milliseconds at which it was given up.
    pub at_ms: u64,
    /// Every run that failed, oldest first.
    pub history: Vec<FailedRun>,
}

/// One failed run of a dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedRun {
    /// The attempt.
    pub attempt: u32,
    /// The run.
    pub run: RunId,
    /// Who ran it.
    pub worker: WorkerId,
    /// How it failed.
    pub error: crate::ServiceError,
    /// The last lines of the engine's stderr.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr: Vec<String>,
}
