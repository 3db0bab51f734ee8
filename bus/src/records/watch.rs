//! Hearing of changes of records, however often the connection breaks.
//!
//! A watch reads the bucket's stream through a consumer of its own, which one server holds in memory: the last value of
//! each key first, then what comes. A consumer that goes on where it was does not help when the server has come back with
//! another store; so after a reconnect, a silence or a gap the watch is opened anew, tells everything again, and takes out
//! what is no longer there. (The library's ordered consumer notices a dead server only after 10 s, which is too long for
//! who watches breakers.)

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::push::{Config, Messages};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use chorus_protocol::names;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Bucket, RecordChange};
use crate::api::code;
use crate::bus::{Bus, bounded};
use crate::error::{BusError, BusErrorKind};
use crate::link::ConnectionState;
use crate::stored::{KV_OPERATION, MARKER_REASON};

/// How long a broken watch waits before it is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// How often the server says that it is there when it has nothing to tell; two of them missed are a break.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the server keeps a consumer that nobody listens to any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The bucket's entries, and how many there were when they were opened.
type Opened = (Box<Numbered>, u64);

/// Entries, counted by the server and by us.
struct Numbered {
    messages: Messages,
    /// How many have come.
    count: u64,
}

/// An entry, and how many more the server has to tell.
struct Entry {
    message: Message,
    revision: u64,
    pending: u64,
}

enum Entries {
    Open(Box<Numbered>),
    /// Kept here, so that a caller that drops [`RecordWatch::next`] again and again does not hold it up.
    Opening(BoxFuture<'static, Result<Opened, BusError>>),
}

/// Changes of records, in order.
pub struct RecordWatch<T> {
    bus: Bus,
    bucket: Bucket,
    /// Of which records.
    subjects: String,
    entries: Entries,
    connection: watch::Receiver<ConnectionState>,
    /// Until all that was there at the opening has been told.
    initial: Option<Initial>,
    told_ready: bool,
    known: HashSet<String>,
    /// Of `known`, what has been told since the watch was last opened.
    seen: HashSet<String>,
    changes: VecDeque<RecordChange<T>>,
}

/// What was there at the opening.
struct Initial {
    /// Entries still to come.
    pending: u64,
    /// When they are given up: what was counted may have been replaced before it was delivered.
    by: Instant,
}

impl<T: DeserializeOwned> RecordWatch<T> {
    pub(super) async fn open(bus: Bus, bucket: Bucket, subjects: String) -> Result<Self, BusError> {
        let (entries, pending) = open(&bus, bucket, subjects.clone()).await?;
        let connection = bus.connection_events();
        let mut watch = Self {
            bus,
            bucket,
            subjects,
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
    pub async fn next(&mut self) -> Option<RecordChange<T>> {
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
                        Ok(entry) => self.take(&entry),
                        Err(why) => {
                            tracing::info!(bucket = self.bucket.name, %why, "opening the watch anew");
                            self.entries = self.opening();
                        }
                    }
                }
                Entries::Opening(opening) => {
                    let closed = &self.bus.inner.link.closed;
                    match closed.run_until_cancelled(opening).await? {
                        Ok((entries, pending)) => {
                            self.entries = Entries::Open(entries);
                            self.seen.clear();
                            self.expect(pending);
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the bucket cannot be watched yet");
                            self.entries = self.opening();
                        }
                    }
                }
            }
        }
    }

    fn opening(&self) -> Entries {
        Entries::Opening(reopen(self.bus.clone(), self.bucket, self.subjects.clone()))
    }

    fn expect(&mut self, pending: u64) {
        let by = Instant::now() + self.bus.inner.request_timeout;
        self.initial = Some(Initial { pending, by });
    }

    /// All that is there has been told: what was known before and is not among it is gone.
    fn finish_initial(&mut self) {
        self.initial = None;
        let gone: Vec<_> = self.known.difference(&self.seen).cloned().collect();
        for key in gone {
            self.known.remove(&key);
            self.changes.push_back(RecordChange::Removed { key });
        }
        if !self.told_ready {
            self.told_ready = true;
            self.changes.push_back(RecordChange::Ready);
        }
    }

    fn take(&mut self, entry: &Entry) {
        if let Some(change) = read(&entry.message, entry.revision) {
            match &change {
                RecordChange::Put { key, .. } | RecordChange::Malformed { key, .. } => {
                    self.known.insert(key.clone());
                    self.seen.insert(key.clone());
                }
                RecordChange::Removed { key } => {
                    self.known.remove(key);
                    self.seen.remove(key);
                }
                RecordChange::Ready => {}
            }
            self.changes.push_back(change);
        }
        if self.initial.is_some() {
            self.expect(entry.pending);
        }
    }
}

impl Numbered {
    /// The next entry; else why there is none.
    async fn next(&mut self) -> Result<Entry, String> {
        let message = match self.messages.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("it ended".to_owned()),
        };
        let (number, revision, pending) = match message.info() {
            Ok(info) => (info.consumer_sequence, info.stream_sequence, info.pending),
            Err(error) => return Err(error.to_string()),
        };
        self.count += 1;
        if number == self.count {
            Ok(Entry { message, revision, pending })
        } else {
            Err(format!("entry {number} came as number {}", self.count))
        }
    }
}

/// The next entry, `by` at the latest; else why there is none.
async fn next_before(entries: &mut Numbered, by: Option<Instant>) -> Result<Entry, String> {
    match by {
        None => entries.next().await,
        Some(by) => tokio::time::timeout_at(by, entries.next())
            .await
            .unwrap_or_else(|_| Err("not all that is there was told in time".to_owned())),
    }
}

fn reopen(bus: Bus, bucket: Bucket, subjects: String) -> BoxFuture<'static, Result<Opened, BusError>> {
    async move {
        tokio::time::sleep(REOPEN_PAUSE).await;
        open(&bus, bucket, subjects).await
    }
    .boxed()
}

async fn open(bus: &Bus, bucket: Bucket, subjects: String) -> Result<Opened, BusError> {
    let inner = &bus.inner;
    inner.ready(inner.request_timeout).await?;
    let opening = async {
        let config = Config {
            deliver_subject: inner.client.new_inbox(),
            filter_subject: subjects,
            deliver_policy: DeliverPolicy::LastPerSubject,
            replay_policy: ReplayPolicy::Instant,
            ack_policy: AckPolicy::None,
            max_deliver: 1,
            idle_heartbeat: HEARTBEAT,
            inactive_threshold: FORGOTTEN_AFTER,
            num_replicas: 1,
            memory_storage: true,
            ..Config::default()
        };
        let stream = inner.jetstream.get_stream_no_info(bucket.stream()).await;
        let stream = stream.map_err(|error| unwatchable(bucket, BusErrorKind::Refused, error))?;
        let consumer = stream.create_consumer(config).await;
        let consumer = consumer.map_err(|error| unwatchable(bucket, kind_of(&error), error))?;
        let initial = consumer.cached_info().num_pending;
        let messages = consumer.messages().await;
        let messages = messages.map_err(|error| unwatchable(bucket, BusErrorKind::Refused, error))?;
        Ok((Box::new(Numbered { messages, count: 0 }), initial))
    };
    let timeout =
        || BusError::new(BusErrorKind::Timeout, format!("{} did not answer in time", bucket.stream()));
    bounded(2 * inner.request_timeout, Box::pin(opening)).await.ok_or_else(timeout)?
}

fn kind_of(error: &ConsumerError) -> BusErrorKind {
    match error.kind() {
        ConsumerErrorKind::JetStream(fault) if fault.error_code().0 == u64::from(code::STREAM_NOT_FOUND) => {
            BusErrorKind::NotFound
        }
        ConsumerErrorKind::TimedOut => BusErrorKind::Timeout,
        _ => BusErrorKind::Refused,
    }
}

fn unwatchable(
    bucket: Bucket,
    kind: BusErrorKind,
    error: impl std::error::Error + Send + Sync + 'static,
) -> BusError {
    BusError::caused(kind, format!("the KV bucket {} cannot be watched", bucket.name), error)
}

fn read<T: DeserializeOwned>(message: &Message, revision: u64) -> Option<RecordChange<T>> {
    let token = message.subject.rsplit('.').next()?;
    let Ok(key) = names::decode_token(token) else {
        tracing::warn!(subject = %message.subject, "a record under a key of nobody's making; left out");
        return None;
    };
    let removal = message.headers.as_ref().is_some_and(|headers| {
        let deleted = |operation: &str| matches!(operation, "DEL" | "PURGE");
        headers.get(KV_OPERATION).is_some_and(|operation| deleted(operation.as_str()))
            || headers.get(MARKER_REASON).is_some()
    });
    if removal {
        return Some(RecordChange::Removed { key });
    }
    match serde_json::from_slice(&message.payload) {
        Ok(value) => Some(RecordChange::Put { key, value, revision }),
        Err(error) => {
            tracing::warn!(subject = %message.subject, %error, "a record that cannot be read");
            Some(RecordChange::Malformed { key, revision })
        }
    }
}
