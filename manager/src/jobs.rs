//! Durable jobs: spoken whatever dies, by whichever manager has the lease.
//!
//! ```text
//!   tts.jobs.api.submit ─► store (KV: record, text) ─► watch ─► runner: due? room? ─► lease (compare-and-set)
//!                                                                  │
//!        result in the record ◄─ whole (encode) ◄─ work: a session; each piece stored, then counted
//! ```
//!
//! The record is the only truth. Whoever holds its lease renews it by writing it anew; another manager that sees the same
//! revision for longer than the lease lasts takes the job over and goes on after the last stored segment. A holder
//! that was only slow finds its next write refused and lets go; its objects bear its own epoch, so it has overwritten
//! nothing. `judge` decides (pure), `store` reads and writes, `runner` finds what is due, `work` speaks one job.

mod judge;
pub(crate) mod runner;
pub(crate) mod store;
mod whole;
mod work;

use std::time::Duration;

/// Configuration of the durable jobs of a manager.
#[derive(Debug, Clone)]
pub struct JobsConfig {
    /// Jobs that this manager has spoken at once.
    pub at_once: usize,
    /// How long a record may stay unchanged before its holder counts as gone.
    pub lease: Duration,
    /// How often a lease is renewed.
    pub renew_every: Duration,
    /// How long a job may take, and how long its outcome is kept then; no longer than the layout's `audio_ttl` counts.
    pub retention: Duration,
    /// The rest after a first session that stored nothing; doubles with each further one.
    pub first_rest: Duration,
    /// The longest such rest.
    pub longest_rest: Duration,
    /// Sessions in a row that workers' faults may end without anything stored, before the job fails.
    pub max_fruitless: u32,
    /// The most PCM of one job, in bytes. The default, 256 MiB, is 100 minutes at 22,050 Hz.
    pub max_pcm_bytes: u64,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            at_once: 8,
            lease: Duration::from_secs(6),
            renew_every: Duration::from_secs(2),
            retention: Duration::from_secs(24 * 3600),
            first_rest: Duration::from_millis(250),
            longest_rest: Duration::from_secs(30),
            max_fruitless: 10,
            max_pcm_bytes: 256 << 20,
        }
    }
}
