//! What a worker tells everybody: the outcome of its runs, and its own coming and going. Told and forgotten: nobody waits
//! for an event, and a lost one harms nothing but a figure.

use chorus_bus::Bus;
use chorus_protocol::fleet::FleetEvent;
use chorus_protocol::job::Outcome;
use chorus_protocol::{Envelope, Incarnation, WorkerId, names};
use chorus_runtime::clock::SharedClock;
use serde::Serialize;
use serde_json::{Map, Value};

/// The kind of event in which a run's outcome is told.
const OUTCOME: &str = "outcome";

/// Tells events of one incarnation of a worker.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) worker: WorkerId,
    pub(crate) incarnation: Incarnation,
}

impl Events {
    /// The outcome of a run.
    pub(crate) async fn outcome(&self, outcome: Outcome, traceparent: Option<String>) {
        self.publish(OUTCOME, outcome, traceparent).await;
    }

    /// Something about the worker: `workerStarted`, `workerStopped`, `workerFailed`, `workerRecycled`, `memoryAlert`,
    /// `jobUnreadable`.
    pub(crate) async fn fleet(&self, kind: &str, message: impl Into<String>, details: Map<String, Value>) {
        let event = FleetEvent {
            kind: kind.to_owned(),
            worker_id: Some(self.worker.clone()),
            incarnation: Some(self.incarnation),
            message: message.into(),
            details,
        };
        self.publish(kind, event, None).await;
    }

    async fn publish<T: Serialize>(&self, kind: &str, payload: T, traceparent: Option<String>) {
        let envelope = Envelope::event(payload, self.clock.unix_ms()).traced(traceparent);
        if let Err(error) = self.bus.publish(&names::event_subject(kind), &envelope).await {
            tracing::debug!(%error, kind, "an event was not told");
        }
    }
}
