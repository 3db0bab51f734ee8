//! What the connection is doing, as the client library tells it.
//!
//! The library reports through a bounded channel of events that it fills without waiting, so an event may be lost in a
//! flood. An event is lost only while others wait to be handled; therefore every event that is handled reads the true
//! state from the client itself, and the last one leaves [`ConnectionState`] right.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_nats::Event;
use async_nats::connection::State;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::Inner;

/// Lost messages are told of at most this often.
const SLOW_CONSUMER_LOG_EVERY: Duration = Duration::from_secs(1);

/// Whether the broker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// It is.
    Connected,
    /// It is not, and is being looked for.
    Disconnected {
        /// Since when.
        since: Instant,
    },
}

/// The side of the event callback.
pub(crate) struct Link {
    state: watch::Sender<ConnectionState>,
    /// Cancelled when the library's connection task has ended for good.
    pub(crate) closed: CancellationToken,
    /// Set once the client exists; weak, since the library's event task holds us and the client holds that task.
    pub(crate) inner: OnceLock<Weak<Inner>>,
    lost_messages: AtomicU64,
    lost_logged: Mutex<Option<Instant>>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(ConnectionState::Connected),
            closed: CancellationToken::new(),
            inner: OnceLock::new(),
            lost_messages: AtomicU64::new(0),
            lost_logged: Mutex::new(None),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    pub(crate) fn handle(&self, event: Event) {
        match &event {
            Event::Closed => self.closed.cancel(),
            Event::SlowConsumer(subscription) => self.count_lost(*subscription),
            Event::ServerError(error) => tracing::error!(%error, "the broker reports an error"),
            Event::ClientError(error) => tracing::debug!(%error, "the broker cannot be reached yet"),
            Event::LameDuckMode => tracing::info!("the broker is about to shut down"),
            Event::Connected | Event::Disconnected | Event::Draining => {}
        }
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else { return };
        let connected = !self.closed.is_cancelled() && inner.client.connection_state() == State::Connected;
        if self.set(connected) {
            if connected {
                tracing::info!(url = %inner.shown_url, "connected to the broker again");
            } else if self.closed.is_cancelled() {
                tracing::debug!(url = %inner.shown_url, "the connection to the broker is closed");
            } else {
                inner.forget_consumers();
                tracing::warn!(url = %inner.shown_url, "lost the connection to the broker");
            }
        }
    }

    /// Whether that is a change.
    fn set(&self, connected: bool) -> bool {
        self.state.send_if_modified(|state| match (*state, connected) {
            (ConnectionState::Connected, false) => {
                *state = ConnectionState::Disconnected { since: Instant::now() };
                true
            }
            (ConnectionState::Disconnected { .. }, true) => {
                *state = ConnectionState::Connected;
                true
            }
            _ => false,
        })
    }

    /// A subscription was full and the library dropped a message: the reader does not keep up.
    fn count_lost(&self, subscription: u64) {
        let lost = self.lost_messages.fetch_add(1, Ordering::Relaxed) + 1;
        let mut logged = self.lost_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= SLOW_CONSUMER_LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::error!(subscription, lost, "a subscription is full: messages are lost");
        }
    }
}
