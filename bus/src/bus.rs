//! The handle: one connection, shared by its clones.

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use chorus_protocol::ModelName;
use tokio::sync::watch;

use crate::catalogue::Catalogue;
use crate::config::BusConfig;
use crate::error::{BusError, BusErrorKind};
use crate::link::{ConnectionState, Link};
use crate::objects::OpenBuckets;
use crate::wire::Wire;

/// What is known of the server that we are connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The configured URL, without secrets.
    pub url: String,
    /// Its version.
    pub version: String,
    /// The largest message it takes, headers included, in bytes.
    pub max_payload: usize,
}

/// A connection to the broker. Clones share it.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: Context,
    pub(crate) shown_url: String,
    pub(crate) request_timeout: Duration,
    pub(crate) wire: Wire,
    pub(crate) job_ids: bool,
    pub(crate) link: Arc<Link>,
    pub(crate) objects: OpenBuckets,
    consumers: Mutex<HashSet<ModelName>>,
}

impl Inner {
    pub(crate) fn new(
        client: async_nats::Client,
        shown_url: String,
        config: &BusConfig,
        link: Arc<Link>,
    ) -> Arc<Self> {
        let request_timeout = config.request_timeout;
        let mut jetstream = async_nats::jetstream::new(client.clone());
        jetstream.set_timeout(request_timeout);
        let inner = Arc::new(Self {
            client,
            jetstream,
            shown_url,
            request_timeout,
            wire: config.wire,
            job_ids: config.job_ids,
            link: link.clone(),
            objects: OpenBuckets::default(),
            consumers: Mutex::default(),
        });
        // The link is made for this client and set once; a second time cannot come.
        let _first = link.inner.set(Arc::downgrade(&inner));
        inner
    }

    /// Models whose consumers this process has made sure of since the connection was last made.
    pub(crate) fn ensured_consumers(&self) -> MutexGuard<'_, HashSet<ModelName>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a disconnect another server, or one with an empty store, may answer.
    pub(crate) fn forget_consumers(&self) {
        self.ensured_consumers().clear();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected && !self.link.closed.is_cancelled()
    }

    /// How often a connection was made: what was sent under a smaller number may be lost.
    pub(crate) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits until the connection is up, so that nothing piles up in the send buffer while it is down and is sent, stale,
    /// when it comes back.
    pub(crate) async fn ready(&self, limit: Duration) -> Result<(), BusError> {
        if self.is_connected() {
            return Ok(());
        }
        let mut state = self.link.subscribe();
        let connected = state.wait_for(|state| *state == ConnectionState::Connected);
        let came = tokio::select! {
            () = self.link.closed.cancelled() => false,
            came = tokio::time::timeout(limit, connected) => matches!(came, Ok(Ok(_))),
        };
        if came { Ok(()) } else { Err(self.disconnected()) }
    }

    pub(crate) fn disconnected(&self) -> BusError {
        BusError::new(
            BusErrorKind::Disconnected,
            format!("the connection to the broker at {} is down", self.shown_url),
        )
    }

    pub(crate) fn check_size(&self, len: usize) -> Result<(), BusError> {
        let max = self.client.max_payload();
        if len > max { Err(BusError::too_large(len, max)) } else { Ok(()) }
    }
}

/// `future` within `limit`; `None` when it overran. A future that is ready at once costs no timer.
pub(crate) async fn bounded<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    if let Poll::Ready(value) = futures::poll!(future.as_mut()) {
        return Some(value);
    }
    tokio::time::timeout(limit, future).await.ok()
}

impl Bus {
    /// The server we are (or were last) connected to.
    pub fn server(&self) -> ServerInfo {
        ServerInfo {
            url: self.inner.shown_url.clone(),
            version: self.inner.client.server_info().version,
            max_payload: self.inner.client.max_payload(),
        }
    }

    /// A fresh subject that nobody else listens on.
    pub fn new_inbox(&self) -> String {
        self.inner.client.new_inbox()
    }

    /// Whether the broker is there, now and as it changes.
    pub fn connection_events(&self) -> watch::Receiver<ConnectionState> {
        self.inner.link.subscribe()
    }

    /// The catalogue of models.
    pub fn catalogue(&self) -> Catalogue {
        Catalogue::new(self)
    }

    /// Waits until everything sent so far has reached the broker's socket.
    ///
    /// # Errors
    /// `Disconnected`, or `Timeout` after the configured request time-out.
    pub async fn flush(&self) -> Result<(), BusError> {
        let limit = self.inner.request_timeout;
        self.inner.ready(limit).await?;
        match bounded(limit, self.inner.client.flush()).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(BusError::caused(BusErrorKind::Disconnected, "the flush failed", error)),
            None => Err(BusError::new(BusErrorKind::Timeout, "the flush took too long")),
        }
    }

    /// Ends the connection, for all clones: sends what is buffered, lets subscriptions end, and waits for the end, twice
    /// the configured request time-out at most.
    pub async fn close(self) {
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "closing the connection without a flush");
        }
        let limit = self.inner.request_timeout;
        let drained = async {
            match self.inner.client.drain().await {
                Ok(()) => self.inner.link.closed.cancelled().await,
                Err(error) => tracing::debug!(%error, "the connection is closed already"),
            }
        };
        if bounded(limit, drained).await.is_none() {
            tracing::warn!("the connection did not close in time");
        }
    }
}
