//! Which durable jobs this manager takes: those that are due, while there is room.
//!
//! It watches all records. A record that has stayed the same for as long as [`judge::due_after`] says, by this host's
//! own clock, is due; the compare-and-set of its lease decides which manager has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chorus_bus::{RecordChange, RecordWatch};
use chorus_client::SessionHost;
use chorus_protocol::durable::{DurableJob, Lease};
use chorus_runtime::task::{FailureMeans, TaskGroup};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::judge;
use super::store::JobStore;
use super::work::{Tools, work};
use crate::core::Core;

/// How often is looked for what has become due.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The durable jobs of a manager.
pub(crate) struct JobRunner {
    core: Arc<Core>,
    sessions: SessionHost,
    store: JobStore,
    tasks: TaskGroup,
    running: Mutex<HashMap<String, CancellationToken>>,
    encoding: Semaphore,
}

/// A job that is not over, as it was seen last.
struct Seen {
    revision: u64,
    since: Instant,
    due_after: Duration,
    created_ms: u64,
}

impl JobRunner {
    /// Jobs run in `tasks`, whose token lets go of them.
    pub(crate) fn new(core: Arc<Core>, sessions: SessionHost, tasks: TaskGroup) -> Arc<Self> {
        let store = core.jobs.clone();
        Arc::new(Self {
            core,
            sessions,
            store,
            tasks,
            running: Mutex::default(),
            encoding: Semaphore::new(1),
        })
    }

    /// Takes what is due until the group's token is cancelled or the connection is closed.
    pub(crate) async fn run(self: Arc<Self>, mut records: RecordWatch<DurableJob>) {
        let mut seen = HashMap::new();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.tasks.token().cancelled() => return,
                change = records.next() => match change {
                    Some(change) => self.hear(&mut seen, change),
                    None => return,
                },
                _ = looks.tick(), if !seen.is_empty() => {}
            }
            self.take_due(&mut seen);
        }
    }

    fn hear(&self, seen: &mut HashMap<String, Seen>, change: RecordChange<DurableJob>) {
        let (key, gone) = match change {
            RecordChange::Ready => return,
            RecordChange::Removed { key } | RecordChange::Malformed { key, .. } => (key, true),
            RecordChange::Put { key, value, revision } => {
                let due_after = judge::due_after(&value, &self.core.config.jobs);
                match (due_after, seen.get(&key)) {
                    // Told again after a reconnect: nothing has happened.
                    (Some(_), Some(known)) if known.revision == revision => return,
                    (Some(due_after), _) => {
                        let (since, created_ms) = (self.core.clock.now(), value.created_ms);
                        seen.insert(key.clone(), Seen { revision, since, due_after, created_ms });
                    }
                    (None, _) => {}
                }
                (key, due_after.is_none())
            }
        };
        if gone {
            seen.remove(&key);
            if let Some(job) = self.running().get(&key) {
                job.cancel();
            }
        }
    }

    fn take_due(self: &Arc<Self>, seen: &mut HashMap<String, Seen>) {
        let now = self.core.clock.now();
        let room = self.core.config.jobs.at_once.saturating_sub(self.running().len());
        let is_due = |key: &String, seen: &Seen| {
            now.saturating_duration_since(seen.since) >= seen.due_after && !self.running().contains_key(key)
        };
        let mut due: Vec<_> = seen.iter_mut().filter(|(key, seen)| is_due(key, seen)).collect();
        due.sort_by_key(|(_, seen)| seen.created_ms);
        for (key, seen) in due.into_iter().take(room) {
            // Should the lease not be had, the record has changed; should it not be told, this asks again later.
            (seen.since, seen.due_after) = (now, self.core.config.jobs.lease);
            self.start(key.clone(), seen.revision);
        }
    }

    fn start(self: &Arc<Self>, key: String, revision: u64) {
        let stop = self.tasks.token().child_token();
        self.running().insert(key.clone(), stop.clone());
        let runner = Arc::clone(self);
        self.tasks.spawn_draining("durable-job", FailureMeans::Log, |_token| async move {
            let _place = Place { runner: &runner, key: &key };
            Box::pin(runner.take(&key, revision, stop)).await;
        });
    }

    async fn take(&self, key: &str, revision: u64, stop: CancellationToken) {
        let core = &self.core;
        let lease = Lease { manager: core.id.clone(), incarnation: core.incarnation };
        let held = match self.store.take(key, revision, lease, core.clock.unix_ms()).await {
            Ok(Some(held)) => held,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(job = key, %error, "a durable job was not taken; trying again later");
                return;
            }
        };
        tracing::info!(
            job = key,
            epoch = held.job.epoch,
            from = held.job.progress.next_segment,
            "speaking a durable job"
        );
        let (sessions, clock, config) = (&self.sessions, &core.clock, &core.config.jobs);
        work(&Tools { sessions, clock, config, encoding: &self.encoding }, held, stop).await;
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job's place among those running, given back even when its task panics.
struct Place<'a> {
    runner: &'a JobRunner,
    key: &'a str,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.runner.running().remove(self.key);
    }
}
