//! Settings of the plan, by its names. What nothing reads yet says so.

use super::Shape::{Number, Over, Path, Text, Truth, Whole};
use super::{Setting, setting};

/// See the module.
pub(super) const SETTINGS: &[Setting] = &[
    setting!(
        "modelName",
        "CHORUS_MODEL_NAME",
        Text,
        "The model that a fleet of our own serves first and that is meant when a request names none: an installed voice, a name of [models], a name on Coqui's hub, or a path",
        tts.model_name
    ),
    setting!(
        "cacheDir",
        "CHORUS_CACHE_DIR",
        Path,
        "Where models that Coqui fetches and the store of the broker that `chorus up` starts (with the audio cache) are kept; CHORUS_HOME without it",
        tts.cache_dir
    ),
    setting!(
        "pythonPath",
        "CHORUS_PYTHON",
        Path,
        "The Python that the engine's environment is made with; the best one on PATH without it",
        tts.python_path
    ),
    setting!(
        "workerPool.minWorkers",
        "CHORUS_WORKER_POOL_MIN_WORKERS",
        Whole(1, 64),
        "Workers that `chorus up` keeps",
        tts.worker_pool.min_workers
    ),
    setting!(
        "workerPool.maxWorkers",
        "CHORUS_WORKER_POOL_MAX_WORKERS",
        Whole(1, 64),
        "The most workers there may be; 3, or minWorkers if that is more, without it. Bounds minWorkers now; autoscaling, which is to come, will stay below it",
        tts.worker_pool.max_workers
    ),
    setting!(
        "workerPool.scaleUpThreshold",
        "CHORUS_WORKER_POOL_SCALE_UP_THRESHOLD",
        Whole(1, 1_000_000),
        "Jobs waiting at which one more worker is wanted; for autoscaling, which is to come",
        tts.worker_pool.scale_up_threshold
    ),
    setting!(
        "workerPool.scaleDownThreshold",
        "CHORUS_WORKER_POOL_SCALE_DOWN_THRESHOLD",
        Whole(1_000, 86_400_000),
        "Idle milliseconds after which one worker fewer is wanted; for autoscaling, which is to come",
        tts.worker_pool.scale_down_threshold
    ),
    setting!(
        "workerPool.workerTimeoutMs",
        "CHORUS_WORKER_POOL_WORKER_TIMEOUT_MS",
        Whole(1_000, 3_600_000),
        "The heartbeat age, in milliseconds, at which managers take a worker for gone",
        tts.worker_pool.worker_timeout_ms
    ),
    setting!(
        "workerPool.modelSpecialization",
        "CHORUS_WORKER_POOL_MODEL_SPECIALIZATION",
        Truth,
        "Whether `chorus up` divides several models among its workers instead of giving each worker all",
        tts.worker_pool.model_specialization
    ),
    setting!(
        "circuitBreaker.failureThreshold",
        "CHORUS_CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        Over(0.0, 1.0),
        "The share of failures among a worker's last runs at which its breaker opens",
        tts.circuit_breaker.failure_threshold
    ),
    setting!(
        "circuitBreaker.timeoutMs",
        "CHORUS_CIRCUIT_BREAKER_TIMEOUT_MS",
        Whole(1_000, 3_600_000),
        "Milliseconds that one attempt may go without progress",
        tts.circuit_breaker.timeout_ms
    ),
    setting!(
        "circuitBreaker.resetTimeoutMs",
        "CHORUS_CIRCUIT_BREAKER_RESET_TIMEOUT_MS",
        Whole(1, 86_400_000),
        "Milliseconds from a breaker's opening to the first trial; doubles with each opening in a row",
        tts.circuit_breaker.reset_timeout_ms
    ),
    setting!(
        "circuitBreaker.maxResetTimeoutMs",
        "CHORUS_CIRCUIT_BREAKER_MAX_RESET_TIMEOUT_MS",
        Whole(1, 86_400_000),
        "The most that resetTimeoutMs grows to",
        tts.circuit_breaker.max_reset_timeout_ms
    ),
    setting!(
        "circuitBreaker.successThreshold",
        "CHORUS_CIRCUIT_BREAKER_SUCCESS_THRESHOLD",
        Whole(1, 100),
        "Successes on trial that close a breaker",
        tts.circuit_breaker.success_threshold
    ),
    setting!(
        "circuitBreaker.slidingWindowSize",
        "CHORUS_CIRCUIT_BREAKER_SLIDING_WINDOW_SIZE",
        Whole(1, 1_000),
        "How many of a worker's runs are remembered",
        tts.circuit_breaker.sliding_window_size
    ),
    setting!(
        "circuitBreaker.minimumCalls",
        "CHORUS_CIRCUIT_BREAKER_MINIMUM_CALLS",
        Whole(1, 1_000),
        "How many runs must be remembered before they are judged",
        tts.circuit_breaker.minimum_calls
    ),
    setting!(
        "sla.synthesis.latency.p50",
        "CHORUS_SLA_SYNTHESIS_LATENCY_P50",
        Whole(1, 3_600_000),
        "Target: milliseconds that half of the requests stay under; for SLO figures, which are to come",
        tts.sla.p50
    ),
    setting!(
        "sla.synthesis.latency.p95",
        "CHORUS_SLA_SYNTHESIS_LATENCY_P95",
        Whole(1, 3_600_000),
        "Target: milliseconds that 95 of 100 requests stay under; for SLO figures, which are to come",
        tts.sla.p95
    ),
    setting!(
        "sla.synthesis.latency.p99",
        "CHORUS_SLA_SYNTHESIS_LATENCY_P99",
        Whole(1, 3_600_000),
        "Target: milliseconds that 99 of 100 requests stay under; for SLO figures, which are to come",
        tts.sla.p99
    ),
    setting!(
        "sla.synthesis.throughput.requestsPerSecond",
        "CHORUS_SLA_SYNTHESIS_THROUGHPUT_REQUESTS_PER_SECOND",
        Over(0.0, 1e6),
        "Target: requests each second; for SLO figures, which are to come",
        tts.sla.requests_per_second
    ),
    setting!(
        "sla.synthesis.throughput.concurrentRequests",
        "CHORUS_SLA_SYNTHESIS_THROUGHPUT_CONCURRENT_REQUESTS",
        Whole(1, 1_000_000),
        "Target: requests at once; for SLO figures, which are to come",
        tts.sla.concurrent_requests
    ),
    setting!(
        "sla.synthesis.availability",
        "CHORUS_SLA_SYNTHESIS_AVAILABILITY",
        Over(0.0, 100.0),
        "Target: per cent of the time in which the service answers; for SLO figures, which are to come",
        tts.sla.availability
    ),
    setting!(
        "sla.models.loadTime",
        "CHORUS_SLA_MODELS_LOAD_TIME",
        Whole(1, 86_400_000),
        "Target: milliseconds in which a model loads; for SLO figures, which are to come",
        tts.sla.load_time
    ),
    setting!(
        "sla.models.switchTime",
        "CHORUS_SLA_MODELS_SWITCH_TIME",
        Whole(1, 86_400_000),
        "Target: milliseconds in which a worker changes its model; for SLO figures, which are to come",
        tts.sla.switch_time
    ),
    setting!(
        "sla.resources.memoryUsageGB",
        "CHORUS_SLA_RESOURCES_MEMORY_USAGE_GB",
        Number(0.0, 100_000.0),
        "Memory of one engine, in gigabytes, at which it is renewed between two jobs; 0 is never",
        tts.sla.memory_usage_gb
    ),
    setting!(
        "sla.resources.cpuUsagePercent",
        "CHORUS_SLA_RESOURCES_CPU_USAGE_PERCENT",
        Over(0.0, 100.0),
        "Target: per cent of a machine's processors that is used at most; for SLO figures, which are to come",
        tts.sla.cpu_usage_percent
    ),
    setting!(
        "features.protocol",
        "CHORUS_FEATURES_PROTOCOL",
        Text,
        "The range of protocol versions that `chorus stdio` offers, such as <2.1.0; all of them without it",
        tts.features.protocol
    ),
    setting!(
        "features.circuitBreaker",
        "CHORUS_FEATURES_CIRCUIT_BREAKER",
        Truth,
        "Whether breakers judge workers (managers) and are obeyed (workers)",
        tts.features.circuit_breaker
    ),
    setting!(
        "features.singleWorkerFallback",
        "CHORUS_FEATURES_SINGLE_WORKER_FALLBACK",
        Truth,
        "Whether `chorus up` goes on with the workers that are left, one at last, when its pool cannot form",
        tts.features.single_worker_fallback
    ),
];
