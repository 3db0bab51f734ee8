//! Audio at rest: encoded replies, the segments of durable jobs, clips and the cache, in object buckets that forget by themselves.
//!
//! How large a bucket may grow and how long it remembers is the [`Layout`](crate::Layout)'s matter. Objects are cut into
//! chunks and checked by digest by the client library. Nothing here is on the way to first audio.

use std::future::Future;
use std::time::Duration;

use async_nats::jetstream::object_store::{
    DeleteErrorKind, GetErrorKind, InfoErrorKind, ObjectMetadata, ObjectStore,
};
use bytes::{Bytes, BytesMut};
use chorus_protocol::names;
use tokio::io::AsyncReadExt;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::bus::{Bus, bounded};
use crate::error::{BusError, BusErrorKind};

/// How long one object may take, whatever its size.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(30);
/// No more room than this is made before the first byte came, whatever size the object claims.
const FIRST_RESERVE_BYTES: usize = 16 * 1024 * 1024;
/// A read that stands still this long looks whether the object is still there: one that expires in mid-read says nothing.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// An object that is there, and gives nothing for so many looks, has lost what it holds: it is as good as gone.
const LOOKS: u32 = 2;

/// An object bucket of the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectBucket {
    /// Audio of plain replies and durable jobs.
    Audio,
    /// Spoken segments, by content.
    Cache,
    /// Speaker reference clips, by content.
    Clips,
}

impl ObjectBucket {
    fn name(self) -> &'static str {
        match self {
            Self::Audio => names::AUDIO_BUCKET,
            Self::Cache => names::CACHE_BUCKET,
            Self::Clips => names::CLIPS_BUCKET,
        }
    }
}

/// Buckets that have been opened, once per connection.
#[derive(Default)]
pub(crate) struct OpenBuckets {
    audio: OnceCell<ObjectStore>,
    cache: OnceCell<ObjectStore>,
    clips: OnceCell<ObjectStore>,
}

impl OpenBuckets {
    fn cell(&self, bucket: ObjectBucket) -> &OnceCell<ObjectStore> {
        match bucket {
            ObjectBucket::Audio => &self.audio,
            ObjectBucket::Cache => &self.cache,
            ObjectBucket::Clips => &self.clips,
        }
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    /// What it says of its bytes: `SHA-256=` and their digest in base64 (URL-safe).
    pub(crate) digest: Option<String>,
    /// When it was stored, in seconds of Unix time, as its writer says; 0 where he does not.
    pub(crate) stored_at_s: i64,
}

/// The objects of a bucket. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    bus: Bus,
    bucket: ObjectBucket,
}

impl Bus {
    /// The objects of a bucket.
    pub fn objects(&self, bucket: ObjectBucket) -> Objects {
        Objects { bus: self.clone(), bucket }
    }

    /// Audio of plain replies and durable jobs.
    pub fn audio_store(&self) -> Objects {
        self.objects(ObjectBucket::Audio)
    }
}

impl Objects {
    /// Keeps `bytes` under `key` until the bucket's TTL has passed; replaces what was there.
    ///
    /// # Errors
    /// `NotFound` when the bucket is missing (see [`Bus::ensure_layout`]), `Refused` when it is full, `Timeout`,
    /// `Disconnected`.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), BusError> {
        let store = self.store().await?;
        let about = ObjectMetadata { name: key.to_owned(), ..ObjectMetadata::default() };
        let mut reader = &bytes[..];
        let put = within(OBJECT_TIMEOUT, key, store.put(about, &mut reader)).await?;
        put.map(|_| ()).map_err(|error| refused("stored", key, error))
    }

    /// What is kept under `key`, checked against its digest.
    ///
    /// # Errors
    /// `NotFound` when there is nothing (any more), `Malformed` when it is damaged, else as of [`Objects::put`].
    pub async fn get(&self, key: &str) -> Result<Bytes, BusError> {
        self.get_within(key, OBJECT_TIMEOUT).await
    }

    /// As [`Objects::get`], in a shorter time.
    ///
    /// # Errors
    /// As of [`Objects::get`].
    pub async fn get_within(&self, key: &str, limit: Duration) -> Result<Bytes, BusError> {
        self.get_bounded(key, usize::MAX, limit).await
    }

    /// What is known of the object under `key`, if there is one.
    pub(crate) async fn about(&self, key: &str) -> Result<Option<About>, BusError> {
        let store = self.store().await?;
        match within(self.bus.inner.request_timeout, key, store.info(key)).await? {
            Ok(info) => {
                let stored_at_s = info.modified.map_or(0, |at| at.unix_timestamp());
                Ok(Some(About { digest: info.digest, stored_at_s }))
            }
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused("looked at", key, error)),
        }
    }

    /// As [`Objects::get_within`]; `TooLarge` over `max_bytes`, of which no more is read.
    pub(crate) async fn get_bounded(
        &self,
        key: &str,
        max_bytes: usize,
        limit: Duration,
    ) -> Result<Bytes, BusError> {
        let store = self.store().await?;
        // Boxed where it is made: large, and handed on twice.
        let reading = Box::pin(async {
            let mut object = store.get(key).await.map_err(|error| match error.kind() {
                GetErrorKind::NotFound => missing(key),
                _ => refused("read", key, error),
            })?;
            let mut bytes = BytesMut::with_capacity(object.info().size.min(FIRST_RESERVE_BYTES));
            let mut looks = 0;
            loop {
                if bytes.len().max(object.info().size) > max_bytes {
                    let message = format!("the object {key} is over {max_bytes} bytes");
                    return Err(BusError::new(BusErrorKind::TooLarge, message));
                }
                match timeout(LOOK_AGAIN_AFTER, object.read_buf(&mut bytes)).await {
                    Ok(Ok(0)) => return Ok(bytes.freeze()),
                    Ok(Ok(_more)) => looks = 0,
                    Ok(Err(error)) => {
                        let message = format!("the object {key} is damaged");
                        return Err(BusError::caused(BusErrorKind::Malformed, message, error));
                    }
                    Err(_stands_still) => match store.info(key).await {
                        Err(error) if error.kind() == InfoErrorKind::NotFound => return Err(missing(key)),
                        Ok(_) if looks + 1 >= LOOKS => return Err(missing(key)),
                        Ok(_) => looks += 1,
                        Err(_) => {}
                    },
                }
            }
        });
        within(limit, key, reading).await?
    }

    /// Forgets what is kept under `key`; nothing happens when there is nothing.
    ///
    /// # Errors
    /// As of [`Objects::put`].
    pub async fn delete(&self, key: &str) -> Result<(), BusError> {
        let store = self.store().await?;
        match within(OBJECT_TIMEOUT, key, store.delete(key)).await? {
            Err(error) if error.kind() != DeleteErrorKind::NotFound => Err(refused("deleted", key, error)),
            _ => Ok(()),
        }
    }

    async fn store(&self) -> Result<&ObjectStore, BusError> {
        let inner = &self.bus.inner;
        inner.ready(inner.request_timeout).await?;
        let bucket = self.bucket.name();
        let opening =
            inner.objects.cell(self.bucket).get_or_try_init(|| inner.jetstream.get_object_store(bucket));
        match bounded(inner.request_timeout, opening).await {
            Some(opened) => opened.map_err(|error| {
                let message = format!("the object bucket {bucket} cannot be opened");
                BusError::caused(BusErrorKind::NotFound, message, error)
            }),
            None => Err(BusError::new(
                BusErrorKind::Timeout,
                format!("the object bucket {bucket} did not answer"),
            )),
        }
    }
}

async fn within<T>(limit: Duration, key: &str, operation: impl Future<Output = T>) -> Result<T, BusError> {
    let timeout = || BusError::new(BusErrorKind::Timeout, format!("the object {key} took too long"));
    bounded(limit, Box::pin(operation)).await.ok_or_else(timeout)
}

fn missing(key: &str) -> BusError {
    BusError::new(BusErrorKind::NotFound, format!("there is no object under {key} (any more)"))
}

fn refused(what: &str, key: &str, error: impl std::error::Error + Send + Sync + 'static) -> BusError {
    BusError::caused(BusErrorKind::Refused, format!("the object {key} cannot be {what}"), error)
}
