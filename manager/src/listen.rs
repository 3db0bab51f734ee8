//! What a manager hears and says beside questions: heartbeats, outcomes, and workers that leave or are lost.
//!
//! Changes of the fleet go through a bounded channel to a task of their own, because hooks may take their time and
//! heartbeats may not.

use std::sync::Arc;

use chorus_bus::{Incoming, Subscription};
use chorus_client::SessionHost;
use chorus_protocol::fleet::{FleetEvent, Heartbeat, ManagerHeartbeat};
use chorus_protocol::job::Outcome;
use chorus_protocol::{Envelope, names};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{MissedTickBehavior, interval};

use crate::core::Core;
use crate::fleet::{FleetChange, LossCause};

/// Changes of the fleet that wait to be acted on at most.
pub(crate) const CHANGES_BOUND: usize = 1024;

/// Says that this manager lives, and lets go of members that are silent, every interval.
pub(crate) async fn beat(core: Arc<Core>, sessions: SessionHost, changes: mpsc::Sender<FleetChange>) {
    let subject = names::manager_heartbeat(&core.id);
    let mut ticks = interval(core.config.heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sequence = 0;
    let mut beat_at = core.clock.now();
    loop {
        ticks.tick().await;
        sequence += 1;
        let now = core.clock.now();
        // Whatever made this beat late kept this manager from hearing others too.
        let late = now.saturating_duration_since(beat_at).saturating_sub(core.config.heartbeat_interval);
        beat_at = now;
        if late >= core.config.heartbeat_interval {
            core.fleet().excuse(late);
        }
        let beat = Heartbeat::Manager(ManagerHeartbeat {
            manager: core.id.clone(),
            incarnation: core.incarnation,
            sequence,
            pid: std::process::id(),
            host: core.config.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: sessions.active() as u32,
            uptime_ms: now.saturating_duration_since(core.started).as_millis() as u64,
        });
        hand_on(&changes, core.fleet().hear(beat.clone(), now));
        hand_on(&changes, core.fleet().expire(now));
        let envelope = Envelope::event(beat, core.clock.unix_ms());
        if let Err(error) = core.bus.publish(&subject, &envelope).await {
            tracing::debug!(%error, "a heartbeat was not sent");
        }
    }
}

/// What [`hear_fleet`] listens to.
pub(crate) struct FleetNews {
    /// Heartbeats of workers and managers.
    pub(crate) heartbeats: Subscription,
    /// Workers that say they leave.
    pub(crate) leaving: Subscription,
    /// Workers that a manager found dead.
    pub(crate) lost: Subscription,
}

/// Hears heartbeats, workers that say they leave, and managers that say a worker is lost.
pub(crate) async fn hear_fleet(core: Arc<Core>, mut news: FleetNews, changes: mpsc::Sender<FleetChange>) {
    loop {
        let found = tokio::select! {
            message = news.heartbeats.next() => {
                let Some(message) = message else { return };
                let now = core.clock.now();
                read::<Heartbeat>(&message).map(|beat| core.fleet().hear(beat, now)).unwrap_or_default()
            }
            message = news.leaving.next() => {
                let Some(message) = message else { return };
                read::<FleetEvent>(&message).and_then(|event| left(&core, event)).into_iter().collect()
            }
            message = news.lost.next() => {
                let Some(message) = message else { return };
                read::<FleetEvent>(&message).and_then(|event| lost(&core, event)).into_iter().collect()
            }
        };
        hand_on(&changes, found);
    }
}

/// Counts outcomes.
pub(crate) async fn hear_outcomes(core: Arc<Core>, mut outcomes: Subscription) {
    while let Some(message) = outcomes.next().await {
        if let Some(outcome) = read::<Outcome>(&message) {
            core.figures().count(&outcome);
            core.speeds().count(&outcome);
        }
    }
}

/// Acts on changes of the fleet, one after another.
pub(crate) async fn act(core: Arc<Core>, mut changes: mpsc::Receiver<FleetChange>) {
    while let Some(change) = changes.recv().await {
        core.act_on_fleet(change).await;
    }
}

fn left(core: &Core, event: FleetEvent) -> Option<FleetChange> {
    core.fleet().leave(&event.worker_id?, event.incarnation?)
}

/// What another manager told need not be told again; here the worker is just out. A worker whose engine alone hangs
/// still beats, and stays.
fn lost(core: &Core, event: FleetEvent) -> Option<FleetChange> {
    if event.details.get("cause").and_then(|cause| cause.as_str()) == Some(LossCause::EngineHung.as_str()) {
        return None;
    }
    let (worker, incarnation) = (event.worker_id?, event.incarnation?);
    core.fleet().lose(&worker, incarnation)?;
    Some(FleetChange::WorkerStopped { worker, incarnation })
}

pub(crate) fn hand_on(changes: &mpsc::Sender<FleetChange>, found: Vec<FleetChange>) {
    for change in found {
        match changes.try_send(change) {
            Ok(()) => {}
            Err(TrySendError::Full(change)) => {
                tracing::error!(?change, "a change of the fleet was left out: hooks are too slow");
            }
            Err(TrySendError::Closed(_)) => {
                tracing::debug!("a change of the fleet came while this manager stops")
            }
        }
    }
}

fn read<T: DeserializeOwned>(message: &Incoming) -> Option<T> {
    match message.decode::<T>() {
        Ok(envelope) => Some(envelope.payload),
        Err(error) => {
            tracing::debug!(subject = message.subject(), %error, "a message cannot be read");
            None
        }
    }
}
