//! Retry policy: how long to wait before the next attempt, and when to stop trying.
//!
//! [`RetryPolicy`] is configuration; [`Retries`] is the pure state of one operation (ask it for the next delay);
//! [`retry`] is the small loop around both. This module alone names the crate `backoff`, whose `ExponentialBackoff`
//! supplies the growth and the jitter; limits, budget and the cap after jitter are ours.

use std::future::Future;
use std::time::Duration;

use backoff::SystemClock as BackoffClock;
use backoff::backoff::Backoff;
use backoff::exponential::ExponentialBackoff;
use tokio_util::sync::CancellationToken;

/// How an operation is retried. Every limit holds at once; the first one met ends the attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The delay before the second attempt, before jitter.
    pub initial_delay: Duration,
    /// What each delay is multiplied with for the next one; values under 1 count as 1.
    pub multiplier: f64,
    /// No delay is longer, jitter included.
    pub max_delay: Duration,
    /// Share of a delay drawn at random around it, 0 (none) to 1 (between nothing and twice the delay).
    pub jitter: f64,
    /// Attempts in all, the first included; `None` for no limit.
    pub max_attempts: Option<u32>,
    /// No attempt begins later than this after the first; `None` for no limit.
    pub budget: Option<Duration>,
}

impl Default for RetryPolicy {
    /// Five attempts from 100 ms, doubling to at most 5 s, half jittered, within 30 s.
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_millis(100),
            multiplier: 2.0,
            max_delay: Duration::from_secs(5),
            jitter: 0.5,
            max_attempts: Some(5),
            budget: Some(Duration::from_secs(30)),
        }
    }
}

impl RetryPolicy {
    /// The state of a fresh operation, before its first attempt has failed.
    pub fn start(&self) -> Retries {
        Retries { growth: self.growth(), policy: self.clone(), failed: 0 }
    }

    fn growth(&self) -> ExponentialBackoff<BackoffClock> {
        let max_interval = self.max_delay.max(Duration::from_nanos(1));
        let initial_interval = self.initial_delay.min(max_interval);
        ExponentialBackoff {
            current_interval: initial_interval,
            initial_interval,
            randomization_factor: if self.jitter.is_finite() { self.jitter.clamp(0.0, 1.0) } else { 0.0 },
            multiplier: if self.multiplier.is_finite() { self.multiplier.max(1.0) } else { 1.0 },
            max_interval,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        }
    }
}

/// The attempts of one operation so far.
#[derive(Debug)]
pub struct Retries {
    policy: RetryPolicy,
    growth: ExponentialBackoff<BackoffClock>,
    failed: u32,
}

impl Retries {
    /// Counts one failed attempt and gives the delay before the next, or `None` when there shall be no next
    /// one. `elapsed` is the time since the first attempt began.
    pub fn next_delay(&mut self, elapsed: Duration) -> Option<Duration> {
        self.next_delay_at_least(elapsed, Duration::ZERO)
    }

    /// Like [`Retries::next_delay`], for a refusal that named a delay of its own (`retryAfterMs`): never
    /// sooner.
    pub fn next_delay_at_least(&mut self, elapsed: Duration, at_least: Duration) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        if self.policy.max_attempts.is_some_and(|limit| self.failed >= limit) {
            return None;
        }
        let drawn = self.growth.next_backoff()?;
        let delay = drawn.min(self.policy.max_delay).max(at_least);
        let begins = elapsed.saturating_add(delay);
        if self.policy.budget.is_some_and(|budget| begins > budget) {
            return None;
        }
        Some(delay)
    }

    /// Attempts that have failed.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Begins again from the initial delay, as after a success.
    pub fn reset(&mut self) {
        self.failed = 0;
        self.growth.reset();
    }
}

/// What a classifier says about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Trying again cannot help.
    Fatal,
    /// Try again after the policy's delay.
    Retry,
    /// Try again, but no sooner than this.
    RetryAfter(Duration),
}

/// Why [`retry`] gave no value. The last failure is kept.
#[derive(Debug, thiserror::Error)]
pub enum RetryError<E: std::error::Error + 'static> {
    /// The classifier called the failure fatal.
    #[error("attempt {attempts} failed for good")]
    Fatal {
        /// Attempts made.
        attempts: u32,
        /// The failure.
        source: E,
    },
    /// The policy allowed no further attempt.
    #[error("gave up after {attempts} attempts")]
    Exhausted {
        /// Attempts made.
        attempts: u32,
        /// The last failure.
        source: E,
    },
    /// The token was cancelled while an attempt or a delay was under way.
    #[error("cancelled after {attempts} failed attempts")]
    Cancelled {
        /// Attempts that had failed by then.
        attempts: u32,
    },
}

/// Runs `operation` until it succeeds, its failure is fatal, the policy is exhausted or `token` is cancelled.
pub async fn retry<T, E, F>(
    policy: &RetryPolicy,
    token: &CancellationToken,
    classify: impl Fn(&E) -> Verdict,
    mut operation: impl FnMut(u32) -> F,
) -> Result<T, RetryError<E>>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + 'static,
{
    let began = tokio::time::Instant::now();
    let mut retries = policy.start();
    loop {
        let attempt = retries.failed() + 1;
        let Some(result) = token.run_until_cancelled(operation(attempt)).await else {
            return Err(RetryError::Cancelled { attempts: retries.failed() });
        };
        let source = match result {
            Ok(value) => return Ok(value),
            Err(source) => source,
        };
        let at_least = match classify(&source) {
            Verdict::Fatal => return Err(RetryError::Fatal { attempts: attempt, source }),
            Verdict::Retry => Duration::ZERO,
            Verdict::RetryAfter(delay) => delay,
        };
        let Some(delay) = retries.next_delay_at_least(began.elapsed(), at_least) else {
            return Err(RetryError::Exhausted { attempts: attempt, source });
        };
        tracing::debug!(attempt, ?delay, error = %source, "attempt failed, trying again");
        if token.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return Err(RetryError::Cancelled { attempts: attempt });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;

    fn exact() -> RetryPolicy {
        RetryPolicy { jitter: 0.0, max_attempts: None, budget: None, ..RetryPolicy::default() }
    }

    #[test]
    fn delays_double_to_the_cap_and_start_over_after_reset() {
        let mut retries = exact().start();
        let delays: Vec<u128> =
            (0..8).filter_map(|_| retries.next_delay(Duration::ZERO)).map(|d| d.as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        retries.reset();
        assert_eq!(retries.next_delay(Duration::ZERO), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_named_delay_is_honoured_within_the_budget() {
        let policy = RetryPolicy { budget: Some(Duration::from_secs(10)), ..exact() };
        let mut retries = policy.start();
        let named = Duration::from_secs(7);
        assert_eq!(retries.next_delay_at_least(Duration::ZERO, named), Some(named));
        assert_eq!(retries.next_delay_at_least(named, named), None);
    }

    proptest! {
        #[test]
        fn every_limit_holds(
            initial_ms in 0u64..10_000, max_ms in 0u64..10_000, multiplier in -1.0f64..10.0,
            jitter in -1.0f64..3.0, attempts in 1u32..20,
        ) {
            let policy = RetryPolicy {
                initial_delay: Duration::from_millis(initial_ms), max_delay: Duration::from_millis(max_ms),
                multiplier, jitter, max_attempts: Some(attempts), budget: Some(Duration::from_secs(20)),
            };
            let mut retries = policy.start();
            let mut elapsed = Duration::ZERO;
            while let Some(delay) = retries.next_delay(elapsed) {
                prop_assert!(delay <= policy.max_delay);
                elapsed += delay;
            }
            prop_assert!(elapsed <= Duration::from_secs(20));
            prop_assert!(retries.failed() <= attempts);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retries_until_success_or_exhaustion() {
        let token = CancellationToken::new();
        let third = |attempt| async move { if attempt == 3 { Ok(attempt) } else { Err(No) } };
        assert_eq!(retry(&exact(), &token, |_| Verdict::Retry, third).await.unwrap(), 3);
        let policy = RetryPolicy { max_attempts: Some(2), ..exact() };
        let end = retry(&policy, &token, |_| Verdict::Retry, third).await;
        assert!(matches!(end, Err(RetryError::Exhausted { attempts: 2, .. })));
        let end = retry(&policy, &token, |_| Verdict::Fatal, third).await;
        assert!(matches!(end, Err(RetryError::Fatal { attempts: 1, .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_ends_the_delay() {
        let token = CancellationToken::new();
        let cancel_later = token.clone();
        let failing = move |_| {
            cancel_later.cancel();
            async { Err::<(), _>(No) }
        };
        let end = retry(&exact(), &token, |_| Verdict::Retry, failing).await;
        assert!(matches!(end, Err(RetryError::Cancelled { .. })));
    }
}
