//! Starting the engine, watching it, and starting it again.
//!
//! The runtime's supervisor owns the process; the task here turns its events into an [`EngineState`] that the rest of the
//! worker watches, and asks for a restart when a link ends though its process lives (it broke the frames, or hangs).

use std::sync::Arc;
use std::time::Duration;

use chorus_protocol::pipe::HelloAnswer;
use chorus_protocol::{Reason, ServiceError, WorkerId};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::process::supervisor::{
    Ended, Event, HandshakeError, Launch, Supervisor, SupervisorConfig, SupervisorHandle, supervise,
};
use chorus_runtime::process::{Child, ProcessSpec, SpawnError};
use chorus_runtime::task::{self, FailureMeans, TaskHandle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::handshake::shake_hands;
use super::legacy;
use super::link::{Behind, Link, Liveness};
use crate::config::{EngineConfig, Speaks};

/// An engine that has shaken hands.
#[derive(Clone)]
pub struct Session {
    /// The pipe.
    pub link: Arc<Link>,
    /// What it said of itself.
    pub hello: Arc<HelloAnswer>,
    /// Which start of the engine this is, from 1.
    pub run: u64,
}

/// How the engine is.
#[derive(Clone)]
pub enum EngineState {
    /// Being started, for the first time or again.
    Starting {
        /// Why the one before ended, if there was one.
        last: Option<Arc<ServiceError>>,
    },
    /// Speaks.
    Ready(Session),
    /// Crashed too often; it stays down.
    GaveUp {
        /// How the last one ended.
        last: Arc<ServiceError>,
    },
    /// Stopped with its worker.
    Stopped,
}

impl EngineState {
    /// The session, when there is one whose link has not ended.
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Ready(session) if session.link.end().is_none() => Some(session),
            _ => None,
        }
    }
}

/// The running engine.
pub struct Engine {
    state: watch::Receiver<EngineState>,
    starts: watch::Receiver<u64>,
    orders: SupervisorHandle,
    stop: CancellationToken,
    task: TaskHandle<()>,
}

impl Engine {
    /// Starts it. Ends with `token`, or by [`Engine::stop`].
    pub fn start(
        config: &EngineConfig,
        worker: &WorkerId,
        clock: SharedClock,
        token: &CancellationToken,
    ) -> Self {
        let stop = token.child_token();
        let launch = EngineLaunch {
            spec: config.process(),
            worker: worker.to_string(),
            within: config.ready_within,
            liveness: config.liveness.clone(),
            lines: (config.speaks == Speaks::Lines).then(|| Lines::of(config)),
            clock,
        };
        let settings = SupervisorConfig {
            name: format!("engine-{}", config.kind),
            restart: config.restart.clone(),
            ready_within: config.ready_within,
            grace: config.grace,
        };
        let Supervisor { handle, events, task: supervisor } = supervise(settings, stop.clone(), launch);
        let (publish, state) = watch::channel(EngineState::Starting { last: None });
        let (count, starts) = watch::channel(0);
        let follower = Follower { publish, count, orders: handle.clone() };
        let following = async move {
            follower.follow(events).await;
            // The supervisor has ended or ends now; wait until its child is reaped.
            let _reaped = supervisor.await;
        };
        let task = task::spawn("engine", CancellationToken::new(), FailureMeans::CancelScope, following);
        Self { state, starts, orders: handle, stop, task }
    }

    /// How it is; each change is seen.
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// How often it was started; each start is seen.
    pub fn starts(&self) -> watch::Receiver<u64> {
        self.starts.clone()
    }

    /// For those who find that it hangs.
    pub fn orders(&self) -> SupervisorHandle {
        self.orders.clone()
    }

    /// Ends the process (SIGTERM, the grace, SIGKILL) and waits until it is reaped.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ended = self.task.await;
    }
}

struct EngineLaunch {
    spec: ProcessSpec,
    worker: String,
    within: Duration,
    liveness: Liveness,
    /// For an engine that speaks lines.
    lines: Option<Lines>,
    clock: SharedClock,
}

/// What is known of an engine that speaks lines before it is started.
struct Lines {
    kind: String,
    command: String,
}

/// How long a script may take for one text.
const LINES_SILENCE: Duration = Duration::from_secs(120);

impl Lines {
    fn of(config: &EngineConfig) -> Self {
        let command = config.args.last().map_or_else(String::new, |arg| arg.to_string_lossy().into_owned());
        let command = command.strip_prefix("exec ").unwrap_or(&command).to_owned();
        Self { kind: config.kind.clone(), command }
    }
}

impl EngineLaunch {
    fn open(&self, child: &mut Child) -> Result<Arc<Link>, HandshakeError> {
        let pipe = child.take_frames().ok_or("the engine was started without a pipe")?;
        let behind = Behind { exit: child.exit_watch(), stderr: child.stderr_log().clone() };
        let Some(lines) = &self.lines else {
            let ends = (pipe.reader, pipe.writer);
            return Ok(Link::open(ends, Some(behind), self.liveness.clone(), self.clock.clone()));
        };
        let config = legacy::Config {
            worker: self.worker.clone(),
            kind: lines.kind.clone(),
            command: lines.command.clone(),
            program: child.program(),
            silence: LINES_SILENCE,
        };
        let ends = legacy::translate(config, pipe, self.clock.clone())?;
        Ok(Link::open(ends, Some(behind), self.liveness.clone(), self.clock.clone()))
    }
}

impl Launch for EngineLaunch {
    type Ready = Session;

    fn start(&mut self, _run: u64) -> Result<Child, SpawnError> {
        Child::spawn(&self.spec)
    }

    async fn handshake(&mut self, mut child: Child) -> Result<(Child, Session), HandshakeError> {
        let link = self.open(&mut child)?;
        // A handshake that is dropped or fails takes its link with it.
        let unless_ready = CloseOnDrop(Some(link.clone()));
        let hello = shake_hands(&link, &self.worker, self.within).await?;
        unless_ready.disarm();
        Ok((child, Session { link, hello: Arc::new(hello), run: 0 }))
    }
}

struct CloseOnDrop(Option<Arc<Link>>);

impl CloseOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.close(ServiceError::new(Reason::EngineStart, "the handshake failed"), Vec::new());
        }
    }
}

struct Follower {
    publish: watch::Sender<EngineState>,
    count: watch::Sender<u64>,
    orders: SupervisorHandle,
}

impl Follower {
    async fn follow(self, mut events: tokio::sync::mpsc::Receiver<Event<Session>>) {
        let mut seen = Seen::default();
        loop {
            let link = seen.current.as_ref().map(|session| session.link.clone());
            let event = tokio::select! {
                event = events.recv() => event,
                () = link_end(link.as_ref()), if link.is_some() => {
                    self.link_ended(&mut seen);
                    continue;
                }
            };
            let Some(event) = event else { break };
            if let Event::GaveUp { failures } = event {
                let unknown = || ServiceError::new(Reason::EngineStart, format!("{failures} starts failed"));
                let last = seen.last.unwrap_or_else(|| Arc::new(unknown()));
                self.publish.send_replace(EngineState::GaveUp { last });
                return;
            }
            self.on(event, &mut seen);
        }
        self.publish.send_replace(EngineState::Stopped);
    }

    fn on(&self, event: Event<Session>, seen: &mut Seen) {
        match event {
            Event::Started { run, pid } => {
                *seen = Seen { last: seen.last.take(), ..Seen::default() };
                self.count.send_replace(run);
                tracing::info!(run, pid, "engine started");
            }
            Event::Ready { run, ready } => {
                let session = Session { run, ..ready };
                let (engine, device) = (&session.hello.engine.name, &session.hello.device.kind);
                tracing::info!(run, %engine, pid = session.hello.pid, %device, "engine ready");
                seen.current = Some(session.clone());
                self.publish.send_replace(EngineState::Ready(session));
            }
            Event::Exited { exit, ended, stderr_tail, .. } => {
                // A link that ended first has said why already, and better.
                if !seen.told {
                    let error = exit_error(&ended, exit.map(|exit| exit.to_string()));
                    if let Some(session) = seen.current.take() {
                        session.link.close(error.clone(), super::link::tail(&stderr_tail));
                    }
                    self.tell(error, seen);
                }
            }
            Event::Restarting { delay } => tracing::info!(?delay, "engine starts again"),
            Event::GaveUp { .. } => {}
        }
    }

    /// A link ended before its process was seen to end: the process goes too.
    fn link_ended(&self, seen: &mut Seen) {
        let Some(session) = seen.current.take() else { return };
        let Some(end) = session.link.end() else { return };
        if session.link.is_retired() {
            tracing::info!(run = session.run, why = %end.error.message, "engine renewed");
            self.orders.renew(end.error.message.clone());
            seen.told = true;
            self.publish.send_replace(EngineState::Starting { last: None });
            return;
        }
        self.orders.restart(end.error.message.clone());
        self.tell(end.error.clone(), seen);
    }

    fn tell(&self, error: ServiceError, seen: &mut Seen) {
        let error = Arc::new(error);
        (seen.told, seen.last) = (true, Some(error.clone()));
        self.publish.send_replace(EngineState::Starting { last: Some(error) });
    }
}

/// What the follower has seen of the present run.
#[derive(Default)]
struct Seen {
    /// The session, while its link lives.
    current: Option<Session>,
    /// Whether its end has been told.
    told: bool,
    /// How the last run that ended did.
    last: Option<Arc<ServiceError>>,
}

async fn link_end(link: Option<&Arc<Link>>) {
    match link {
        Some(link) => link.ended().await,
        None => std::future::pending().await,
    }
}

/// Why a run of the engine ended, as an error.
fn exit_error(ended: &Ended, exit: Option<String>) -> ServiceError {
    let exit = exit.map(|exit| format!(" ({exit})")).unwrap_or_default();
    let (reason, message) = match ended {
        Ended::NotStarted(error) => (Reason::EngineStart, format!("the engine cannot be started: {error}")),
        Ended::HandshakeFailed(error) => (Reason::EngineStart, format!("{error}{exit}")),
        Ended::HandshakeTimedOut => {
            (Reason::EngineStart, format!("the engine did not get ready in time{exit}"))
        }
        Ended::Exited => (Reason::EngineCrashed, format!("the engine died{exit}")),
        Ended::Replaced(why) | Ended::Renewed(why) => {
            (Reason::EngineCrashed, format!("the engine was replaced: {why}"))
        }
        Ended::Stopped => (Reason::EngineCrashed, "the engine was stopped".to_owned()),
    };
    ServiceError::new(reason, message)
}
