//! A worker of our own fleet: inside this process, or a process of its own that is begun again when it dies.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chorus_bus::BusConfig;
use chorus_runtime::clock::SystemClock;
use chorus_runtime::process::supervisor::{
    Ended, Event, HandshakeError, Launch, RestartPolicy, Supervisor, SupervisorConfig, supervise,
};
use chorus_runtime::process::{Child, ProcessSpec, SpawnError};
use chorus_runtime::task::{self, FailureMeans, TaskHandle};
use chorus_worker::{WorkerConfig, WorkerService};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Notice, Notices};
use crate::error::CliError;
use crate::ui::write_line;

/// A worker that ends again and again is begun again until it has ended so often within a minute, and then no more. The
/// pauses before that are 13 s together, so one that takes up to 5 s to end is given up, too.
const CRASH_LIMIT: u32 = 8;

/// A worker in this process.
pub struct InsideWorker {
    drain: CancellationToken,
    end: watch::Receiver<Option<String>>,
    task: TaskHandle<()>,
}

impl InsideWorker {
    /// Starts it.
    pub fn start(config: WorkerConfig, root: &CancellationToken) -> Result<Self, CliError> {
        let (service, _handle) = WorkerService::new(config, SystemClock::shared())?;
        let drain = root.child_token();
        let (publish, end) = watch::channel(None);
        let task = task::spawn_draining("worker", drain.clone(), FailureMeans::Log, |drain| async move {
            let why = match service.run(drain).await {
                Ok(()) => "it was told to leave".to_owned(),
                Err(error) => CliError::from(error).to_string(),
            };
            publish.send_replace(Some(why));
        });
        Ok(Self { drain, end, task })
    }

    /// Waits until it has ended by itself; why.
    pub async fn ended(&self) -> String {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|why| why.clone()).unwrap_or_else(|| "it panicked".to_owned())
    }

    /// Lets it finish, and waits for its end.
    pub async fn stop(self) {
        self.drain.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the worker did not end well");
        }
    }
}

/// A worker that runs as `chorus worker …`.
#[derive(Debug, Clone)]
pub struct WorkerProcessConfig {
    /// Its stable name.
    pub id: String,
    /// Our own program.
    pub program: PathBuf,
    /// What it is told: everything but the broker's address.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// What finishing may take before it is killed.
    pub grace: Duration,
}

/// Such a worker, supervised.
pub struct WorkerProcess {
    stop: CancellationToken,
    supervisor: TaskHandle<()>,
    /// Ends with the supervisor, whose events it reads.
    _follower: TaskHandle<()>,
}

impl WorkerProcess {
    /// Starts it on this broker.
    pub fn launch(
        config: &WorkerProcessConfig,
        bus: &BusConfig,
        notices: Notices,
        root: &CancellationToken,
    ) -> Self {
        let stop = root.child_token();
        let settings = SupervisorConfig {
            name: config.id.clone(),
            // One that was told to drain leaves with status 0, and is not begun again.
            restart: RestartPolicy {
                crash_limit: Some(CRASH_LIMIT),
                success_is_final: true,
                ..RestartPolicy::default()
            },
            ready_within: Duration::from_secs(10),
            grace: config.grace,
        };
        let launch = ProcessLaunch { spec: process(config, bus) };
        let Supervisor { handle: _, events, task: supervisor } = supervise(settings, stop.clone(), launch);
        let following = follow(config.id.clone(), events, notices);
        let follower = task::spawn("worker-events", CancellationToken::new(), FailureMeans::Log, following);
        Self { stop, supervisor, _follower: follower }
    }

    /// Asks it to finish.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it has ended.
    pub async fn stopped(self) {
        if let Err(error) = self.supervisor.await {
            tracing::warn!(%error, "the supervisor of a worker did not end well");
        }
    }
}

fn process(config: &WorkerProcessConfig, bus: &BusConfig) -> ProcessSpec {
    let mut spec = ProcessSpec::new(&config.id, &config.program)
        .args([
            "worker".into(),
            "--id".into(),
            OsString::from(&config.id),
            "--nats".into(),
            bus.url.clone().into(),
        ])
        .args(config.args.iter().cloned());
    spec.env = config.environment.iter().cloned().collect();
    spec.grace = config.grace;
    if let Some(token) = &bus.token {
        spec = spec.set_env("CHORUS_NATS_TOKEN", token);
    }
    let id = config.id.clone();
    // Its log is ours; the rate is bounded by the policy.
    spec.logs.sink = Some(Arc::new(move |_stream, line| {
        write_line(&mut std::io::stderr().lock(), &format!("{id}: {line}"))
    }));
    spec
}

struct ProcessLaunch {
    spec: ProcessSpec,
}

impl Launch for ProcessLaunch {
    type Ready = ();

    fn start(&mut self, _run: u64) -> Result<Child, SpawnError> {
        Child::spawn(&self.spec)
    }

    /// Nothing is awaited: its heartbeats tell how far it is.
    async fn handshake(&mut self, child: Child) -> Result<(Child, ()), HandshakeError> {
        Ok((child, ()))
    }
}

async fn follow(id: String, mut events: mpsc::Receiver<Event<()>>, notices: Notices) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Started { run: 1, .. } => tracing::debug!(worker = %id, "worker process started"),
            Event::Started { .. } => notices.tell(Notice::News(format!("{id}: started again"))),
            Event::Ready { .. } | Event::Restarting { .. } | Event::Exited { ended: Ended::Stopped, .. } => {}
            Event::Exited { exit: Some(exit), ended: Ended::Exited, .. } if exit.success() => {
                notices.tell(Notice::News(format!("{id}: drained, and left")));
            }
            Event::Exited { exit, ended, .. } => {
                let how = match (ended, exit) {
                    (Ended::NotStarted(error), _) => error.to_string(),
                    (_, Some(exit)) => exit.to_string(),
                    (other, None) => format!("{other:?}"),
                };
                notices.tell(Notice::Trouble(format!("{id}: its process ended ({how})")));
            }
            Event::GaveUp { failures } => {
                let why = format!("{id} ended {failures} times within a minute");
                notices.tell(Notice::Fatal { part: "worker", why });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_process_is_told_its_name_its_broker_and_the_token_in_its_environment() {
        let config = WorkerProcessConfig {
            id: "w-1".into(),
            program: "/bin/chorus".into(),
            args: vec!["--engine".into(), "null".into()],
            environment: vec![("PATH".into(), "/bin".into())],
            grace: Duration::from_secs(1),
        };
        let bus = BusConfig { token: Some("secret".into()), ..BusConfig::new("nats://127.0.0.1:1") };
        let spec = process(&config, &bus);
        let args: Vec<_> = spec.args.iter().filter_map(|arg| arg.to_str()).collect();
        assert_eq!(args, ["worker", "--id", "w-1", "--nats", "nats://127.0.0.1:1", "--engine", "null"]);
        assert_eq!(spec.env[std::ffi::OsStr::new("CHORUS_NATS_TOKEN")], "secret");
        assert!(!args.contains(&"secret"));
    }
}
