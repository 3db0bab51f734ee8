//! When an engine is renewed, and when its memory is worth an alert. Pure: what is seen and the time come in.
//!
//! Long-lived processes leak, speech libraries not least; a fresh one costs seconds and loses nothing. Nothing makes an
//! engine be renewed within [`RecycleConfig::least_age`]: one whose models alone are over the limit would do nothing else.

use std::fmt;
use std::time::{Duration, Instant};

/// When an engine is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecycleConfig {
    /// After so many jobs; `None`: never for that.
    pub requests: Option<u64>,
    /// At this age; `None`: never for that.
    pub age: Option<Duration>,
    /// At this resident size, in bytes; `None`: never for that.
    pub rss_bytes: Option<u64>,
    /// Never before this age.
    pub least_age: Duration,
    /// What running jobs may take to end.
    pub finish_within: Duration,
}

impl Default for RecycleConfig {
    /// At 4 GB, plan.md's `memoryUsageGB`; age and number of jobs do not count.
    fn default() -> Self {
        Self {
            requests: None,
            age: None,
            rss_bytes: Some(4_000_000_000),
            least_age: Duration::from_secs(60),
            finish_within: Duration::from_secs(30),
        }
    }
}

/// The share of the limit, in percent, at which an alert is given, and the one below which the next can be.
const ALERT_PERCENT: u64 = 80;
const CALM_PERCENT: u64 = 70;

/// What is seen of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Which start of it.
    pub(crate) run: u64,
    /// Its resident size, in bytes; 0 when the system does not tell.
    pub(crate) rss_bytes: u64,
    /// Jobs that the worker has ended so far.
    pub(crate) requests: u64,
}

/// Memory is at the alert's share of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) limit_bytes: u64,
}

/// Why an engine is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Requests(u64),
    Age(Duration),
    Memory(u64),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(count) => write!(f, "it has done {count} jobs"),
            Self::Age(age) => write!(f, "it is {} s old", age.as_secs()),
            Self::Memory(bytes) => write!(f, "it takes {bytes} bytes"),
        }
    }
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) alert: Option<Alert>,
    pub(crate) recycle: Option<Why>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Recycler {
    config: RecycleConfig,
    /// The engine that is looked at, since when, and the jobs ended before.
    engine: Option<(u64, Instant, u64)>,
    alerted: bool,
}

impl Recycler {
    pub(crate) fn new(config: RecycleConfig) -> Self {
        Self { config, engine: None, alerted: false }
    }

    /// What to do about what is seen now.
    pub(crate) fn look(&mut self, sight: &Sight, now: Instant) -> Seen {
        let engine = self.engine.filter(|(run, ..)| *run == sight.run);
        let (_, since, before) = *self.engine.insert(engine.unwrap_or((sight.run, now, sight.requests)));
        let age = now.saturating_duration_since(since);
        let requests = sight.requests.saturating_sub(before);
        let recycle = self.why(age, requests, sight.rss_bytes).filter(|_| age >= self.config.least_age);
        Seen { alert: self.alert(sight.rss_bytes), recycle }
    }

    fn why(&self, age: Duration, requests: u64, rss_bytes: u64) -> Option<Why> {
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        if reached(self.config.rss_bytes, rss_bytes) {
            Some(Why::Memory(rss_bytes))
        } else if reached(self.config.requests, requests) {
            Some(Why::Requests(requests))
        } else if self.config.age.is_some_and(|limit| age >= limit) {
            Some(Why::Age(age))
        } else {
            None
        }
    }

    /// One alert per crossing; the way back must be clear before the next.
    fn alert(&mut self, rss_bytes: u64) -> Option<Alert> {
        let limit_bytes = self.config.rss_bytes?;
        let over =
            |percent: u64| u128::from(rss_bytes) * 100 >= u128::from(limit_bytes) * u128::from(percent);
        if self.alerted {
            self.alerted = over(CALM_PERCENT);
            return None;
        }
        self.alerted = over(ALERT_PERCENT);
        self.alerted.then_some(Alert { limit_bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn sight(run: u64, rss_bytes: u64, requests: u64) -> Sight {
        Sight { run, rss_bytes, requests }
    }

    #[test]
    fn each_limit_renews_the_engine_and_a_fresh_one_starts_over() {
        let config = RecycleConfig {
            requests: Some(100),
            age: Some(HOUR * 24),
            rss_bytes: Some(1_000),
            ..RecycleConfig::default()
        };
        let (mut recycler, start) = (Recycler::new(config), Instant::now());
        assert_eq!(recycler.look(&sight(1, 10, 50), start).recycle, None);
        assert_eq!(recycler.look(&sight(1, 10, 149), start + HOUR).recycle, None);
        assert_eq!(recycler.look(&sight(1, 10, 150), start + HOUR).recycle, Some(Why::Requests(100)));
        assert_eq!(recycler.look(&sight(2, 10, 150), start + HOUR).recycle, None);
        assert_eq!(recycler.look(&sight(2, 1_000, 150), start + HOUR * 2).recycle, Some(Why::Memory(1_000)));
        assert_eq!(recycler.look(&sight(3, 10, 150), start + HOUR * 2).recycle, None);
        assert_eq!(recycler.look(&sight(3, 10, 150), start + HOUR * 26).recycle, Some(Why::Age(HOUR * 24)));
    }

    #[test]
    fn models_that_are_over_the_limit_alone_are_not_loaded_for_ever() {
        let (mut recycler, start) = (Recycler::new(RecycleConfig::default()), Instant::now());
        let large = sight(1, 5_000_000_000, 0);
        assert_eq!(recycler.look(&large, start).recycle, None);
        assert_eq!(recycler.look(&large, start + Duration::from_secs(59)).recycle, None);
        assert!(recycler.look(&large, start + Duration::from_secs(60)).recycle.is_some());
    }

    #[test]
    fn an_alert_is_given_once_per_crossing() {
        let config = RecycleConfig { rss_bytes: Some(1_000), ..RecycleConfig::default() };
        let (mut recycler, now) = (Recycler::new(config), Instant::now());
        let mut alerts = |sizes: &[u64]| {
            let given = sizes.iter().filter(|size| recycler.look(&sight(1, **size, 0), now).alert.is_some());
            given.count()
        };
        assert_eq!(alerts(&[799, 800, 900, 790, 800, 701, 850]), 1, "it wavers around the limit");
        assert_eq!(alerts(&[699, 750, 810]), 1, "it was well below");
    }

    proptest! {
        #[test]
        fn never_twice_within_the_least_age(steps in proptest::collection::vec((0u64..50, 0u64..2_000), 1..100)) {
            let config = RecycleConfig { requests: Some(3), rss_bytes: Some(1_000), ..RecycleConfig::default() };
            let (mut recycler, mut now) = (Recycler::new(config), Instant::now());
            let (mut run, mut since, mut requests) = (1, None, 0);
            for (pause_s, rss_bytes) in steps {
                now += Duration::from_secs(pause_s);
                requests += 1;
                let begun = *since.get_or_insert(now);
                if recycler.look(&sight(run, rss_bytes, requests), now).recycle.is_some() {
                    prop_assert!(now - begun >= Duration::from_secs(60));
                    (run, since) = (run + 1, None);
                }
            }
        }
    }
}
