//! One child process: its handle, and the task that watches and reaps it.
//!
//! [`Child::spawn`] starts the process and a watcher task that owns it. The handle gives orders (terminate, kill) and
//! reads the exit; dropping the handle is the order to kill. So the process is always reaped, whoever forgets
//! it. If the runtime itself goes away, the lifeline closes and the guard ends the group.

mod watcher;

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::framing::{FrameReader, FrameWriter};
use super::launch::{SpawnError, launch};
use super::logs::{LogRing, Stream, drain};
use super::spec::{GuardBinary, ProcessSpec};
use super::tree;
use crate::task::{self, FailureMeans, TaskHandle};
use watcher::{Group, Order};

/// How a process ended. A guarded child that a signal ended has both: 128 + signal, and the signal; a guarded
/// child that itself exits with such a code looks the same. Neither is known when the process could not be
/// reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, when there was one.
    pub code: Option<i32>,
    /// The signal that ended it, when one did.
    pub signal: Option<i32>,
}

impl Exit {
    /// An end of which nothing is known.
    pub const UNKNOWN: Exit = Exit { code: None, signal: None };

    /// Whether it exited with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    pub(super) fn from_status(status: ExitStatus, guarded: bool) -> Self {
        let code = status.code();
        let told_by_guard = code.filter(|_| guarded).map(|code| code - 128).filter(|n| (1..=64).contains(n));
        Self { code, signal: status.signal().or(told_by_guard) }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.signal, self.code) {
            (Some(signal), _) => write!(formatter, "signal {signal}"),
            (None, Some(code)) => write!(formatter, "exit code {code}"),
            (None, None) => formatter.write_str("unknown exit"),
        }
    }
}

/// Tells when and how a child ended; clones can wait in several places.
#[derive(Debug, Clone)]
pub struct ExitWatch {
    exit: watch::Receiver<Option<Exit>>,
}

impl ExitWatch {
    /// The exit, if the child has ended.
    pub fn peek(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for the end; [`Exit::UNKNOWN`] when the runtime that watched went away. Cancel-safe.
    pub async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::UNKNOWN),
            Err(_watcher_gone) => Exit::UNKNOWN,
        }
    }
}

/// Our two ends of a child's data pipe.
#[derive(Debug)]
pub struct FramePipe {
    /// What the child writes.
    pub reader: pipe::Receiver,
    /// What the child reads; dropping it is its end of file.
    pub writer: pipe::Sender,
}

impl FramePipe {
    /// The pipe as frames of at most `max_bytes` each.
    pub fn framed(self, max_bytes: usize) -> (FrameReader<pipe::Receiver>, FrameWriter<pipe::Sender>) {
        (FrameReader::new(self.reader, max_bytes), FrameWriter::new(self.writer, max_bytes))
    }
}

/// Finds the program of a child, which under a guard has a process id of its own.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    leader: u32,
    guarded: bool,
}

impl Program {
    /// Its process id, the same from its first word to its end. The guard's where only that is known: before the guard
    /// has started it, after its end, and on other systems than Linux.
    pub fn pid(self) -> u32 {
        // A guard has one child. Orphans of the program are not the guard's: they go to init.
        let below = if self.guarded { tree::children(self.leader).first().copied() } else { None };
        below.unwrap_or(self.leader)
    }
}

/// A running child process. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: u32,
    guarded: bool,
    orders: watch::Sender<Order>,
    exit: ExitWatch,
    frames: Option<FramePipe>,
    stdout: LogRing,
    stderr: LogRing,
}

impl Child {
    /// Starts the process of `spec`. To be called inside a runtime.
    pub fn spawn(spec: &ProcessSpec) -> Result<Self, SpawnError> {
        let launched = launch(spec)?;
        let (stdout, stderr) = (LogRing::new(&spec.logs), LogRing::new(&spec.logs));
        let ends = launched.ends;
        let drains = [(Stream::Stdout, ends.stdout, &stdout), (Stream::Stderr, ends.stderr, &stderr)];
        let drains = drains
            .into_iter()
            .filter_map(|(stream, source, ring)| Some(start_drain(spec, stream, source?, ring.clone())))
            .collect();
        let guarded = spec.guard != GuardBinary::Unguarded;
        let group = Group::new(spec.name.clone(), launched.pid, launched.lifeline, guarded);
        let (orders, received) = watch::channel(Order::Run);
        let (publish, exit) = watch::channel(None);
        let watching = watcher::watch(launched.process, group, drains, received, publish);
        // Fire and forget: the watcher ends with the process, and its messages are the orders and the exit.
        drop(task::spawn("child", CancellationToken::new(), FailureMeans::Log, watching));
        let pid = launched.pid.as_raw_nonzero().get().unsigned_abs();
        tracing::debug!(process = %spec.name, pid, program = %spec.program.display(), "started a process");
        let (name, frames) = (spec.name.clone(), ends.frames);
        Ok(Self { name, pid, guarded, orders, exit: ExitWatch { exit }, frames, stdout, stderr })
    }

    /// The name in its spec.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the guard (of the program itself when unguarded); also the id of the process group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The program itself, which [`Child::pid`] is not where there is a guard.
    pub fn program(&self) -> Program {
        Program { leader: self.pid, guarded: self.guarded }
    }

    /// The data pipe, once; `None` when the spec asked for none or it was taken.
    pub fn take_frames(&mut self) -> Option<FramePipe> {
        self.frames.take()
    }

    /// What it printed on stdout.
    pub fn stdout_log(&self) -> &LogRing {
        &self.stdout
    }

    /// What it printed on stderr.
    pub fn stderr_log(&self) -> &LogRing {
        &self.stderr
    }

    /// A watch on its end.
    pub fn exit_watch(&self) -> ExitWatch {
        self.exit.clone()
    }

    /// Waits for its end. The logs are complete then, unless something outside its group still holds their
    /// pipe.
    pub async fn wait(&self) -> Exit {
        self.exit_watch().wait().await
    }

    /// SIGTERM to the group, `grace`, SIGKILL to the group; waits until it is reaped.
    pub async fn terminate(&self, grace: Duration) -> Exit {
        self.order(Order::Terminate(grace));
        self.wait().await
    }

    /// SIGKILL to the group; waits until it is reaped.
    pub async fn kill(&self) -> Exit {
        self.order(Order::Kill);
        self.wait().await
    }

    fn order(&self, order: Order) {
        // A watcher that is gone has nothing left to do.
        self.orders.send_replace(order);
    }
}

fn start_drain(spec: &ProcessSpec, stream: Stream, source: pipe::Receiver, ring: LogRing) -> TaskHandle<()> {
    let draining = drain(spec.name.clone(), stream, source, spec.logs.clone(), ring);
    task::spawn("child-output", CancellationToken::new(), FailureMeans::Log, draining)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_read_through_the_guard() {
        let killed = Exit::from_status(ExitStatus::from_raw(137 << 8), true);
        assert_eq!(killed, Exit { code: Some(137), signal: Some(9) });
        assert_eq!(killed.to_string(), "signal 9");
        let odd = Exit::from_status(ExitStatus::from_raw(137 << 8), false);
        assert_eq!(odd.to_string(), "exit code 137");
        assert!(Exit::from_status(ExitStatus::from_raw(0), true).success());
        assert_eq!(Exit::from_status(ExitStatus::from_raw(255 << 8), true).signal, None);
        assert_eq!(Exit::UNKNOWN.to_string(), "unknown exit");
    }
}
