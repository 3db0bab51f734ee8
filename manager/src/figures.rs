//! What runs came to: counts of the four outcomes, and run times over a bounded window.
//!
//! Fed by `tts.events.outcome`, read by `tts.metrics`. Pure, and of fixed size however long a manager lives.

use std::collections::VecDeque;

use chorus_protocol::job::{Outcome, OutcomeKind};
use chorus_protocol::service::ServiceMetrics;

/// Runs over which percentiles are taken ([`ServiceMetrics`]).
const WINDOW_RUNS: usize = 1024;

/// Counts and times of the runs heard of since this manager's start.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    counted: ServiceMetrics,
    run_ms: VecDeque<f64>,
}

impl Figures {
    /// Counts one run.
    pub fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome.outcome {
            OutcomeKind::Success => &mut self.counted.successes,
            OutcomeKind::ClientFault => &mut self.counted.client_faults,
            OutcomeKind::BackPressure => &mut self.counted.back_pressure,
            OutcomeKind::WorkerFault => &mut self.counted.worker_faults,
        };
        *counter += 1;
        if outcome.sample_rate > 0 {
            self.counted.audio_seconds += outcome.samples as f64 / f64::from(outcome.sample_rate);
        }
        self.counted.engine_seconds += measured(outcome.engine_ms) / 1000.0;
        if outcome.outcome == OutcomeKind::Success {
            if self.run_ms.len() == WINDOW_RUNS {
                self.run_ms.pop_front();
            }
            self.run_ms.push_back(measured(outcome.run_ms));
        }
    }

    /// The figures so far; what only the fleet and the queue know is left at zero.
    pub fn read(&self) -> ServiceMetrics {
        let mut sorted: Vec<f64> = self.run_ms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        ServiceMetrics {
            p50_ms: percentile(&sorted, 50),
            p95_ms: percentile(&sorted, 95),
            p99_ms: percentile(&sorted, 99),
            ..self.counted.clone()
        }
    }
}

/// A figure that may have come from anywhere: what is not a time counts as none.
fn measured(ms: f64) -> f64 {
    if ms.is_finite() { ms.max(0.0) } else { 0.0 }
}

/// The nearest-rank percentile; 0 without data.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use chorus_protocol::job::RunRef;
    use chorus_protocol::{JobClass, ModelName, RunId, SessionId, WorkerId};

    use super::*;

    fn outcome(kind: OutcomeKind, run_ms: f64) -> Outcome {
        Outcome {
            run: RunRef {
                session: SessionId::from_u128(1),
                segment: 0,
                attempt: 1,
                run: RunId::from_u128(1),
            },
            worker: WorkerId::new("w").unwrap(),
            model: ModelName::new("m").unwrap(),
            class: JobClass::Normal,
            outcome: kind,
            engine_ms: 500.0,
            run_ms,
            text_chars: 5,
            samples: 22_050,
            sample_rate: 22_050,
            error: None,
        }
    }

    #[test]
    fn outcomes_are_counted_apart_and_times_come_from_successes() {
        let mut figures = Figures::default();
        assert_eq!(figures.read(), ServiceMetrics::default());
        for ms in 1..=100 {
            figures.count(&outcome(OutcomeKind::Success, f64::from(ms)));
        }
        figures.count(&outcome(OutcomeKind::WorkerFault, 1e9));
        figures.count(&outcome(OutcomeKind::BackPressure, f64::NAN));
        let read = figures.read();
        assert_eq!((read.successes, read.worker_faults, read.back_pressure), (100, 1, 1));
        assert_eq!((read.p50_ms, read.p95_ms, read.p99_ms), (50.0, 95.0, 99.0));
        assert!((read.audio_seconds - 102.0).abs() < 1e-9 && (read.engine_seconds - 51.0).abs() < 1e-9);
    }

    #[test]
    fn the_window_forgets_the_oldest() {
        let mut figures = Figures::default();
        for _ in 0..WINDOW_RUNS {
            figures.count(&outcome(OutcomeKind::Success, 1_000.0));
        }
        for _ in 0..WINDOW_RUNS {
            figures.count(&outcome(OutcomeKind::Success, 1.0));
        }
        assert_eq!(figures.run_ms.len(), WINDOW_RUNS);
        assert_eq!(figures.read().p99_ms, 1.0);
    }
}
