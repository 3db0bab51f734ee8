//! How a session reaches managers: over the bus, or, inside a manager, by a call.
//!
//! Over the bus, a question that is not answered as soon as questions are is asked once more (`patience`): the first answer
//! counts. Whether the first copy was lost with its manager or only late makes no difference to what is done.

mod patience;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chorus_bus::{Bus, RequestError, RequestErrorKind};
use chorus_protocol::breaker::DeadLetter;
use chorus_protocol::plan::{Advance, Advanced, Cancel, Finish, Finished, Open, Opened};
use chorus_protocol::{Envelope, ServiceError, names};
use chorus_runtime::clock::SharedClock;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use patience::{MAX_COPIES, Patience};

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
    /// By kind of question: their answers take different times.
    openings: Arc<Mutex<Patience>>,
    advances: Arc<Mutex<Patience>>,
}

impl BusPort {
    /// How long managers may take to answer before the session takes it that none will.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// Managers on this bus.
    pub fn new(bus: Bus, clock: SharedClock) -> Self {
        let patience = || Arc::new(Mutex::new(Patience::new()));
        Self { bus, clock, openings: patience(), advances: patience() }
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        question: Q,
        traceparent: Option<String>,
        patience: &Mutex<Patience>,
    ) -> Result<A, ServiceError> {
        let envelope = Envelope::request(question, self.clock.unix_ms()).traced(traceparent);
        let until = self.clock.now() + Self::TIMEOUT;
        let ask_once = || async {
            let sent_at = self.clock.now();
            let answer = self.bus.request(subject, &envelope, until.saturating_duration_since(sent_at)).await;
            (sent_at, answer)
        };
        let mut copies = FuturesUnordered::from_iter([ask_once()]);
        let mut wait = locked(patience).asked();
        let mut next_copy = Some(self.clock.now() + wait);
        let mut left = MAX_COPIES;
        loop {
            tokio::select! {
                biased;
                Some((sent_at, answer)) = copies.next() => {
                    let lost = matches!(&answer, Err(error) if is_lost(error));
                    if lost && !copies.is_empty() {
                        continue;
                    }
                    if !lost {
                        locked(patience).answered(self.clock.now().saturating_duration_since(sent_at));
                    }
                    return answer.map_err(RequestError::into_service_error);
                }
                () = sleep_until(next_copy) => {
                    wait *= 2;
                    let spent = left > 0 && locked(patience).spend();
                    next_copy = spent.then(|| self.clock.now() + wait);
                    if spent {
                        left -= 1;
                        tracing::debug!(subject, "no answer yet; asking once more");
                        copies.push(ask_once());
                    }
                }
            }
        }
    }
}

/// Whether nobody has answered.
fn is_lost(error: &RequestError) -> bool {
    matches!(
        error.kind,
        RequestErrorKind::NoResponders | RequestErrorKind::Timeout | RequestErrorKind::Disconnected
    )
}

fn locked(patience: &Mutex<Patience>) -> std::sync::MutexGuard<'_, Patience> {
    patience.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl ManagerPort for BusPort {
    fn open(&self, open: Open, traceparent: Option<String>) -> BoxFuture<'_, Result<Opened, ServiceError>> {
        Box::pin(self.ask(names::OPEN, open, traceparent, &self.openings))
    }

    fn advance(
        &self,
        advance: Advance,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Advanced, ServiceError>> {
        Box::pin(self.ask(names::ADVANCE, advance, traceparent, &self.advances))
    }

    fn finish(
        &self,
        finish: Finish,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Finished, ServiceError>> {
        // Asked once: hooks that see a result twice may do something twice, and the session does not wait for long.
        Box::pin(async move {
            let envelope = Envelope::request(finish, self.clock.unix_ms()).traced(traceparent);
            let answer = self.bus.request(names::FINISH, &envelope, Self::TIMEOUT).await;
            answer.map_err(RequestError::into_service_error)
        })
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
