//! A worker as a whole: what it starts, in which order it leaves, and why it fails.
//!
//! [`WorkerService::run`] waits for the broker, starts the engine and the tasks around it, and stays until it is told to
//! drain, its engine has crashed too often, or one of its tasks has died. There is one way out: stop pulling; let runs
//! finish, within a bound; hand back or fail the rest so that their sessions ask elsewhere at once; stop the engine; say
//! goodbye; close the connection. Each step is bounded.

use std::sync::Arc;
use std::time::Duration;

use chorus_bus::{Bus, BusError, BusErrorKind};
use chorus_protocol::fleet::WorkerHeartbeat;
use chorus_protocol::{Incarnation, ServiceError};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::retry::{RetryError, RetryPolicy, Verdict, retry};
use chorus_runtime::task::{FailureMeans, TaskGroup};
use futures::stream::FuturesUnordered;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clips::ClipStore;
use crate::config::{ConfigError, WorkerConfig};
use crate::control::Control;
use crate::engine::{Engine, EngineState};
use crate::events::Events;
use crate::gate::Gate;
use crate::handle::WorkerHandle;
use crate::heartbeat::Heart;
use crate::keep::Keeper;
use crate::life::Life;
use crate::metrics::Metrics;
use crate::models::{Loader, Models};
use crate::pull::{PullLoop, Room};
use crate::run::task::{MAX_UNJUDGED, RunContext};
use crate::run::turns::Turns;
use crate::runs::Runs;

/// What runs that were cut short may take to tell their sessions.
const LEAVE_WITHIN: Duration = Duration::from_secs(4);
/// What storing the last takes may take.
const KEEP_WITHIN: Duration = Duration::from_secs(1);
/// What the tasks of a worker may take to end.
const JOIN_WITHIN: Duration = Duration::from_secs(2);
/// Orders about models that may wait.
const MODEL_ORDERS: usize = 64;

/// Why a worker ended otherwise than by draining.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The broker cannot be used.
    #[error("the worker cannot use the broker")]
    Bus(#[from] BusError),
    /// Streams, buckets or the configured models could not be put in place.
    #[error("the worker cannot prepare the broker")]
    Layout(#[source] RetryError<BusError>),
    /// The engine crashed again and again.
    #[error("the engine fails again and again: {0}")]
    Engine(ServiceError),
    /// One of its tasks ended before its time; the log says why.
    #[error("a part of the worker failed")]
    Task,
}

/// A worker that is yet to run.
pub struct WorkerService {
    config: Arc<WorkerConfig>,
    clock: SharedClock,
    incarnation: Incarnation,
    heartbeat: watch::Sender<Option<Arc<WorkerHeartbeat>>>,
    draining: CancellationToken,
}

impl WorkerService {
    /// A worker and its handle.
    ///
    /// # Errors
    /// When the configuration cannot be used; every fault is told.
    pub fn new(config: WorkerConfig, clock: SharedClock) -> Result<(Self, WorkerHandle), ConfigError> {
        config.check()?;
        let (publish, heartbeat) = watch::channel(None);
        let (incarnation, draining) = (Incarnation::new(), CancellationToken::new());
        let handle = WorkerHandle { id: config.id.clone(), incarnation, heartbeat, drain: draining.clone() };
        let service = Self { config: Arc::new(config), clock, incarnation, heartbeat: publish, draining };
        Ok((service, handle))
    }

    /// Works until `drain` is cancelled, the handle or an order asks it to drain, or it fails.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn run(self, drain: CancellationToken) -> Result<(), WorkerError> {
        let draining = self.draining.clone();
        let working = self.work();
        tokio::pin!(working);
        tokio::select! {
            result = &mut working => return result,
            () = drain.cancelled() => draining.cancel(),
        }
        working.await
    }

    async fn work(self) -> Result<(), WorkerError> {
        let bus = match self.reach_broker().await {
            Ok(bus) => bus,
            Err(_) if self.draining.is_cancelled() => return Ok(()),
            Err(error) => return Err(error),
        };
        let parts = self.start(&bus);
        let end = self.watch(&parts).await;
        self.leave(parts, &end).await;
        bus.close().await;
        match end {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// A connection, with streams, buckets and the configured models in place.
    async fn reach_broker(&self) -> Result<Bus, WorkerError> {
        let bus = Bus::connect_when_up(self.config.bus.clone(), &self.draining).await?;
        let policy = RetryPolicy { max_attempts: Some(20), ..RetryPolicy::default() };
        let prepared = retry(&policy, &self.draining, verdict, |_attempt| self.prepare(&bus)).await;
        match prepared {
            Ok(()) => Ok(bus),
            Err(error) => {
                bus.close().await;
                Err(WorkerError::Layout(error))
            }
        }
    }

    async fn prepare(&self, bus: &Bus) -> Result<(), BusError> {
        bus.ensure_layout(&self.config.layout).await?;
        for model in &self.config.definitions {
            if bus.catalogue().create(model).await? {
                tracing::info!(model = %model.name, "added to the catalogue");
            }
            bus.ensure_consumers(&model.name).await?;
        }
        Ok(())
    }
}

/// What runs.
struct Parts {
    engine: Engine,
    events: Events,
    runs: Arc<Runs>,
    leaving: CancellationToken,
    run_tasks: TaskGroup,
    keep_tasks: TaskGroup,
    tasks: TaskGroup,
}

impl WorkerService {
    fn start(&self, bus: &Bus) -> Parts {
        let config = &self.config;
        let began = self.clock.now();
        let scope = CancellationToken::new();
        let engine = Engine::start(&config.engine, &config.id, self.clock.clone(), &scope);
        let events = Events {
            bus: bus.clone(),
            clock: self.clock.clone(),
            worker: config.id.clone(),
            incarnation: self.incarnation,
        };
        let (publish_models, models) = watch::channel(Arc::new(Models::default()));
        let (orders, model_orders) = mpsc::channel(MODEL_ORDERS);
        let (open_gate, gate) = watch::channel(true);
        let (rest, resting) = watch::channel(false);
        let (runs, metrics) = (Arc::new(Runs::default()), Arc::new(Metrics::default()));
        let room = Arc::new(Room::default());
        let leaving = CancellationToken::new();
        let breaker = if config.breaker_enabled {
            Gate::new(config.breaker.success_threshold)
        } else {
            Gate::always_open()
        };
        let tasks = TaskGroup::new("worker", &scope);
        let run_tasks = TaskGroup::new("runs", &scope);
        let (keeper, keeping) = Keeper::new(bus.takes(), config.id.clone());
        let context = Arc::new(RunContext {
            config: config.clone(),
            incarnation: self.incarnation,
            bus: bus.clone(),
            clock: self.clock.clone(),
            events: events.clone(),
            engine: engine.state(),
            engine_orders: engine.orders(),
            models: models.clone(),
            runs: runs.clone(),
            metrics: metrics.clone(),
            gate: breaker.clone(),
            turns: Turns::default(),
            keeper,
            clips: ClipStore::new(bus.clips()),
            unjudged: Arc::new(Semaphore::new(MAX_UNJUDGED)),
            leaving: leaving.clone(),
        });
        let loader = Loader {
            config: config.clone(),
            bus: bus.clone(),
            clock: self.clock.clone(),
            engine: engine.state(),
            runs: runs.clone(),
            orders: model_orders,
            publish: publish_models,
            gpu_memory_bytes: None,
            identifying: FuturesUnordered::new(),
            digests: Arc::default(),
        };
        let pulling = PullLoop {
            context,
            tasks: run_tasks.clone(),
            engine: engine.state(),
            models: models.clone(),
            gate,
            resting,
            passage: breaker.passage(),
            draining: self.draining.clone(),
            room: room.clone(),
        };
        let life = Life {
            config: config.clone(),
            clock: self.clock.clone(),
            engine: engine.state(),
            models: models.clone(),
            runs: runs.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
            gate: breaker.clone(),
            resting: rest,
            draining: self.draining.clone(),
        };
        let control = Control {
            worker: config.id.clone(),
            incarnation: self.incarnation,
            bus: bus.clone(),
            clock: self.clock.clone(),
            runs: runs.clone(),
            gate: open_gate,
            models: orders,
            draining: self.draining.clone(),
        };
        let heart = Heart {
            config: config.clone(),
            incarnation: self.incarnation,
            bus: bus.clone(),
            clock: self.clock.clone(),
            engine: engine.state(),
            engine_starts: engine.starts(),
            models,
            runs: runs.clone(),
            metrics,
            room,
            draining: self.draining.clone(),
            publish: self.heartbeat.clone(),
            began,
        };
        // Without any one of these a worker is worse than none: their death ends it.
        tasks.spawn("models", FailureMeans::CancelScope, loader.run());
        if config.breaker_enabled {
            tasks.spawn("gate", FailureMeans::CancelScope, breaker.run(bus.clone(), config.id.clone()));
        }
        tasks.spawn("pull", FailureMeans::CancelScope, pulling.run());
        tasks.spawn("control", FailureMeans::CancelScope, control.run());
        tasks.spawn("heartbeat", FailureMeans::CancelScope, heart.run());
        tasks.spawn("life", FailureMeans::CancelScope, life.run());
        tasks.spawn(
            "in-progress",
            FailureMeans::CancelScope,
            tell_progress(runs.clone(), self.config.in_progress_every),
        );
        let keep_tasks = TaskGroup::new("keeper", &scope);
        keep_tasks.spawn_draining("keeper", FailureMeans::Log, |end| keeping.run(end));
        Parts { engine, events, runs, leaving, run_tasks, keep_tasks, tasks }
    }

    /// Stays until there is a reason to leave; an error, unless it was asked for. Tells of the engine's ups and downs.
    async fn watch(&self, parts: &Parts) -> Option<WorkerError> {
        let mut engine = parts.engine.state();
        let mut said_started = false;
        loop {
            let state = engine.borrow_and_update().clone();
            match state {
                EngineState::Ready(session) if !said_started => {
                    said_started = true;
                    let mut details = Map::new();
                    details.insert("engine".into(), Value::from(session.hello.engine.name.as_str()));
                    details.insert("device".into(), Value::from(session.hello.device.kind.as_str()));
                    parts.events.fleet("workerStarted", "the worker is up", details).await;
                }
                EngineState::Starting { last: Some(error) } => self.tell_failure(parts, &error).await,
                EngineState::GaveUp { last } => {
                    self.tell_failure(parts, &last).await;
                    return Some(WorkerError::Engine((*last).clone()));
                }
                EngineState::Ready(_) | EngineState::Starting { last: None } | EngineState::Stopped => {}
            }
            tokio::select! {
                () = self.draining.cancelled() => return None,
                () = parts.tasks.token().cancelled() => return Some(WorkerError::Task),
                changed = engine.changed() => if changed.is_err() {
                    return Some(WorkerError::Task);
                },
            }
        }
    }

    async fn tell_failure(&self, parts: &Parts, error: &ServiceError) {
        let mut details = Map::new();
        details.insert("reason".into(), error.reason().map_or(Value::Null, |reason| reason.as_str().into()));
        parts.events.fleet("workerFailed", error.message.clone(), details).await;
    }

    /// The one way out.
    async fn leave(&self, parts: Parts, end: &Option<WorkerError>) {
        self.draining.cancel();
        tracing::info!(runs = parts.runs.count(), "draining");
        if end.is_none() {
            let finished = tokio::time::timeout(self.config.drain_within, parts.runs.none()).await;
            if finished.is_err() {
                tracing::warn!(
                    runs = parts.runs.count(),
                    "runs did not finish in time; they are handed back"
                );
            }
        }
        parts.leaving.cancel();
        // A run that was cut short ends when its engine does.
        let (_runs, ()) = tokio::join!(parts.run_tasks.join(LEAVE_WITHIN), parts.engine.stop());
        // What was spoken last is worth a moment.
        parts.keep_tasks.token().cancel();
        parts.keep_tasks.join(KEEP_WITHIN).await;
        let why = end.as_ref().map_or("the worker was told to leave".to_owned(), ToString::to_string);
        parts.events.fleet("workerStopped", why, Map::new()).await;
        parts.tasks.token().cancel();
        let _report = parts.tasks.join(JOIN_WITHIN).await;
    }
}

/// One task for all deliveries: the broker hears of each that it is worked on.
async fn tell_progress(runs: Arc<Runs>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for delivery in runs.open_deliveries() {
            if let Err(error) = delivery.send().await {
                tracing::debug!(%error, "progress was not told");
                break;
            }
        }
    }
}

fn verdict(error: &BusError) -> Verdict {
    match error.kind {
        BusErrorKind::Timeout | BusErrorKind::Disconnected | BusErrorKind::Refused => Verdict::Retry,
        _ => Verdict::Fatal,
    }
}
