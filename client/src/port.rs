//! How a session reaches managers: over the bus, or, inside a manager, by a call.

use std::time::Duration;

use chorus_bus::Bus;
use chorus_protocol::breaker::DeadLetter;
use chorus_protocol::plan::{Advance, Advanced, Cancel, Finish, Finished, Open, Opened};
use chorus_protocol::{Envelope, ServiceError, names};
use chorus_runtime::clock::SharedClock;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The questions that a session asks managers. An answer is final for that question; a question without an answer comes
/// back as a retryable error and is asked again by the session.
pub trait ManagerPort: Send + Sync + 'static {
    /// Opens a session.
    fn open(&self, open: Open, traceparent: Option<String>) -> BoxFuture<'_, Result<Opened, ServiceError>>;
    /// Further segments, retries, look-ups.
    fn advance(
        &self,
        advance: Advance,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Advanced, ServiceError>>;
    /// Lets hooks see the result.
    fn finish(
        &self,
        finish: Finish,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Finished, ServiceError>>;
    /// Tells every manager that a session was given up.
    fn cancel(&self, cancel: Cancel) -> BoxFuture<'_, ()>;
    /// Puts a segment that failed wherever it was tried into the dead-letter stream.
    fn bury(&self, letter: DeadLetter) -> BoxFuture<'_, ()>;
}

/// Managers on the bus.
#[derive(Clone)]
pub struct BusPort {
    bus: Bus,
    clock: SharedClock,
    timeout: Duration,
}

impl BusPort {
    /// How long a manager may take to answer before the question is asked again.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// Managers on this bus.
    pub fn new(bus: Bus, clock: SharedClock) -> Self {
        Self { bus, clock, timeout: Self::TIMEOUT }
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        question: Q,
        traceparent: Option<String>,
    ) -> Result<A, ServiceError> {
        let envelope = Envelope::request(question, self.clock.unix_ms()).traced(traceparent);
        self.bus.request(subject, &envelope, self.timeout).await.map_err(|e| e.into_service_error())
    }
}

impl ManagerPort for BusPort {
    fn open(&self, open: Open, traceparent: Option<String>) -> BoxFuture<'_, Result<Opened, ServiceError>> {
        Box::pin(self.ask(names::OPEN, open, traceparent))
    }

    fn advance(
        &self,
        advance: Advance,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Advanced, ServiceError>> {
        Box::pin(self.ask(names::ADVANCE, advance, traceparent))
    }

    fn finish(
        &self,
        finish: Finish,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Finished, ServiceError>> {
        Box::pin(self.ask(names::FINISH, finish, traceparent))
    }

    fn cancel(&self, cancel: Cancel) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let session = cancel.session;
            let envelope = Envelope::event(cancel, self.clock.unix_ms());
            if let Err(error) = self.bus.publish(names::CANCEL, &envelope).await {
                tracing::debug!(%session, %error, "cancel not told: its jobs will be stopped when they start");
            }
        })
    }

    fn bury(&self, letter: DeadLetter) -> BoxFuture<'_, ()> {
        Box::pin(bury(&self.bus, letter))
    }
}

/// Publishes a dead letter. One that the broker does not take is logged: the request has ended with the same words.
pub async fn bury(bus: &Bus, letter: DeadLetter) {
    let (session, segment) = (letter.session, letter.segment);
    let (model, at_ms) = (letter.speech.model.clone(), letter.at_ms);
    match bus.dead_letters().publish(&model, &Envelope::event(letter, at_ms)).await {
        Ok(seq) => {
            tracing::warn!(%session, segment, %model, seq, "a segment is poison; it lies in the dead letters")
        }
        Err(error) => tracing::error!(%session, segment, %model, %error, "a dead letter was lost"),
    }
}
