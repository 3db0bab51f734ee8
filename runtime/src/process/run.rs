//! Runs one process to its end: a provisioning step, a probe. Lines stream to a callback; time is bounded.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::child::{Child, Exit};
use super::launch::SpawnError;
use super::logs::LogSink;
use super::spec::ProcessSpec;

/// The bounds of a run.
#[derive(Debug, Clone)]
pub struct RunLimits {
    /// It is terminated when it takes longer.
    pub timeout: Duration,
    /// It is terminated when this is cancelled.
    pub token: CancellationToken,
}

/// What a process that ended well has said. The bounds of [`LogPolicy`](super::LogPolicy) apply: the last
/// lines are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit, always code 0 here.
    pub exit: Exit,
    /// Its last lines on stdout.
    pub stdout: Vec<String>,
    /// Its last lines on stderr.
    pub stderr: Vec<String>,
}

/// Why a run did not end well. The tail is the last lines of stderr, or of stdout where stderr is empty.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It ended with another code than 0, or by a signal.
    #[error("{name} ended with {exit}: {tail}")]
    Failed {
        /// The name in the spec.
        name: String,
        /// Its exit.
        exit: Exit,
        /// Its last words.
        tail: String,
    },
    /// It took too long and was terminated.
    #[error("{name} took longer than {timeout:?}: {tail}")]
    TimedOut {
        /// The name in the spec.
        name: String,
        /// The limit.
        timeout: Duration,
        /// Its last words.
        tail: String,
    },
    /// The token was cancelled and it was terminated.
    #[error("{name} was cancelled")]
    Cancelled {
        /// The name in the spec.
        name: String,
    },
}

/// Runs `spec` to its end. Each line goes to `on_line` as it comes, within the rate of the spec's log policy.
/// When the future is dropped the process is killed.
pub async fn run_to_end(spec: ProcessSpec, limits: RunLimits, on_line: LogSink) -> Result<Output, RunError> {
    let mut spec = spec;
    spec.logs.sink = Some(on_line);
    let child = Child::spawn(&spec)?;
    let tail = |child: &Child| match child.stderr_log().text() {
        nothing if nothing.is_empty() => child.stdout_log().text(),
        text => text,
    };
    let bounded = tokio::time::timeout(limits.timeout, child.wait());
    match limits.token.run_until_cancelled(bounded).await {
        Some(Ok(exit)) if exit.success() => {
            Ok(Output { exit, stdout: child.stdout_log().tail(), stderr: child.stderr_log().tail() })
        }
        Some(Ok(exit)) => Err(RunError::Failed { name: spec.name, exit, tail: tail(&child) }),
        Some(Err(_elapsed)) => {
            child.terminate(spec.grace).await;
            Err(RunError::TimedOut { name: spec.name, timeout: limits.timeout, tail: tail(&child) })
        }
        None => {
            child.terminate(spec.grace).await;
            Err(RunError::Cancelled { name: spec.name })
        }
    }
}
