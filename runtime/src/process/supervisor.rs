//! Keeps one child alive: start, handshake under a deadline, watch, restart by policy, give up on a crash
//! loop.
//!
//! [`Restarts`] decides (pure). The loop here acts: it starts the child through the caller's [`Launch`], reports what
//! happens as [`Event`]s on a bounded channel, and takes the orders of a [`SupervisorHandle`]. It ends when
//! its token is cancelled, when it gives up, when a child exits as it was told (if the policy says so), or when nobody reads
//! its events any more; the child is stopped in each case.

mod policy;

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::child::{Child, Exit};
use super::launch::SpawnError;
use super::logs::LogRing;
use crate::task::{self, FailureMeans, TaskHandle};

pub use policy::{Decision, RestartPolicy, Restarts};

/// An error of a handshake, of any kind.
pub type HandshakeError = Box<dyn std::error::Error + Send + Sync>;

/// How a supervisor starts its child and knows that it is ready.
pub trait Launch: Send + 'static {
    /// What a successful handshake yields, such as a client for the child's pipe.
    type Ready: Send + 'static;

    /// Starts the process. `run` counts from 1.
    fn start(&mut self, run: u64) -> Result<Child, SpawnError>;

    /// Speaks with the fresh child until it is ready, and gives it back. When this is dropped at the
    /// deadline, or fails, the child goes with it and is killed.
    fn handshake(
        &mut self,
        child: Child,
    ) -> impl Future<Output = Result<(Child, Self::Ready), HandshakeError>> + Send;
}

/// How a supervisor treats its child.
#[derive(Debug, Clone)]
pub struct SupervisorConfig {
    /// The child's name in logs.
    pub name: String,
    /// When and how soon it is started again.
    pub restart: RestartPolicy,
    /// What a handshake may take.
    pub ready_within: Duration,
    /// Time between SIGTERM and SIGKILL when it is stopped.
    pub grace: Duration,
}

/// Why a run of the child ended.
#[derive(Debug)]
pub enum Ended {
    /// It could not be started.
    NotStarted(SpawnError),
    /// Its handshake failed.
    HandshakeFailed(HandshakeError),
    /// Its handshake took longer than `ready_within`.
    HandshakeTimedOut,
    /// It exited by itself.
    Exited,
    /// [`SupervisorHandle::restart`] asked for it, for this reason.
    Replaced(String),
    /// [`SupervisorHandle::renew`] asked for it, for this reason: no failure.
    Renewed(String),
    /// The supervisor was told to stop.
    Stopped,
}

/// What happens to the child. `run` counts its starts from 1.
#[derive(Debug)]
pub enum Event<R> {
    /// The process runs; its handshake begins.
    Started {
        /// The run.
        run: u64,
        /// The guard's process id.
        pid: u32,
    },
    /// The handshake succeeded.
    Ready {
        /// The run.
        run: u64,
        /// What the handshake yielded.
        ready: R,
    },
    /// The run is over and the process reaped.
    Exited {
        /// The run.
        run: u64,
        /// How it ended, when it had begun.
        exit: Option<Exit>,
        /// Why.
        ended: Ended,
        /// The last lines of its stderr.
        stderr_tail: Vec<String>,
    },
    /// It will be started again after this delay.
    Restarting {
        /// The delay.
        delay: Duration,
    },
    /// It crashed too often; the supervisor has ended.
    GaveUp {
        /// Failures within the window of the policy.
        failures: u32,
    },
}

/// Gives orders to a supervisor. Clones share it.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    restarts: mpsc::Sender<Ended>,
}

impl SupervisorHandle {
    /// Stops the child (it hangs, or it lies) and lets the policy start it again. It counts as a failure.
    /// Asked again before the first was done, it does nothing.
    pub fn restart(&self, reason: impl Into<String>) {
        self.ask(Ended::Replaced(reason.into()));
    }

    /// Stops the child, though it is well, and starts it again at once. No failure: neither delay nor crash limit apply, so
    /// whoever asks must bound how often.
    pub fn renew(&self, reason: impl Into<String>) {
        self.ask(Ended::Renewed(reason.into()));
    }

    fn ask(&self, end: Ended) {
        // Full: one is under way. Closed: the supervisor has ended.
        let _already_asked = self.restarts.try_send(end);
    }
}

/// A running supervisor.
#[derive(Debug)]
pub struct Supervisor<R> {
    /// For orders.
    pub handle: SupervisorHandle,
    /// What happens, in order. The supervisor waits when 16 are unread, and stops the child when this is
    /// dropped.
    pub events: mpsc::Receiver<Event<R>>,
    /// Ends when the supervisor has ended and its child is reaped.
    pub task: TaskHandle<()>,
}

/// Starts supervising. Cancelling `token` stops the child with its grace, and then the supervisor.
pub fn supervise<L: Launch>(
    config: SupervisorConfig,
    token: CancellationToken,
    launch: L,
) -> Supervisor<L::Ready> {
    let (events, received) = mpsc::channel(16);
    let (restarts, asked) = mpsc::channel(1);
    let decisions = Restarts::new(config.restart.clone());
    let task = task::spawn_draining("supervisor", token, FailureMeans::Log, |token| {
        Loop { config, token, launch, events, asked, decisions }.run()
    });
    Supervisor { handle: SupervisorHandle { restarts }, events: received, task }
}

struct Loop<L: Launch> {
    config: SupervisorConfig,
    token: CancellationToken,
    launch: L,
    events: mpsc::Sender<Event<L::Ready>>,
    asked: mpsc::Receiver<Ended>,
    decisions: Restarts,
}

/// The end of one run.
struct RunEnd {
    exit: Option<Exit>,
    ended: Ended,
    stderr: Option<LogRing>,
    ready_since: Option<Instant>,
}

impl<L: Launch> Loop<L> {
    async fn run(mut self) {
        for run in 1.. {
            let end = self.one_run(run).await;
            let stopped = matches!(end.ended, Ended::Stopped);
            let renewed = matches!(end.ended, Ended::Renewed(_));
            let meant = self.config.restart.success_is_final
                && matches!(end.ended, Ended::Exited)
                && end.exit.is_some_and(|exit| exit.success());
            let stderr_tail = end.stderr.map(|ring| ring.tail()).unwrap_or_default();
            let (name, exit) = (&self.config.name, end.exit);
            if !stopped && !renewed && !meant {
                tracing::warn!(process = %name, run, ?exit, ended = ?end.ended, "a supervised process ended");
            }
            self.tell(Event::Exited { run, exit, ended: end.ended, stderr_tail }).await;
            if stopped || meant || self.events.is_closed() {
                return;
            }
            if renewed {
                self.forget_orders();
                continue;
            }
            let ready_since = end.ready_since.map(Instant::into_std);
            match self.decisions.on_end(Instant::now().into_std(), ready_since) {
                Decision::Restart { delay } => {
                    self.tell(Event::Restarting { delay }).await;
                    let pause = self.token.run_until_cancelled(tokio::time::sleep(delay));
                    if pause.await.is_none() {
                        return;
                    }
                    self.forget_orders();
                }
                Decision::GiveUp { failures } => {
                    tracing::error!(process = %self.config.name, failures, "it fails again and again; giving up");
                    self.tell(Event::GaveUp { failures }).await;
                    return;
                }
            }
        }
    }

    /// What was asked about the run that is over is done.
    fn forget_orders(&mut self) {
        while self.asked.try_recv().is_ok() {}
    }

    async fn one_run(&mut self, run: u64) -> RunEnd {
        let none = |ended| RunEnd { exit: None, ended, stderr: None, ready_since: None };
        if self.token.is_cancelled() {
            return none(Ended::Stopped);
        }
        let child = match self.launch.start(run) {
            Ok(child) => child,
            Err(error) => return none(Ended::NotStarted(error)),
        };
        let (mut exit, stderr) = (child.exit_watch(), child.stderr_log().clone());
        self.tell(Event::Started { run, pid: child.pid() }).await;
        let (ended, ready_since) = match self.ready(child).await {
            Err(ended) => (ended, None),
            Ok((child, ready)) => {
                let since = Instant::now();
                self.tell(Event::Ready { run, ready }).await;
                (self.watch(child).await, Some(since))
            }
        };
        let exit = exit.wait().await;
        RunEnd { exit: Some(exit), ended, stderr: Some(stderr), ready_since }
    }

    async fn ready(&mut self, child: Child) -> Result<(Child, L::Ready), Ended> {
        let mut exit = child.exit_watch();
        let handshake = timeout(self.config.ready_within, self.launch.handshake(child));
        tokio::pin!(handshake);
        let result = tokio::select! {
            biased;
            () = self.token.cancelled() => return Err(Ended::Stopped),
            result = &mut handshake => result,
            // Its last frames may still be in the pipe: what the handshake makes of them says more than the exit.
            _ = exit.wait() => timeout(LAST_WORDS, handshake).await.map_err(|_elapsed| Ended::Exited)?,
        };
        match result {
            Ok(Ok(ready)) => Ok(ready),
            Ok(Err(error)) => Err(Ended::HandshakeFailed(error)),
            Err(_elapsed) => Err(Ended::HandshakeTimedOut),
        }
    }

    async fn watch(&mut self, child: Child) -> Ended {
        let ended = tokio::select! {
            biased;
            () = self.token.cancelled() => Ended::Stopped,
            _ = child.wait() => return Ended::Exited,
            () = self.events.closed() => Ended::Stopped,
            Some(asked) = self.asked.recv() => asked,
        };
        child.terminate(self.config.grace).await;
        ended
    }

    /// A reader that is gone is noticed by the loop; one that is slow must not outlast the token.
    async fn tell(&mut self, event: Event<L::Ready>) {
        let sending = self.events.send(event);
        tokio::select! {
            biased;
            _sent_or_closed = sending => {}
            () = self.token.cancelled() => {}
        }
    }
}

/// What a handshake gets to read the last words of a child that has exited.
const LAST_WORDS: Duration = Duration::from_millis(100);
