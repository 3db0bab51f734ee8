//! Settings of chorus's own, beside those of the plan.

use super::Shape::{Number, OneOf, Path, Text, Truth, Url, Whole};
use super::{Setting, setting};

/// An engine with less cannot even start.
const LEAST_MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// A cache with less could not hold the longest take.
const LEAST_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Room for two clips of the largest size.
const LEAST_CLIPS_BYTES: u64 = 32 * 1024 * 1024;
/// A clip must outlive the request that was asked for with it.
const LEAST_CLIPS_TTL_MS: u64 = 3_600_000;
/// As an SSML break.
const LONGEST_PAUSE_MS: u64 = 10_000;
const ANY: u64 = u64::MAX;

/// See the module.
pub(super) const SETTINGS: &[Setting] = &[
    setting!(
        "nats.url",
        "CHORUS_NATS_URL",
        Url,
        "A broker that is there; the running fleet's, or one of our own, without it",
        nats.url
    ),
    setting!(
        "nats.token",
        "CHORUS_NATS_TOKEN",
        Text,
        "What the broker asks for; one that `chorus up` starts asks for it too",
        nats.token
    ),
    setting!("nats.user", "CHORUS_NATS_USER", Text, "The broker's user, with nats.password", nats.user),
    setting!("nats.password", "CHORUS_NATS_PASSWORD", Text, "The user's password", nats.password),
    setting!(
        "nats.creds_file",
        "CHORUS_NATS_CREDS_FILE",
        Path,
        "A credentials file as `nsc` writes it",
        nats.creds_file
    ),
    setting!(
        "nats.server",
        "CHORUS_NATS_SERVER",
        Path,
        "The nats-server to start; the provisioned one without it",
        nats.server
    ),
    setting!(
        "nats.port",
        "CHORUS_NATS_PORT",
        Whole(0, 65_535),
        "The port of a broker that `chorus up` starts; 0 is any. Without it 4222 when that is free, else any",
        nats.port
    ),
    setting!(
        "nats.replicas",
        "CHORUS_NATS_REPLICAS",
        Whole(1, 5),
        "Copies of the queue and of all else that the broker keeps; more than 1 needs a cluster of NATS servers. The same for every manager and worker",
        nats.replicas
    ),
    setting!(
        "engine.kind",
        "CHORUS_ENGINE_KIND",
        OneOf(&["coqui", "null", "checkable", "command"]),
        "Which engine speaks: coqui (real speech), null or checkable (for measuring and testing), or command (engine.command)",
        engine.kind
    ),
    setting!(
        "engine.command",
        "CHORUS_ENGINE_COMMAND",
        Text,
        "A script that speaks protocol 1.0 or 2.0 on stdin and stdout, as a shell reads it; the engine, unless engine.kind says another",
        engine.command
    ),
    setting!(
        "engine.python",
        "CHORUS_ENGINE_PYTHON",
        Path,
        "An interpreter instead of the provisioned environment's; needs engine.path",
        engine.python
    ),
    setting!(
        "engine.path",
        "CHORUS_ENGINE_PATH",
        Path,
        "The folder that holds the package chorus_engine; needs engine.python",
        engine.path
    ),
    setting!(
        "engine.threads",
        "CHORUS_ENGINE_THREADS",
        Whole(1, 1024),
        "Threads of one inference; the engine's own choice without it",
        engine.threads
    ),
    setting!(
        "engine.lanes",
        "CHORUS_ENGINE_LANES",
        Whole(1, 256),
        "Segments that one worker speaks at once; the engine's own choice without it",
        engine.lanes
    ),
    setting!(
        "engine.max_memory_bytes",
        "CHORUS_ENGINE_MAX_MEMORY_BYTES",
        Whole(LEAST_MEMORY_BYTES, ANY),
        "What the engine's process may use; each of its processes, if it is a command; no limit without it",
        engine.max_memory_bytes
    ),
    setting!(
        "engine.max_cpus",
        "CHORUS_ENGINE_MAX_CPUS",
        Whole(1, 1024),
        "Processors that the engine's process keeps to; all that it may use without it",
        engine.max_cpus
    ),
    setting!(
        "engine.canary",
        "CHORUS_ENGINE_CANARY",
        Truth,
        "Whether an engine with nothing to do is tried",
        engine.canary
    ),
    setting!(
        "engine.recycle_requests",
        "CHORUS_ENGINE_RECYCLE_REQUESTS",
        Whole(0, ANY),
        "Jobs after which the engine is renewed; 0 is never",
        engine.recycle_requests
    ),
    setting!(
        "engine.recycle_age_ms",
        "CHORUS_ENGINE_RECYCLE_AGE_MS",
        Whole(0, ANY),
        "The age, in milliseconds, at which the engine is renewed; 0 is never",
        engine.recycle_age
    ),
    setting!(
        "engine.recycle_least_age_ms",
        "CHORUS_ENGINE_RECYCLE_LEAST_AGE_MS",
        Whole(1, ANY),
        "The age, in milliseconds, before which the engine is never renewed",
        engine.recycle_least_age
    ),
    setting!(
        "engine.recycle_rss_bytes",
        "CHORUS_ENGINE_RECYCLE_RSS_BYTES",
        Whole(0, ANY),
        "The size at which the engine is renewed; 0 is never. sla.resources.memoryUsageGB without it",
        engine.recycle_rss_bytes
    ),
    setting!(
        "fleet.ready_timeout_ms",
        "CHORUS_FLEET_READY_TIMEOUT_MS",
        Whole(100, 3_600_000),
        "Milliseconds that the first model may take to be able to speak",
        fleet.ready_timeout
    ),
    setting!(
        "fleet.stop_timeout_ms",
        "CHORUS_FLEET_STOP_TIMEOUT_MS",
        Whole(100, 600_000),
        "Milliseconds that each phase of the end may take",
        fleet.stop_timeout
    ),
    setting!(
        "cache.enabled",
        "CHORUS_CACHE_ENABLED",
        Truth,
        "Whether what was spoken is kept, and heard again when the same is asked for",
        cache.enabled
    ),
    setting!(
        "cache.max_bytes",
        "CHORUS_CACHE_MAX_BYTES",
        Whole(LEAST_CACHE_BYTES, ANY),
        "How large the broker's store of spoken audio may be; the oldest goes first",
        cache.max_bytes
    ),
    setting!(
        "cache.ttl_ms",
        "CHORUS_CACHE_TTL_MS",
        Whole(1_000, ANY),
        "How long spoken audio is kept, in milliseconds",
        cache.ttl
    ),
    setting!(
        "cache.local_bytes",
        "CHORUS_CACHE_LOCAL_BYTES",
        Whole(0, ANY),
        "Spoken audio that each process keeps in memory beside that; 0 is none",
        cache.local_bytes
    ),
    setting!(
        "clips.max_bytes",
        "CHORUS_CLIPS_MAX_BYTES",
        Whole(LEAST_CLIPS_BYTES, ANY),
        "How large the speaker reference clips on the broker may be together; more are refused",
        clips.max_bytes
    ),
    setting!(
        "clips.ttl_ms",
        "CHORUS_CLIPS_TTL_MS",
        Whole(LEAST_CLIPS_TTL_MS, ANY),
        "How long a speaker reference clip is kept after it was last put there, in milliseconds",
        clips.ttl
    ),
    setting!(
        "pauses.sentence_ms",
        "CHORUS_PAUSES_SENTENCE_MS",
        Whole(0, LONGEST_PAUSE_MS),
        "Silence after a sentence, in milliseconds. This and the other pauses are the managers' to keep: the same for each",
        pauses.sentence_ms
    ),
    setting!(
        "pauses.clause_ms",
        "CHORUS_PAUSES_CLAUSE_MS",
        Whole(0, LONGEST_PAUSE_MS),
        "Silence after a part of a sentence that is too long to be spoken at once, in milliseconds",
        pauses.clause_ms
    ),
    setting!(
        "pauses.paragraph_ms",
        "CHORUS_PAUSES_PARAGRAPH_MS",
        Whole(0, LONGEST_PAUSE_MS),
        "Silence at a blank line, in milliseconds",
        pauses.paragraph_ms
    ),
    setting!(
        "retries.share",
        "CHORUS_RETRIES_SHARE",
        Number(0.0, 10.0),
        "Retries that each segment pays for, from a segment's second failure on; the first retry is free. The managers' to keep",
        retries.share
    ),
    setting!(
        "retries.per_second",
        "CHORUS_RETRIES_PER_SECOND",
        Number(0.001, 1_000_000.0),
        "Such retries per second beside that, for each class",
        retries.per_second
    ),
    setting!(
        "log.filter",
        "CHORUS_LOG",
        Text,
        "Directives such as warn,chorus_worker=debug; each command has its own default",
        log_filter
    ),
    setting!("log.format", "CHORUS_LOG_FORMAT", OneOf(&["human", "json"]), "human or json", log_format),
];
