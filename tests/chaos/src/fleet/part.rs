//! One part of the fleet: a process that is started, struck, and started again.

use std::time::{Duration, Instant};

use chorus_runtime::process::{Child, ProcessSpec, children};
use rustix::process::Signal;

use super::{GRACE, POLL, READY_WITHIN};
use crate::error::ChaosError;
use crate::proc;

/// Lines of a part's log that go into an error.
const TAIL: usize = 5;
/// How long a SIGKILL may take to be seen.
const REAPED_WITHIN: Duration = Duration::from_secs(5);

/// The process, and how it is started.
pub(crate) struct PartProcess {
    pub(crate) name: String,
    pub(crate) spec: ProcessSpec,
    running: Option<(Child, u32)>,
}

impl PartProcess {
    pub(crate) fn new(name: &str, spec: ProcessSpec) -> Self {
        Self { name: name.to_owned(), spec, running: None }
    }

    /// Starts it, unless it runs. Its own process is the one child of its guard.
    pub(crate) async fn start(&mut self) -> Result<(), ChaosError> {
        if self.running.is_some() {
            return Ok(());
        }
        let child = Child::spawn(&self.spec)?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(&pid) = children(child.pid()).first() {
                self.running = Some((child, pid));
                return Ok(());
            }
            if Instant::now() > deadline || child.exit_watch().peek().is_some() {
                let tail = child.stderr_log().text();
                return Err(ChaosError::NotReady { part: self.name.clone(), tail });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Its process, while it was not ended by a step.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|(_, pid)| *pid)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), ChaosError> {
        self.pid().map_or(Ok(()), |pid| proc::signal(pid, signal))
    }

    /// SIGKILL to the process alone; what it has started must see to itself.
    pub(crate) async fn kill(&mut self) {
        if let Some((child, pid)) = self.running.take() {
            if let Err(error) = proc::signal(pid, Signal::KILL) {
                tracing::warn!(%error, part = %self.name, "not killed by its id; its group is");
            }
            if tokio::time::timeout(REAPED_WITHIN, child.wait()).await.is_err() {
                child.kill().await;
            }
        }
    }

    /// SIGTERM, and its end within its grace.
    pub(crate) async fn terminate(&mut self) {
        if let Some((child, _)) = self.running.take() {
            child.terminate(GRACE).await;
        }
    }

    /// The error that it was not ready in time.
    pub(crate) fn not_ready(&self) -> ChaosError {
        let log = self.running.as_ref().map(|(child, _)| child.stderr_log().text()).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(TAIL).collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
        ChaosError::NotReady { part: self.name.clone(), tail }
    }
}
