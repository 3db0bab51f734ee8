//! Following the catalogue on the bus: every change goes into the view, and onto the queue.
//!
//! A model that is put gets its consumers; the queue of one that is removed goes with it. Both are idempotent, so every
//! manager does both. What fails is tried again until it succeeds or the model changes once more; after the broker was
//! away, everything is made sure of anew, since it may have come back empty.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chorus_bus::{BusError, CatalogueChange, CatalogueWatch, ConnectionState};
use chorus_protocol::ModelName;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::core::Core;

/// How often what failed is tried again.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// Models whose queues are not as they should be yet.
#[derive(Default)]
struct Unsettled {
    wanted: BTreeSet<ModelName>,
    unwanted: BTreeSet<ModelName>,
    layout: bool,
}

impl Unsettled {
    fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty() && !self.layout
    }
}

/// Follows the catalogue until the connection is closed. `ready` is told when the first state is in the view.
pub(crate) async fn follow(core: Arc<Core>, mut watch: CatalogueWatch, ready: oneshot::Sender<()>) {
    let mut ready = Some(ready);
    let mut unsettled = Unsettled::default();
    let mut connection = core.bus.connection_events();
    let mut again = interval(TRY_AGAIN_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = watch.next() => match change {
                Some(CatalogueChange::Ready) => {
                    tracing::info!(models = core.catalogue().len(), "catalogue is known");
                    if let Some(ready) = ready.take() && ready.send(()).is_err() {
                        tracing::debug!("the manager's start was given up");
                    }
                }
                Some(change) => take(&core, &mut unsettled, change).await,
                None => return,
            },
            changed = connection.changed() => {
                if changed.is_err() {
                    return;
                }
                if *connection.borrow_and_update() == ConnectionState::Connected {
                    unsettled.layout = true;
                    unsettled.wanted.extend(core.catalogue().models().map(|model| model.name.clone()));
                    settle(&core, &mut unsettled).await;
                }
            }
            _ = again.tick(), if !unsettled.is_empty() => settle(&core, &mut unsettled).await,
        }
    }
}

async fn take(core: &Core, unsettled: &mut Unsettled, change: CatalogueChange) {
    match change {
        CatalogueChange::Put(definition) => {
            let name = definition.name.clone();
            core.change_catalogue(|view| view.with(definition));
            unsettled.unwanted.remove(&name);
            unsettled.wanted.insert(name);
        }
        CatalogueChange::Removed(name) => {
            core.change_catalogue(|view| view.without(&name));
            unsettled.wanted.remove(&name);
            unsettled.unwanted.insert(name);
        }
        CatalogueChange::Ready => {}
    }
    settle(core, unsettled).await;
}

async fn settle(core: &Core, unsettled: &mut Unsettled) {
    if unsettled.layout {
        match core.bus.ensure_layout(&core.config.layout).await {
            Ok(()) => unsettled.layout = false,
            Err(error) => return later("the streams and buckets", &error),
        }
    }
    let mut still = Unsettled::default();
    for name in std::mem::take(&mut unsettled.wanted) {
        if let Err(error) = core.bus.ensure_consumers(&name).await {
            later(name.as_str(), &error);
            still.wanted.insert(name);
        }
    }
    for name in std::mem::take(&mut unsettled.unwanted) {
        if let Err(error) = core.bus.remove_model_queue(&name).await {
            later(name.as_str(), &error);
            still.unwanted.insert(name);
        }
    }
    *unsettled = still;
}

fn later(what: &str, error: &BusError) {
    tracing::warn!(what, %error, "the queue is not as it should be yet; trying again");
}
