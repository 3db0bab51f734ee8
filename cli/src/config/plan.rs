//! The plan's own configuration, field for field: `TTSConfig` with its `WorkerPoolConfig`, `CircuitBreakerConfig` and
//! `ServiceSLA`, and the feature flags of a gradual roll-out.
//!
//! Names in the file are the plan's (`workerPool.minWorkers`); units are those of the plan (milliseconds, gigabytes, per
//! cent). Rules between fields are in [`TtsConfig::faults`].

use std::path::PathBuf;

use chorus_protocol::breaker::CircuitBreakerConfig;
use chorus_protocol::version::{self, SUPPORTED};

/// `maxWorkers` where nothing is said, unless more are kept from the start.
const USUAL_MAX_WORKERS: u32 = 3;

/// `WorkerPoolConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerPoolConfig {
    /// Workers that `chorus up` keeps.
    pub min_workers: u32,
    /// The most workers there may be.
    pub max_workers: Option<u32>,
    /// Jobs waiting at which one more worker is wanted.
    pub scale_up_threshold: u32,
    /// Idle milliseconds after which one worker fewer is wanted.
    pub scale_down_threshold: u64,
    /// The heartbeat age at which a worker is out, in milliseconds.
    pub worker_timeout_ms: u64,
    /// Whether each worker serves some of the models instead of all.
    pub model_specialization: bool,
}

impl WorkerPoolConfig {
    /// The most workers there may be: three, or as many as are kept, where nothing is said.
    pub fn most_workers(&self) -> u32 {
        self.max_workers.unwrap_or(USUAL_MAX_WORKERS.max(self.min_workers))
    }
}

/// `ServiceSLA`: what the service is meant to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSla {
    /// Latency that half of the requests stay under, in milliseconds.
    pub p50: u64,
    /// That 95 of 100 stay under.
    pub p95: u64,
    /// That 99 of 100 stay under.
    pub p99: u64,
    /// Requests each second.
    pub requests_per_second: f64,
    /// Requests at once.
    pub concurrent_requests: u32,
    /// Share of the time in which the service answers, in per cent.
    pub availability: f64,
    /// The longest that a model may load, in milliseconds.
    pub load_time: u64,
    /// The longest that a switch between models may take, in milliseconds.
    pub switch_time: u64,
    /// The most memory of one worker's engine, in gigabytes (10^9 bytes): at that size it is renewed. 0 is no limit.
    pub memory_usage_gb: f64,
    /// The most of one machine's processors, in per cent.
    pub cpu_usage_percent: f64,
}

/// The switches of the plan's gradual roll-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// The range of protocol versions that `chorus stdio` offers; all without it.
    pub protocol: Option<String>,
    /// Whether breakers judge workers.
    pub circuit_breaker: bool,
    /// Whether a fleet goes on with one worker when the pool cannot form.
    pub single_worker_fallback: bool,
}

/// `TTSConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct TtsConfig {
    /// The model that is meant when a request names none.
    pub model_name: Option<String>,
    /// Where models that are fetched, and the store of a broker of our own, are kept.
    pub cache_dir: Option<PathBuf>,
    /// The Python that the engine's environment is made with.
    pub python_path: Option<PathBuf>,
    /// The pool.
    pub worker_pool: WorkerPoolConfig,
    /// The breakers.
    pub circuit_breaker: CircuitBreakerConfig,
    /// The targets.
    pub sla: ServiceSla,
    /// The roll-out.
    pub features: Features,
}

impl Default for TtsConfig {
    fn default() -> Self {
        Self {
            model_name: None,
            cache_dir: None,
            python_path: None,
            worker_pool: WorkerPoolConfig {
                min_workers: 1,
                max_workers: None,
                scale_up_threshold: 5,
                scale_down_threshold: 30_000,
                worker_timeout_ms: 5_000,
                model_specialization: false,
            },
            circuit_breaker: CircuitBreakerConfig::default(),
            sla: ServiceSla {
                p50: 150,
                p95: 300,
                p99: 500,
                requests_per_second: 10.0,
                concurrent_requests: 5,
                availability: 99.9,
                load_time: 30_000,
                switch_time: 5_000,
                memory_usage_gb: 4.0,
                cpu_usage_percent: 80.0,
            },
            features: Features { protocol: None, circuit_breaker: true, single_worker_fallback: true },
        }
    }
}

impl TtsConfig {
    /// What is wrong between fields: the table where it is, and what.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let (pool, breaker, sla) = (&self.worker_pool, &self.circuit_breaker, &self.sla);
        let rules = [
            (
                "workerPool",
                pool.min_workers <= pool.most_workers(),
                format!(
                    "minWorkers ({}) cannot exceed maxWorkers ({})",
                    pool.min_workers,
                    pool.most_workers()
                ),
            ),
            (
                "circuitBreaker",
                breaker.minimum_calls <= breaker.sliding_window_size,
                format!(
                    "minimumCalls ({}) cannot exceed slidingWindowSize ({}), or nothing is ever judged",
                    breaker.minimum_calls, breaker.sliding_window_size
                ),
            ),
            (
                "circuitBreaker",
                breaker.reset_timeout_ms <= breaker.max_reset_timeout_ms,
                format!(
                    "resetTimeoutMs ({}) cannot exceed maxResetTimeoutMs ({})",
                    breaker.reset_timeout_ms, breaker.max_reset_timeout_ms
                ),
            ),
            (
                "sla.synthesis.latency",
                sla.p50 <= sla.p95 && sla.p95 <= sla.p99,
                format!("p50 ({}), p95 ({}) and p99 ({}) must not fall", sla.p50, sla.p95, sla.p99),
            ),
        ];
        let broken = rules.into_iter().filter(|(_, holds, _)| !holds);
        let mut faults: Vec<_> = broken.map(|(place, _, what)| (place, what)).collect();
        if let Some(range) = &self.features.protocol
            && let Err(error) = version::negotiate(range, &SUPPORTED)
        {
            faults.push(("features.protocol", error.to_string()));
        }
        faults
    }

    /// The size at which an engine is renewed.
    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.sla.memory_usage_gb * 1e9) as u64
    }
}
