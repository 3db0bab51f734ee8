//! A nats-server for one test, and jobs to feed it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chorus_bus::{Bus, BusConfig, Delivery, Layout, OutgoingJob, PullEvent, PullRequest, PullWait, Puller};
use chorus_protocol::job::Job;
use chorus_protocol::plan::Speech;
use chorus_protocol::{JobClass, ModelName, Priority, SessionId, names};
use chorus_runtime::process::{Child, GuardBinary, ProcessSpec};
use futures::future::LocalBoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; dropping it kills it.
pub struct Server {
    child: Child,
    pub port: u16,
    folder: TempDir,
}

impl Server {
    /// With JetStream, on a free port.
    pub async fn start() -> Self {
        Self::start_with(&["--jetstream"]).await
    }

    /// With these arguments, on a free port.
    pub async fn start_with(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = launch(folder.path(), -1, args);
        let port = wait_for_port(&child, folder.path()).await;
        Self { child, port, folder }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn config(&self) -> BusConfig {
        BusConfig::new(self.url())
    }

    /// A connection.
    pub async fn bus(&self) -> Bus {
        Bus::connect(self.config()).await.unwrap()
    }

    /// A connection, with the layout made.
    pub async fn laid_out(&self) -> Bus {
        let bus = self.bus().await;
        bus.ensure_layout(&Layout::default()).await.unwrap();
        bus
    }

    pub async fn kill(&self) {
        self.child.kill().await;
    }

    /// A connection that gives up sooner, so that a test sees it give up.
    pub async fn impatient_bus(&self, request_timeout: Duration) -> Bus {
        let config = BusConfig { request_timeout, ..self.config() };
        Bus::connect(config).await.unwrap()
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// To be called between [`Server::kill`] and [`Server::restart`].
    pub fn lose_store(&self) {
        std::fs::remove_dir_all(self.folder.path().join("store")).unwrap();
    }

    /// Starts it again after [`Server::kill`], on the same port and store.
    pub async fn restart(&mut self) {
        let ports = ports_folder(self.folder.path());
        std::fs::remove_dir_all(&ports).unwrap();
        self.child = launch(self.folder.path(), self.port.into(), &["--jetstream"]);
        wait_for_port(&self.child, self.folder.path()).await;
    }
}

fn ports_folder(folder: &Path) -> PathBuf {
    folder.join("ports")
}

pub fn launch(folder: &Path, port: i32, args: &[&str]) -> Child {
    let ports = ports_folder(folder);
    std::fs::create_dir_all(&ports).unwrap();
    let program = std::env::var_os("CHORUS_NATS_SERVER").unwrap_or_else(|| "nats-server".into());
    let mut spec = ProcessSpec::new("nats-server", program.clone())
        .allow_env(std::env::vars_os(), &["PATH"])
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .args([Path::new("--ports_file_dir"), &ports, Path::new("--store_dir"), &folder.join("store")])
        .args(args);
    // The test runner is no guard; dropping the child kills the server, also when the test panics.
    spec.guard = GuardBinary::Unguarded;
    Child::spawn(&spec).unwrap_or_else(|error| {
        panic!(
            "cannot start {}: {error}. These tests need nats-server 2.11 or newer: put it on the PATH, or name it in CHORUS_NATS_SERVER",
            program.display()
        )
    })
}

async fn wait_for_port(child: &Child, folder: &Path) -> u16 {
    let read = || -> Option<u16> {
        let file = std::fs::read_dir(ports_folder(folder)).ok()?.find_map(Result::ok)?;
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()?;
        ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
    };
    eventually("the server says its port", async || {
        assert!(child.exit_watch().peek().is_none(), "nats-server ended: {:?}", child.stderr_log());
        read()
    })
    .await
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
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
pub fn soon<'a, T>(what: &'a str, future: impl Future<Output = T> + 'a) -> LocalBoxFuture<'a, T> {
    let limited = tokio::time::timeout(PATIENCE, future);
    Box::pin(async move { limited.await.unwrap_or_else(|_| panic!("in vain: {what}")) })
}

pub fn model() -> ModelName {
    ModelName::new("tts_models/en/ljspeech/vits").unwrap()
}

pub fn job(class: JobClass, segment: u32) -> Job {
    let speech = Speech {
        model: model(),
        voice: None,
        speaker_clip: None,
        language: None,
        speed: None,
        pitch: None,
        seed: None,
        volume: None,
        priority: Priority::Normal,
        fresh: false,
        input_type: None,
    };
    Job {
        session: SessionId::from_u128(1),
        segment,
        attempt: 1,
        text: "hello".into(),
        speech,
        class,
        keep: false,
    }
}

pub fn outgoing(job: &Job) -> OutgoingJob<'_> {
    OutgoingJob { job, inbox: "_INBOX.session", failures: 0, tried: &[], traceparent: None, now_ms: 1 }
}

pub async fn publish(bus: &Bus, class: JobClass, segment: u32) -> u64 {
    bus.publish_job(&outgoing(&job(class, segment))).await.unwrap()
}

/// Waits until the server counts so many jobs for who pulls: it confirms a job a moment before that, and answers a pull
/// that does not wait in between with "nothing there".
pub async fn counted(bus: &Bus, class: JobClass, jobs: u64) {
    let subject =
        format!("$JS.API.CONSUMER.INFO.{}.{}", names::JOBS_STREAM, names::job_consumer(&model(), class));
    eventually("the jobs are counted", async || {
        let info = api(bus, &subject).await?;
        (info["num_pending"].as_u64()? == jobs).then_some(())
    })
    .await;
}

/// Asks the JetStream API; `None` when there is no answer.
pub async fn api(bus: &Bus, subject: &str) -> Option<serde_json::Value> {
    let answer = bus.request_raw(subject, Vec::new().into(), Duration::from_secs(1)).await.ok()?;
    serde_json::from_slice(&answer).ok()
}

pub async fn pull(puller: &Puller, id: u64, class: JobClass, batch: u32, wait: PullWait) {
    puller.pull(PullRequest { id, model: &model(), class, batch, wait }).await.unwrap();
}

pub async fn next(puller: &mut Puller) -> PullEvent {
    soon("a pull event", puller.next()).await.unwrap()
}

/// The next event, which must be a job.
pub async fn next_job(puller: &mut Puller) -> (u64, Delivery) {
    match next(puller).await {
        PullEvent::Job { id, delivery } => (id, delivery),
        ended => panic!("expected a job: {ended:?}"),
    }
}

/// A model of the catalogue.
pub fn definition(name: &str) -> chorus_protocol::ModelDefinition {
    serde_json::from_value(serde_json::json!({
        "name": name, "engine": "null", "source": { "builtin": "null" }
    }))
    .unwrap()
}
