//! The one shutdown path, for SIGINT, SIGTERM and a request from within.
//!
//! The first signal cancels the *soft* token: stop taking work, finish what runs. `main` then goes through
//! its phases, each a [`Shutdown::drain`] with a bound. A second signal cancels the *hard* token, the root of
//! the tree: every drain ends at once. [`Shutdown::exit_code`] says what a shell expects of an interrupted
//! job (128 + signal number).

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::task::{self, FailureMeans, TaskHandle};

/// A signal that asks this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT, from Ctrl-C.
    Interrupt,
    /// SIGTERM, from a supervisor.
    Terminate,
}

impl StopSignal {
    /// 128 + the signal's number: 130 or 143.
    pub fn exit_code(self) -> u8 {
        match self {
            StopSignal::Interrupt => 130,
            StopSignal::Terminate => 143,
        }
    }
}

/// Why the process is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A signal came.
    Signal(StopSignal),
    /// The process decided so itself: its job is done, or a part that it needs has failed.
    Requested(&'static str),
}

/// How a drain phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained<T> {
    /// In time, with this value.
    Done(T),
    /// The limit passed first.
    Overran,
    /// A second signal cut it short.
    CutShort,
}

impl<T> Drained<T> {
    /// The value, when the phase ended in time.
    pub fn done(self) -> Option<T> {
        match self {
            Drained::Done(value) => Some(value),
            Drained::Overran | Drained::CutShort => None,
        }
    }
}

/// The handle on the process's end. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hard: CancellationToken,
    soft: CancellationToken,
    cause: OnceLock<Cause>,
}

impl Default for Shared {
    fn default() -> Self {
        let hard = CancellationToken::new();
        let soft = hard.child_token();
        Self { hard, soft, cause: OnceLock::new() }
    }
}

impl Shutdown {
    /// A shutdown that no signal reaches yet; see [`Shutdown::listen`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for SIGINT and SIGTERM from now on. To be called once, inside a runtime, before work begins.
    pub fn listen(&self) -> io::Result<TaskHandle<()>> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        let listening = async move {
            loop {
                let received = tokio::select! {
                    Some(()) = interrupts.recv() => StopSignal::Interrupt,
                    Some(()) = terminations.recv() => StopSignal::Terminate,
                    else => return,
                };
                shutdown.on_signal(received);
            }
        };
        // The listener outlives the soft token: it must still hear the second signal.
        Ok(task::spawn("signals", CancellationToken::new(), FailureMeans::Log, listening))
    }

    /// A token cancelled when the process should stop taking work. A child: cancelling it stops nothing else.
    pub fn token(&self) -> CancellationToken {
        self.shared.soft.child_token()
    }

    /// A token cancelled only when nothing may wait any longer.
    pub fn hard_token(&self) -> CancellationToken {
        self.shared.hard.child_token()
    }

    /// Asks for the end from within. The first cause stands.
    pub fn request(&self, reason: &'static str) {
        if self.shared.cause.set(Cause::Requested(reason)).is_ok() {
            tracing::info!(reason, "stopping");
        }
        self.shared.soft.cancel();
    }

    /// What a signal does: the first asks for the end, a second one forces it.
    pub fn on_signal(&self, received: StopSignal) {
        let first_signal =
            !matches!(self.cause(), Some(Cause::Signal(_))) && !self.shared.soft.is_cancelled();
        if first_signal {
            tracing::info!(signal = ?received, "stopping; a second signal stops at once");
            let _already_caused = self.shared.cause.set(Cause::Signal(received));
            self.shared.soft.cancel();
        } else {
            tracing::warn!(signal = ?received, "stopping at once");
            self.shared.hard.cancel();
        }
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.shared.soft.is_cancelled()
    }

    /// Waits until the end is asked for.
    pub async fn requested(&self) {
        self.shared.soft.cancelled().await;
    }

    /// Why the process is stopping, once it is.
    pub fn cause(&self) -> Option<Cause> {
        self.shared.cause.get().copied()
    }

    /// The exit code: `job` when the main job came to its end, else 130 or 143 when a signal interrupted it.
    pub fn exit_code(&self, job: Option<u8>) -> u8 {
        match (job, self.cause()) {
            (Some(code), _) => code,
            (None, Some(Cause::Signal(received))) => received.exit_code(),
            (None, _) => 1,
        }
    }

    /// Runs one phase of the end under a bound, and logs how it went.
    pub async fn drain<T>(
        &self,
        phase: &'static str,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Drained<T> {
        let bounded = self.shared.hard.run_until_cancelled(tokio::time::timeout(limit, future));
        match bounded.await {
            Some(Ok(value)) => {
                tracing::debug!(phase, "drained");
                Drained::Done(value)
            }
            Some(Err(_elapsed)) => {
                tracing::warn!(phase, ?limit, "drain overran its limit");
                Drained::Overran
            }
            None => {
                tracing::warn!(phase, "drain cut short");
                Drained::CutShort
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_signal_is_soft_and_second_is_hard() {
        let shutdown = Shutdown::new();
        let (soft, hard) = (shutdown.token(), shutdown.hard_token());
        shutdown.on_signal(StopSignal::Terminate);
        assert!(soft.is_cancelled() && !hard.is_cancelled());
        let long = Duration::from_secs(60);
        assert_eq!(shutdown.drain("work", long, async { 5 }).await, Drained::Done(5));
        assert_eq!(shutdown.drain("stuck", long, std::future::pending::<()>()).await, Drained::Overran);
        shutdown.on_signal(StopSignal::Interrupt);
        assert!(hard.is_cancelled());
        assert_eq!(shutdown.drain("stuck", long, std::future::pending::<()>()).await.done(), None);
        assert_eq!(shutdown.exit_code(None), 143);
        assert_eq!(shutdown.exit_code(Some(0)), 0);
    }

    #[tokio::test]
    async fn a_request_from_within_keeps_its_cause_and_a_signal_then_forces() {
        let shutdown = Shutdown::new();
        shutdown.request("job done");
        shutdown.requested().await;
        shutdown.on_signal(StopSignal::Interrupt);
        assert_eq!(shutdown.cause(), Some(Cause::Requested("job done")));
        assert!(shutdown.hard_token().is_cancelled());
        assert_eq!(shutdown.exit_code(None), 1);
    }

    #[test]
    fn codes_are_what_a_shell_expects() {
        assert_eq!(StopSignal::Interrupt.exit_code(), 130);
        assert_eq!(StopSignal::Terminate.exit_code(), 143);
    }
}
