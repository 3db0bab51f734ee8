//! Figures that a session works with.

use std::time::Duration;

use chorus_runtime::retry::RetryPolicy;

/// Configuration of the sessions of a process.
#[derive(Debug, Clone)]
pub struct SessionHostConfig {
    /// Sessions that may be open at once; a further one is refused.
    pub max_sessions: usize,
    /// Segments that may be queued, spoken, or waiting for the listener at once, per session.
    pub window: u32,
    /// The most PCM that is kept for one segment, in bytes. The default is two minutes at 48 kHz.
    pub max_segment_bytes: usize,
    /// How often a retry after a worker's loss is queued anew when nobody begins it.
    pub max_hedges: u32,
    /// How long an unstarted job is left alone before a manager is asked whether it is still there.
    pub lookup_interval: Duration,
    /// After first audio: how long nothing may move while the listener waits.
    pub stall_timeout: Duration,
    /// How long managers may stay silent at an opening before it fails.
    pub open_patience: Duration,
    /// How long `afterSynthesis` may take, as seen from here.
    pub finish_timeout: Duration,
    /// The cache.
    pub takes: TakesConfig,
    /// Delays of retries from the second failure on; `max_attempts` is the number of failures that end a request.
    pub retry: RetryPolicy,
    /// Delays between questions that managers do not answer.
    pub ask_again: RetryPolicy,
    /// How long a text that comes in pieces may stay away, while all that came is spoken.
    pub text_timeout: Duration,
    /// The longest text that may come in pieces, in bytes.
    pub max_text_bytes: usize,
    /// Failures of engines, on two workers or more, by which a segment is poison.
    pub poison_failures: usize,
    /// Whether what is queued or spoken of a request that has ended is given back; off only to show what that is good for.
    pub gives_back: bool,
    /// Whether the audio of a segment is counted and checked before it is heard; off only to show what it is good for.
    pub check_audio: bool,
}

impl Default for SessionHostConfig {
    fn default() -> Self {
        Self {
            max_sessions: 4096,
            window: 8,
            max_segment_bytes: 2 * 60 * 48_000 * 2,
            max_hedges: 3,
            lookup_interval: Duration::from_secs(2),
            stall_timeout: Duration::from_secs(30),
            open_patience: Duration::from_secs(15),
            finish_timeout: Duration::from_secs(3),
            takes: TakesConfig::default(),
            retry: RetryPolicy { max_attempts: Some(5), budget: None, ..RetryPolicy::default() },
            ask_again: RetryPolicy {
                initial_delay: Duration::from_millis(100),
                max_delay: Duration::from_secs(1),
                max_attempts: None,
                budget: None,
                ..RetryPolicy::default()
            },
            text_timeout: Duration::from_secs(300),
            max_text_bytes: 16 * 1024 * 1024,
            poison_failures: 3,
            gives_back: true,
            check_audio: true,
        }
    }
}

/// How sessions use the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakesConfig {
    /// Whether they take audio out of it at all.
    pub enabled: bool,
    /// Audio that is kept in this process, in bytes; 0 is none.
    pub local_bytes: u64,
    /// How long one take may need to arrive before the segment is spoken instead.
    pub fetch_within: Duration,
    /// How long the store is left alone after it was too slow.
    pub pause: Duration,
    /// Takes that are fetched at once.
    pub at_once: usize,
}

impl Default for TakesConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            local_bytes: 32 << 20,
            fetch_within: Duration::from_millis(500),
            pause: Duration::from_secs(2),
            at_once: 64,
        }
    }
}
