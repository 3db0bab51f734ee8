//! A group of tasks that end together: spawned through `&self`, joined once, within a bound.
//!
//! The group owns a token (a child of the one it was made with). [`TaskGroup::join`] cancels nothing by
//! itself: cancel the token first to ask the tasks to stop, then join; those that overrun the limit are
//! aborted and reported by name.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{FailureMeans, TaskEnd, cancellable, guarded, task_span};

/// What became of a group's tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Tasks that ended with their value or by cancellation.
    pub ended: usize,
    /// Names of tasks that panicked.
    pub panicked: Vec<&'static str>,
    /// Names of tasks that were still running at the limit and were aborted.
    pub overran: Vec<&'static str>,
}

type Joined = Result<(Id, Result<(), TaskEnd>), JoinError>;

#[derive(Default)]
struct Members {
    set: JoinSet<Result<(), TaskEnd>>,
    names: HashMap<Id, &'static str>,
    report: GroupReport,
}

impl Members {
    fn record(&mut self, joined: Joined) {
        let (id, panicked) = match joined {
            Ok((id, end)) => (id, matches!(end, Err(TaskEnd::Panicked(_)))),
            Err(error) => (error.id(), error.is_panic()),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        if panicked {
            self.report.panicked.push(name);
        } else {
            self.report.ended += 1;
        }
    }

    fn reap_finished(&mut self) {
        while let Some(joined) = self.set.try_join_next_with_id() {
            self.record(joined);
        }
    }
}

/// Tasks under one token. Clones share the group; tasks still running when the last clone is dropped are
/// aborted.
#[derive(Clone)]
pub struct TaskGroup {
    name: &'static str,
    token: CancellationToken,
    members: Arc<Mutex<Members>>,
    /// Closed from the start, so that it can be waited on whenever it is empty.
    tracker: TaskTracker,
}

impl TaskGroup {
    /// An empty group whose token is a child of `parent`.
    pub fn new(name: &'static str, parent: &CancellationToken) -> Self {
        let tracker = TaskTracker::new();
        tracker.close();
        Self { name, token: parent.child_token(), members: Arc::default(), tracker }
    }

    /// The token of the group: cancel it to ask every member to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Tasks that have not ended yet.
    pub fn running(&self) -> usize {
        let mut members = self.lock();
        members.reap_finished();
        members.set.len()
    }

    /// Waits until no member runs. Cancel-safe; cancels nothing, and members may be added again after it.
    pub async fn idle(&self) {
        self.tracker.wait().await;
    }

    /// Adds a task that is dropped at its next await once the group's token is cancelled.
    pub fn spawn(
        &self,
        name: &'static str,
        on_failure: FailureMeans,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        self.add(name, cancellable(name, self.token.clone(), on_failure, future));
    }

    /// Adds a task that watches the group's token itself and ends in good order.
    pub fn spawn_draining<F>(
        &self,
        name: &'static str,
        on_failure: FailureMeans,
        make: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = make(self.token.clone());
        self.add(name, guarded(name, self.token.clone(), on_failure, future));
    }

    /// Waits for every member, `limit` at most; aborts and names those that overran. Dropping the future
    /// aborts them all.
    pub async fn join(&self, limit: Duration) -> GroupReport {
        let mut set = std::mem::take(&mut self.lock().set);
        let all_joined = async {
            while let Some(joined) = set.join_next_with_id().await {
                self.lock().record(joined);
            }
        };
        let in_time = tokio::time::timeout(limit, all_joined).await.is_ok();
        let mut members = self.lock();
        if !in_time {
            while let Some(joined) = set.try_join_next_with_id() {
                members.record(joined);
            }
            set.abort_all();
            let mut overran: Vec<_> = members.names.drain().map(|(_, name)| name).collect();
            overran.sort_unstable();
            tracing::warn!(group = self.name, ?overran, ?limit, "tasks overran their limit and were aborted");
            members.report.overran.extend(overran);
        }
        std::mem::take(&mut members.report)
    }

    fn add(&self, name: &'static str, future: impl Future<Output = Result<(), TaskEnd>> + Send + 'static) {
        let mut members = self.lock();
        members.reap_finished();
        let tracked = self.tracker.track_future(future.instrument(task_span(name)));
        let id = members.set.spawn(tracked).id();
        members.names.insert(id, name);
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn join_names_those_that_overran_and_those_that_panicked() {
        let root = CancellationToken::new();
        let group = TaskGroup::new("test", &root);
        group.spawn("quick", FailureMeans::Log, async {});
        group.spawn("bomb", FailureMeans::Log, async { panic!("boom") });
        group.spawn_draining("stuck", FailureMeans::Log, |_| std::future::pending());
        group.spawn("waits", FailureMeans::Log, std::future::pending());
        root.cancel();
        let report = group.join(Duration::from_secs(5)).await;
        // A task whose token was cancelled before its first poll may end either way, but it ends.
        assert_eq!(report.ended + report.panicked.len(), 3);
        assert_eq!(report.overran, ["stuck"]);
        assert_eq!(group.running(), 0);
    }

    #[tokio::test]
    async fn a_long_lived_group_forgets_the_finished() {
        let group = TaskGroup::new("test", &CancellationToken::new());
        for _ in 0..1_000 {
            group.spawn("short", FailureMeans::Log, async {});
            tokio::task::yield_now().await;
        }
        assert!(group.lock().names.len() < 10);
        assert_eq!(group.join(Duration::from_secs(5)).await.ended, 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_is_idle_when_its_last_member_has_ended_and_not_before() {
        let group = TaskGroup::new("test", &CancellationToken::new());
        group.idle().await;
        for _ in 0..2 {
            group.spawn("waits", FailureMeans::Log, std::future::pending());
            let second = Duration::from_secs(1);
            group.spawn("sleeps", FailureMeans::Log, tokio::time::sleep(second));
            assert!(tokio::time::timeout(2 * second, group.idle()).await.is_err());
            group.lock().set.abort_all();
            group.idle().await;
        }
    }

    #[tokio::test]
    async fn a_failure_can_cancel_the_group() {
        let group = TaskGroup::new("test", &CancellationToken::new());
        group.spawn("waits", FailureMeans::Log, std::future::pending());
        group.spawn("bomb", FailureMeans::CancelScope, async { panic!("boom") });
        let report = group.join(Duration::from_secs(5)).await;
        assert_eq!((report.ended, report.panicked), (1, vec!["bomb"]));
    }
}
