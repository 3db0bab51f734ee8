//! Records: values of one type under keys, in a KV bucket, changed by compare-and-set.
//!
//! Several managers write the same record. Each reads it with its revision, decides, and writes on the condition that the
//! revision still holds; who comes second is told [`CasError::Conflict`] and reads again. A write whose outcome is unknown
//! is repeated. The server looks at the condition before it looks for doubles, so a write that conflicts is compared with
//! what stands there, by message id: nobody conflicts with himself. Values are JSON, one token per key
//! ([`names::encode_token`]), so any text is a key. A record may be given a lifetime, as leases are.
//!
//! A value that cannot be read is an error to who asks for it and a [`RecordChange::Malformed`] to who watches; it takes
//! no other record with it.

mod watch;

use std::marker::PhantomData;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use chorus_protocol::{MessageId, names};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::bus::{Bus, bounded};
use crate::confirm::{ConfirmError, MESSAGE_ID_NAME, Outgoing};
use crate::error::{BusError, BusErrorKind};
use crate::stored::{KV_OPERATION, StoredMessage};

pub use watch::RecordWatch;

const OPERATION: HeaderName = HeaderName::from_static(KV_OPERATION);
const EXPECTED: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
const TTL: HeaderName = HeaderName::from_static("Nats-TTL");
/// How long the sign that a record was deleted stays: without an end, keys that come once would fill the bucket.
const REMOVAL_TTL: Duration = Duration::from_secs(3600);
/// How often a creation that finds the remains of an older record looks again.
const CREATE_ROUNDS: usize = 3;

/// A KV bucket of the layout, or one kind of record in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    name: &'static str,
    kind: Option<&'static str>,
}

impl Bucket {
    /// Breaker state per worker.
    pub const BREAKERS: Self = Self::new(names::BREAKERS_BUCKET);
    /// Which models workers were told to serve.
    pub const PLACEMENT: Self = Self::new(names::PLACEMENT_BUCKET);
    /// Models that all workers of their engines were told to serve.
    pub const MODEL_ORDERS: Self = Self::PLACEMENT.kind(names::MODEL_ORDERS);
    /// What plain requests were answered. Records age by themselves, and the oldest go when it is full.
    pub const REPLIES: Self = Self::new(names::REPLIES_BUCKET);
    /// Durable jobs.
    pub const DURABLE_JOBS: Self = Self::new(names::DURABLE_JOBS_BUCKET);
    pub(crate) const MODELS: Self = Self::new(names::MODELS_BUCKET);
    pub(crate) const TAKES: Self = Self::new(names::TAKES_BUCKET);

    const fn new(name: &'static str) -> Self {
        Self { name, kind: None }
    }

    /// Records of this kind only: those of different kinds share the bucket, and neither their keys nor their watches meet.
    /// One token: ASCII letters, digits, `-` and `_`.
    #[must_use]
    pub const fn kind(self, kind: &'static str) -> Self {
        Self { kind: Some(kind), ..self }
    }

    pub(crate) fn stream(self) -> String {
        format!("KV_{}", self.name)
    }

    fn subject(self, token: &str) -> String {
        match self.kind {
            None => format!("$KV.{}.{token}", self.name),
            Some(kind) => format!("$KV.{}.{kind}.{token}", self.name),
        }
    }
}

/// A value, and the revision under which it may be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Grows with every write to the bucket.
    pub revision: u64,
}

/// A change of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordChange<T> {
    /// A record is there, new or changed (or told again after a reconnect).
    Put {
        /// Its key.
        key: String,
        /// Its value.
        value: T,
        /// The revision of that value.
        revision: u64,
    },
    /// A record is there whose value cannot be read; what was known of it no longer holds.
    Malformed {
        /// Its key.
        key: String,
        /// The revision, for who wants to replace or delete it.
        revision: u64,
    },
    /// A record was deleted or has run out.
    Removed {
        /// Its key.
        key: String,
    },
    /// What was there at the start has all been told. Once per watch.
    Ready,
}

/// A conditional write that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CasError {
    /// There is a record under the key already.
    #[error("the record is there already")]
    Exists,
    /// The record has another revision, or is gone.
    #[error("the record was changed by somebody else")]
    Conflict,
    /// It could not be tried, or its outcome is unknown (`Timeout`): read the record to know.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Records of one type. Cheap to clone.
pub struct Records<T> {
    bus: Bus,
    bucket: Bucket,
    /// Values are made and eaten, never held.
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Records<T> {
    fn clone(&self) -> Self {
        Self { bus: self.bus.clone(), bucket: self.bucket, values: PhantomData }
    }
}

impl Bus {
    /// The records of a bucket.
    pub fn records<T: Serialize + DeserializeOwned>(&self, bucket: Bucket) -> Records<T> {
        Records { bus: self.clone(), bucket, values: PhantomData }
    }
}

/// What a write asks of the record that it replaces.
#[derive(Clone, Copy)]
enum Expected {
    Anything,
    Revision(u64),
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// The record under `key`, as the stream's leader has it.
    ///
    /// # Errors
    /// `Malformed` when its value cannot be read; `NotFound` when the bucket is missing (see [`Bus::ensure_layout`]),
    /// `Refused`, `Timeout`, `Disconnected`.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned<T>>, BusError> {
        let Some(message) = self.last(key).await?.filter(|message| !message.is_removal()) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&message.payload).map_err(|error| {
            let message = format!("the record {key} of {} cannot be read", self.bucket.name);
            BusError::caused(BusErrorKind::Malformed, message, error)
        })?;
        Ok(Some(Versioned { value, revision: message.seq }))
    }

    /// Writes a record whatever was there, and gives its revision.
    ///
    /// # Errors
    /// `TooLarge`, `NotFound` when the bucket is missing, `Refused` (the bucket is full), `Timeout`, `Disconnected`.
    pub async fn put(&self, key: &str, value: &T) -> Result<u64, BusError> {
        let written = self.write(&MessageId::fresh(), key, Some(value), Expected::Anything, None).await;
        written.map_err(|error| error.into_bus(&self.about(key)))
    }

    /// Writes a record where there is none, and gives its revision.
    ///
    /// # Errors
    /// [`CasError::Exists`], or the bus's, as of [`Records::put`].
    pub async fn create(&self, key: &str, value: &T) -> Result<u64, CasError> {
        self.create_within(key, value, None).await
    }

    /// Writes a record that vanishes by itself after `ttl` (whole seconds, rounded up) unless it is written anew.
    ///
    /// # Errors
    /// As of [`Records::create`].
    pub async fn create_with_ttl(&self, key: &str, value: &T, ttl: Duration) -> Result<u64, CasError> {
        self.create_within(key, value, Some(ttl)).await
    }

    /// Replaces the record that has `revision`, and gives the new one. A lifetime that it had is over: it stays.
    ///
    /// # Errors
    /// [`CasError::Conflict`], or the bus's, as of [`Records::put`].
    pub async fn update(&self, key: &str, value: &T, revision: u64) -> Result<u64, CasError> {
        self.replace(key, Some(value), revision, None).await
    }

    /// As [`Records::update`], with a new lifetime (whole seconds, rounded up): how a lease is renewed.
    ///
    /// # Errors
    /// As of [`Records::update`].
    pub async fn update_with_ttl(
        &self,
        key: &str,
        value: &T,
        revision: u64,
        ttl: Duration,
    ) -> Result<u64, CasError> {
        self.replace(key, Some(value), revision, Some(ttl)).await
    }

    /// Deletes a record: the one that has `revision`, or without one whatever is there, be it nothing.
    ///
    /// # Errors
    /// [`CasError::Conflict`] (only with a revision), or the bus's, as of [`Records::put`].
    pub async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), CasError> {
        match revision {
            Some(revision) => self.replace(key, None, revision, Some(REMOVAL_TTL)).await.map(|_| ()),
            None => {
                let id = MessageId::fresh();
                let written = self.write(&id, key, None, Expected::Anything, Some(REMOVAL_TTL)).await;
                written.map(|_| ()).map_err(|error| error.into_bus(&self.about(key)).into())
            }
        }
    }

    /// All records that can be read, in the order of their keys as stored.
    ///
    /// # Errors
    /// As of [`Records::get`], less `Malformed`: what cannot be read is logged and left out.
    pub async fn list(&self) -> Result<Vec<(String, Versioned<T>)>, BusError> {
        let mut watch = self.watch().await?;
        let collecting = async {
            let mut records = std::collections::HashMap::new();
            while let Some(change) = watch.next().await {
                match change {
                    RecordChange::Put { key, value, revision } => {
                        records.insert(key, Versioned { value, revision });
                    }
                    RecordChange::Malformed { key, .. } | RecordChange::Removed { key } => {
                        records.remove(&key);
                    }
                    RecordChange::Ready => return Ok(records),
                }
            }
            Err(self.bus.inner.disconnected())
        };
        let limit = 2 * self.bus.inner.request_timeout;
        let timeout =
            || BusError::new(BusErrorKind::Timeout, format!("{} was not told in time", self.bucket.stream()));
        let records = bounded(limit, collecting).await.ok_or_else(timeout)??;
        let mut records: Vec<_> = records.into_iter().collect();
        records.sort_by_cached_key(|(key, _)| names::encode_token(key));
        Ok(records)
    }

    /// What is there, then [`RecordChange::Ready`], then every change.
    ///
    /// # Errors
    /// As of [`Records::list`].
    pub async fn watch(&self) -> Result<RecordWatch<T>, BusError> {
        self.watch_tokens("*").await
    }

    /// As [`Records::watch`], of one record only.
    ///
    /// # Errors
    /// As of [`Records::list`].
    pub async fn watch_key(&self, key: &str) -> Result<RecordWatch<T>, BusError> {
        self.watch_tokens(&names::encode_token(key)).await
    }

    async fn watch_tokens(&self, tokens: &str) -> Result<RecordWatch<T>, BusError> {
        RecordWatch::open(self.bus.clone(), self.bucket, self.bucket.subject(tokens)).await
    }

    async fn create_within(&self, key: &str, value: &T, ttl: Option<Duration>) -> Result<u64, CasError> {
        let mut expected = 0;
        for _ in 0..CREATE_ROUNDS {
            match self.replace(key, Some(value), expected, ttl).await {
                Err(CasError::Conflict) => {}
                created => return created,
            }
            // A deleted record leaves a sign of it, which the new one has to replace.
            expected = match self.last(key).await? {
                Some(message) if !message.is_removal() => return Err(CasError::Exists),
                Some(removal) => removal.seq,
                None => 0,
            };
        }
        // It came and went while we looked: somebody else is at it.
        Err(CasError::Exists)
    }

    async fn replace(
        &self,
        key: &str,
        value: Option<&T>,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64, CasError> {
        let id = MessageId::fresh();
        let error = match self.write(&id, key, value, Expected::Revision(revision), ttl).await {
            Ok(revision) => return Ok(revision),
            Err(error) => error,
        };
        if !matches!(&error, ConfirmError::Fault(fault) if fault.is_wrong_sequence()) {
            return Err(error.into_bus(&self.about(key)).into());
        }
        match self.last(key).await? {
            Some(ours) if ours.header(MESSAGE_ID_NAME) == Some(id.as_str()) => Ok(ours.seq),
            _ => Err(CasError::Conflict),
        }
    }

    /// Writes a value, or without one the sign of its removal.
    async fn write(
        &self,
        id: &MessageId,
        key: &str,
        value: Option<&T>,
        expected: Expected,
        ttl: Option<Duration>,
    ) -> Result<u64, ConfirmError> {
        let mut headers = HeaderMap::new();
        let payload = match value {
            Some(value) => Bytes::from(serde_json::to_vec(value).map_err(ConfirmError::Unwritable)?),
            None => {
                headers.insert(OPERATION, HeaderValue::from("DEL"));
                Bytes::new()
            }
        };
        if let Expected::Revision(revision) = expected {
            headers.insert(EXPECTED, HeaderValue::from(revision));
        }
        if let Some(ttl) = ttl {
            headers.insert(TTL, HeaderValue::from(format!("{}s", whole_seconds(ttl))));
        }
        let message = Outgoing {
            stream: &self.bucket.stream(),
            subject: &self.bucket.subject(&names::encode_token(key)),
            id: Some(id.as_str()),
            headers,
            payload,
        };
        self.bus.inner.confirm(message).await
    }

    async fn last(&self, key: &str) -> Result<Option<StoredMessage>, BusError> {
        let subject = self.bucket.subject(&names::encode_token(key));
        self.bus.inner.stored(&self.bucket.stream(), &json!({ "last_by_subj": subject })).await
    }

    fn about(&self, key: &str) -> String {
        format!("the record {key} of {}", self.bucket.name)
    }
}

/// The server's lifetimes are whole seconds, one at least.
fn whole_seconds(ttl: Duration) -> u64 {
    let rounded_up = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    rounded_up.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_a_bucket_do_not_meet() {
        let requests = Bucket::DURABLE_JOBS.kind("request");
        assert_eq!(requests.subject("a=2Eb"), "$KV.tts-jobs.request.a=2Eb");
        assert_eq!(Bucket::DURABLE_JOBS.subject("*"), "$KV.tts-jobs.*");
        assert_eq!(requests.stream(), Bucket::DURABLE_JOBS.stream());
    }

    #[test]
    fn lifetimes_are_rounded_up() {
        for (ttl_ms, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (60_000, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(ttl_ms)), seconds, "{ttl_ms}");
        }
    }
}
