//! When a child that ended is started again: pure, time comes in as an argument.
//!
//! Delays grow with each failure and start over after a run that stayed healthy. Too many failures within a
//! window are a crash loop: give up, and let somebody look at it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::retry::{Retries, RetryPolicy};

/// How a supervised child is restarted.
#[derive(Debug, Clone, PartialEq)]
pub struct RestartPolicy {
    /// The delay after a first failure; it doubles with each further one.
    pub initial_delay: Duration,
    /// No delay is longer.
    pub max_delay: Duration,
    /// Share of each delay drawn at random, 0 to 1.
    pub jitter: f64,
    /// A run that was ready this long was healthy: the delays start over.
    pub healthy_after: Duration,
    /// The supervisor gives up at this many failures within `crash_window`; `None` never gives up.
    pub crash_limit: Option<u32>,
    /// The window in which failures are counted.
    pub crash_window: Duration,
    /// A child that exits with status 0 has done what it was told, and is not started again.
    pub success_is_final: bool,
}

impl Default for RestartPolicy {
    /// From 100 ms to 10 s, a fifth jittered; healthy after 10 s; five failures within a minute are a crash
    /// loop.
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            jitter: 0.2,
            healthy_after: Duration::from_secs(10),
            crash_limit: Some(5),
            crash_window: Duration::from_secs(60),
            success_is_final: false,
        }
    }
}

/// What to do after a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this delay.
    Restart {
        /// The delay.
        delay: Duration,
    },
    /// Leave it.
    GiveUp {
        /// Failures within the window.
        failures: u32,
    },
}

/// The restarts of one child so far.
#[derive(Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    delays: Retries,
    failures: VecDeque<Instant>,
}

impl Restarts {
    /// No failures yet.
    pub fn new(policy: RestartPolicy) -> Self {
        let delays = RetryPolicy {
            initial_delay: policy.initial_delay,
            multiplier: 2.0,
            max_delay: policy.max_delay,
            jitter: policy.jitter,
            max_attempts: None,
            budget: None,
        };
        Self { delays: delays.start(), policy, failures: VecDeque::new() }
    }

    /// A run ended at `now`; it had been ready since `ready_since`, if it ever was.
    pub fn on_end(&mut self, now: Instant, ready_since: Option<Instant>) -> Decision {
        let healthy = ready_since.is_some_and(|since| now.duration_since(since) >= self.policy.healthy_after);
        if healthy {
            self.delays.reset();
        }
        if let Some(limit) = self.policy.crash_limit {
            self.count_failure(now);
            let failures = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
            if failures >= limit.max(1) {
                return Decision::GiveUp { failures };
            }
        }
        // The delays have neither a limit of attempts nor a budget, so there always is one.
        let delay = self.delays.next_delay(Duration::ZERO).unwrap_or(self.policy.max_delay);
        Decision::Restart { delay }
    }

    fn count_failure(&mut self, now: Instant) {
        self.failures.push_back(now);
        let window = self.policy.crash_window;
        while self.failures.front().is_some_and(|&at| now.duration_since(at) > window) {
            self.failures.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(crash_limit: Option<u32>) -> RestartPolicy {
        RestartPolicy { jitter: 0.0, crash_limit, ..RestartPolicy::default() }
    }

    #[test]
    fn delays_double_and_start_over_after_a_healthy_run() {
        let mut restarts = Restarts::new(exact(None));
        let now = Instant::now();
        let restart = |ms| Decision::Restart { delay: Duration::from_millis(ms) };
        assert_eq!(restarts.on_end(now, None), restart(100));
        assert_eq!(restarts.on_end(now, Some(now)), restart(200));
        assert_eq!(restarts.on_end(now, None), restart(400));
        let later = now + Duration::from_secs(10);
        assert_eq!(restarts.on_end(later, Some(now)), restart(100));
    }

    #[test]
    fn a_crash_loop_is_given_up_but_old_failures_are_forgotten() {
        let mut restarts = Restarts::new(exact(Some(3)));
        let start = Instant::now();
        for minutes in 0..10 {
            let now = start + Duration::from_secs(minutes * 61);
            assert!(matches!(restarts.on_end(now, None), Decision::Restart { .. }));
        }
        let now = start + Duration::from_secs(9 * 61 + 1);
        assert!(matches!(restarts.on_end(now, None), Decision::Restart { .. }));
        assert_eq!(restarts.on_end(now, None), Decision::GiveUp { failures: 3 });
    }

    proptest! {
        #[test]
        fn never_more_failures_than_the_limit_in_a_window(
            gaps_ms in proptest::collection::vec(0u64..40_000, 1..60), limit in 1u32..8,
        ) {
            let mut restarts = Restarts::new(RestartPolicy { jitter: 0.5, ..exact(Some(limit)) });
            let (mut now, mut times) = (Instant::now(), Vec::new());
            for gap_ms in gaps_ms {
                now += Duration::from_millis(gap_ms);
                times.push(now);
                let window = Duration::from_secs(60);
                let recent = times.iter().filter(|&&at| now.duration_since(at) <= window).count() as u32;
                match restarts.on_end(now, None) {
                    Decision::Restart { delay } => {
                        prop_assert!(delay <= Duration::from_secs(10));
                        prop_assert!(recent < limit);
                    }
                    Decision::GiveUp { failures } => {
                        prop_assert_eq!(failures, recent);
                        prop_assert!(recent >= limit);
                        return Ok(());
                    }
                }
            }
        }
    }
}
