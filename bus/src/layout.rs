//! What the broker keeps for us: two streams, KV buckets, object buckets, and how large each may grow.
//!
//! [`Bus::ensure_layout`] asks the server to create each; where one exists with other settings it is updated. Both calls
//! are idempotent on the server, so any number of starters may race.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use chorus_protocol::names;
use chorus_protocol::request::MAX_DEADLINE_MS;
use serde::de::IgnoredAny;

use crate::api::{ApiError, code};
use crate::bus::{Bus, Inner};
use crate::error::BusError;

/// How long a doubled publish is recognised.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How long a job outlives the longest deadline.
const JOB_GRACE: Duration = Duration::from_secs(60);
/// How long the sign that a record has run out stays, for who watches; a watch opened later needs none.
const EXPIRY_MARKER_TTL: Duration = Duration::from_secs(60);
/// How long a cluster may take to elect its leaders (measured: 5.2 to 5.9 s).
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
const SETTLE_PAUSE: Duration = Duration::from_millis(250);

/// Sizes and lifetimes. Where the store of the server is smaller than the sum, it refuses and says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Copies of everything, 1 to 5; more than 1 needs a cluster.
    pub replicas: usize,
    /// Jobs that may wait per model and class; more are refused as `QueueFull`.
    pub max_jobs_per_queue: u32,
    /// How long dead letters are kept.
    pub dead_max_age: Duration,
    /// How large all dead letters together may be, in bytes; the oldest go first.
    pub dead_max_bytes: u64,
    /// How large each KV bucket may be, in bytes.
    pub kv_max_bytes: u64,
    /// How long the answer of a plain request is kept, for who asks again under its messageId; a second at least.
    pub replies_ttl: Duration,
    /// How large all such answers together may be, in bytes; the oldest go first.
    pub replies_max_bytes: u64,
    /// How long audio of plain replies and durable jobs is kept.
    pub audio_ttl: Duration,
    /// How large that audio together may be, in bytes.
    pub audio_max_bytes: u64,
    /// How long speaker reference clips are kept after they were last put there; an hour at least.
    pub clips_ttl: Duration,
    /// How large all clips together may be, in bytes.
    pub clips_max_bytes: u64,
    /// How long spoken segments are kept for the cache.
    pub cache_ttl: Duration,
    /// How large the cache may be, in bytes; the oldest takes go first.
    pub cache_max_bytes: u64,
}

impl Default for Layout {
    /// For one server with a modest disk: about 1.5 GiB in all.
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            replicas: 1,
            max_jobs_per_queue: 10_000,
            dead_max_age: 7 * DAY,
            dead_max_bytes: 64 * MIB,
            kv_max_bytes: 32 * MIB,
            replies_ttl: Duration::from_secs(120),
            replies_max_bytes: 64 * MIB,
            audio_ttl: DAY,
            audio_max_bytes: 512 * MIB,
            clips_ttl: DAY,
            clips_max_bytes: 256 * MIB,
            cache_ttl: 7 * DAY,
            cache_max_bytes: 512 * MIB,
        }
    }
}

impl Layout {
    fn streams(&self) -> Vec<Config> {
        let kv = |bucket| self.kv(bucket);
        vec![
            self.jobs(),
            self.dead(),
            kv(names::MODELS_BUCKET),
            kv(names::BREAKERS_BUCKET),
            kv(names::PLACEMENT_BUCKET),
            kv(names::DURABLE_JOBS_BUCKET),
            self.replies(),
            self.objects(names::AUDIO_BUCKET, self.audio_ttl, self.audio_max_bytes),
            self.objects(names::CLIPS_BUCKET, self.clips_ttl, self.clips_max_bytes),
            // A cache that is full forgets its oldest; audio that was promised, or is to be spoken with, is never pushed out.
            Config {
                discard: DiscardPolicy::Old,
                ..self.objects(names::CACHE_BUCKET, self.cache_ttl, self.cache_max_bytes)
            },
            Config {
                discard: DiscardPolicy::Old,
                max_age: self.cache_ttl,
                duplicate_window: window_within(self.cache_ttl),
                ..kv(names::TAKES_BUCKET)
            },
        ]
    }

    fn base(&self, name: String, subjects: Vec<String>) -> Config {
        Config {
            name,
            subjects,
            num_replicas: self.replicas.max(1),
            storage: StorageType::File,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_bytes: -1,
            max_message_size: -1,
            max_consumers: -1,
            allow_direct: true,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        }
    }

    fn jobs(&self) -> Config {
        Config {
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: i64::from(self.max_jobs_per_queue.max(1)),
            max_age: Duration::from_millis(MAX_DEADLINE_MS) + JOB_GRACE,
            ..self.base(names::JOBS_STREAM.to_owned(), names::JOB_SUBJECTS.map(str::to_owned).to_vec())
        }
    }

    fn dead(&self) -> Config {
        Config {
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            max_age: self.dead_max_age,
            max_bytes: bytes(self.dead_max_bytes),
            ..self.base(names::DEAD_STREAM.to_owned(), vec![names::ALL_DEAD.to_owned()])
        }
    }

    /// As NATS lays out a KV bucket (ADR-8 of nats-architecture-and-design).
    fn kv(&self, bucket: &str) -> Config {
        Config {
            discard: DiscardPolicy::New,
            max_messages_per_subject: 1,
            max_bytes: bytes(self.kv_max_bytes),
            allow_rollup: true,
            deny_delete: true,
            // Leases run out by themselves, and who watches is told.
            allow_message_ttl: true,
            subject_delete_marker_ttl: Some(EXPIRY_MARKER_TTL),
            ..self.base(format!("KV_{bucket}"), vec![format!("$KV.{bucket}.>")])
        }
    }

    /// A KV bucket that forgets: by age, and the oldest record first where room is wanted. In memory, for it is written with
    /// every plain reply and promises nothing beyond the broker's life.
    fn replies(&self) -> Config {
        let ttl = self.replies_ttl.max(Duration::from_secs(1));
        Config {
            storage: StorageType::Memory,
            discard: DiscardPolicy::Old,
            max_age: ttl,
            max_bytes: bytes(self.replies_max_bytes),
            subject_delete_marker_ttl: None,
            duplicate_window: DUPLICATE_WINDOW.min(ttl),
            ..self.kv(names::REPLIES_BUCKET)
        }
    }

    /// As NATS lays out an object bucket (ADR-20 of nats-architecture-and-design).
    fn objects(&self, bucket: &str, ttl: Duration, max_bytes: u64) -> Config {
        Config {
            discard: DiscardPolicy::New,
            max_age: ttl,
            max_bytes: bytes(max_bytes),
            allow_rollup: true,
            duplicate_window: window_within(ttl),
            ..self.base(format!("OBJ_{bucket}"), vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")])
        }
    }
}

/// The server refuses a window longer than the age; an age of zero is none.
fn window_within(age: Duration) -> Duration {
    if age.is_zero() { DUPLICATE_WINDOW } else { DUPLICATE_WINDOW.min(age) }
}

/// Zero means no bound, as the server writes it.
fn bytes(max: u64) -> i64 {
    if max == 0 { -1 } else { i64::try_from(max).unwrap_or(i64::MAX) }
}

impl Bus {
    /// Creates or updates every stream and bucket. Waits out a cluster that still elects its leaders, 10 s at most.
    ///
    /// # Errors
    /// `Refused` with the server's reason, such as too little room or a setting that cannot be changed on a stream that
    /// exists; `Timeout` or `Disconnected`.
    pub async fn ensure_layout(&self, layout: &Layout) -> Result<(), BusError> {
        let inner = &self.inner;
        let streams = layout.streams();
        futures::future::try_join_all(streams.iter().map(|config| settle(inner, config))).await?;
        Ok(())
    }
}

async fn settle(inner: &Inner, config: &Config) -> Result<(), BusError> {
    let give_up = Instant::now() + SETTLE_LIMIT;
    loop {
        match create_or_update(inner, config).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_passing() && Instant::now() < give_up => {
                tracing::debug!(stream = config.name, %error, "waiting for the broker to settle");
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            Err(error) => return Err(error.into_bus(&format!("stream {}", config.name))),
        }
    }
}

async fn create_or_update(inner: &Inner, config: &Config) -> Result<(), ApiError> {
    let name = &config.name;
    match inner.api::<_, IgnoredAny>(&format!("STREAM.CREATE.{name}"), config).await {
        Err(ApiError::Fault(fault)) if fault.err_code == code::STREAM_NAME_IN_USE => {
            inner.api::<_, IgnoredAny>(&format!("STREAM.UPDATE.{name}"), config).await?;
            tracing::info!(stream = name, "the stream's settings were updated");
            Ok(())
        }
        created => created.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_has_its_bounds() {
        let streams = Layout::default().streams();
        let names: std::collections::HashSet<_> = streams.iter().map(|stream| &stream.name).collect();
        assert_eq!(names.len(), streams.len());
        for stream in &streams {
            let bounded = stream.max_bytes > 0 || stream.max_messages_per_subject > 0;
            assert!(bounded && stream.num_replicas == 1, "{}", stream.name);
        }
        assert_eq!(bytes(0), -1);
        assert_eq!(bytes(u64::MAX), i64::MAX);
    }
}
