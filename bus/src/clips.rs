//! Speaker reference clips on the broker: objects named by what is in them ([`chorus_protocol::clip`]).
//!
//! Whoever speaks with a clip puts it there first; a worker fetches it before it speaks. Anybody on the broker may write any
//! object under any name, so what is fetched is checked: bytes that are not the clip that their name says are no clip.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_URL_SAFE, Engine as _};
use bytes::Bytes;
use chorus_protocol::ClipId;
use chorus_protocol::clip::MAX_CLIP_BYTES;

use crate::bus::Bus;
use crate::error::{BusError, BusErrorKind};
use crate::objects::{ObjectBucket, Objects};

/// A clip that was put there longer ago is put there again, so that it does not run out while it is spoken with. Well below
/// every lifetime that the bucket may be given.
const RENEW_AFTER: Duration = Duration::from_secs(15 * 60);

/// The clips. Cheap to clone.
#[derive(Clone)]
pub struct Clips {
    objects: Objects,
}

impl Bus {
    /// The speaker reference clips.
    pub fn clips(&self) -> Clips {
        Clips { objects: self.objects(ObjectBucket::Clips) }
    }
}

impl Clips {
    /// Keeps a clip until the bucket's TTL has passed, and says by what it is known. One that is there is not sent again.
    ///
    /// # Errors
    /// `TooLarge` over [`MAX_CLIP_BYTES`]; else as of [`Objects::put`].
    pub async fn keep(&self, clip: Bytes) -> Result<ClipId, BusError> {
        if clip.len() > MAX_CLIP_BYTES {
            return Err(too_large(clip.len()));
        }
        let id = ClipId::of(&clip);
        let there = self.objects.about(&id.key()).await?;
        let digest = format!("SHA-256={}", BASE64_URL_SAFE.encode(id.digest()));
        let whole_and_young = there.is_some_and(|about| {
            about.digest == Some(digest) && age(about.stored_at_s).is_some_and(|age| age < RENEW_AFTER)
        });
        if !whole_and_young {
            self.objects.put(&id.key(), clip).await?;
        }
        Ok(id)
    }

    /// A clip, checked against its name.
    ///
    /// # Errors
    /// `NotFound` when it is not there (any more); `Malformed` when what is there is another, or damaged; `TooLarge`;
    /// `Timeout` after `limit`; else as of [`Objects::get`].
    pub async fn fetch(&self, id: &ClipId, limit: Duration) -> Result<Bytes, BusError> {
        match self.try_fetch(id, limit / 2).await {
            // It may have been put there anew in the middle of the reading.
            Err(error) if error.kind == BusErrorKind::Malformed => self.try_fetch(id, limit / 2).await,
            fetched => fetched,
        }
    }

    async fn try_fetch(&self, id: &ClipId, limit: Duration) -> Result<Bytes, BusError> {
        let clip = self.objects.get_bounded(&id.key(), MAX_CLIP_BYTES, limit).await?;
        if ClipId::of(&clip) != *id {
            let message = format!("the object {} is not the clip that its name says", id.key());
            return Err(BusError::new(BusErrorKind::Malformed, message));
        }
        Ok(clip)
    }
}

fn too_large(bytes: usize) -> BusError {
    let message = format!("the clip is {bytes} bytes; at most {MAX_CLIP_BYTES} are kept");
    BusError::new(BusErrorKind::TooLarge, message)
}

/// How long ago that was; `None` for what is still to come.
fn age(unix_s: i64) -> Option<Duration> {
    let then = UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_s).ok()?);
    SystemTime::now().duration_since(then).ok()
}
