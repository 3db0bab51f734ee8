//! The hook points of plan.md §8: what plugins may see and change.
//!
//! Hooks run in the order in which they were added, all of a point within a bounded time of which each has an equal share:
//! a session that hears nothing of its question asks another manager, so a hook may also see a request twice. A hook that fails, takes too long, panics
//! or leaves a request that is not valid is left out of this request, and its failure goes out as an event
//! (`tts.events.hookFailed`); the request goes on as it was before it. The list is empty by default.
//!
//! A `beforeSynthesis` hook may change the text only when it sees all of it: of a text that comes in pieces the session
//! goes on with its own words, and counts what is used up in bytes of them.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chorus_protocol::{SynthesisRequest, SynthesisResult, WorkerId};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Whatever a hook fails with.
pub type HookError = Box<dyn Error + Send + Sync>;

/// Where a hook can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookPoint {
    /// Once per opening, before anything is planned.
    BeforeSynthesis,
    /// When a session has ended, before its client gets the result.
    AfterSynthesis,
    /// A worker's start was heard of.
    OnWorkerStarted,
    /// A worker is out.
    OnWorkerStopped,
}

impl HookPoint {
    /// As plan.md names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeSynthesis => "beforeSynthesis",
            Self::AfterSynthesis => "afterSynthesis",
            Self::OnWorkerStarted => "onWorkerStarted",
            Self::OnWorkerStopped => "onWorkerStopped",
        }
    }
}

/// Something that is called at hook points. Only the points that it names are called.
pub trait Hook: Send + Sync + 'static {
    /// What it is called in events and logs.
    fn name(&self) -> &str;

    /// Where it wants to be called.
    fn points(&self) -> &[HookPoint];

    /// May change a request; its text only when that is whole.
    fn before_synthesis(
        &self,
        request: SynthesisRequest,
    ) -> BoxFuture<'_, Result<SynthesisRequest, HookError>> {
        Box::pin(std::future::ready(Ok(request)))
    }

    /// May change a result (it carries no audio).
    fn after_synthesis(&self, result: SynthesisResult) -> BoxFuture<'_, Result<SynthesisResult, HookError>> {
        Box::pin(std::future::ready(Ok(result)))
    }

    /// Sees a worker come.
    fn on_worker_started(&self, _worker: WorkerId) -> BoxFuture<'_, Result<(), HookError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Sees a worker go.
    fn on_worker_stopped(&self, _worker: WorkerId) -> BoxFuture<'_, Result<(), HookError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A hook that was left out of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookFailure {
    /// The hook.
    pub hook: String,
    /// Where it was called.
    pub point: HookPoint,
    /// What went wrong.
    pub why: String,
}

/// The hooks of a manager, in order.
#[derive(Clone)]
pub struct Hooks {
    list: Vec<Arc<dyn Hook>>,
    limit: Duration,
}

impl Hooks {
    /// These hooks, each bounded by `limit`.
    pub fn new(list: Vec<Arc<dyn Hook>>, limit: Duration) -> Self {
        Self { list, limit }
    }

    /// Whether any hook wants to be called here.
    pub fn wanted_at(&self, point: HookPoint) -> bool {
        self.at(point).next().is_some()
    }

    /// The request as the hooks leave it, and who failed. `text_is_whole`: no further text will come.
    pub async fn before(
        &self,
        mut request: SynthesisRequest,
        text_is_whole: bool,
    ) -> (SynthesisRequest, Vec<HookFailure>) {
        let mut failures = Vec::new();
        for hook in self.at(HookPoint::BeforeSynthesis) {
            let changed = self.call(hook, HookPoint::BeforeSynthesis, hook.before_synthesis(request.clone()));
            match changed
                .await
                .and_then(|changed| acceptable(hook.as_ref(), &request, changed, text_is_whole))
            {
                Ok(changed) => request = changed,
                Err(failure) => failures.push(failure),
            }
        }
        (request, failures)
    }

    /// The result as the hooks leave it, and who failed.
    pub async fn after(&self, mut result: SynthesisResult) -> (SynthesisResult, Vec<HookFailure>) {
        let mut failures = Vec::new();
        for hook in self.at(HookPoint::AfterSynthesis) {
            match self.call(hook, HookPoint::AfterSynthesis, hook.after_synthesis(result.clone())).await {
                Ok(changed) => result = changed,
                Err(failure) => failures.push(failure),
            }
        }
        (result, failures)
    }

    /// Tells of a worker that came; who failed comes back.
    pub async fn worker_started(&self, worker: &WorkerId) -> Vec<HookFailure> {
        let mut failures = Vec::new();
        for hook in self.at(HookPoint::OnWorkerStarted) {
            let call = self.call(hook, HookPoint::OnWorkerStarted, hook.on_worker_started(worker.clone()));
            failures.extend(call.await.err());
        }
        failures
    }

    /// Tells of a worker that went; who failed comes back.
    pub async fn worker_stopped(&self, worker: &WorkerId) -> Vec<HookFailure> {
        let mut failures = Vec::new();
        for hook in self.at(HookPoint::OnWorkerStopped) {
            let call = self.call(hook, HookPoint::OnWorkerStopped, hook.on_worker_stopped(worker.clone()));
            failures.extend(call.await.err());
        }
        failures
    }

    fn at(&self, point: HookPoint) -> impl Iterator<Item = &Arc<dyn Hook>> {
        self.list.iter().filter(move |hook| hook.points().contains(&point))
    }

    async fn call<T>(
        &self,
        hook: &Arc<dyn Hook>,
        point: HookPoint,
        call: BoxFuture<'_, Result<T, HookError>>,
    ) -> Result<T, HookFailure> {
        let limit = self.limit / self.at(point).count().max(1) as u32;
        let why = match tokio::time::timeout(limit, AssertUnwindSafe(call).catch_unwind()).await {
            Ok(Ok(Ok(value))) => return Ok(value),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_panic)) => "it panicked".to_owned(),
            Err(_elapsed) => format!("it took longer than {} ms", limit.as_millis()),
        };
        Err(HookFailure { hook: hook.name().to_owned(), point, why })
    }
}

fn acceptable(
    hook: &dyn Hook,
    before: &SynthesisRequest,
    changed: SynthesisRequest,
    text_is_whole: bool,
) -> Result<SynthesisRequest, HookFailure> {
    let failed =
        |why: String| HookFailure { hook: hook.name().to_owned(), point: HookPoint::BeforeSynthesis, why };
    if changed.text != before.text && !text_is_whole {
        return Err(failed("it changed a text that comes in pieces, which a hook may not".into()));
    }
    match changed.validate() {
        Err(error) if before.validate().is_ok() => {
            Err(failed(format!("it left a request that is not valid: {error}")))
        }
        _ => Ok(changed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scripted {
        name: &'static str,
        before: fn(SynthesisRequest) -> BoxFuture<'static, Result<SynthesisRequest, HookError>>,
    }

    impl Hook for Scripted {
        fn name(&self) -> &str {
            self.name
        }
        fn points(&self) -> &[HookPoint] {
            &[HookPoint::BeforeSynthesis]
        }
        fn before_synthesis(
            &self,
            request: SynthesisRequest,
        ) -> BoxFuture<'_, Result<SynthesisRequest, HookError>> {
            (self.before)(request)
        }
    }

    fn request() -> SynthesisRequest {
        SynthesisRequest { text: "hello".into(), ..SynthesisRequest::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn hooks_run_in_order_and_failing_ones_are_left_out() {
        let scripts: Vec<Arc<dyn Hook>> = vec![
            Arc::new(Scripted {
                name: "faster",
                before: |r| Box::pin(async move { Ok(SynthesisRequest { speed: Some(2.0), ..r }) }),
            }),
            Arc::new(Scripted { name: "broken", before: |_| Box::pin(async { Err("no disk".into()) }) }),
            Arc::new(Scripted { name: "slow", before: |_| Box::pin(std::future::pending()) }),
            Arc::new(Scripted { name: "bomb", before: |_| Box::pin(async { panic!("boom") }) }),
            Arc::new(Scripted {
                name: "wild",
                before: |r| Box::pin(async move { Ok(SynthesisRequest { speed: Some(99.0), ..r }) }),
            }),
            Arc::new(Scripted {
                name: "editor",
                before: |r| Box::pin(async move { Ok(SynthesisRequest { text: "bye".into(), ..r }) }),
            }),
            Arc::new(Scripted {
                name: "named",
                before: |r| {
                    Box::pin(async move { Ok(SynthesisRequest { speed: r.speed.map(|s| s + 1.0), ..r }) })
                },
            }),
        ];
        let hooks = Hooks::new(scripts, Duration::from_secs(2));
        let (changed, failures) = hooks.before(request(), false).await;
        assert_eq!((changed.speed, changed.text.as_str()), (Some(3.0), "hello"));
        let failed: Vec<&str> = failures.iter().map(|f| f.hook.as_str()).collect();
        assert_eq!(failed, ["broken", "slow", "bomb", "wild", "editor"]);
        assert!(failures[0].why.contains("no disk") && failures[1].why.contains("285 ms"));
        assert!(!hooks.wanted_at(HookPoint::AfterSynthesis));

        let (changed, failures) = hooks.before(request(), true).await;
        assert_eq!((changed.text.as_str(), failures.len()), ("bye", 4), "a whole text may be changed");
    }

    #[tokio::test]
    async fn no_hooks_change_nothing() {
        let hooks = Hooks::new(Vec::new(), Duration::from_secs(2));
        assert_eq!(hooks.before(request(), true).await, (request(), Vec::new()));
        assert!(hooks.worker_started(&WorkerId::new("w").unwrap()).await.is_empty());
    }
}
