//! The cache on the broker: audio by content, and what is known of each piece of it.
//!
//! Two buckets under the same keys ([`chorus_protocol::takes`]). The object bucket holds the audio; when it is full its
//! oldest go first, so an object may be gone, or half gone, whatever its record says: who reads checks. The KV bucket says
//! for each key whether it is stored or being spoken. One read of it is a look-up; a claim is a creation there, with a
//! lifetime, so that a worker that dies in between leaves nothing behind.
//!
//! Everything here may fail without harm: a take that is not found is spoken.

use std::time::Duration;

use bytes::Bytes;
use chorus_protocol::takes::{StoredTake, TakeRecord};
use chorus_protocol::{RunId, WorkerId, names};
use serde::Deserialize;
use serde_json::json;

use crate::bus::{Bus, bounded};
use crate::error::{BusError, BusErrorKind};
use crate::objects::{ObjectBucket, Objects};
use crate::records::{Bucket, CasError, RecordChange, Records};

/// All subjects of a bucket's stream.
const EVERYTHING: &str = ">";

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Takes {
    bus: Bus,
    records: Records<TakeRecord>,
    objects: Objects,
}

/// How large the cache is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TakesSize {
    /// Takes that are known.
    pub takes: u64,
    /// Size of their audio as stored, in bytes.
    pub bytes: u64,
    /// The size at which the oldest go; 0 is no bound.
    pub max_bytes: u64,
}

impl Bus {
    /// The cache.
    pub fn takes(&self) -> Takes {
        Takes {
            bus: self.clone(),
            records: self.records(Bucket::TAKES),
            objects: self.objects(ObjectBucket::Cache),
        }
    }
}

impl Takes {
    /// What is known under `key`.
    ///
    /// # Errors
    /// `Timeout` after `limit`; else as of [`Records::get`].
    pub async fn look_up(&self, key: &str, limit: Duration) -> Result<Option<TakeRecord>, BusError> {
        let looking = self.records.get(key);
        let record = bounded(limit, looking).await.ok_or_else(|| too_slow(key))??;
        Ok(record.map(|record| record.value))
    }

    /// Says that a run speaks it; vanishes after `ttl`. The revision of the claim, or `None` when somebody was faster.
    ///
    /// # Errors
    /// As of [`Records::create`], less what comes of a record that is there.
    pub async fn claim(
        &self,
        key: &str,
        run: RunId,
        worker: WorkerId,
        ttl: Duration,
    ) -> Result<Option<u64>, BusError> {
        match self.records.create_with_ttl(key, &TakeRecord::Claimed { run, worker }, ttl).await {
            Ok(revision) => Ok(Some(revision)),
            Err(CasError::Exists | CasError::Conflict) => Ok(None),
            Err(CasError::Bus(error)) => Err(error),
        }
    }

    /// Takes a claim back: the run came to nothing. One that was replaced meanwhile stays.
    ///
    /// # Errors
    /// As of [`Records::delete`].
    pub async fn release(&self, key: &str, revision: u64) -> Result<(), BusError> {
        match self.records.delete(key, Some(revision)).await {
            Ok(()) | Err(CasError::Exists | CasError::Conflict) => Ok(()),
            Err(CasError::Bus(error)) => Err(error),
        }
    }

    /// Stores a take: its audio first, then that it is there. Replaces what was under the key.
    ///
    /// # Errors
    /// As of [`Objects::put`] and [`Records::put`].
    pub async fn store(&self, key: &str, pcm: Bytes, take: StoredTake) -> Result<(), BusError> {
        self.objects.put(key, pcm).await?;
        self.records.put(key, &TakeRecord::Stored(take)).await.map(|_| ())
    }

    /// The audio under `key`, checked against the digest that the broker keeps; whether it is the take that is meant, its
    /// reader checks.
    ///
    /// # Errors
    /// `NotFound`, `Malformed`, `Timeout` after `limit`; else as of [`Objects::get`].
    pub async fn fetch(&self, key: &str, limit: Duration) -> Result<Bytes, BusError> {
        self.objects.get_within(key, limit).await
    }

    /// Waits until a take that is being spoken is stored. `None` when its claim ended first, or after `limit`.
    ///
    /// # Errors
    /// As of [`Records::watch`].
    pub async fn wait(&self, key: &str, limit: Duration) -> Result<Option<StoredTake>, BusError> {
        let waiting = async {
            let mut watch = self.records.watch_key(key).await?;
            let mut claimed = false;
            while let Some(change) = watch.next().await {
                match change {
                    RecordChange::Put { value: TakeRecord::Claimed { .. }, .. } => claimed = true,
                    RecordChange::Put { value: TakeRecord::Stored(take), .. } => return Ok(Some(take)),
                    RecordChange::Ready if claimed => {}
                    RecordChange::Ready | RecordChange::Removed { .. } | RecordChange::Malformed { .. } => {
                        return Ok(None);
                    }
                }
            }
            Err(self.bus.inner.disconnected())
        };
        bounded(limit, Box::pin(waiting)).await.unwrap_or(Ok(None))
    }

    /// Forgets everything, and says how much it was. Takes that are being spoken now are stored again when they are done.
    ///
    /// # Errors
    /// `NotFound` when a bucket is missing, `Refused`, `Timeout`, `Disconnected`.
    pub async fn clear(&self) -> Result<TakesSize, BusError> {
        let size = self.size().await?;
        let inner = &self.bus.inner;
        // What is known goes first: nobody is sent to fetch what is about to go.
        inner.purge_stored(&Bucket::TAKES.stream(), EVERYTHING).await?;
        inner.purge_stored(&objects_stream(), EVERYTHING).await?;
        Ok(size)
    }

    /// How large it is.
    ///
    /// # Errors
    /// As of [`Takes::clear`].
    pub async fn size(&self) -> Result<TakesSize, BusError> {
        let records = self.stream_info(&Bucket::TAKES.stream()).await?;
        let objects = self.stream_info(&objects_stream()).await?;
        let max_bytes = u64::try_from(objects.config.max_bytes).unwrap_or(0);
        Ok(TakesSize { takes: records.state.messages, bytes: objects.state.bytes, max_bytes })
    }

    async fn stream_info(&self, stream: &str) -> Result<Info, BusError> {
        let answer = self.bus.inner.api::<_, Info>(&format!("STREAM.INFO.{stream}"), &json!({})).await;
        answer.map_err(|error| error.into_bus(&format!("stream {stream}")))
    }
}

fn objects_stream() -> String {
    format!("OBJ_{}", names::CACHE_BUCKET)
}

fn too_slow(key: &str) -> BusError {
    BusError::new(BusErrorKind::Timeout, format!("the look-up of {key} took too long"))
}

#[derive(Deserialize)]
struct Info {
    config: InfoConfig,
    state: InfoState,
}

#[derive(Deserialize)]
struct InfoConfig {
    max_bytes: i64,
}

#[derive(Deserialize)]
struct InfoState {
    messages: u64,
    bytes: u64,
}
