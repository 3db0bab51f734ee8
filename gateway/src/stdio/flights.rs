//! Requests under way: known by their id, bounded in number, to be cancelled or granted room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chorus_protocol::gateway::MAX_IN_FLIGHT;
use chorus_protocol::{MessageId, Reason, ServiceError};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::coming::{self, Coming, Piece};

/// When the client may ask again, where too much is under way.
const RETRY_AFTER_MS: u64 = 250;

#[derive(Clone)]
struct Flight {
    cancel: CancellationToken,
    window: Option<Arc<Semaphore>>,
    text: Option<Coming>,
}

#[derive(Default)]
struct Inner {
    flying: Mutex<HashMap<MessageId, Flight>>,
    landed: Notify,
}

/// See the module. A cheap clone.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Inner>);

/// One request under way, until this is dropped.
pub(super) struct InFlight {
    flights: Flights,
    id: MessageId,
    /// Cancelled when it is given up.
    pub(super) cancel: CancellationToken,
    /// Audio events that may be sent, where that is bounded.
    pub(super) window: Option<Arc<Semaphore>>,
    /// What comes of its text, where that comes in pieces.
    pub(super) text: Option<Coming>,
}

/// What a stream is begun with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms {
    /// Audio events that may be sent at first, where that is bounded.
    pub(super) window: Option<u32>,
    /// Whether its text comes in pieces.
    pub(super) text_comes: bool,
}

impl Flights {
    /// A request begins.
    pub(super) fn begin(
        &self,
        id: &MessageId,
        terms: Terms,
        scope: &CancellationToken,
    ) -> Result<InFlight, ServiceError> {
        let mut flying = self.flying();
        if flying.contains_key(id) {
            let message = format!("messageId {id} is that of a request under way");
            return Err(ServiceError::field(Reason::IdReused, "messageId", message));
        }
        if flying.len() >= MAX_IN_FLIGHT {
            let message = format!("{MAX_IN_FLIGHT} requests are under way already");
            return Err(ServiceError::new(Reason::RateLimited, message).retry_after_ms(RETRY_AFTER_MS));
        }
        let cancel = scope.child_token();
        let window = terms.window.map(|chunks| Arc::new(Semaphore::new(chunks as usize)));
        let text = terms.text_comes.then(|| Coming::new(id.clone(), cancel.clone()));
        let flight = Flight { cancel: cancel.clone(), window: window.clone(), text: text.clone() };
        flying.insert(id.clone(), flight);
        Ok(InFlight { flights: self.clone(), id: id.clone(), cancel, window, text })
    }

    /// Takes what the message `id` brings of the text of request `of`.
    ///
    /// # Errors
    /// INVALID_REQUEST/unknown_request when there is no such text; else as of [`Coming::put`].
    pub(super) fn put(&self, of: &MessageId, id: MessageId, piece: Piece) -> Result<(), ServiceError> {
        let text = self.flying().get(of).and_then(|flight| flight.text.clone());
        text.ok_or_else(|| coming::unknown(of))?.put(id, piece)
    }

    /// The parent says nothing more: texts that were still to come are over.
    pub(super) fn end_texts(&self) {
        let texts: Vec<Coming> = self.flying().values().filter_map(|flight| flight.text.clone()).collect();
        texts.iter().for_each(Coming::input_ended);
    }

    /// Gives a request up; whether there was one.
    pub(super) fn cancel(&self, id: &MessageId) -> bool {
        let flight = self.flying().get(id).cloned();
        flight.is_some_and(|flight| {
            flight.cancel.cancel();
            true
        })
    }

    /// Gives all up.
    pub(super) fn cancel_all(&self) {
        for flight in self.flying().values() {
            flight.cancel.cancel();
        }
    }

    /// Makes room for more audio of a stream.
    pub(super) fn grant(&self, id: &MessageId, chunks: u32) {
        let window = self.flying().get(id).and_then(|flight| flight.window.clone());
        if let Some(window) = window {
            let room = Semaphore::MAX_PERMITS - window.available_permits();
            window.add_permits((chunks as usize).min(room));
        }
    }

    /// Waits until none is under way.
    pub(super) async fn all_landed(&self) {
        loop {
            let landed = self.0.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if self.flying().is_empty() {
                return;
            }
            landed.await;
        }
    }

    fn flying(&self) -> MutexGuard<'_, HashMap<MessageId, Flight>> {
        self.0.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.flights.flying().remove(&self.id);
        self.flights.0.landed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_the_number_is_bounded() {
        let (flights, scope) = (Flights::default(), CancellationToken::new());
        let id = |n: usize| MessageId::new(format!("m{n}")).unwrap();
        let mut flying: Vec<_> =
            (0..MAX_IN_FLIGHT).map(|n| flights.begin(&id(n), Terms::default(), &scope).unwrap()).collect();
        let reason = |begun: Result<InFlight, ServiceError>| begun.err().and_then(|error| error.reason());
        assert_eq!(reason(flights.begin(&id(3), Terms::default(), &scope)), Some(Reason::IdReused));
        assert_eq!(reason(flights.begin(&id(999), Terms::default(), &scope)), Some(Reason::RateLimited));
        assert!(
            flights.cancel(&id(0)) && flying[0].cancel.is_cancelled() && !flying[1].cancel.is_cancelled()
        );
        flying.remove(0);
        assert!(!flights.cancel(&id(0)));
        let stream = flights.begin(&id(0), Terms { window: Some(2), text_comes: false }, &scope).unwrap();
        flights.grant(&id(0), u32::MAX);
        assert_eq!(stream.window.as_ref().unwrap().available_permits(), 2 + u32::MAX as usize);
    }
}
