//! The one place that spawns tasks, so that each has a name, a cancellation and a meaning of its failure.
//!
//! [`spawn`] ends its future when the token is cancelled; [`spawn_draining`] hands the token to the future, which ends
//! itself in good order. A panic is caught in place, logged with the task's name and treated as
//! [`FailureMeans`] says. Tasks that must be joined at the end live in a [`TaskGroup`],
//! whose join is bounded. A spawn costs one tokio task and no allocation more.

pub mod group;

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use group::{GroupReport, TaskGroup};

/// What the failure of a task (a panic, or an error from [`try_spawn`]) means for those around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureMeans {
    /// It is logged as an error; the others go on.
    Log,
    /// It is logged, and the token the task was spawned with is cancelled: the scope cannot do without this
    /// task.
    CancelScope,
}

/// How a task ended when it did not end with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnd {
    /// Its token was cancelled, it was aborted, or the runtime went away.
    #[error("the task was cancelled")]
    Cancelled,
    /// It panicked, with this message.
    #[error("the task panicked: {0}")]
    Panicked(String),
}

/// A spawned task. Awaiting it gives the value; dropping it lets the task go on.
#[derive(Debug)]
pub struct TaskHandle<T> {
    name: &'static str,
    join: JoinHandle<Result<T, TaskEnd>>,
}

impl<T> TaskHandle<T> {
    /// The name given at the spawn.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.join.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }

    /// A handle that can abort the task and nothing else.
    pub fn abort_handle(&self) -> AbortHandle {
        self.join.abort_handle()
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskEnd>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.join.poll_unpin(context).map(|joined| match joined {
            Ok(end) => end,
            Err(error) if error.is_panic() => Err(TaskEnd::Panicked(panic_message(&*error.into_panic()))),
            Err(_) => Err(TaskEnd::Cancelled),
        })
    }
}

/// Spawns `future` under `name`. When `token` is cancelled the future is dropped at its next await.
pub fn spawn<T, F>(
    name: &'static str,
    token: CancellationToken,
    on_failure: FailureMeans,
    future: F,
) -> TaskHandle<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    start(name, cancellable(name, token, on_failure, future))
}

/// Like [`spawn`], for a task whose `Err` is a failure too: it is logged and treated as `on_failure` says.
pub fn try_spawn<T, E, F>(
    name: &'static str,
    token: CancellationToken,
    on_failure: FailureMeans,
    future: F,
) -> TaskHandle<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Display + Send + 'static,
{
    let scope = token.clone();
    let judged = async move {
        let result = future.await;
        if let Err(error) = &result {
            tracing::error!(task = name, %error, "task failed");
            act_on_failure(on_failure, &scope);
        }
        result
    };
    start(name, cancellable(name, token, on_failure, judged))
}

/// Spawns a task that watches the token itself and ends in good order after it is cancelled. Nothing drops it
/// from outside but the end of the runtime or [`TaskHandle::abort`], so the caller bounds the wait for it.
pub fn spawn_draining<T, F, M>(
    name: &'static str,
    token: CancellationToken,
    on_failure: FailureMeans,
    make: M,
) -> TaskHandle<T>
where
    M: FnOnce(CancellationToken) -> F,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let future = make(token.clone());
    start(name, guarded(name, token, on_failure, future))
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that spawns, and it names and guards the task"
)]
fn start<T, F>(name: &'static str, future: F) -> TaskHandle<T>
where
    F: Future<Output = Result<T, TaskEnd>> + Send + 'static,
    T: Send + 'static,
{
    TaskHandle { name, join: tokio::spawn(future.instrument(task_span(name))) }
}

/// A span with the task's name at debug level, else the caller's own span, so that logs keep their request.
pub(crate) fn task_span(name: &'static str) -> tracing::Span {
    let span = tracing::debug_span!("task", task = name);
    if span.is_disabled() { tracing::Span::current() } else { span }
}

pub(crate) async fn cancellable<T>(
    name: &'static str,
    token: CancellationToken,
    on_failure: FailureMeans,
    future: impl Future<Output = T> + Send,
) -> Result<T, TaskEnd> {
    let bounded = token.run_until_cancelled(future);
    guarded(name, token.clone(), on_failure, bounded).await?.ok_or(TaskEnd::Cancelled)
}

pub(crate) async fn guarded<T>(
    name: &'static str,
    token: CancellationToken,
    on_failure: FailureMeans,
    future: impl Future<Output = T> + Send,
) -> Result<T, TaskEnd> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| {
        let message = panic_message(&*panic);
        tracing::error!(task = name, panic = %message, "task panicked");
        act_on_failure(on_failure, &token);
        TaskEnd::Panicked(message)
    })
}

fn act_on_failure(on_failure: FailureMeans, scope: &CancellationToken) {
    match on_failure {
        FailureMeans::Log => {}
        FailureMeans::CancelScope => scope.cancel(),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&'static str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_comes_back() {
        let task = spawn("adder", CancellationToken::new(), FailureMeans::Log, async { 1 + 1 });
        assert_eq!(task.name(), "adder");
        assert_eq!(task.await, Ok(2));
    }

    #[tokio::test]
    async fn a_panic_is_caught_and_cancels_the_scope() {
        let token = CancellationToken::new();
        let task = spawn("bomb", token.clone(), FailureMeans::CancelScope, async { panic!("boom {}", 1) });
        let end: Result<(), TaskEnd> = task.await;
        assert_eq!(end, Err(TaskEnd::Panicked("boom 1".to_owned())));
        assert!(token.is_cancelled());
    }

    #[tokio::test]
    async fn a_logged_panic_leaves_the_scope_alone() {
        let token = CancellationToken::new();
        let end: Result<(), TaskEnd> =
            spawn("bomb", token.clone(), FailureMeans::Log, async { panic!("boom") }).await;
        assert!(matches!(end, Err(TaskEnd::Panicked(_))));
        assert!(!token.is_cancelled());
    }

    #[tokio::test]
    async fn an_error_cancels_the_scope_too() {
        let token = CancellationToken::new();
        let task =
            try_spawn("loop", token.clone(), FailureMeans::CancelScope, async { Err::<(), _>("no broker") });
        assert_eq!(task.await, Ok(Err("no broker")));
        assert!(token.is_cancelled());
    }

    #[tokio::test]
    async fn cancelling_ends_a_plain_task_and_a_draining_one_ends_itself() {
        let token = CancellationToken::new();
        let plain = spawn("plain", token.clone(), FailureMeans::Log, std::future::pending::<()>());
        let draining = spawn_draining("draining", token.clone(), FailureMeans::Log, |token| async move {
            token.cancelled().await;
            "drained"
        });
        token.cancel();
        assert_eq!(plain.await, Err(TaskEnd::Cancelled));
        assert_eq!(draining.await, Ok("drained"));
    }

    #[tokio::test]
    async fn abort_is_a_cancellation() {
        let task = spawn("stuck", CancellationToken::new(), FailureMeans::Log, std::future::pending::<()>());
        task.abort();
        assert_eq!(task.await, Err(TaskEnd::Cancelled));
    }
}
