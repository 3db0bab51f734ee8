//! What one manager knows of all breakers: the records as KV last told them, and what was heard and is not in them yet.
//!
//! Pure. Every manager hears every event and keeps it in a worker's *backlog* until it sees it in the record, whoever
//! wrote that; only the worker's owner writes. So when the owner dies, the next one has what it had not written. A backlog
//! applied twice changes nothing, because entries are keyed by run.
//!
//! Faults, and all that happens outside of closed, are written at once; successes of a closed breaker at most every
//! [`LAZY`], and one more success not at all where the window is full of them: it would say the same. A healthy worker
//! therefore costs no writes, however fast it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use chorus_protocol::WorkerId;
use chorus_protocol::breaker::{BreakerRecord, BreakerState, CircuitBreakerConfig};
use chorus_protocol::service::BreakerStatus;

use super::{Heard, failure_rate, hear, open_for_ms, remembered, tick, timer_ms};

/// How long successes of a closed breaker may wait to be written together.
pub const LAZY: Duration = Duration::from_secs(1);
/// How long a write that failed is left alone.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// The most workers that are kept: events are open to anyone on the broker.
const MAX_WORKERS: usize = 4096;

/// A write to be made.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// The record, in place of the one with this revision (0: there is none).
    Put {
        /// Whose it is.
        worker: WorkerId,
        /// What it replaces.
        revision: u64,
        /// The new record.
        record: BreakerRecord,
        /// The state that it leaves.
        before: BreakerState,
        /// The worker's last fault, in words.
        fault: Option<String>,
    },
    /// No record any more: the worker was not heard of for long.
    Remove {
        /// Whose it is.
        worker: WorkerId,
        /// What is removed.
        revision: u64,
    },
}

impl Write {
    /// Whose record it is.
    pub fn worker(&self) -> &WorkerId {
        match self {
            Self::Put { worker, .. } | Self::Remove { worker, .. } => worker,
        }
    }
}

#[derive(Debug)]
struct Page {
    record: BreakerRecord,
    revision: u64,
    backlog: VecDeque<Heard>,
    /// Whether the backlog was added to since it was last found to need no write.
    news: bool,
    lazy_since: Option<Instant>,
    fault: Option<String>,
    heard_at: Instant,
    writing: bool,
    not_before: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    config: CircuitBreakerConfig,
    forget_after: Duration,
    pages: BTreeMap<WorkerId, Page>,
}

impl Book {
    /// An empty book. Workers that are silent for `forget_after` are forgotten.
    pub fn new(config: CircuitBreakerConfig, forget_after: Duration) -> Self {
        Self { config, forget_after, pages: BTreeMap::new() }
    }

    /// Hears of a worker's run. `fault` is what went wrong, in words.
    pub fn hear(&mut self, worker: &WorkerId, heard: Heard, fault: Option<String>, now: Instant) {
        let most = remembered(&self.config);
        let Some(page) = self.page(worker, now) else { return };
        page.heard_at = now;
        if heard.is_in(&page.record) || page.backlog.contains(&heard) {
            return;
        }
        if fault.is_some() {
            page.fault = fault;
        }
        page.news = true;
        page.backlog.push_back(heard);
        if page.backlog.len() > most {
            page.backlog.pop_front();
        }
    }

    /// Hears of a canary, which counts as a probe: only in half-open, for it must not thin out the window.
    pub fn hear_canary(&mut self, worker: &WorkerId, heard: Heard, fault: Option<String>, now: Instant) {
        let half_open = |page: &Page| page.record.state == BreakerState::HalfOpen;
        if self.pages.get(worker).is_some_and(half_open) {
            self.hear(worker, heard, fault, now);
        }
    }

    /// A worker lives.
    pub fn alive(&mut self, worker: &WorkerId, now: Instant) {
        if let Some(page) = self.pages.get_mut(worker) {
            page.heard_at = now;
        }
    }

    /// The record as KV has it at this revision. One that is older than what is known changes nothing.
    pub fn told(&mut self, worker: &WorkerId, record: BreakerRecord, revision: u64, now: Instant) {
        let Some(page) = self.page(worker, now) else { return };
        if revision <= page.revision {
            return;
        }
        page.backlog.retain(|heard| !heard.is_in(&record));
        (page.record, page.revision, page.lazy_since) = (record, revision, None);
        page.news = !page.backlog.is_empty();
    }

    /// There is no record in KV.
    pub fn told_gone(&mut self, worker: &WorkerId) {
        if let Some(page) = self.pages.get_mut(worker) {
            (page.record, page.revision) = (BreakerRecord::default(), 0);
            page.news = !page.backlog.is_empty();
        }
    }

    /// The writes to be made now, of workers that are `mine`. Each is to be ended by [`Book::written`] or
    /// [`Book::not_written`]; until then its worker is left alone.
    pub fn due(&mut self, now: Instant, now_ms: u64, mine: impl Fn(&WorkerId) -> bool) -> Vec<Write> {
        let (config, forget_after) = (&self.config, self.forget_after);
        let forgotten = |page: &Page| now.saturating_duration_since(page.heard_at) >= forget_after;
        self.pages.retain(|_, page| page.revision > 0 || page.writing || !forgotten(page));
        let mut writes = Vec::new();
        for (worker, page) in &mut self.pages {
            let waits = page.writing || page.not_before.is_some_and(|at| now < at);
            if waits || !(page.news || forgotten(page) || page.timer_is_due(config, now_ms)) || !mine(worker)
            {
                continue;
            }
            let write = if forgotten(page) {
                Some(Write::Remove { worker: worker.clone(), revision: page.revision })
            } else {
                page.propose(config, worker, now, now_ms)
            };
            page.writing = write.is_some();
            writes.extend(write);
        }
        writes
    }

    /// A [`Write::Put`] was made and got this revision.
    pub fn written(&mut self, worker: &WorkerId, record: BreakerRecord, revision: u64, now: Instant) {
        self.end_write(worker, None);
        self.told(worker, record, revision, now);
    }

    /// A [`Write::Remove`] was made.
    pub fn removed(&mut self, worker: &WorkerId) {
        self.pages.remove(worker);
    }

    /// A write was not made: somebody else came first (what they wrote is to be told), or it failed and is left alone for
    /// a while.
    pub fn not_written(&mut self, worker: &WorkerId, failed: bool, now: Instant) {
        self.end_write(worker, failed.then(|| now + AFTER_FAILURE));
    }

    /// Milliseconds until a worker's breaker is tried again; `None` when it is not open.
    pub fn open_for_ms(&self, worker: &WorkerId, now_ms: u64) -> Option<u64> {
        open_for_ms(&self.pages.get(worker)?.record, now_ms)
    }

    /// A worker's record, as far as it is known.
    pub fn record(&self, worker: &WorkerId) -> Option<&BreakerRecord> {
        self.pages.get(worker).map(|page| &page.record)
    }

    /// A worker's breaker as `tts.status` shows it. What was heard and is not written yet does not count.
    pub fn status(&self, worker: &WorkerId, now_ms: u64) -> BreakerStatus {
        let known = self.record(worker).cloned().unwrap_or_default();
        let (failure_rate, runs) = failure_rate(&known, &self.config);
        let retry_in_ms = open_for_ms(&known, now_ms);
        BreakerStatus { state: known.state, since_ms: known.since_ms, failure_rate, runs, retry_in_ms }
    }

    fn end_write(&mut self, worker: &WorkerId, not_before: Option<Instant>) {
        if let Some(page) = self.pages.get_mut(worker) {
            (page.writing, page.not_before) = (false, not_before);
        }
    }

    fn page(&mut self, worker: &WorkerId, now: Instant) -> Option<&mut Page> {
        if !self.pages.contains_key(worker) {
            if self.pages.len() >= MAX_WORKERS {
                tracing::warn!(%worker, "more workers than breakers can be kept for; one is left out");
                return None;
            }
            self.pages.insert(worker.clone(), Page::new(now));
        }
        self.pages.get_mut(worker)
    }
}

impl Page {
    fn new(now: Instant) -> Self {
        Self {
            record: BreakerRecord::default(),
            revision: 0,
            backlog: VecDeque::new(),
            news: false,
            lazy_since: None,
            fault: None,
            heard_at: now,
            writing: false,
            not_before: None,
        }
    }

    fn timer_is_due(&self, config: &CircuitBreakerConfig, now_ms: u64) -> bool {
        // A time in the future is another clock's, and put right by the tick.
        let due = timer_ms(&self.record, config).is_some_and(|at| now_ms >= at);
        due || self.record.since_ms > now_ms
    }

    fn propose(
        &mut self,
        config: &CircuitBreakerConfig,
        worker: &WorkerId,
        now: Instant,
        now_ms: u64,
    ) -> Option<Write> {
        let mut record = self.record.clone();
        tick(&mut record, config, now_ms);
        for heard in &self.backlog {
            hear(&mut record, config, heard, now_ms);
        }
        if record == self.record
            || (is_full_of_successes(&self.record, config) && is_full_of_successes(&record, config))
        {
            self.news = false;
            return None;
        }
        let is_success = |heard: &Heard| matches!(heard, Heard::Ended { success: true, .. });
        let closed = self.record.state == BreakerState::Closed && record.state == BreakerState::Closed;
        if closed && self.backlog.iter().all(is_success) {
            let since = *self.lazy_since.get_or_insert(now);
            if now.saturating_duration_since(since) < LAZY {
                return None;
            }
        }
        let before = self.record.state;
        let (worker, revision, fault) = (worker.clone(), self.revision, self.fault.clone());
        Some(Write::Put { worker, revision, record, before, fault })
    }
}

fn is_full_of_successes(record: &BreakerRecord, config: &CircuitBreakerConfig) -> bool {
    let (rate, runs) = failure_rate(record, config);
    record.state == BreakerState::Closed && rate == 0.0 && runs >= config.sliding_window_size
}

#[cfg(test)]
mod tests;
