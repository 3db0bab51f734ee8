//! A manager's life: start, serve, stop.
//!
//! The start waits for the broker (services may come up in any order), makes sure of streams and buckets, knows the
//! catalogue before it takes its first question, and then subscribes to everything. The stop takes no further questions,
//! answers what it has within a bound, and lets everything else go. Nothing is handed over: no other manager needs what
//! this one knew.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chorus_bus::{Bus, BusError};
use chorus_client::SessionHost;
use chorus_protocol::{Incarnation, ManagerId, names};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::task::{FailureMeans, TaskGroup};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::api::serve::{Endpoint, Server};
use crate::breaker::judge;
use crate::catalogue::watch;
use crate::config::ManagerConfig;
use crate::core::{Core, CoreParts};
use crate::error::ManagerError;
use crate::events::WORKER_LOST;
use crate::hooks::{Hook, Hooks};
use crate::jobs::runner::JobRunner;
use crate::listen;
use crate::ping;

/// How long it may take until no more questions come.
const INTAKE_LIMIT: Duration = Duration::from_secs(2);

/// How long durable jobs may take to give their leases back.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// How long answers that are nearly out may take after sessions were ended.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_secs(1);

/// How long the background tasks may take to end; they only have to notice.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(1);

/// A manager that was not started yet.
pub struct Manager {
    config: ManagerConfig,
    clock: SharedClock,
    hooks: Vec<Arc<dyn Hook>>,
}

impl Manager {
    /// A manager with this configuration and no hooks.
    pub fn new(config: ManagerConfig, clock: SharedClock) -> Self {
        Self { config, clock, hooks: Vec::new() }
    }

    /// With one more hook, called after those added before it.
    #[must_use]
    pub fn with_hook(mut self, hook: Arc<dyn Hook>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Starts it; waits for the broker until `cancel`. Cancelling later ends the manager at once; see
    /// [`ManagerHandle::stop`] for the good way.
    ///
    /// # Errors
    /// A configuration that cannot be honoured, or a broker that cannot serve (see [`ManagerError`]).
    pub async fn start(self, cancel: &CancellationToken) -> Result<ManagerHandle, ManagerError> {
        self.config.validate()?;
        let incarnation = Incarnation::new();
        let id = match &self.config.id {
            Some(id) => id.clone(),
            None => ManagerId::new(names::default_manager_id(&self.config.host, incarnation))?,
        };
        let bus = Bus::connect_when_up(self.config.bus.clone(), cancel).await?;
        bus.ensure_layout(&self.config.layout).await?;
        let hooks = Hooks::new(self.hooks, self.config.hook_timeout);
        let core =
            Core::new(CoreParts { id, incarnation, config: self.config, bus, clock: self.clock, hooks });
        let handle = run(core, cancel).await?;
        tracing::info!(manager = %handle.core.id, broker = %handle.core.bus.server().url, "manager serves");
        Ok(handle)
    }
}

/// A running manager. Dropping it ends the manager at once, without answers.
pub struct ManagerHandle {
    core: Arc<Core>,
    sessions: SessionHost,
    /// Loops that take questions.
    intake: TaskGroup,
    /// Answers under way.
    answers: TaskGroup,
    /// Durable jobs being spoken.
    jobs: TaskGroup,
    /// Heartbeats, views, events.
    background: TaskGroup,
    stop_intake: CancellationToken,
    hurry: CancellationToken,
}

async fn run(core: Arc<Core>, cancel: &CancellationToken) -> Result<ManagerHandle, ManagerError> {
    let background = TaskGroup::new("manager-background", cancel);
    let scope = background.token().clone();
    let means = FailureMeans::CancelScope;

    let (ready, known) = oneshot::channel();
    let watch = core.bus.catalogue().watch().await?;
    background.spawn("catalogue", means, watch::follow(Arc::clone(&core), watch, ready));
    if known.await.is_err() {
        let message = "the connection ended before the catalogue was known";
        return Err(ManagerError::Start(message));
    }

    let port: Arc<dyn chorus_client::ManagerPort> = core.clone();
    let session_config = core.config.sessions.clone();
    let sessions =
        SessionHost::start(core.bus.clone(), port, core.clock.clone(), session_config, scope.child_token())
            .await
            .map_err(ManagerError::Sessions)?;
    listen_to_fleet(&core, &sessions, &background).await?;
    if core.config.breaker_enabled {
        judge::start(&core, &background).await?;
    }

    let jobs = TaskGroup::new("durable-jobs", cancel);
    let runner = JobRunner::new(Arc::clone(&core), sessions.clone(), jobs.clone());
    background.spawn("durable-jobs", means, runner.run(core.jobs.watch().await?));

    let (stop_intake, hurry) = (scope.child_token(), scope.child_token());
    let answers = TaskGroup::new("manager-answers", cancel);
    let intake = TaskGroup::new("manager-intake", cancel);
    let server = Server::new(Arc::clone(&core), sessions.clone(), hurry.clone(), answers.clone());
    for endpoint in Endpoint::ALL {
        let messages = core.bus.subscribe(endpoint.subject(), endpoint.group()).await?;
        let serving = Arc::clone(&server).serve(endpoint, messages, stop_intake.clone());
        intake.spawn("endpoint", means, serving);
    }
    // The broker takes a connection's messages in order: once it has answered this, it knows the subscriptions.
    core.bus.queue_depths().await?;
    Ok(ManagerHandle { core, sessions, intake, answers, jobs, background, stop_intake, hurry })
}

async fn listen_to_fleet(
    core: &Arc<Core>,
    sessions: &SessionHost,
    background: &TaskGroup,
) -> Result<(), BusError> {
    let means = FailureMeans::CancelScope;
    let heartbeats = core.bus.subscribe(names::ALL_HEARTBEATS, None).await?;
    let leaving = core.bus.subscribe(&names::event_subject("workerStopped"), None).await?;
    let outcomes = core.bus.subscribe(&names::event_subject("outcome"), None).await?;
    let lost = core.bus.subscribe(&names::event_subject(WORKER_LOST), None).await?;
    let (changes, to_act_on) = mpsc::channel(listen::CHANGES_BOUND);
    background.spawn("fleet-changes", means, listen::act(Arc::clone(core), to_act_on));
    let news = listen::FleetNews { heartbeats, leaving, lost };
    background.spawn("fleet", means, listen::hear_fleet(Arc::clone(core), news, changes.clone()));
    background.spawn("ping", means, ping::watch_over(Arc::clone(core), changes.clone()));
    background.spawn("queue-depth", means, admission::follow_queue(Arc::clone(core)));
    background.spawn("outcomes", means, listen::hear_outcomes(Arc::clone(core), outcomes));
    background.spawn("heartbeat", means, listen::beat(Arc::clone(core), sessions.clone(), changes));
    Ok(())
}

impl ManagerHandle {
    /// Its name.
    pub fn id(&self) -> &ManagerId {
        &self.core.id
    }

    /// This start of it.
    pub fn incarnation(&self) -> Incarnation {
        self.core.incarnation
    }

    /// The questions as calls: for sessions and surfaces in the same process.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Waits until the manager ends by itself: one of its parts has failed, or the token of its start was cancelled.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.background.token().cancelled() => {}
            () = self.intake.token().cancelled() => {}
        }
    }

    /// Takes no further questions, answers those it has (`drain_timeout` at most), and ends.
    pub async fn stop(self) {
        let limit = self.core.config.drain_timeout;
        tracing::info!(manager = %self.core.id, "manager stops taking questions");
        self.stop_intake.cancel();
        self.intake.join(INTAKE_LIMIT).await;
        self.jobs.token().cancel();
        self.jobs.join(RELEASE_LIMIT).await;
        let mut answered = pin!(self.answers.join(limit + LAST_ANSWERS_LIMIT));
        if tokio::time::timeout(limit, &mut answered).await.is_err() {
            tracing::warn!("requests are still being spoken; ending them");
            self.hurry.cancel();
            answered.await;
        }
        self.sessions.stop().await;
        self.background.token().cancel();
        self.background.join(BACKGROUND_LIMIT).await;
        self.core.bus.clone().close().await;
        tracing::info!(manager = %self.core.id, "manager has stopped");
    }
}

impl Drop for ManagerHandle {
    fn drop(&mut self) {
        self.background.token().cancel();
        self.intake.token().cancel();
        self.answers.token().cancel();
        self.jobs.token().cancel();
    }
}
