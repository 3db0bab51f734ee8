//! The cache as a manager uses it: one look at each segment before it is queued.
//!
//! A look-up is a read, within a small limit and all of a page at once; a broker that does not answer in time is left alone
//! for a while, and the segments are spoken. What is found is only told to the session, which fetches and checks it. A take
//! that is being spoken is worth waiting for as long as speaking it anew would take, as far as that can be told; where it
//! cannot, it is spoken.
//!
//! Which take would serve depends on the identity of the model, which the workers that have loaded it tell in their
//! heartbeats. Where they differ (two versions in one fleet), the one that most of them have is looked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chorus_client::takes::Pause;
use chorus_protocol::fleet::WorkerHeartbeat;
use chorus_protocol::plan::{Disposition, Speech};
use chorus_protocol::service::{CacheCleared, CacheStatus};
use chorus_protocol::takes::{self, TakeRecord};
use chorus_protocol::{ModelName, ServiceError, names};
use futures::future::join_all;

use crate::core::Core;
use crate::plan::Draft;

/// How a manager uses the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Whether it looks takes up, and asks workers to store theirs.
    pub enabled: bool,
    /// How long the look-ups of a page may take together: what a slow broker can cost a request.
    pub look_up_within: Duration,
    /// How long the broker is left alone after it was too slow.
    pub pause: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { enabled: true, look_up_within: Duration::from_millis(50), pause: Duration::from_secs(2) }
    }
}

/// What look-ups came to, and whether they rest.
pub(crate) struct CacheState {
    pause: Pause,
    hits: AtomicU64,
    joins: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
}

impl CacheState {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        let none = || AtomicU64::new(0);
        let (hits, joins, misses, failures) = (none(), none(), none(), none());
        Self { pause: Pause::new(config.pause), hits, joins, misses, failures }
    }
}

impl Core {
    /// What the cache holds for each of the drafts; nothing for a session that cannot fetch, or that wants new takes.
    pub(crate) async fn look_up_takes(
        &self,
        speech: &Speech,
        drafts: &[Draft],
        can_fetch: bool,
    ) -> Vec<Option<Disposition>> {
        let nothing = || vec![None; drafts.len()];
        if !self.config.cache.enabled || !can_fetch || speech.fresh || drafts.is_empty() {
            return nothing();
        }
        let identity = common_identity(&speech.model, self.fleet().ready_for(&speech.model));
        let Some(identity) = identity.filter(|_| self.cache.pause.is_over(self.clock.now())) else {
            return nothing();
        };
        let looking = drafts.iter().map(|draft| self.look_up_take(&identity, speech, draft));
        join_all(looking).await
    }

    async fn look_up_take(&self, identity: &str, speech: &Speech, draft: &Draft) -> Option<Disposition> {
        let key = takes::key(identity, speech, &draft.text);
        let count = |figure: &AtomicU64| figure.fetch_add(1, Ordering::Relaxed);
        match self.bus.takes().look_up(&key, self.config.cache.look_up_within).await {
            Ok(Some(TakeRecord::Stored(take))) => {
                count(&self.cache.hits);
                let takes::StoredTake { samples, crc32, sample_rate, warnings } = take;
                let bucket = names::CACHE_BUCKET.to_owned();
                Some(Disposition::Stored { bucket, key, samples, crc32, sample_rate, warnings })
            }
            Ok(Some(TakeRecord::Claimed { .. })) => {
                let wait = self.time_to_speak(&speech.model, draft)?;
                count(&self.cache.joins);
                Some(Disposition::Awaited { key, wait_ms: wait.as_millis() as u64 })
            }
            Ok(None) => {
                count(&self.cache.misses);
                None
            }
            Err(error) => {
                count(&self.cache.failures);
                tracing::warn!(%error, "the cache does not answer; it is left alone for a while");
                self.cache.pause.begin(self.clock.now());
                None
            }
        }
    }

    /// How large the cache is, and what this manager got out of it.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED/no_broker when the broker does not tell.
    pub async fn answer_cache_status(&self) -> Result<CacheStatus, ServiceError> {
        let size = self.bus.takes().size().await.map_err(|error| error.into_service_error())?;
        let figure = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Ok(CacheStatus {
            enabled: self.config.cache.enabled,
            takes: size.takes,
            bytes: size.bytes,
            max_bytes: size.max_bytes,
            hits: figure(&self.cache.hits),
            joins: figure(&self.cache.joins),
            misses: figure(&self.cache.misses),
            failures: figure(&self.cache.failures),
        })
    }

    /// Forgets all takes.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED/no_broker when the broker does not do it.
    pub async fn answer_cache_clear(&self) -> Result<CacheCleared, ServiceError> {
        let size = self.bus.takes().clear().await.map_err(|error| error.into_service_error())?;
        tracing::info!(takes = size.takes, bytes = size.bytes, "the cache was cleared");
        Ok(CacheCleared { takes: size.takes, bytes: size.bytes })
    }
}

/// The identity that most of the workers have; of several, the first in order.
fn common_identity<'a>(
    model: &ModelName,
    workers: impl Iterator<Item = &'a WorkerHeartbeat>,
) -> Option<String> {
    let loaded = workers.flat_map(|worker| &worker.models).filter(|loaded| loaded.name == *model);
    let mut votes = BTreeMap::<&str, usize>::new();
    for identity in loaded.filter_map(|loaded| loaded.identity.as_deref()) {
        *votes.entry(identity).or_default() += 1;
    }
    let most = votes.values().copied().max()?;
    votes.into_iter().find(|(_, count)| *count == most).map(|(identity, _)| identity.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn worker(identity: Option<&str>) -> WorkerHeartbeat {
        let beat = json!({"worker": "w", "incarnation": "00000000-0000-0000-0000-000000000001", "sequence": 1,
            "pid": 1, "host": "h", "version": "0", "engine": "coqui", "device": {"kind": "cpu"},
            "models": [{"name": "joe", "state": "ready", "identity": identity}, {"name": "x", "state": "ready",
            "identity": "x"}], "credits": {"total": 1, "free": 1}, "inFlight": 0, "jobsDone": 0, "jobsFailed": 0,
            "engineRestarts": 0, "rssBytes": 0, "cpuPercent": 0.0, "latency": {"p50Ms": 0.0, "p95Ms": 0.0,
            "p99Ms": 0.0, "realTimeFactor": 0.0}, "uptimeMs": 0});
        serde_json::from_value(beat).unwrap()
    }

    #[test]
    fn most_workers_decide_and_none_decides_nothing() {
        let joe = ModelName::new("joe").unwrap();
        let of = |identities: &[Option<&str>]| {
            let workers: Vec<_> = identities.iter().map(|identity| worker(*identity)).collect();
            common_identity(&joe, workers.iter())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[None, None]), None);
        assert_eq!(of(&[None, Some("b")]).as_deref(), Some("b"));
        assert_eq!(of(&[Some("b"), Some("a"), Some("b")]).as_deref(), Some("b"));
        assert_eq!(of(&[Some("b"), Some("a")]).as_deref(), Some("a"));
    }
}
