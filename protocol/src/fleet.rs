//! What workers and managers tell about themselves: heartbeats, pings, control, events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{Incarnation, JobId, ManagerId, ModelName, RunId, WorkerId};
use crate::model::ModelDefinition;

/// How often a heartbeat is sent, in milliseconds (workers also at once on turning busy).
pub const HEARTBEAT_INTERVAL_MS: u64 = 500;

/// A heartbeat: of a worker or of a manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Heartbeat {
    /// From a worker.
    Worker(Box<WorkerHeartbeat>),
    /// From a manager.
    Manager(ManagerHeartbeat),
}

/// What a worker's engine is computing on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `cpu` or `cuda`.
    pub kind: String,
    /// Its name, as the driver or the system tells it.
    #[serde(default)]
    pub name: String,
    /// Threads of one inference, on CPU.
    #[serde(default)]
    pub threads: u32,
    /// Its memory, where it is its own, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// How far a model is on a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelState {
    /// Asked for, or being loaded.
    Loading,
    /// Speaks.
    Ready,
    /// Did not load; `error` says why.
    Failed,
}

/// A model on a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadedModel {
    /// Its name.
    pub name: ModelName,
    /// How far it is.
    pub state: ModelState,
    /// Samples per second, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// How long it took to load, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<f64>,
    /// How it is run, where the engine has a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// Why it did not load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Digest of all that its takes depend on, once known: see [`crate::takes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// How an engine runs a model on its machine, as it measured it or was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tuning {
    /// What computes it: `torch`, `torch-half`, `onnx`.
    pub runtime: String,
    /// Threads of a segment that is alone.
    pub threads: u32,
    /// Segments spoken at the same time.
    pub lanes: u32,
    /// Threads of a segment beside others.
    pub lane_threads: u32,
    /// Segments spoken in one batch.
    pub max_batch: u32,
}

impl Tuning {
    /// Segments that the engine can have in hand at the same time.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.lanes.max(1).saturating_mul(self.max_batch.max(1))
    }
}

/// Room for jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credits {
    /// Lanes times batch, plus prefetch.
    pub total: u32,
    /// Not taken now.
    pub free: u32,
}

/// Latency of recent runs, from pull to the session's answer, and how fast the engine speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatencyFigures {
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 95th percentile, in milliseconds.
    pub p95_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// Engine seconds per second of audio, over recent runs.
    pub real_time_factor: f64,
}

/// Metrics of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerHeartbeat {
    /// Its stable name.
    pub worker: WorkerId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Counts up with every heartbeat of an incarnation.
    pub sequence: u64,
    /// Its process.
    pub pid: u32,
    /// Its engine's process, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_pid: Option<u32>,
    /// The host's name.
    pub host: String,
    /// Version of chorus.
    pub version: String,
    /// The kind of engine: `coqui`, `null`, …
    pub engine: String,
    /// What it computes on.
    pub device: Device,
    /// Models and how far they are.
    pub models: Vec<LoadedModel>,
    /// Room.
    pub credits: Credits,
    /// Jobs being worked on.
    pub in_flight: u32,
    /// Jobs ended with audio accepted, since its start.
    pub jobs_done: u64,
    /// Jobs ended otherwise, since its start.
    pub jobs_failed: u64,
    /// How often its engine was started again.
    pub engine_restarts: u32,
    /// Memory of worker and engine, in bytes.
    pub rss_bytes: u64,
    /// Processor time of worker and engine, in percent of one core, since the last heartbeat.
    pub cpu_percent: f64,
    /// Memory on the GPU, in bytes, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_bytes: Option<u64>,
    /// How fast it is.
    pub latency: LatencyFigures,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// Handing back and leaving.
    #[serde(default)]
    pub draining: bool,
}

/// Metrics of one manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagerHeartbeat {
    /// Its stable name.
    pub manager: ManagerId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Counts up with every heartbeat of an incarnation.
    pub sequence: u64,
    /// Its process.
    pub pid: u32,
    /// The host's name.
    pub host: String,
    /// Version of chorus.
    pub version: String,
    /// Sessions that it runs itself (plain requests, durable jobs).
    pub sessions: u32,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
}

/// `tts.worker.<id>.ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    /// The start that is meant; another one answers with its own.
    pub incarnation: Incarnation,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunProgress {
    /// The run.
    pub run: RunId,
    /// The job.
    pub job: JobId,
    /// Frames that the engine has sent for it.
    pub frames: u64,
    /// Milliseconds since the last of them.
    pub idle_ms: u64,
}

/// The answer to [`Ping`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pong {
    /// Which start answers.
    pub incarnation: Incarnation,
    /// What it works on.
    pub runs: Vec<RunProgress>,
}

/// `tts.worker.<id>.{stop,drain,load,unload}`: an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "order", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WorkerOrder {
    /// Give up the runs of this session.
    Stop {
        /// The session that was given up.
        session: crate::SessionId,
    },
    /// Finish, hand back, leave.
    Drain,
    /// Serve this model too.
    Load {
        /// The model.
        model: Box<ModelDefinition>,
    },
    /// Serve it no more.
    Unload {
        /// Its name.
        model: ModelName,
    },
}

/// The answer to a [`WorkerOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderTaken {
    /// Which start took it.
    pub incarnation: Incarnation,
}

/// An event on `tts.events.<kind>`, other than outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetEvent {
    /// The kind, as in its subject: `workerStarted`, `workerStopped`, `workerFailed`, `workerRecycled`, `memoryAlert`,
    /// `workerLost`, `breaker`, …
    pub kind: String,
    /// The worker it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// Its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// For a person.
    pub message: String,
    /// For a program.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}
