//! What a manager tells anyone who listens: events on `tts.events.<kind>`.

use std::time::Duration;

use chorus_protocol::fleet::FleetEvent;
use chorus_protocol::{Envelope, Incarnation, RunId, WorkerId, names};
use serde_json::{Map, Value};

use crate::core::Core;
use crate::fleet::{FleetChange, LossCause};
use crate::hooks::HookFailure;

/// The kind of event that tells of a lost worker, and by which every client process and every manager hears of it.
pub(crate) const WORKER_LOST: &str = "workerLost";

/// A busy worker that is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerLost<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) in_flight: u32,
    pub(crate) cause: LossCause,
    /// How long it was not heard.
    pub(crate) silent: Duration,
    /// What it worked on, as far as is known.
    pub(crate) runs: &'a [RunId],
}

impl Core {
    /// Publishes an event. One that cannot be published is logged: events are for watching, nothing waits for them.
    pub(crate) async fn tell(&self, event: FleetEvent) {
        let subject = names::event_subject(&event.kind);
        let envelope = Envelope::event(event, self.clock.unix_ms());
        if let Err(error) = self.bus.publish(&subject, &envelope).await {
            tracing::warn!(%subject, %error, "an event was not told");
        }
    }

    /// Tells of hooks that were left out.
    pub(crate) async fn tell_hook_failures(&self, failures: Vec<HookFailure>) {
        for HookFailure { hook, point, why } in failures {
            tracing::warn!(hook, point = point.as_str(), why, "a hook failed and was left out");
            let mut details = Map::new();
            details.insert("hook".into(), Value::from(hook.as_str()));
            details.insert("point".into(), Value::from(point.as_str()));
            self.tell(FleetEvent {
                kind: "hookFailed".into(),
                worker_id: None,
                incarnation: None,
                message: format!("hook {hook} failed at {}: {why}", point.as_str()),
                details,
            })
            .await;
        }
    }

    /// Acts on what heartbeats, or their absence, told: `workerLost` for those whose runs somebody waits for, and the
    /// worker hooks.
    pub(crate) async fn act_on_fleet(&self, change: FleetChange) {
        let failures = match change {
            FleetChange::WorkerStarted { worker, incarnation } => {
                tracing::info!(%worker, %incarnation, "worker is here");
                self.hooks.worker_started(&worker).await
            }
            FleetChange::WorkerStopped { worker, incarnation } => {
                tracing::info!(%worker, %incarnation, "worker is out");
                self.hooks.worker_stopped(&worker).await
            }
            FleetChange::WorkerLost { worker, incarnation, in_flight, cause, silent } => {
                let lost = WorkerLost { worker: &worker, incarnation, in_flight, cause, silent, runs: &[] };
                self.tell_worker_lost(lost).await;
                self.hooks.worker_stopped(&worker).await
            }
            FleetChange::TooMany => {
                tracing::warn!("more heartbeats than can be kept in view; one was left out");
                return;
            }
        };
        self.tell_hook_failures(failures).await;
    }

    /// Tells every process with sessions that a busy worker is lost: its runs are tried elsewhere at once. To breakers this
    /// is the outcome of those runs: nobody else tells of them any more.
    pub(crate) async fn tell_worker_lost(&self, lost: WorkerLost<'_>) {
        let WorkerLost { worker, incarnation, in_flight, cause, silent, runs } = lost;
        let (cause, silent_ms) = (cause.as_str(), silent.as_millis() as u64);
        tracing::warn!(%worker, %incarnation, in_flight, cause, silent_ms, "busy worker is lost");
        let mut details = Map::new();
        details.insert("inFlight".into(), Value::from(in_flight));
        details.insert("cause".into(), Value::from(cause));
        details.insert("silentMs".into(), Value::from(silent_ms));
        details.insert("runs".into(), runs.iter().map(ToString::to_string).collect());
        self.tell(FleetEvent {
            kind: WORKER_LOST.into(),
            worker_id: Some(worker.clone()),
            incarnation: Some(incarnation),
            message: format!("worker {worker} had {in_flight} jobs and is lost ({cause})"),
            details,
        })
        .await;
    }
}
