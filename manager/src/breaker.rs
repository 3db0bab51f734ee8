//! The circuit breaker of a worker: closed, open, half-open (plan.md §3), as a pure state machine over its record in KV.
//!
//! ```text
//!            failure rate over the window
//!   Closed ───────────────────────────────▶ Open ◀─────────────┐
//!     ▲ ▲                                   │ │ reset time-out │ a fault
//!     │ └───────── its faults were poison ──┘ ▼                │
//!     └─────────────────────────────────── HalfOpen ───────────┘
//!            enough successes                 │ ▲
//!                                             └─┘ nothing was heard of the probes: fresh ones
//! ```
//!
//! What was heard goes in through [`hear`], time through [`tick`]; both change the record, and nothing else is known. All
//! managers hear the same events and may write the same record, each by compare-and-set: [`book`] keeps what one manager
//! knows, `judge` carries it to and from the broker for the workers that [`rendezvous`](crate::rendezvous) gives to this
//! manager, the worker's gate enforces.
//!
//! - Only runs that *began* in the present state count: what a worker did before it was opened neither closes it nor keeps
//!   it open. When a run began is reckoned on the judging manager's clock (heard, less the run's own duration), because
//!   hosts' clocks are not compared.
//! - Entries are keyed by run and stay remembered for a while after they stopped counting, so that an event that comes
//!   twice, or after its run was taken back, changes nothing.
//! - Nothing is drawn at random: the jitter follows from the run that opened it, so that the same events make the same
//!   record wherever they are heard.

pub mod book;
pub(crate) mod judge;

use chorus_protocol::RunId;
use chorus_protocol::breaker::{BreakerRecord, BreakerState, CircuitBreakerConfig, WindowEntry};

/// The share of a reset time-out that jitter may take off, so that workers that failed together do not return together.
const JITTER_SHARE: f64 = 0.2;
/// Remembered runs per judged one.
const REMEMBERED: usize = 3;
/// The least time after which a half-open breaker is given fresh probes, in milliseconds.
const LEAST_TRIAL_MS: u64 = 1_000;

/// What a breaker hears of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It ended, by success or by the worker's fault.
    Ended {
        /// The run.
        run: RunId,
        /// Whether it succeeded.
        success: bool,
        /// Unix milliseconds at which it began, on the clock of who judges.
        began_ms: u64,
    },
    /// Its segment was poison: it is held against nobody.
    TakenBack {
        /// The run.
        run: RunId,
    },
}

impl Heard {
    /// The run that it is about.
    pub fn run(&self) -> RunId {
        match self {
            Self::Ended { run, .. } | Self::TakenBack { run } => *run,
        }
    }

    /// Whether the record knows it already, so that hearing it changes nothing.
    pub fn is_in(&self, record: &BreakerRecord) -> bool {
        let found = record.window.iter().find(|entry| entry.run == self.run());
        found.is_some_and(|entry| entry.spent || matches!(self, Self::Ended { .. }))
    }
}

/// Checks the figures; every fault is one sentence.
pub fn faults(config: &CircuitBreakerConfig) -> Vec<&'static str> {
    let checks = [
        (
            config.failure_threshold > 0.0 && config.failure_threshold <= 1.0,
            "breaker.failureThreshold is a rate over 0 and up to 1",
        ),
        (config.timeout_ms > 0, "breaker.timeoutMs is zero"),
        (config.reset_timeout_ms > 0, "breaker.resetTimeoutMs is zero"),
        (
            config.max_reset_timeout_ms >= config.reset_timeout_ms,
            "breaker.maxResetTimeoutMs is less than breaker.resetTimeoutMs",
        ),
        ((1..=100).contains(&config.success_threshold), "breaker.successThreshold is outside 1 to 100"),
        ((1..=1_000).contains(&config.sliding_window_size), "breaker.slidingWindowSize is outside 1 to 1000"),
        (
            (1..=config.sliding_window_size).contains(&config.minimum_calls),
            "breaker.minimumCalls is outside 1 to breaker.slidingWindowSize",
        ),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
}

/// Hears of a run.
pub fn hear(record: &mut BreakerRecord, config: &CircuitBreakerConfig, heard: &Heard, now_ms: u64) {
    if heard.is_in(record) {
        return;
    }
    match *heard {
        Heard::Ended { run, success, began_ms } => {
            let counts = record.state != BreakerState::Open && began_ms >= record.since_ms;
            remember(record, config, WindowEntry { run, success, spent: !counts });
            if counts {
                judge_run(record, config, success, now_ms, run);
            }
        }
        Heard::TakenBack { run } => take_back(record, config, run, now_ms),
    }
}

/// Time has passed.
pub fn tick(record: &mut BreakerRecord, config: &CircuitBreakerConfig, now_ms: u64) {
    if record.since_ms > now_ms {
        // Another manager's clock was ahead. To wait for ours to come there could take for ever.
        (record.since_ms, record.renewals) = (now_ms, 0);
    }
    match record.state {
        BreakerState::Closed => {}
        BreakerState::Open if now_ms >= opens_again_ms(record) => {
            half_open(record, now_ms);
            spend(record);
        }
        BreakerState::Open => {}
        BreakerState::HalfOpen => {
            let trials = (now_ms - record.since_ms) / trial_ms(config);
            record.renewals = record.renewals.max(trials.min(u64::from(u32::MAX)) as u32);
        }
    }
}

/// When [`tick`] has something to do, in unix milliseconds; `None` only while it is closed.
pub fn timer_ms(record: &BreakerRecord, config: &CircuitBreakerConfig) -> Option<u64> {
    match record.state {
        BreakerState::Closed => None,
        BreakerState::Open => Some(opens_again_ms(record)),
        BreakerState::HalfOpen => {
            let trials = u64::from(record.renewals) + 1;
            Some(record.since_ms.saturating_add(trials.saturating_mul(trial_ms(config))))
        }
    }
}

/// Milliseconds until an open breaker is tried again, 0 when it is due; `None` when it is not open.
pub fn open_for_ms(record: &BreakerRecord, now_ms: u64) -> Option<u64> {
    let is_open = record.state == BreakerState::Open;
    is_open.then(|| opens_again_ms(record).saturating_sub(now_ms).min(record.reset_after_ms))
}

/// The share of failures among the runs that are judged, and how many those are.
pub fn failure_rate(record: &BreakerRecord, config: &CircuitBreakerConfig) -> (f64, u32) {
    let judged = record.window.iter().rev().filter(|entry| !entry.spent);
    let (mut runs, mut failures) = (0u32, 0u32);
    for entry in judged.take(config.sliding_window_size as usize) {
        runs += 1;
        failures += u32::from(!entry.success);
    }
    (f64::from(failures) / f64::from(runs.max(1)), runs)
}

fn opens_again_ms(record: &BreakerRecord) -> u64 {
    record.since_ms.saturating_add(record.reset_after_ms)
}

fn trial_ms(config: &CircuitBreakerConfig) -> u64 {
    config.reset_timeout_ms.max(LEAST_TRIAL_MS)
}

fn trips(record: &BreakerRecord, config: &CircuitBreakerConfig) -> bool {
    let (rate, runs) = failure_rate(record, config);
    runs >= config.minimum_calls && rate > 0.0 && rate >= config.failure_threshold
}

fn judge_run(
    record: &mut BreakerRecord,
    config: &CircuitBreakerConfig,
    success: bool,
    now_ms: u64,
    run: RunId,
) {
    match record.state {
        BreakerState::Closed if trips(record, config) => open(record, config, now_ms, run),
        BreakerState::HalfOpen if success => {
            record.successes += 1;
            if record.successes >= config.success_threshold {
                close(record, now_ms);
                spend(record);
            }
        }
        BreakerState::HalfOpen => open(record, config, now_ms, run),
        BreakerState::Closed | BreakerState::Open => {}
    }
}

/// Takes a run out of what is judged. Where the breaker would not have opened without it, it has not.
fn take_back(record: &mut BreakerRecord, config: &CircuitBreakerConfig, run: RunId, now_ms: u64) {
    match record.window.iter_mut().find(|entry| entry.run == run) {
        Some(entry) => entry.spent = true,
        // Its outcome is still on the way.
        None => return remember(record, config, WindowEntry { run, success: false, spent: true }),
    }
    if record.state != BreakerState::Open {
        return;
    }
    let from_half_open = record.openings > 1;
    let mut judged = record.window.iter().filter(|entry| !entry.spent);
    if from_half_open && judged.all(|entry| entry.success) {
        let openings = record.openings - 1;
        let successes = record.window.iter().filter(|entry| !entry.spent).count() as u32;
        half_open(record, now_ms);
        (record.openings, record.successes) = (openings, successes);
    } else if !from_half_open && !trips(record, config) {
        close(record, now_ms);
    }
}

fn open(record: &mut BreakerRecord, config: &CircuitBreakerConfig, now_ms: u64, by: RunId) {
    let openings = record.openings.saturating_add(1);
    record.reset_after_ms = reset_after_ms(config, openings, by);
    enter(record, BreakerState::Open, now_ms);
    record.openings = openings;
}

fn half_open(record: &mut BreakerRecord, now_ms: u64) {
    enter(record, BreakerState::HalfOpen, now_ms);
    record.reset_after_ms = 0;
}

fn close(record: &mut BreakerRecord, now_ms: u64) {
    enter(record, BreakerState::Closed, now_ms);
    (record.openings, record.reset_after_ms) = (0, 0);
}

fn enter(record: &mut BreakerRecord, state: BreakerState, now_ms: u64) {
    record.state = state;
    record.since_ms = now_ms;
    (record.successes, record.renewals) = (0, 0);
}

/// What was heard so far is judged no more.
fn spend(record: &mut BreakerRecord) {
    for entry in &mut record.window {
        entry.spent = true;
    }
}

fn remember(record: &mut BreakerRecord, config: &CircuitBreakerConfig, entry: WindowEntry) {
    record.window.push(entry);
    let kept = remembered(config);
    if record.window.len() > kept {
        record.window.drain(..record.window.len() - kept);
    }
}

/// Runs that a record holds at most.
pub(crate) fn remembered(config: &CircuitBreakerConfig) -> usize {
    REMEMBERED * config.sliding_window_size as usize + config.success_threshold as usize
}

/// The reset time-out doubles with each opening in a row up to its cap; jitter takes off up to a fifth.
fn reset_after_ms(config: &CircuitBreakerConfig, openings: u32, by: RunId) -> u64 {
    let doubled = config.reset_timeout_ms.saturating_mul(1 << openings.saturating_sub(1).min(32));
    let longest = doubled.min(config.max_reset_timeout_ms);
    // FNV-1a: the same in every build.
    let mixed = by.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let drawn = (mixed % 1_000) as f64 / 1_000.0;
    ((longest as f64 * (1.0 - JITTER_SHARE * drawn)) as u64).max(1)
}

#[cfg(test)]
mod tests;
