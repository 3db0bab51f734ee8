//! The models of a worker: loaded as the catalogue and orders want them, on whichever engine is alive.
//!
//! One task loads and unloads, so no two loads race. [`plan`] decides; this file watches the catalogue, the engine, the
//! orders, and the records of orders that were given before this worker came, and tells the rest of the worker which models speak. A model that is to go is taken from the pulls first,
//! then its last runs end, then the engine forgets it.

pub(crate) mod identity;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chorus_bus::{Bucket, Bus, CatalogueChange, CatalogueWatch, RecordChange, RecordWatch};
use chorus_protocol::fleet::LoadedModel;
use chorus_protocol::job::Failed;
use chorus_protocol::pipe::{EngineRequest, LoadAnswer, UnloadAnswer};
use chorus_protocol::service::Placement;
use chorus_protocol::{ModelDefinition, ModelName};
use chorus_runtime::clock::SharedClock;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};

use crate::config::WorkerConfig;
use crate::engine::{EngineState, Session};
use crate::runs::Runs;
use identity::Digests;
use plan::{Plan, Step};

/// How long the runs of a model that is unloaded may take to end.
const UNUSED_WITHIN: Duration = Duration::from_secs(30);
/// How long a broken watch of the catalogue rests before it is tried again.
const WATCH_PAUSE: Duration = Duration::from_millis(500);
/// How long a worker that has just come waits for what was ordered before, so that it begins with the whole.
const PLACED_WITHIN: Duration = Duration::from_secs(2);

/// Which models there are and which speak.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Models {
    /// All that are wanted.
    pub(crate) states: Vec<LoadedModel>,
    /// Those that speak.
    pub(crate) ready: BTreeSet<ModelName>,
    /// Memory of the GPU that they take, in bytes, where the engine computes on one.
    pub(crate) gpu_memory_bytes: Option<u64>,
    /// Segments that the engine can have in hand at a time, where its models told.
    pub(crate) room: Option<u32>,
}

/// An order about a model.
#[derive(Debug)]
pub(crate) enum ModelOrder {
    /// Serve it.
    Load(Box<ModelDefinition>),
    /// Serve it no more.
    Unload(ModelName),
}

/// What the task stands on.
pub(crate) struct Loader {
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) runs: Arc<Runs>,
    pub(crate) orders: mpsc::Receiver<ModelOrder>,
    pub(crate) publish: watch::Sender<Arc<Models>>,
    /// What the engine last said of the GPU.
    pub(crate) gpu_memory_bytes: Option<u64>,
    /// Identities that are being worked out.
    pub(crate) identifying: FuturesUnordered<BoxFuture<'static, Option<(ModelDefinition, String)>>>,
    pub(crate) digests: Arc<Digests>,
}

impl Loader {
    /// Loads and unloads until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut plan = Plan::new(self.config.assigned.clone(), self.config.engine.kind.clone());
        let mut watches = Watches::default();
        let first = tokio::time::timeout(PLACED_WITHIN, watches.all_placed(&self.bus, &mut plan)).await;
        if first.is_err() {
            tracing::debug!("what was ordered before is not known yet");
        }
        let mut session: Option<Session> = None;
        loop {
            self.tell(&plan);
            let step = match &session {
                Some(_) => plan.next(self.clock.now()),
                None => Step::Wait(None),
            };
            match (step, &session) {
                (Step::Load(definition), Some(on)) => self.load(&mut plan, *definition, on).await,
                (Step::Unload(model), Some(on)) => self.unload(&mut plan, model, on).await,
                (Step::Wait(until), _) => self.wait(&mut plan, &mut watches, until).await,
                (_, None) => {}
            }
            let current = self.engine.borrow_and_update().session().cloned();
            if current.as_ref().map(|on| on.run) != session.as_ref().map(|on| on.run) {
                plan.engine_lost();
                self.gpu_memory_bytes = None;
                session = current;
            }
        }
    }

    /// Waits for the catalogue, an order, the engine, or `until`.
    async fn wait(&mut self, plan: &mut Plan, watches: &mut Watches, until: Option<std::time::Instant>) {
        let Watches { catalogue, placed } = watches;
        let ended = session_end(&self.engine);
        tokio::select! {
            change = next_change(&self.bus, catalogue) => match change {
                Some(change) => self.apply(plan, change),
                None => plan.listing_begins(),
            },
            change = next_placed(&self.bus, placed) => take_placed(plan, change),
            Some(order) = self.orders.recv() => match order {
                ModelOrder::Load(model) => plan.add(self.config.localized(*model)),
                ModelOrder::Unload(model) => plan.withhold(model),
            },
            Ok(()) = self.engine.changed() => {}
            Some(identified) = self.identifying.next() => if let Some((model, identity)) = identified {
                plan.identified(&model, identity);
            },
            () = ended => {}
            () = sleep_until(until) => {}
        }
    }

    fn apply(&self, plan: &mut Plan, change: CatalogueChange) {
        match change {
            CatalogueChange::Put(model) => plan.catalogued(self.config.localized(model)),
            CatalogueChange::Removed(model) => plan.removed(&model),
            CatalogueChange::Ready => plan.listing_ends(),
        }
    }

    async fn load(&mut self, plan: &mut Plan, definition: ModelDefinition, on: &Session) {
        let model = definition.name.clone();
        tracing::info!(%model, "loading");
        match self.try_load(&definition, on).await {
            Ok(answer) => {
                let (load_ms, sample_rate) = (answer.load_ms, answer.sample_rate);
                let (rss_bytes, tuning) = (answer.rss_bytes, answer.tuning.as_ref());
                tracing::info!(%model, load_ms, sample_rate, rss_bytes, ?tuning, "model ready");
                self.gpu_memory_bytes = answer.gpu_memory_bytes;
                plan.loaded(definition.clone(), &answer);
                self.identify(definition, answer.files, on);
            }
            Err(error) => {
                tracing::warn!(%model, %error, "model did not load");
                plan.failed(definition, error, self.clock.now());
            }
        }
    }

    /// Begins to work out what the takes of a model depend on: its files are read beside everything else.
    fn identify(&self, model: ModelDefinition, files: Vec<String>, on: &Session) {
        let (digests, engine) = (self.digests.clone(), on.hello.engine.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let found = identity::identity(&digests, &engine, &model, &files);
            (model, found)
        });
        self.identifying.push(Box::pin(async move {
            match reading.await {
                Ok((model, Ok(identity))) => identity.map(|identity| (model, identity)),
                Ok((model, Err(error))) => {
                    tracing::warn!(model = %model.name, %error, "its takes are not stored: a file of it cannot be read");
                    None
                }
                Err(error) => {
                    tracing::error!(%error, "working out an identity failed");
                    None
                }
            }
        }));
    }

    async fn try_load(&mut self, definition: &ModelDefinition, on: &Session) -> Result<LoadAnswer, String> {
        let _longer_silence = on.link.loading();
        let request = EngineRequest::Load { model: Box::new(definition.clone()) };
        let silence = self.config.engine.liveness.load_silence;
        let answer = on.link.call(request, silence).await.map_err(|failed| told(&failed))?;
        self.bus.ensure_consumers(&definition.name).await.map_err(|error| error.to_string())?;
        Ok(answer)
    }

    async fn unload(&mut self, plan: &mut Plan, model: ModelName, on: &Session) {
        plan.unloaded(&model);
        self.tell(plan);
        if tokio::time::timeout(UNUSED_WITHIN, self.runs.unused(&model)).await.is_err() {
            tracing::warn!(%model, "unloading a model that is still used");
        }
        let _longer_silence = on.link.loading();
        let request = EngineRequest::Unload { model: model.to_string() };
        let silence = self.config.engine.liveness.load_silence;
        match on.link.call::<UnloadAnswer>(request, silence).await {
            Ok(answer) => {
                tracing::info!(%model, "model unloaded");
                self.gpu_memory_bytes = answer.gpu_memory_bytes;
            }
            Err(failed) => tracing::warn!(%model, error = %failed.error, "model did not unload"),
        }
    }

    fn tell(&self, plan: &Plan) {
        let gpu_memory_bytes = self.gpu_memory_bytes;
        let room = plan.room();
        let models = Models { states: plan.states(), ready: plan.ready(), gpu_memory_bytes, room };
        self.publish.send_if_modified(|shown| {
            let changed = **shown != models;
            if changed {
                *shown = Arc::new(models);
            }
            changed
        });
    }
}

fn told(failed: &Failed) -> String {
    match failed.stderr.last() {
        Some(line) => format!("{} (its last words: {line})", failed.error),
        None => failed.error.to_string(),
    }
}

/// What is watched on the broker.
#[derive(Default)]
struct Watches {
    catalogue: Option<CatalogueWatch>,
    placed: Option<RecordWatch<Placement>>,
}

impl Watches {
    /// Takes what was ordered before.
    async fn all_placed(&mut self, bus: &Bus, plan: &mut Plan) {
        loop {
            let change = next_placed(bus, &mut self.placed).await;
            let ready = matches!(change, RecordChange::Ready);
            take_placed(plan, change);
            if ready {
                return;
            }
        }
    }
}

fn take_placed(plan: &mut Plan, change: RecordChange<Placement>) {
    match change {
        RecordChange::Put { key, value, .. } if value.model.as_str() == key => plan.placed(value.model),
        RecordChange::Put { key, .. } | RecordChange::Malformed { key, .. } => {
            tracing::warn!(key, "an order about a model that cannot be read; left out");
        }
        RecordChange::Removed { key } => match ModelName::new(&key) {
            Ok(model) => plan.displaced(&model),
            Err(error) => tracing::warn!(key, %error, "an order about no model is gone"),
        },
        RecordChange::Ready => {}
    }
}

/// The next change of what was ordered, through a watch that is made anew when it breaks. Cancel-safe.
async fn next_placed(bus: &Bus, watch: &mut Option<RecordWatch<Placement>>) -> RecordChange<Placement> {
    loop {
        if let Some(open) = watch {
            match open.next().await {
                Some(change) => return change,
                None => *watch = None,
            }
        }
        match bus.records(Bucket::MODEL_ORDERS).watch().await {
            Ok(fresh) => *watch = Some(fresh),
            Err(error) => {
                tracing::debug!(%error, "cannot watch for orders yet");
                tokio::time::sleep(WATCH_PAUSE).await;
            }
        }
    }
}

/// The next change of the catalogue, through a watch that is made anew when it breaks; `None` when a new one begins, which
/// tells all entries again. Cancel-safe.
async fn next_change(bus: &Bus, watch: &mut Option<CatalogueWatch>) -> Option<CatalogueChange> {
    loop {
        if let Some(open) = watch {
            match open.next().await {
                Some(change) => return Some(change),
                None => *watch = None,
            }
        }
        match bus.catalogue().watch().await {
            Ok(fresh) => {
                *watch = Some(fresh);
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "cannot watch the catalogue yet");
                tokio::time::sleep(WATCH_PAUSE).await;
            }
        }
    }
}

/// Ends with the link of the present session; never when there is none.
fn session_end(engine: &watch::Receiver<EngineState>) -> impl Future<Output = ()> + Send + use<> {
    let link = engine.borrow().session().map(|session| session.link.clone());
    async move {
        match link {
            Some(link) => link.ended().await,
            None => std::future::pending().await,
        }
    }
}

async fn sleep_until(until: Option<std::time::Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
