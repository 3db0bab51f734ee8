//! The runs under way, as the rest of the worker sees them: for pings, stop orders, in-progress acks, and unloading.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chorus_bus::InProgress;
use chorus_protocol::fleet::RunProgress;
use chorus_protocol::job::RunRef;
use chorus_protocol::{ModelName, RunId, SessionId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// One run, shared by its task and those who look on.
pub(crate) struct Entry {
    /// Which run.
    pub(crate) run: RunRef,
    /// Of which model.
    pub(crate) model: ModelName,
    /// Cancelled when its session is given up.
    pub(crate) stop: CancellationToken,
    frames: AtomicU64,
    heard_us: AtomicU64,
    began: Instant,
    delivery: Mutex<Option<InProgress>>,
}

impl Entry {
    /// The engine has sent a frame for it.
    pub(crate) fn heard(&self, now: Instant) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        let since = now.saturating_duration_since(self.began).as_micros() as u64;
        self.heard_us.store(since, Ordering::Relaxed);
    }

    /// Its delivery has ended: no more progress is told to the broker.
    pub(crate) fn delivery_over(&self) {
        lock(&self.delivery).take();
    }

    fn progress(&self, now: Instant) -> RunProgress {
        let since = now.saturating_duration_since(self.began).as_micros() as u64;
        let idle_us = since.saturating_sub(self.heard_us.load(Ordering::Relaxed));
        RunProgress {
            run: self.run.run,
            job: self.run.job(),
            frames: self.frames.load(Ordering::Relaxed),
            idle_ms: idle_us / 1000,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Runs {
    entries: Mutex<HashMap<RunId, Arc<Entry>>>,
    changed: Notify,
}

impl Runs {
    /// A run begins.
    pub(crate) fn begin(
        self: &Arc<Self>,
        run: RunRef,
        model: ModelName,
        delivery: InProgress,
        now: Instant,
    ) -> Registered {
        let entry = Arc::new(Entry {
            run: run.clone(),
            model,
            stop: CancellationToken::new(),
            frames: AtomicU64::new(0),
            heard_us: AtomicU64::new(0),
            began: now,
            delivery: Mutex::new(Some(delivery)),
        });
        lock(&self.entries).insert(run.run, entry.clone());
        self.changed.notify_waiters();
        Registered { entry, runs: self.clone() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.entries).len()
    }

    /// How far each is.
    pub(crate) fn progress(&self, now: Instant) -> Vec<RunProgress> {
        lock(&self.entries).values().map(|entry| entry.progress(now)).collect()
    }

    /// Gives up the runs of a session; how many there were.
    pub(crate) fn stop_session(&self, session: SessionId) -> usize {
        let entries = lock(&self.entries);
        let of_session = entries.values().filter(|entry| entry.run.session == session);
        of_session.map(|entry| entry.stop.cancel()).count()
    }

    /// The deliveries that are open.
    pub(crate) fn open_deliveries(&self) -> Vec<InProgress> {
        lock(&self.entries).values().filter_map(|entry| lock(&entry.delivery).clone()).collect()
    }

    /// Waits until there are some.
    pub(crate) async fn some(&self) {
        self.until(|entries| !entries.is_empty()).await;
    }

    /// Waits until there are none.
    pub(crate) async fn none(&self) {
        self.until(HashMap::is_empty).await;
    }

    /// Waits until no run uses `model`.
    pub(crate) async fn unused(&self, model: &ModelName) {
        self.until(|entries| entries.values().all(|entry| entry.model != *model)).await;
    }

    async fn until(&self, holds: impl Fn(&HashMap<RunId, Arc<Entry>>) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Enabled before the look: a change in between is not missed.
            changed.as_mut().enable();
            if holds(&lock(&self.entries)) {
                return;
            }
            changed.await;
        }
    }
}

/// A run in the table, until this is dropped.
pub(crate) struct Registered {
    pub(crate) entry: Arc<Entry>,
    runs: Arc<Runs>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.runs.entries).remove(&self.entry.run.run);
        self.runs.changed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
