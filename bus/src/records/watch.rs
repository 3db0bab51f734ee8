//! Hearing of changes in the catalogue, however often the connection breaks.
//!
//! A watch reads the bucket's stream through an ordered consumer: the last value of each key first, then what comes. The
//! library's consumer heals itself after a break, but goes on at the sequence where it was, and the server may have come
//! back with another store. So after a reconnect the watch is opened anew, tells everything again, and takes out what is
//! no longer there.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use chorus_protocol::{ModelDefinition, ModelName, names};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Catalogue, CatalogueChange};
use crate::error::{BusError, BusErrorKind};
use crate::link::ConnectionState;

/// How long a broken watch waits before it is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// The header by which a KV entry says that it is a removal, and not a value.
const KV_OPERATION: &str = "KV-Operation";

/// The bucket's stream, and how many entries it held when it was opened.
type Opened = (Box<Ordered>, u64);

enum Entries {
    Open(Box<Ordered>),
    /// Kept here, so that a caller that drops [`CatalogueWatch::next`] again and again does not hold it up.
    Opening(BoxFuture<'static, Result<Opened, BusError>>),
}

/// Changes of the catalogue, in order.
pub struct CatalogueWatch {
    catalogue: Catalogue,
    entries: Entries,
    connection: watch::Receiver<ConnectionState>,
    /// Until all that was there at the opening has been told.
    initial: Option<Initial>,
    told_ready: bool,
    known: HashSet<ModelName>,
    /// Of `known`, what has been told since the watch was last opened.
    seen: HashSet<ModelName>,
    changes: VecDeque<CatalogueChange>,
}

/// What was there at the opening.
struct Initial {
    /// Entries still to come.
    pending: u64,
    /// When they are given up: what was counted may have been replaced before it was delivered.
    by: Instant,
}

impl CatalogueWatch {
    pub(super) async fn open(catalogue: Catalogue) -> Result<Self, BusError> {
        let (entries, pending) = open(&catalogue).await?;
        let connection = catalogue.bus.connection_events();
        let mut watch = Self {
            catalogue,
            connection,
            entries: Entries::Open(entries),
            initial: None,
            told_ready: false,
            known: HashSet::new(),
            seen: HashSet::new(),
            changes: VecDeque::new(),
        };
        watch.expect(pending);
        Ok(watch)
    }

    /// The next change; `None` when the connection was closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<CatalogueChange> {
        loop {
            if self.initial.as_ref().is_some_and(|initial| initial.pending == 0) {
                self.finish_initial();
            }
            if let Some(change) = self.changes.pop_front() {
                return Some(change);
            }
            match &mut self.entries {
                Entries::Open(entries) => {
                    let by = self.initial.as_ref().map(|initial| initial.by);
                    let next = tokio::select! {
                        biased;
                        changed = self.connection.changed() => {
                            changed.ok()?;
                            match *self.connection.borrow() {
                                ConnectionState::Connected => Err("the connection was lost".to_owned()),
                                ConnectionState::Disconnected { .. } => continue,
                            }
                        }
                        next = next_before(entries, by) => next,
                    };
                    match next {
                        Ok(message) => self.take(&message),
                        Err(why) => {
                            tracing::info!(%why, "opening the catalogue watch anew");
                            self.entries = Entries::Opening(reopen(self.catalogue.clone()));
                        }
                    }
                }
                Entries::Opening(opening) => {
                    let closed = &self.catalogue.bus.inner.link.closed;
                    match closed.run_until_cancelled(opening).await? {
                        Ok((entries, pending)) => {
                            self.entries = Entries::Open(entries);
                            self.seen.clear();
                            self.expect(pending);
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the catalogue cannot be watched yet");
                            self.entries = Entries::Opening(reopen(self.catalogue.clone()));
                        }
                    }
                }
            }
        }
    }

    fn expect(&mut self, pending: u64) {
        let by = Instant::now() + self.catalogue.bus.inner.request_timeout;
        self.initial = Some(Initial { pending, by });
    }

    /// All that is there has been told: what was known before and is not among it is gone.
    fn finish_initial(&mut self) {
        self.initial = None;
        let gone: Vec<_> = self.known.difference(&self.seen).cloned().collect();
        for model in gone {
            self.known.remove(&model);
            self.changes.push_back(CatalogueChange::Removed(model));
        }
        if !self.told_ready {
            self.told_ready = true;
            self.changes.push_back(CatalogueChange::Ready);
        }
    }

    fn take(&mut self, message: &Message) {
        if let Some(change) = read(message) {
            match &change {
                CatalogueChange::Put(model) => {
                    self.known.insert(model.name.clone());
                    self.seen.insert(model.name.clone());
                }
                CatalogueChange::Removed(model) => {
                    self.known.remove(model);
                    self.seen.remove(model);
                }
                CatalogueChange::Ready => {}
            }
            self.changes.push_back(change);
        }
        if self.initial.is_some() {
            self.expect(message.info().map_or(0, |info| info.pending));
        }
    }
}

/// The next entry, `by` at the latest; else why there is none.
async fn next_before(entries: &mut Ordered, by: Option<Instant>) -> Result<Message, String> {
    let next = match by {
        None => entries.next().await,
        Some(by) => tokio::time::timeout_at(by, entries.next())
            .await
            .map_err(|_| "not all that is there was told in time".to_owned())?,
    };
    match next {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it ended".to_owned()),
    }
}

fn reopen(catalogue: Catalogue) -> BoxFuture<'static, Result<Opened, BusError>> {
    async move {
        tokio::time::sleep(REOPEN_PAUSE).await;
        open(&catalogue).await
    }
    .boxed()
}

async fn open(catalogue: &Catalogue) -> Result<Opened, BusError> {
    let inner = &catalogue.bus.inner;
    let store = catalogue.store().await?;
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        BusError::caused(BusErrorKind::Refused, "the catalogue cannot be watched", error)
    };
    let opening = async {
        let config = OrderedConfig {
            deliver_subject: inner.client.new_inbox(),
            filter_subject: format!("{}>", store.prefix),
            deliver_policy: DeliverPolicy::LastPerSubject,
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        };
        let consumer = store.stream.create_consumer(config).await.map_err(|error| broken(error.into()))?;
        let initial = consumer.cached_info().num_pending;
        let entries = consumer.messages().await.map_err(|error| broken(error.into()))?;
        Ok((Box::new(entries), initial))
    };
    catalogue.within(Box::pin(opening)).await?
}

fn read(message: &Message) -> Option<CatalogueChange> {
    let key = message.subject.rsplit('.').next()?;
    let removal = message.headers.as_ref().is_some_and(|headers| {
        headers.get(KV_OPERATION).is_some_and(|operation| matches!(operation.as_str(), "DEL" | "PURGE"))
    });
    if removal {
        let model = names::decode_token(key).ok().and_then(|name| ModelName::new(name).ok());
        if model.is_none() {
            tracing::warn!(key, "a catalogue entry with a key of no model is gone");
        }
        return model.map(CatalogueChange::Removed);
    }
    match serde_json::from_slice::<ModelDefinition>(&message.payload) {
        Ok(model) if names::model_key(&model.name) == key => Some(CatalogueChange::Put(model)),
        Ok(model) => {
            tracing::warn!(key, model = %model.name, "a catalogue entry under another model's key; left out");
            None
        }
        Err(error) => {
            tracing::warn!(key, %error, "a catalogue entry that cannot be read; left out");
            None
        }
    }
}
