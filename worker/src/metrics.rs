//! The figures of a worker's recent runs: what heartbeats carry, and what decides whether to prefetch.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chorus_protocol::fleet::LatencyFigures;

/// Runs that the figures are taken over.
const WINDOW: usize = 256;
/// Jobs that take less than this, by the median of the engine's times, are prefetched: about so much work in all, so that
/// the way to the next job hides behind the jobs in hand. The second figure ends it again.
const PREFETCH_UNDER_MS: f64 = 10.0;
const PREFETCH_UNTIL_MS: f64 = 20.0;

/// One run that was accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RunFigures {
    /// Milliseconds from the pull to the session's answer.
    pub(crate) run_ms: f64,
    /// Milliseconds the engine worked.
    pub(crate) engine_ms: f64,
    /// Seconds of audio.
    pub(crate) audio_s: f64,
}

#[derive(Debug, Default)]
struct Recent {
    runs: VecDeque<RunFigures>,
    done: u64,
    failed: u64,
    /// Jobs worth prefetching; 0 where they are long.
    ahead: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    recent: Mutex<Recent>,
}

impl Metrics {
    /// A run whose audio was accepted.
    pub(crate) fn spoken(&self, run: RunFigures) {
        let mut recent = self.lock();
        recent.done += 1;
        if recent.runs.len() == WINDOW {
            recent.runs.pop_front();
        }
        recent.runs.push_back(run);
        // The median of the whole window is dear; a look at it once per sixteen runs is enough for a switch.
        if recent.done % 16 == 1 {
            let median = percentiles(recent.runs.iter().map(|run| run.engine_ms))[0];
            let limit = if recent.ahead > 0 { PREFETCH_UNTIL_MS } else { PREFETCH_UNDER_MS };
            // A cast of a float stops at the ends of the range.
            recent.ahead = if median < limit { ((PREFETCH_UNDER_MS / median) as u32).max(1) } else { 0 };
        }
    }

    /// A run that ended otherwise.
    pub(crate) fn failed(&self) {
        self.lock().failed += 1;
    }

    /// Runs accepted, and runs that ended otherwise, since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let recent = self.lock();
        (recent.done, recent.failed)
    }

    /// Jobs that should be on their way already, because those in hand are short.
    pub(crate) fn worth_prefetching(&self) -> u32 {
        self.lock().ahead
    }

    /// Percentiles and real-time factor of recent runs.
    pub(crate) fn latency(&self) -> LatencyFigures {
        let recent = self.lock();
        let [p50_ms, p95_ms, p99_ms] = percentiles(recent.runs.iter().map(|run| run.run_ms));
        let audio_s: f64 = recent.runs.iter().map(|run| run.audio_s).sum();
        let engine_s: f64 = recent.runs.iter().map(|run| run.engine_ms / 1000.0).sum();
        let real_time_factor = if audio_s > 0.0 { engine_s / audio_s } else { 0.0 };
        LatencyFigures { p50_ms, p95_ms, p99_ms, real_time_factor }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The 50th, 95th and 99th percentile by nearest rank; zeros of nothing.
fn percentiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    [0.50, 0.95, 0.99].map(|share: f64| {
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ms: f64) -> RunFigures {
        RunFigures { run_ms: ms, engine_ms: ms / 2.0, audio_s: ms / 1000.0 }
    }

    #[test]
    fn figures_are_of_the_last_runs_only() {
        let metrics = Metrics::default();
        assert_eq!(metrics.latency(), LatencyFigures::default());
        for ms in 1..=1256 {
            metrics.spoken(run(f64::from(ms)));
        }
        metrics.failed();
        let figures = metrics.latency();
        assert_eq!((figures.p50_ms, figures.p99_ms), (1128.0, 1254.0));
        assert!((figures.real_time_factor - 0.5).abs() < 1e-9);
        assert_eq!(metrics.counts(), (1256, 1));
    }

    #[test]
    fn prefetching_begins_and_ends_with_hysteresis() {
        let metrics = Metrics::default();
        metrics.spoken(run(4.0));
        assert_eq!(metrics.worth_prefetching(), 5, "2 ms each");
        (0..512).for_each(|_| metrics.spoken(run(30.0)));
        assert_eq!(metrics.worth_prefetching(), 1, "15 ms of engine time is not long enough to end it");
        (0..512).for_each(|_| metrics.spoken(run(60.0)));
        assert_eq!(metrics.worth_prefetching(), 0);
        (0..512).for_each(|_| metrics.spoken(run(30.0)));
        assert_eq!(metrics.worth_prefetching(), 0);
        (0..512).for_each(|_| metrics.spoken(run(0.0)));
        assert_eq!(metrics.worth_prefetching(), u32::MAX);
    }
}
