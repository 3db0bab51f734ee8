//! The task behind a [`Child`](super::Child): follows orders, escalates on time, reaps, publishes the exit.

use std::io::{self, Write};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Exit;
use crate::process::guard::KILL_NOW;
use crate::task::TaskHandle;

/// What the guard gets to end the group and reap its child when told to, before we kill the group ourselves.
const GUARD_MARGIN: Duration = Duration::from_millis(500);
/// A process that SIGKILL does not end within this hangs in the kernel; its exit is given up, not its
/// reaping.
const KERNEL_MARGIN: Duration = Duration::from_secs(5);
/// After the end of the group, what is left in the log pipes is read for this long at most.
const DRAIN_MARGIN: Duration = Duration::from_millis(250);

/// What the holder of a child wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Let it run.
    Run,
    /// SIGTERM, this grace, SIGKILL.
    Terminate(Duration),
    /// SIGKILL.
    Kill,
}

/// How far the ending of the group has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Terminating,
    GuardKills,
    GroupKilled,
    GivenUp,
}

/// A process group we started and have not reaped.
pub(super) struct Group {
    name: String,
    pid: Pid,
    lifeline: Option<io::PipeWriter>,
    guarded: bool,
    reaped: bool,
}

impl Group {
    pub(super) fn new(name: String, pid: Pid, lifeline: Option<io::PipeWriter>, guarded: bool) -> Self {
        Self { name, pid, lifeline, guarded, reaped: false }
    }

    fn signal(&self, number: Signal) {
        // The only error that can come is that the group is gone.
        if let Err(error) = kill_process_group(self.pid, number) {
            tracing::trace!(process = %self.name, %error, "no group to signal");
        }
    }

    /// Tells the guard to kill; false when there is none that listens.
    fn tell_guard(&mut self) -> bool {
        self.lifeline.as_mut().is_some_and(|lifeline| lifeline.write_all(&[KILL_NOW]).is_ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only when the runtime goes away before the process did. With a guard, closing the lifeline is enough.
        if !self.reaped && !self.guarded {
            self.signal(Signal::KILL);
        }
    }
}

pub(super) async fn watch(
    mut process: tokio::process::Child,
    mut group: Group,
    drains: Vec<TaskHandle<()>>,
    mut orders: watch::Receiver<Order>,
    publish: watch::Sender<Option<Exit>>,
) {
    let mut stage = Stage::Running;
    let mut deadline: Option<Instant> = None;
    let mut handle_held = true;
    let status = loop {
        let stage_over = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (next, left) = tokio::select! {
            status = process.wait() => break status,
            changed = orders.changed(), if handle_held => {
                handle_held = changed.is_ok();
                let order = if handle_held { *orders.borrow_and_update() } else { Order::Kill };
                match obey(order, stage, &mut group) {
                    Some(step) => step,
                    None => continue,
                }
            }
            () = stage_over => escalate(stage, &mut group, &publish),
        };
        stage = next;
        deadline = left.map(|left| Instant::now() + left);
    };
    // Before anything else: what is left of the group, while its id cannot have been used again.
    group.signal(Signal::KILL);
    group.reaped = true;
    finish_drains(drains).await;
    let exit = status.map_or(Exit::UNKNOWN, |status| Exit::from_status(status, group.guarded));
    tracing::debug!(process = %group.name, %exit, "a process ended");
    publish.send_if_modified(|known| known.replace(exit).is_none());
}

type Step = (Stage, Option<Duration>);

fn obey(order: Order, stage: Stage, group: &mut Group) -> Option<Step> {
    match (order, stage) {
        (Order::Terminate(grace), Stage::Running) => {
            group.signal(Signal::TERM);
            Some((Stage::Terminating, Some(grace)))
        }
        (Order::Kill, Stage::Running | Stage::Terminating) => Some(kill(group)),
        _ => None,
    }
}

fn escalate(stage: Stage, group: &mut Group, publish: &watch::Sender<Option<Exit>>) -> Step {
    match stage {
        Stage::Running | Stage::Terminating => {
            tracing::debug!(process = %group.name, "still there after its grace, killing it");
            kill(group)
        }
        Stage::GuardKills => kill_group(group),
        Stage::GroupKilled | Stage::GivenUp => {
            tracing::error!(process = %group.name, pid = %group.pid, "SIGKILL does not end it");
            publish.send_replace(Some(Exit::UNKNOWN));
            (Stage::GivenUp, None)
        }
    }
}

fn kill(group: &mut Group) -> Step {
    if group.tell_guard() {
        return (Stage::GuardKills, Some(GUARD_MARGIN));
    }
    kill_group(group)
}

fn kill_group(group: &mut Group) -> Step {
    group.signal(Signal::KILL);
    (Stage::GroupKilled, Some(KERNEL_MARGIN))
}

async fn finish_drains(drains: Vec<TaskHandle<()>>) {
    let deadline = Instant::now() + DRAIN_MARGIN;
    for mut drain in drains {
        if tokio::time::timeout_at(deadline, &mut drain).await.is_err() {
            drain.abort();
        }
    }
}
