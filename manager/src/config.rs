//! What a manager is told at its start.
//!
//! Plain data, made by the command line or an embedding program; [`ManagerConfig::validate`] names every fault at once,
//! before anything is started.

use std::time::Duration;

use chorus_bus::{BusConfig, Layout};
use chorus_client::{BusPort, SessionHostConfig};
use chorus_protocol::ManagerId;
use chorus_protocol::breaker::CircuitBreakerConfig;
use chorus_protocol::fleet::HEARTBEAT_INTERVAL_MS;
use chorus_protocol::request::{DEFAULT_DEADLINE_MS, MAX_DEADLINE_MS};
use chorus_text::{Segmenter, SegmenterConfig};

use crate::admit::retries::RetryBudget;
use crate::breaker;
use crate::cache::CacheConfig;
use crate::jobs::JobsConfig;
use crate::liveness::LivenessConfig;

/// The most segments of one page, whatever window a session asks for.
pub const MAX_WINDOW: usize = 64;

/// Configuration of a manager.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// Its stable name; made from the host's name and the start when absent.
    pub id: Option<ManagerId>,
    /// The host's name, as heartbeats tell it.
    pub host: String,
    /// How it reaches the broker.
    pub bus: BusConfig,
    /// Sizes of the streams and buckets that it makes sure of.
    pub layout: Layout,
    /// How text is cut; a model's own limit makes segments shorter still.
    pub segmenter: SegmenterConfig,
    /// The sessions that it runs itself, for plain requests.
    pub sessions: SessionHostConfig,
    /// Takes that were spoken before.
    pub cache: CacheConfig,
    /// The durable jobs that it has spoken.
    pub jobs: JobsConfig,
    /// How often it says that it lives.
    pub heartbeat_interval: Duration,
    /// The heartbeat age at which a worker is out (`workerTimeoutMs` of plan.md).
    pub worker_timeout: Duration,
    /// Breakers, and how long an attempt may go without progress (plan.md §3).
    pub breaker: CircuitBreakerConfig,
    /// Whether workers are judged at all. Without, nobody is refused for a breaker, and no record is written; workers that
    /// shall not obey records of other managers either are told so themselves.
    pub breaker_enabled: bool,
    /// How long a worker must be silent for its breaker to be forgotten.
    pub forget_breakers_after: Duration,
    /// How busy workers are watched more closely than that.
    pub liveness: LivenessConfig,
    /// Time to first audio when the client names none.
    pub default_deadline: Duration,
    /// Whether a request that would be heard too late is refused at once; off only to show what that is good for.
    pub refuse_late: bool,
    /// When a refused client may ask again, where nothing better is known.
    pub retry_after: Duration,
    /// What retries from the second failure on may cost each class.
    pub retry_budget: RetryBudget,
    /// Segments of one page at most; 1 to [`MAX_WINDOW`].
    pub max_window: usize,
    /// Questions answered at once (open, advance, …), and as many cancels beside them; one more is refused.
    pub max_questions: usize,
    /// Plain requests spoken at once; one more is refused.
    pub max_plain_requests: usize,
    /// The most PCM of one plain reply, in bytes. The default, 64 MiB, is 25 minutes at 22,050 Hz.
    pub max_reply_pcm_bytes: usize,
    /// The most PCM of all plain replies together, in bytes.
    pub max_total_pcm_bytes: usize,
    /// How long all hooks of a point may take; less than sessions wait for an answer ([`BusPort::TIMEOUT`]).
    pub hook_timeout: Duration,
    /// How long requests may go on after the manager was asked to stop.
    pub drain_timeout: Duration,
}

impl ManagerConfig {
    /// The defaults, on this host and this broker.
    pub fn new(host: impl Into<String>, bus: BusConfig) -> Self {
        Self {
            id: None,
            host: host.into(),
            bus,
            layout: Layout::default(),
            segmenter: SegmenterConfig::default(),
            sessions: SessionHostConfig::default(),
            cache: CacheConfig::default(),
            jobs: JobsConfig::default(),
            heartbeat_interval: Duration::from_millis(HEARTBEAT_INTERVAL_MS),
            worker_timeout: Duration::from_millis(5_000),
            breaker: CircuitBreakerConfig::default(),
            breaker_enabled: true,
            forget_breakers_after: Duration::from_secs(3600),
            liveness: LivenessConfig::default(),
            default_deadline: Duration::from_millis(DEFAULT_DEADLINE_MS),
            refuse_late: true,
            retry_after: Duration::from_millis(500),
            retry_budget: RetryBudget::default(),
            max_window: MAX_WINDOW,
            max_questions: 512,
            max_plain_requests: 512,
            max_reply_pcm_bytes: 64 << 20,
            max_total_pcm_bytes: 512 << 20,
            hook_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(10),
        }
    }

    /// How long durable jobs are kept: no longer than their audio.
    pub(crate) fn jobs_retention(&self) -> Duration {
        match self.layout.audio_ttl {
            Duration::ZERO => self.jobs.retention,
            audio_ttl => self.jobs.retention.min(audio_ttl),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// All faults, each naming its field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let mut demand = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        demand(!self.host.is_empty(), "host is empty");
        demand(Segmenter::new(self.segmenter.clone()).is_ok(), "segmenter.max_chars is out of its range");
        demand(!self.heartbeat_interval.is_zero(), "heartbeat_interval is zero");
        demand(
            self.worker_timeout >= self.heartbeat_interval * 2,
            "worker_timeout is less than two heartbeat intervals",
        );
        demand(
            self.forget_breakers_after >= self.worker_timeout,
            "forget_breakers_after is less than worker_timeout",
        );
        self.liveness.faults().into_iter().for_each(|fault| demand(false, fault));
        let deadline_ms = self.default_deadline.as_millis();
        demand(
            (1..=u128::from(MAX_DEADLINE_MS)).contains(&deadline_ms),
            "default_deadline is outside 1 ms to the longest deadline",
        );
        self.retry_budget.faults().into_iter().for_each(|fault| demand(false, fault));
        demand((1..=MAX_WINDOW).contains(&self.max_window), "max_window is outside 1 to 64");
        demand(self.max_questions > 0, "max_questions is zero");
        demand(self.max_plain_requests > 0, "max_plain_requests is zero");
        demand(self.max_reply_pcm_bytes >= 2, "max_reply_pcm_bytes holds no sample");
        demand(
            self.max_total_pcm_bytes >= self.max_reply_pcm_bytes,
            "max_total_pcm_bytes is less than max_reply_pcm_bytes",
        );
        demand(!self.cache.look_up_within.is_zero(), "cache.look_up_within is zero");
        demand(self.jobs.at_once > 0, "jobs.at_once is zero");
        demand(!self.jobs.renew_every.is_zero(), "jobs.renew_every is zero");
        demand(self.jobs.lease >= self.jobs.renew_every * 2, "jobs.lease is less than two renewals");
        demand(!self.jobs.retention.is_zero(), "jobs.retention is zero");
        demand(!self.hook_timeout.is_zero(), "hook_timeout is zero");
        demand(
            self.hook_timeout < BusPort::TIMEOUT,
            "hook_timeout is not less than the 2 s that sessions wait for an answer",
        );
        faults.extend(breaker::faults(&self.breaker).into_iter().map(str::to_owned));
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }
}

/// A configuration that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manager's configuration is wrong: {}", .faults.join("; "))]
pub struct ConfigError {
    /// Every fault.
    pub faults: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_fault_is_named() {
        let good = ManagerConfig::new("host", BusConfig::default());
        assert_eq!(good.validate(), Ok(()));
        let bad = ManagerConfig {
            max_window: 65,
            worker_timeout: Duration::from_millis(1),
            hook_timeout: Duration::ZERO,
            segmenter: SegmenterConfig { max_chars: 1, ..SegmenterConfig::default() },
            ..good
        };
        let faults = bad.validate().unwrap_err().faults;
        assert_eq!(faults.len(), 4, "{faults:?}");
    }
}
