//! A broker, managers on it, and the words to ask them with.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_bus::{Bus, BusConfig, Delivery, Layout, PullEvent, PullRequest, PullWait};
use chorus_manager::{Hook, Manager, ManagerConfig, ManagerHandle};
use chorus_protocol::fleet::{
    Credits, Device, Heartbeat, LatencyFigures, LoadedModel, ModelState, WorkerHeartbeat,
};
use chorus_protocol::plan::{Advance, Advanced, Disposition, Open, Opened, PlanPage};
use chorus_protocol::service::{LoadModel, ModelStatus};
use chorus_protocol::{
    Envelope, Incarnation, JobClass, ManagerId, MessageId, ModelDefinition, ModelName, ServiceError,
    SessionId, SynthesisRequest, WorkerId, names,
};
use chorus_runtime::clock::SystemClock;
use chorus_runtime::process::{Child, GuardBinary, ProcessSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that is killed when it is dropped.
pub(crate) struct Broker {
    child: Child,
    pub(crate) url: String,
    folder: TempDir,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = launch(folder.path(), "-1");
        let url = eventually("the broker names its port", async || {
            assert!(child.exit_watch().peek().is_none(), "nats-server ended: {:?}", child.stderr_log());
            url_in(folder.path())
        })
        .await;
        Self { child, url, folder }
    }

    pub(crate) async fn bus(&self) -> Bus {
        Bus::connect(BusConfig::new(&self.url)).await.unwrap()
    }

    pub(crate) fn config(&self, id: &str) -> ManagerConfig {
        ManagerConfig {
            id: Some(ManagerId::new(id).unwrap()),
            ..ManagerConfig::new("test-host", BusConfig::new(&self.url))
        }
    }

    pub(crate) async fn manager(&self, id: &str) -> ManagerHandle {
        start(self.config(id), Vec::new()).await
    }

    /// One manager, a connection, and the model `joe` in the catalogue.
    pub(crate) async fn with_joe(&self) -> (ManagerHandle, Bus) {
        let (manager, bus) = (self.manager("m1").await, self.bus().await);
        load(&bus, definition("joe")).await.unwrap();
        (manager, bus)
    }

    pub(crate) async fn kill(&self) {
        self.child.kill().await;
    }

    /// Starts it again on the same port, with the same store.
    pub(crate) fn restart(&mut self) {
        let port = self.url.rsplit(':').next().unwrap().to_owned();
        self.child = launch(self.folder.path(), &port);
    }
}

pub(crate) async fn start(config: ManagerConfig, hooks: Vec<Arc<dyn Hook>>) -> ManagerHandle {
    let manager = Manager::new(config, SystemClock::shared());
    let manager = hooks.into_iter().fold(manager, Manager::with_hook);
    soon("a manager starts", manager.start(&CancellationToken::new())).await.unwrap()
}

fn launch(folder: &Path, port: &str) -> Child {
    let program = std::env::var_os("CHORUS_NATS_SERVER").unwrap_or_else(|| "nats-server".into());
    let mut spec = ProcessSpec::new("nats-server", program.clone())
        .allow_env(std::env::vars_os(), &["PATH"])
        .args(["--jetstream", "--addr", "127.0.0.1", "--port", port])
        .args([Path::new("--ports_file_dir"), folder, Path::new("--store_dir"), &folder.join("store")]);
    // The test runner is no guard; dropping the child kills the broker, also when the test panics.
    spec.guard = GuardBinary::Unguarded;
    Child::spawn(&spec).unwrap_or_else(|error| {
        let program = program.display();
        panic!("cannot start {program}: {error}. Put nats-server 2.11 or newer on the PATH, or name it in CHORUS_NATS_SERVER")
    })
}

fn url_in(folder: &Path) -> Option<String> {
    let is_ports = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "ports");
    let file = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(is_ports)?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(ports["nats"][0].as_str()?.to_owned())
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < give_up, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `future`, or a failed test.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Asks and gives back the answer, or the error that came in its place.
pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
    bus: &Bus,
    subject: &str,
    question: Q,
) -> Result<A, ServiceError> {
    let envelope = Envelope::request(question, 1);
    bus.request(subject, &envelope, PATIENCE).await.map_err(|error| error.into_service_error())
}

/// Asks with bytes.
pub(crate) async fn ask_raw(bus: &Bus, subject: &str, payload: impl Into<Bytes>) -> Bytes {
    bus.request_raw(subject, payload.into(), PATIENCE).await.unwrap()
}

pub(crate) fn definition(name: &str) -> ModelDefinition {
    let definition =
        serde_json::json!({"name": name, "engine": "null", "source": {"builtin": "null"}, "aliases": []});
    serde_json::from_value(definition).unwrap()
}

pub(crate) async fn load(bus: &Bus, model: ModelDefinition) -> Result<ModelStatus, ServiceError> {
    ask(bus, names::MODELS_LOAD, LoadModel { model }).await
}

pub(crate) fn joe() -> ModelName {
    ModelName::new("joe").unwrap()
}

pub(crate) fn opening(text: &str) -> Open {
    let session = SessionId::new();
    Open {
        session,
        inbox: names::session_inbox("_INBOX.test", session),
        request_id: MessageId::fresh(),
        request: SynthesisRequest { text: text.into(), ..SynthesisRequest::default() },
        text_complete: true,
        window: 8,
        first_segment: 0,
        takes: false,
    }
}

pub(crate) fn advancing(open: &Open, opened: &Opened) -> Advance {
    Advance {
        session: open.session,
        inbox: open.inbox.clone(),
        request_id: open.request_id.clone(),
        speech: opened.speech.clone(),
        next_segment: opened.page.segments.len() as u32,
        text: open.request.text[opened.page.consumed_bytes..].to_owned(),
        text_complete: open.text_complete,
        window: 8,
        urgent: false,
        retries: Vec::new(),
        lookups: Vec::new(),
        takes: false,
    }
}

pub(crate) async fn open(bus: &Bus, open: &Open) -> Result<Opened, ServiceError> {
    ask(bus, names::OPEN, open).await
}

pub(crate) async fn advance(bus: &Bus, advance: Advance) -> Result<Advanced, ServiceError> {
    ask(bus, names::ADVANCE, advance).await
}

pub(crate) fn texts(page: &PlanPage) -> Vec<&str> {
    page.segments.iter().map(|segment| segment.text.as_str()).collect()
}

pub(crate) fn classes(page: &PlanPage) -> Vec<JobClass> {
    page.segments.iter().map(|segment| segment.class).collect()
}

/// The stream sequences of a page whose segments were all queued.
pub(crate) fn seqs(page: &PlanPage) -> Vec<u64> {
    let seq = |disposition: &Disposition| match disposition {
        Disposition::Queued { seq, .. } => *seq,
        other => panic!("not queued: {other:?}"),
    };
    page.segments.iter().map(|segment| seq(&segment.disposition)).collect()
}

/// What is on the queue of `joe` in one class, now. The jobs are handed back when the deliveries are dropped.
pub(crate) async fn queued(bus: &Bus, class: JobClass) -> Vec<Delivery> {
    let mut puller = bus.puller().await.unwrap();
    let request = PullRequest { id: 1, model: &joe(), class, batch: 100, wait: PullWait::NoWait };
    puller.pull(request).await.unwrap();
    let mut jobs = Vec::new();
    while let Some(PullEvent::Job { delivery, .. }) = soon("a pull event", puller.next()).await {
        jobs.push(delivery);
    }
    jobs
}

/// A layout with room for so many jobs per queue only.
pub(crate) fn small_queue(max_jobs_per_queue: u32) -> Layout {
    Layout { max_jobs_per_queue, ..Layout::default() }
}

/// The first heartbeat of an idle worker `w1` that speaks `joe`.
pub(crate) fn worker_beat() -> WorkerHeartbeat {
    let joe = LoadedModel {
        name: joe(),
        state: ModelState::Ready,
        sample_rate: Some(22_050),
        load_ms: None,
        tuning: None,
        error: None,
        identity: None,
    };
    WorkerHeartbeat {
        worker: WorkerId::new("w1").unwrap(),
        incarnation: Incarnation::from_u128(1),
        sequence: 1,
        pid: 7,
        engine_pid: Some(8),
        host: "test-host".into(),
        version: "0".into(),
        engine: "null".into(),
        device: Device::default(),
        models: vec![joe],
        credits: Credits { total: 1, free: 1 },
        in_flight: 0,
        jobs_done: 3,
        jobs_failed: 0,
        engine_restarts: 0,
        rss_bytes: 1,
        cpu_percent: 0.0,
        gpu_memory_bytes: None,
        latency: LatencyFigures::default(),
        uptime_ms: 1,
        draining: false,
    }
}

pub(crate) async fn beat(bus: &Bus, beat: WorkerHeartbeat) {
    let subject = names::worker_heartbeat(&beat.worker);
    let envelope = Envelope::event(Heartbeat::Worker(Box::new(beat)), 1);
    bus.publish(&subject, &envelope).await.unwrap();
}
