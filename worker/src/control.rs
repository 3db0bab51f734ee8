//! What others ask of a worker: pings with progress, stop orders, the gate, draining, loading and unloading.
//!
//! Every question is answered at once; what it sets off goes on beside. A question that cannot be read is answered with
//! why.

use std::sync::Arc;
use std::time::Duration;

use chorus_bus::{Bus, Incoming, Subscription};
use chorus_protocol::fleet::{OrderTaken, Ping, Pong, WorkerOrder};
use chorus_protocol::names::{WorkerControl, worker_control, worker_controls};
use chorus_protocol::{Envelope, Incarnation, MessageId, Reason, ServiceError, WorkerId};
use chorus_runtime::clock::SharedClock;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::models::ModelOrder;
use crate::runs::Runs;

/// How long the subscription rests before it is made anew.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(250);

/// `tts.worker.<id>.gate`: pull, or do not pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateOrder {
    /// Whether jobs may be pulled.
    pub open: bool,
}

/// What the orders act on.
pub(crate) struct Control {
    pub(crate) worker: WorkerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) runs: Arc<Runs>,
    pub(crate) gate: watch::Sender<bool>,
    pub(crate) models: mpsc::Sender<ModelOrder>,
    pub(crate) draining: CancellationToken,
}

impl Control {
    /// Listens until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            let mut questions = self.subscribe().await;
            while let Some(question) = questions.next().await {
                self.answer(question).await;
            }
            tokio::time::sleep(SUBSCRIBE_PAUSE).await;
        }
    }

    async fn subscribe(&self) -> Subscription {
        loop {
            match self.bus.subscribe(&worker_controls(&self.worker), None).await {
                Ok(subscription) => return subscription,
                Err(error) => tracing::warn!(%error, "cannot listen for orders yet"),
            }
            tokio::time::sleep(SUBSCRIBE_PAUSE).await;
        }
    }

    async fn answer(&self, question: Incoming) {
        let is = |control| question.subject() == worker_control(&self.worker, control);
        let result = if is(WorkerControl::Ping) {
            return self.pong(&question).await;
        } else if is(WorkerControl::Gate) {
            self.gate(&question)
        } else {
            self.order(&question)
        };
        match result {
            Ok(id) => self.reply(&question, &id, OrderTaken { incarnation: self.incarnation }).await,
            Err(error) => {
                tracing::warn!(subject = question.subject(), %error, "an order was refused");
                let envelope = Envelope::error(None, error, self.clock.unix_ms());
                self.sent(self.bus.respond(&question, &envelope, question.encoding()).await);
            }
        }
    }

    /// Who answers says which start it is: a revived zombie must not answer for its successor.
    async fn pong(&self, question: &Incoming) {
        let id = match question.decode::<Ping>() {
            Ok(envelope) => envelope.message_id,
            Err(error) => {
                tracing::debug!(%error, "a ping that cannot be read is answered all the same");
                MessageId::fresh()
            }
        };
        let runs = self.runs.progress(self.clock.now());
        self.reply(question, &id, Pong { incarnation: self.incarnation, runs }).await;
    }

    fn gate(&self, question: &Incoming) -> Result<MessageId, ServiceError> {
        let envelope = question.decode::<GateOrder>()?;
        let open = envelope.payload.open;
        tracing::info!(open, "gate");
        self.gate.send_replace(open);
        Ok(envelope.message_id)
    }

    fn order(&self, question: &Incoming) -> Result<MessageId, ServiceError> {
        let envelope = question.decode::<WorkerOrder>()?;
        match envelope.payload {
            WorkerOrder::Stop { session } => {
                let runs = self.runs.stop_session(session);
                tracing::debug!(%session, runs, "stopped");
            }
            WorkerOrder::Drain => {
                tracing::info!("told to drain");
                self.draining.cancel();
            }
            WorkerOrder::Load { model } => self.model_order(ModelOrder::Load(model))?,
            WorkerOrder::Unload { model } => self.model_order(ModelOrder::Unload(model))?,
        }
        Ok(envelope.message_id)
    }

    fn model_order(&self, order: ModelOrder) -> Result<(), ServiceError> {
        self.models.try_send(order).map_err(|_full_or_closed| {
            ServiceError::new(Reason::QueueFull, "too many orders about models wait already")
                .retry_after_ms(1000)
        })
    }

    async fn reply<T: Serialize>(&self, question: &Incoming, id: &MessageId, answer: T) {
        let envelope = Envelope::response(id, answer, self.clock.unix_ms());
        self.sent(self.bus.respond(question, &envelope, question.encoding()).await);
    }

    fn sent(&self, sent: Result<(), chorus_bus::BusError>) {
        if let Err(error) = sent {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}
