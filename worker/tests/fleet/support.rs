//! What the tests stand on: a real broker, a worker around a real engine process, and a session written by hand.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chorus_bus::{Bus, BusConfig, Incoming, OutgoingJob, Subscription};
use chorus_protocol::codec::Encoding;
use chorus_protocol::fleet::{Ping, Pong, RunProgress};
use chorus_protocol::job::{
    CHUNKS_PER_GRANT, ChunkGrant, Failed, Job, ResultAnswer, RunChunk, RunOutcome, RunResult, Spoken,
    Started, StartedAnswer,
};
use chorus_protocol::names::{self, SessionSubject, WorkerControl, worker_control};
use chorus_protocol::plan::Speech;
use chorus_protocol::request::Priority;
use chorus_protocol::{Envelope, JobClass, ModelDefinition, ModelName, SessionId, WorkerId};
use chorus_runtime::clock::SystemClock;
use chorus_runtime::process::{Child, GuardBinary, ProcessSpec};
use chorus_runtime::task::{FailureMeans, TaskHandle, spawn_draining};
use chorus_worker::{EngineConfig, WorkerConfig, WorkerError, WorkerHandle, WorkerService};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The longest that any single step of a test waits.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A nats-server of its own, on a free port, with an empty store.
pub struct Broker {
    pub url: String,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Broker {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let program = std::env::var_os("CHORUS_NATS_SERVER").map_or("nats-server".into(), PathBuf::from);
        let mut spec = ProcessSpec::new("nats-server", program)
            .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", &path, "--ports_file_dir", &path])
            .allow_env(std::env::vars_os(), &["PATH", "HOME"]);
        spec.guard = GuardBinary::Unguarded;
        let process = Child::spawn(&spec).unwrap_or_else(|error| {
            panic!("{error}: set CHORUS_NATS_SERVER to a nats-server of 2.11 or newer")
        });
        let url = poll("the broker's port", || read_port(folder.path())).await;
        Self { url, _process: process, _folder: folder }
    }

    pub async fn connect(&self) -> Bus {
        Bus::connect(BusConfig::new(&self.url)).await.unwrap()
    }
}

fn read_port(folder: &std::path::Path) -> Option<String> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let file =
        files.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "ports"))?;
    let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(ports["nats"][0].as_str()?.to_owned())
}

/// Asks again and again until there is an answer.
pub async fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
}

pub fn model_name() -> ModelName {
    ModelName::new("test/voice").unwrap()
}

pub fn model(engine: &str, options: Value) -> ModelDefinition {
    let definition =
        json!({"name": model_name(), "engine": engine, "source": {"builtin": engine}, "options": options});
    serde_json::from_value(definition).unwrap()
}

/// The configuration of a worker with this engine; one lane, one model.
pub fn worker_config(broker: &Broker, engine: &str, options: Value) -> WorkerConfig {
    let python = std::env::var_os("CHORUS_ENGINE_PYTHON").map_or("python3".into(), PathBuf::from);
    let mut config = EngineConfig::new(engine, python);
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/engine");
    config.env.insert("PYTHONPATH".into(), package.into());
    config.env.insert("PATH".into(), std::env::var_os("PATH").unwrap_or_default());
    config.guard = GuardBinary::Unguarded;
    config.restart.initial_delay = Duration::from_millis(10);
    config.grace = Duration::from_millis(300);
    let id = WorkerId::new("tested").unwrap();
    let mut config = WorkerConfig::new(id, "here", BusConfig::new(&broker.url), config);
    config.definitions = vec![model(engine, options)];
    config
}

/// A worker at work.
pub struct Running {
    pub handle: WorkerHandle,
    pub task: TaskHandle<Result<(), WorkerError>>,
}

impl Running {
    /// Starts it and waits until it can speak.
    pub async fn start(config: WorkerConfig) -> Self {
        let (service, handle) = WorkerService::new(config, SystemClock::shared()).unwrap();
        let task =
            spawn_draining("worker", CancellationToken::new(), FailureMeans::Log, |token| service.run(token));
        let running = Self { handle, task };
        assert!(
            running.handle.ready(PATIENCE).await,
            "the worker did not get ready; is CHORUS_ENGINE_PYTHON a Python with msgpack?"
        );
        running
    }

    /// How far its run is, once the engine has sent more than one frame for it.
    pub async fn progress(&self, bus: &Bus) -> RunProgress {
        let subject = worker_control(self.handle.id(), WorkerControl::Ping);
        let ping = Envelope::request(Ping { incarnation: self.handle.incarnation() }, 1);
        let pings = async {
            loop {
                let pong: Pong = bus.request(&subject, &ping, PATIENCE).await.unwrap();
                assert_eq!(pong.incarnation, self.handle.incarnation());
                if let Some(run) = pong.runs.into_iter().find(|run| run.frames > 1) {
                    return run;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, pings).await.expect("the engine's progress is not seen")
    }

    /// Drains it and waits for its end.
    pub async fn stop(self) {
        self.handle.drain();
        timeout(PATIENCE, self.task).await.expect("the worker did not end").unwrap().unwrap();
    }
}

/// What a session hears.
pub enum Heard {
    Started(Started, Incoming),
    Chunk(RunChunk, Incoming),
    Result(Box<RunResult>, Incoming),
}

/// A session by hand: it asks for segments and answers as the test says.
pub struct Session {
    pub bus: Bus,
    pub id: SessionId,
    pub inbox: String,
    heard: Subscription,
}

impl Session {
    pub async fn open(bus: &Bus) -> Self {
        let id = SessionId::new();
        let inbox = names::session_inbox(&bus.new_inbox(), id);
        let heard = bus.subscribe(&format!("{inbox}.*"), None).await.unwrap();
        bus.flush().await.unwrap();
        Self { bus: bus.clone(), id, inbox, heard }
    }

    pub fn job(&self, segment: u32, text: &str) -> Job {
        Job {
            session: self.id,
            segment,
            attempt: 1,
            text: text.to_owned(),
            speech: Speech {
                model: model_name(),
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
            },
            class: JobClass::Normal,
            keep: false,
        }
    }

    /// Queues a job; its sequence.
    pub async fn publish(&self, job: &Job) -> u64 {
        let job =
            OutgoingJob { job, inbox: &self.inbox, failures: 0, tried: &[], traceparent: None, now_ms: 1 };
        self.bus.publish_job(&job).await.unwrap()
    }

    pub async fn say(&self, segment: u32, text: &str) -> u64 {
        self.publish(&self.job(segment, text)).await
    }

    pub async fn next(&mut self) -> Heard {
        let incoming = timeout(PATIENCE, self.heard.next()).await.expect("the worker says nothing").unwrap();
        let (_, kind) = names::parse_session_subject(incoming.subject()).unwrap();
        match kind {
            SessionSubject::Started => Heard::Started(incoming.decode().unwrap().payload, incoming),
            SessionSubject::Chunk => Heard::Chunk(incoming.decode().unwrap().payload, incoming),
            SessionSubject::Result => Heard::Result(Box::new(incoming.decode().unwrap().payload), incoming),
        }
    }

    /// The next question `started`; anything else fails the test.
    pub async fn started(&mut self) -> (Started, Incoming) {
        match self.next().await {
            Heard::Started(started, incoming) => (started, incoming),
            Heard::Chunk(..) => panic!("a chunk came where started was due"),
            Heard::Result(..) => panic!("a result came where started was due"),
        }
    }

    pub async fn answer<T: Serialize>(&self, question: &Incoming, answer: T) {
        let envelope = Envelope::event(answer, 1);
        self.bus.respond(question, &envelope, Encoding::MessagePack).await.unwrap();
    }

    /// Says go, takes all pieces, and hears the result without answering it.
    pub async fn listen(&mut self) -> (RunResult, Incoming, Vec<Bytes>) {
        let mut pieces = Vec::new();
        loop {
            match self.next().await {
                Heard::Started(_, question) => self.answer(&question, StartedAnswer::Go).await,
                Heard::Chunk(chunk, question) => {
                    assert_eq!(chunk.seq as usize, pieces.len(), "a chunk came out of order");
                    pieces.push(chunk.data.0);
                    self.answer(&question, ChunkGrant { chunks: CHUNKS_PER_GRANT }).await;
                }
                Heard::Result(result, question) => return (*result, question, pieces),
            }
        }
    }

    /// Hears a segment to its end and accepts it.
    pub async fn hear(&mut self) -> Result<(Vec<u8>, Spoken), Failed> {
        let (result, question, pieces) = self.listen().await;
        self.answer(&question, ResultAnswer::Accepted).await;
        match result.outcome {
            RunOutcome::Spoken(spoken) => {
                let mut pcm = pieces.concat();
                pcm.extend_from_slice(&spoken.data.0);
                assert_eq!(pieces.len() + 1, spoken.chunks as usize);
                Ok((pcm, spoken))
            }
            RunOutcome::Failed(failed) => Err(failed),
        }
    }

    /// Waits until the job is out of the queue.
    pub async fn gone(&self, seq: u64) {
        let asking = async {
            while self.bus.job_exists(seq).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, asking).await.expect("the job stays in the queue");
    }
}

/// The audio that the checkable engine makes of a text without directives.
pub fn checkable(text: &str, segment: u32) -> Vec<u8> {
    let count = (800 * text.chars().count()).clamp(1_600, 480_000);
    let tag = crc32fast::hash(text.as_bytes());
    let (high, low, number) = (tag >> 15 & 0x7fff, tag & 0x7fff, segment & 0x7fff);
    let frames = (0..count.div_ceil(8) as u32).flat_map(|index| {
        let values = [high, low, number, index >> 15 & 0x7fff, index & 0x7fff];
        let checksum = values.iter().sum::<u32>() & 0x7fff;
        let mapped = values.into_iter().chain([checksum]).map(|value| value as i16 - 16_384);
        [181].into_iter().chain(mapped).chain([-181]).collect::<Vec<i16>>()
    });
    frames.take(count).flat_map(i16::to_le_bytes).collect()
}

/// No options.
pub fn plain() -> Value {
    json!(Map::new())
}

impl Session {
    /// Whether the next result is a spoken one; it is accepted.
    pub async fn hear_end(&mut self) -> bool {
        loop {
            if let Heard::Result(result, question) = self.next().await {
                self.answer(&question, ResultAnswer::Accepted).await;
                return matches!(result.outcome, RunOutcome::Spoken(_));
            }
        }
    }

    /// Queues a job that engines have failed so often before.
    pub async fn say_after(&self, failures: u32, segment: u32, text: &str) -> u64 {
        let job = self.job(segment, text);
        let job =
            OutgoingJob { job: &job, inbox: &self.inbox, failures, tried: &[], traceparent: None, now_ms: 1 };
        self.bus.publish_job(&job).await.unwrap()
    }
}

/// That a process may gain no rights, and has one processor, 3 GB of data and no core dump.
pub fn assert_limited(pid: u32) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = read("status");
    assert!(status.contains("NoNewPrivs:\t1\n"));
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
    assert!(cpus.parse::<u32>().is_ok(), "one processor: {cpus}");
    let limits = read("limits");
    let limit = |what: &str| {
        let line = limits.lines().find(|line| line.starts_with(what)).unwrap();
        line[what.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!((limit("Max data size"), limit("Max core file size")), ("3000000000".into(), "0".into()));
}
