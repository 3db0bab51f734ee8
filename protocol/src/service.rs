//! What the fleet tells about itself as a whole: `tts.status`, `tts.metrics`, `tts.models.*` (ITTSService of plan.md §4.1).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::breaker::BreakerState;
use crate::fleet::{ManagerHeartbeat, WorkerHeartbeat};
use crate::ids::ModelName;
use crate::model::ModelDefinition;

/// An empty question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ask {}

/// How the fleet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// Every model of the catalogue can speak.
    Ready,
    /// Some can.
    Degraded,
    /// None can yet; something is loading.
    Starting,
    /// None can.
    Down,
}

/// The broker, as the answering manager sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// Where it is.
    pub url: String,
    /// Its version.
    pub version: String,
    /// The largest message it takes, in bytes.
    pub max_payload: usize,
}

/// A manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagerStatus {
    /// Its name.
    pub id: String,
    /// Milliseconds since its last heartbeat.
    pub last_heartbeat_ms: u64,
    /// What it said last.
    #[serde(flatten)]
    pub heartbeat: ManagerHeartbeat,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Its name.
    pub id: String,
    /// Milliseconds since its last heartbeat.
    pub last_heartbeat_ms: u64,
    /// What it said last.
    #[serde(flatten)]
    pub heartbeat: WorkerHeartbeat,
    /// Its breaker, where managers keep breakers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
}

/// The breaker of a worker, as the answering manager knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BreakerStatus {
    /// Its state.
    pub state: BreakerState,
    /// Unix milliseconds at which it came into this state; 0 where it never left the first one.
    pub since_ms: u64,
    /// The share of failures among the runs that are judged, 0 to 1.
    pub failure_rate: f64,
    /// How many runs that are.
    pub runs: u32,
    /// When open: milliseconds until it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
}

/// A model of the catalogue and who speaks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// Its name.
    pub name: ModelName,
    /// Whether it is meant when a request names none.
    pub default: bool,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Workers on which it is ready.
    pub ready_workers: u32,
    /// Jobs waiting, all classes.
    pub queued: u64,
}

/// `ServiceStatus` of plan.md §4.1, whose fields the plan leaves open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// How it is.
    pub state: ServiceState,
    /// The broker; absent while a gateway's fleet is still being started, when nobody sees one yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<BrokerStatus>,
    /// Managers heard of lately.
    pub managers: Vec<ManagerStatus>,
    /// Workers heard of lately.
    pub workers: Vec<WorkerStatus>,
    /// The catalogue.
    pub models: Vec<ModelStatus>,
}

impl ServiceStatus {
    /// That of a fleet of which nothing is there yet.
    pub fn starting() -> Self {
        Self {
            state: ServiceState::Starting,
            nats: None,
            managers: Vec::new(),
            workers: Vec::new(),
            models: Vec::new(),
        }
    }
}

/// `ServiceMetrics` of plan.md §4.1: figures since the answering manager's start, over all runs it heard of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMetrics {
    /// Runs that succeeded.
    pub successes: u64,
    /// Runs that failed by the client's fault.
    pub client_faults: u64,
    /// Runs that met back-pressure.
    pub back_pressure: u64,
    /// Runs that failed by the worker's fault.
    pub worker_faults: u64,
    /// Seconds of audio made.
    pub audio_seconds: f64,
    /// Seconds that engines worked.
    pub engine_seconds: f64,
    /// Jobs waiting now.
    pub queue_depth: u64,
    /// Workers able to speak now.
    pub active_workers: u32,
    /// Median of run times, in milliseconds, over the last 1,024 runs.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// The answer to `tts.cache.status`: how large the cache is, and what the answering manager has got out of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// Whether the answering manager looks takes up and has them stored.
    pub enabled: bool,
    /// Takes that are known, those being spoken included.
    pub takes: u64,
    /// Size of the stored audio, in bytes.
    pub bytes: u64,
    /// The size at which the oldest go, in bytes; 0 is no bound.
    pub max_bytes: u64,
    /// Look-ups of the answering manager, since its start, that found a stored take.
    pub hits: u64,
    /// Those that found a worker speaking it.
    pub joins: u64,
    /// Those that found nothing.
    pub misses: u64,
    /// Those that got no answer in time.
    pub failures: u64,
}

/// The answer to `tts.cache.clear`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheCleared {
    /// Takes that are forgotten.
    pub takes: u64,
    /// Size of the audio that was stored, in bytes.
    pub bytes: u64,
}

/// The answer to `tts.models.list`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelList {
    /// The catalogue.
    pub models: Vec<ModelDefinition>,
}

/// `tts.models.load`: puts a model into the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadModel {
    /// The model.
    pub model: ModelDefinition,
}

/// What `tts.models.load` leaves in the bucket `tts-placement`: workers of the model's engine that come later serve it too, until it
/// is unloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The model.
    pub model: ModelName,
    /// When it was ordered, in milliseconds of Unix time.
    pub since_ms: u64,
}

/// `tts.models.unload`: takes a model off the workers; with `remove`, out of the catalogue, and its queue is purged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnloadModel {
    /// Its name.
    pub model: ModelName,
    /// Out of the catalogue too.
    #[serde(default)]
    pub remove: bool,
}
