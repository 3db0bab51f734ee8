//! What every answer is made from: the views, the figures, the hooks, the bus. One per manager, shared by all handlers.
//!
//! Nothing here belongs to a request: whatever a question needs comes with it. Each question is a method of [`Core`], in a
//! file of its own under `api`; sessions inside this process call the same methods through [`ManagerPort`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chorus_bus::Bus;
use chorus_client::port::{ManagerPort, bury};
use chorus_protocol::breaker::DeadLetter;
use chorus_protocol::plan::{Advance, Advanced, Cancel, Finish, Finished, Open, Opened};
use chorus_protocol::{Incarnation, ManagerId, ModelDefinition, ModelName, ServiceError};
use chorus_runtime::clock::SharedClock;
use chorus_text::{Segmenter, SegmenterConfig};
use futures::future::BoxFuture;
use tokio::sync::Notify;

use crate::admit::backlog::Backlog;
use crate::admit::retries::RetryBudgets;
use crate::admit::speeds::Speeds;
use crate::breaker::book::Book;
use crate::breaker::judge::Breakers;
use crate::cache::CacheState;
use crate::catalogue::CatalogueView;
use crate::config::ManagerConfig;
use crate::figures::Figures;
use crate::fleet::FleetView;
use crate::hooks::Hooks;
use crate::jobs::store::JobStore;

/// The least `max_chars` that the segmenter takes; a model whose own limit is lower still gets this.
const LEAST_SEGMENT_CHARS: usize = 20;

/// The state of a manager.
pub struct Core {
    pub(crate) id: ManagerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) config: ManagerConfig,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) hooks: Hooks,
    pub(crate) started: Instant,
    pub(crate) jobs: JobStore,
    pub(crate) breakers: Breakers,
    pub(crate) cache: CacheState,
    catalogue: Mutex<Arc<CatalogueView>>,
    fleet: Mutex<FleetView>,
    figures: Mutex<Figures>,
    speeds: Mutex<Speeds>,
    backlog: Mutex<Backlog>,
    retries: Mutex<RetryBudgets>,
    /// Somebody wants to know how deep the queue is.
    pub(crate) depth_wanted: Notify,
}

/// What a [`Core`] is made of.
pub(crate) struct CoreParts {
    pub(crate) id: ManagerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) config: ManagerConfig,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) hooks: Hooks,
}

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Arc<Self> {
        let CoreParts { id, incarnation, config, bus, clock, hooks } = parts;
        let fleet = Mutex::new(FleetView::new(config.worker_timeout));
        let started = clock.now();
        let jobs = JobStore::new(&bus, config.jobs_retention());
        let breakers = Breakers::new(Book::new(config.breaker.clone(), config.forget_breakers_after));
        let cache = CacheState::new(&config.cache);
        let retries = Mutex::new(RetryBudgets::new(config.retry_budget, started));
        Arc::new(Self {
            id,
            incarnation,
            config,
            bus,
            clock,
            hooks,
            started,
            jobs,
            breakers,
            cache,
            catalogue: Mutex::default(),
            fleet,
            figures: Mutex::default(),
            speeds: Mutex::default(),
            backlog: Mutex::default(),
            retries,
            depth_wanted: Notify::new(),
        })
    }

    /// The catalogue as it is now.
    pub(crate) fn catalogue(&self) -> Arc<CatalogueView> {
        Arc::clone(&lock(&self.catalogue))
    }

    /// Replaces the catalogue by a changed one.
    pub(crate) fn change_catalogue(&self, change: impl FnOnce(CatalogueView) -> CatalogueView) {
        let mut current = lock(&self.catalogue);
        *current = Arc::new(change(CatalogueView::clone(&current)));
    }

    /// The fleet as it is heard. Not to be held across an await.
    pub(crate) fn fleet(&self) -> MutexGuard<'_, FleetView> {
        lock(&self.fleet)
    }

    /// The figures so far. Not to be held across an await.
    pub(crate) fn figures(&self) -> MutexGuard<'_, Figures> {
        lock(&self.figures)
    }

    /// How fast workers speak. Not to be held across an await; where the fleet is wanted too, that comes first.
    pub(crate) fn speeds(&self) -> MutexGuard<'_, Speeds> {
        lock(&self.speeds)
    }

    /// What is on the queue, as far as is known. Not to be held across an await.
    pub(crate) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        lock(&self.backlog)
    }

    /// What retries may still cost. Not to be held across an await.
    pub(crate) fn retries(&self) -> MutexGuard<'_, RetryBudgets> {
        lock(&self.retries)
    }

    /// Workers that could speak `model` now.
    pub(crate) fn ready_workers(&self, model: &ModelName) -> u32 {
        self.fleet().ready_for(model).count() as u32
    }

    /// What cuts text for `model`.
    pub(crate) fn segmenter_for(&self, model: &ModelDefinition) -> Segmenter {
        let configured = &self.config.segmenter;
        let of_model = model.max_text_chars.map_or(usize::MAX, |chars| chars as usize);
        let max_chars = configured.max_chars.min(of_model.max(LEAST_SEGMENT_CHARS));
        let config = SegmenterConfig { max_chars, ..configured.clone() };
        Segmenter::new(config).expect("max_chars lies between the least and the validated configured one")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ManagerPort for Core {
    fn open(&self, open: Open, traceparent: Option<String>) -> BoxFuture<'_, Result<Opened, ServiceError>> {
        Box::pin(self.answer_open(open, traceparent))
    }

    fn advance(
        &self,
        advance: Advance,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Advanced, ServiceError>> {
        Box::pin(self.answer_advance(advance, traceparent))
    }

    fn finish(
        &self,
        finish: Finish,
        _traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Finished, ServiceError>> {
        Box::pin(self.answer_finish(finish))
    }

    fn cancel(&self, cancel: Cancel) -> BoxFuture<'_, ()> {
        Box::pin(self.hear_cancel(cancel))
    }

    fn bury(&self, letter: DeadLetter) -> BoxFuture<'_, ()> {
        Box::pin(bury(&self.bus, letter))
    }
}
