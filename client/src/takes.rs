//! Takes for the sessions of a process: from its own memory, else from the broker's object store.
//!
//! The memory is bounded and holds what was fetched last. Whoever asks has looked the take up a moment ago, and says what
//! it is; so the memory needs no invalidation: audio that is not what was asked for is not given. The store may be slow,
//! empty or away: each fetch has its limit, and after one that was not answered the store is left alone for a while, so that a
//! book does not wait for it at every sentence.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_bus::{BusError, BusErrorKind, Takes};
use chorus_protocol::takes::StoredTake;
use chorus_runtime::clock::SharedClock;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::config::TakesConfig;

/// The usual size of a take, two seconds at 22 kHz: how many the memory prepares for.
const USUAL_BYTES: u64 = 2 * 2 * 22_050;

/// Reads takes. See the module.
pub(crate) struct TakeReader {
    store: Takes,
    clock: SharedClock,
    fetch_within: Duration,
    /// `None`: nothing is kept here.
    memory: Option<Cache<String, Bytes, Weight>>,
    at_once: Semaphore,
    pause: Pause,
}

#[derive(Clone)]
struct Weight;

impl Weighter<String, Bytes> for Weight {
    fn weight(&self, key: &String, pcm: &Bytes) -> u64 {
        (key.len() + pcm.len()) as u64
    }
}

impl TakeReader {
    pub(crate) fn new(store: Takes, clock: SharedClock, config: &TakesConfig) -> Self {
        let usual = (config.local_bytes / USUAL_BYTES).max(1) as usize;
        let memory = || Cache::with_weighter(usual, config.local_bytes, Weight);
        Self {
            store,
            clock,
            fetch_within: config.fetch_within,
            memory: (config.local_bytes > 0).then(memory),
            at_once: Semaphore::new(config.at_once.clamp(1, Semaphore::MAX_PERMITS)),
            pause: Pause::new(config.pause),
        }
    }

    /// The take under `key`; where it is not known yet, it is waited for that long. `None`: it is to be spoken.
    pub(crate) async fn get(
        &self,
        key: &str,
        take: Option<StoredTake>,
        wait: Duration,
    ) -> Option<(StoredTake, Bytes)> {
        let take = match take {
            Some(take) => take,
            None => self.wait(key, wait).await?,
        };
        if let Some(pcm) = self.remembered(key, &take) {
            return Some((take, pcm));
        }
        let pcm = self.fetch(key).await?;
        if !take.is(&pcm) {
            tracing::warn!(key, "a stored take is not what it should be; it is spoken anew");
            return None;
        }
        if let Some(memory) = &self.memory {
            memory.insert(key.to_owned(), pcm.clone());
        }
        Some((take, pcm))
    }

    fn remembered(&self, key: &str, take: &StoredTake) -> Option<Bytes> {
        self.memory.as_ref()?.get(key).filter(|pcm| take.is(pcm))
    }

    async fn wait(&self, key: &str, wait: Duration) -> Option<StoredTake> {
        if !self.pause.is_over(self.clock.now()) {
            return None;
        }
        match self.store.wait(key, wait).await {
            Ok(take) => take,
            Err(error) => self.failed(key, &error),
        }
    }

    async fn fetch(&self, key: &str) -> Option<Bytes> {
        let limit = self.fetch_within;
        let fetching = async {
            let _turn = self.at_once.acquire().await.ok()?;
            if !self.pause.is_over(self.clock.now()) {
                return None;
            }
            match self.store.fetch(key, limit).await {
                Ok(pcm) => Some(pcm),
                Err(error) => self.failed(key, &error),
            }
        };
        // Its turn may take as long as the fetch itself; the session's own limit is twice this.
        tokio::time::timeout(limit + limit / 2, fetching).await.unwrap_or_default()
    }

    fn failed<T>(&self, key: &str, error: &BusError) -> Option<T> {
        match error.kind {
            BusErrorKind::NotFound | BusErrorKind::Malformed => {
                tracing::debug!(key, %error, "a stored take is gone; it is spoken anew");
            }
            _ => {
                tracing::warn!(key, %error, "the store of takes does not answer; it is left alone for a while");
                self.pause.begin(self.clock.now());
            }
        }
        None
    }
}

/// A store that did not answer is left alone for a while.
#[derive(Debug)]
pub struct Pause {
    length: Duration,
    until: Mutex<Option<Instant>>,
}

impl Pause {
    /// Pauses of this length; none is on.
    pub fn new(length: Duration) -> Self {
        Self { length, until: Mutex::default() }
    }

    /// It did not answer.
    pub fn begin(&self, now: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + self.length);
    }

    /// Whether it may be asked.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_by_itself() {
        let (pause, now) = (Pause::new(Duration::from_secs(2)), Instant::now());
        assert!(pause.is_over(now));
        pause.begin(now);
        assert!(!pause.is_over(now + Duration::from_secs(1)));
        assert!(pause.is_over(now + Duration::from_secs(2)));
    }
}
