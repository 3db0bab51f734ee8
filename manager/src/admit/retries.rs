//! How many further retries a class may cost: a share of what it asks for, and a little more.
//!
//! Pure. The first retry of a segment is free: a worker was lost, and its listener waits. From the second failure on retries
//! are paid for. When much fails at once they would otherwise take the room of what might succeed, and a fleet in trouble
//! would be asked for more than a healthy one. A class whose budget is spent is not refused its retry, it waits for it:
//! back-pressure, which the session bears within its deadline.

use std::time::{Duration, Instant};

use chorus_protocol::{JobClass, Reason, ServiceError};

/// What a budget is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Retries that each first attempt of the class pays for.
    pub share: f64,
    /// Retries per second beside that, so that a class that asks seldom has some.
    pub per_second: f64,
    /// The most that is saved up, and what there is at the start.
    pub most: f64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { share: 0.2, per_second: 5.0, most: 50.0 }
    }
}

impl RetryBudget {
    /// What is wrong with it.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        let within = |figure: f64, least: f64, most: f64| figure >= least && figure <= most;
        let rules = [
            (within(self.share, 0.0, 10.0), "retry_budget.share is outside 0 to 10"),
            (within(self.per_second, 0.001, 1e6), "retry_budget.per_second is outside 0.001 to 1,000,000"),
            (within(self.most, 1.0, 1e6), "retry_budget.most is outside 1 to 1,000,000"),
        ];
        rules.into_iter().filter_map(|(holds, fault)| (!holds).then_some(fault)).collect()
    }
}

const CLASSES: usize = JobClass::BY_URGENCY.len();

/// The budgets of all classes.
#[derive(Debug)]
pub struct RetryBudgets {
    budget: RetryBudget,
    left: [f64; CLASSES],
    refilled_at: Instant,
}

impl RetryBudgets {
    /// Full ones.
    pub fn new(budget: RetryBudget, now: Instant) -> Self {
        Self { budget, left: [budget.most; CLASSES], refilled_at: now }
    }

    /// A first attempt was queued in this class.
    pub fn earn(&mut self, class: JobClass) {
        let left = &mut self.left[class as usize];
        *left = (*left + self.budget.share).min(self.budget.most);
    }

    /// Pays for a retry.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED/rate_limited, with the time after which there is something again.
    pub fn spend(&mut self, class: JobClass, now: Instant) -> Result<(), ServiceError> {
        let earned = now.saturating_duration_since(self.refilled_at).as_secs_f64() * self.budget.per_second;
        self.refilled_at = now;
        for left in &mut self.left {
            *left = (*left + earned).min(self.budget.most);
        }
        let left = &mut self.left[class as usize];
        if *left >= 1.0 {
            *left -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - *left) / self.budget.per_second);
        let message = format!("too many retries of class {} at once", class.as_str());
        Err(ServiceError::new(Reason::RateLimited, message).retry_after_ms(wait.as_millis() as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIGHT: RetryBudget = RetryBudget { share: 0.5, per_second: 2.0, most: 2.0 };

    #[test]
    fn what_is_spent_comes_back_with_time_and_with_work() {
        let t0 = Instant::now();
        let mut budgets = RetryBudgets::new(TIGHT, t0);
        for _ in 0..2 {
            budgets.spend(JobClass::Normal, t0).unwrap();
        }
        let error = budgets.spend(JobClass::Normal, t0).unwrap_err();
        assert_eq!((error.reason(), error.retryable), (Some(Reason::RateLimited), true));
        assert_eq!(error.details.unwrap()["retryAfterMs"], 501);
        budgets.spend(JobClass::Low, t0).expect("each class has its own");
        budgets.earn(JobClass::Normal);
        assert!(budgets.spend(JobClass::Normal, t0).is_err());
        budgets.earn(JobClass::Normal);
        budgets.spend(JobClass::Normal, t0).unwrap();
        let later = t0 + Duration::from_millis(501);
        budgets.spend(JobClass::Normal, later).unwrap();
        assert!(budgets.spend(JobClass::Normal, later).is_err());
    }

    proptest! {
        /// However it is asked, no more is spent than was there, came with time, and was earned; and who waits as long as
        /// told gets it.
        #[test]
        fn no_more_is_spent_than_there_is(steps in prop::collection::vec((0u64..400, any::<bool>()), 1..200)) {
            let t0 = Instant::now();
            let mut budgets = RetryBudgets::new(TIGHT, t0);
            let (mut now, mut earned, mut spent) = (t0, 0u32, 0u32);
            for (wait_ms, earns) in steps {
                now += Duration::from_millis(wait_ms);
                if earns {
                    budgets.earn(JobClass::High);
                    earned += 1;
                    continue;
                }
                match budgets.spend(JobClass::High, now) {
                    Ok(()) => spent += 1,
                    Err(error) => {
                        let wait = error.details.unwrap()["retryAfterMs"].as_u64().unwrap();
                        now += Duration::from_millis(wait);
                        prop_assert!(budgets.spend(JobClass::High, now).is_ok());
                        spent += 1;
                    }
                }
            }
            let most = TIGHT.most + (now - t0).as_secs_f64() * TIGHT.per_second + f64::from(earned) * TIGHT.share;
            prop_assert!(f64::from(spent) <= most + 1e-6, "{spent} of {most}");
        }
    }
}
