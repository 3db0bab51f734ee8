//! When a question that is not answered is asked once more, of whichever manager takes it then.
//!
//! A manager that dies takes the questions with it that it had heard and not answered. Nobody tells who asked: the broker
//! knows no more than that it has handed the question on. Waiting for the whole time-out costs a listener two seconds, so
//! a second copy goes out as soon as the answer is later than answers are. Questions carry their ids, so a copy changes
//! nothing: the jobs of both are the same messages to the queue.
//!
//! *Later than answers are* is reckoned as TCP reckons it (RFC 6298): a smoothed answer time and its smoothed deviation,
//! four of which are granted. Where everything grows slow, the patience grows with it; and copies come out of a purse that
//! questions fill by a share of themselves, so that a fleet that is slow because it has too much to do never gets more
//! than that share on top. Pure; time comes in as durations.

use std::time::Duration;

/// Copies of one question at most, the first not counted.
pub(super) const MAX_COPIES: u32 = 3;

/// The least patience: answers take a few milliseconds, and a busy machine's scheduler some more.
const LEAST: Duration = Duration::from_millis(40);
/// The most, whatever was seen.
const MOST: Duration = Duration::from_secs(1);
/// The patience while no answer was seen.
const FIRST: Duration = Duration::from_millis(150);

/// What each question puts into the purse; a copy takes 1.
const SHARE: f64 = 0.1;
/// What the purse holds at first, and what it holds at most: as many questions as a dead manager may have had in hand.
const PURSE_AT_FIRST: f64 = 16.0;
const FULL_PURSE: f64 = 64.0;

/// Smoothing of the answer time and of its deviation (RFC 6298, 2.3).
const GAIN: f64 = 1.0 / 8.0;
const DEVIATION_GAIN: f64 = 1.0 / 4.0;
const DEVIATIONS: f64 = 4.0;

/// What was seen of one kind of question.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Seconds: the smoothed answer time and its deviation, once there was an answer.
    seen: Option<(f64, f64)>,
    purse: f64,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { seen: None, purse: PURSE_AT_FIRST }
    }

    /// A question is asked: how long its answer is waited for before a copy goes out.
    pub(super) fn asked(&mut self) -> Duration {
        self.purse = (self.purse + SHARE).min(FULL_PURSE);
        self.now()
    }

    /// A copy is due: whether there is one to spare. Then it is spent.
    pub(super) fn spend(&mut self) -> bool {
        let enough = self.purse >= 1.0;
        if enough {
            self.purse -= 1.0;
        }
        enough
    }

    /// An answer came, so long after its copy was sent.
    pub(super) fn answered(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.seen = Some(match self.seen {
            None => (took, took / 2.0),
            Some((mean, deviation)) => {
                let off = (mean - took).abs();
                (mean + GAIN * (took - mean), deviation + DEVIATION_GAIN * (off - deviation))
            }
        });
    }

    fn now(&self) -> Duration {
        let Some((mean, deviation)) = self.seen else { return FIRST };
        Duration::try_from_secs_f64(mean + DEVIATIONS * deviation).unwrap_or(MOST).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(answers_ms: impl IntoIterator<Item = u64>) -> Patience {
        let mut patience = Patience::new();
        answers_ms.into_iter().for_each(|ms| patience.answered(Duration::from_millis(ms)));
        patience
    }

    #[test]
    fn quick_answers_make_it_short_and_slow_ones_long() {
        assert_eq!(Patience::new().asked(), FIRST);
        assert_eq!(after([2; 50]).asked(), LEAST, "a dead manager costs forty milliseconds");
        let slow = after([200; 50]).asked();
        assert!((200..300).contains(&slow.as_millis()), "{slow:?}");
        let uneven = after([5, 100].repeat(25)).asked();
        assert!(uneven > Duration::from_millis(150), "{uneven:?}");
        assert_eq!(after([60_000; 50]).asked(), MOST);
    }

    #[test]
    fn it_follows_managers_that_grow_slow() {
        let mut patience = after([2; 100]);
        for _ in 0..10 {
            patience.answered(Duration::from_millis(300));
        }
        assert!(patience.asked() > Duration::from_millis(300));
    }

    proptest! {
        /// Copies stay a share of the questions, whatever becomes of these; patience stays within its bounds.
        #[test]
        fn copies_are_bounded(steps in proptest::collection::vec((0u8..3, 0u64..5_000), 0..600)) {
            let mut patience = Patience::new();
            let (mut questions, mut copies) = (0u32, 0u32);
            for (step, ms) in steps {
                match step {
                    0 => {
                        questions += 1;
                        let wait = patience.asked();
                        prop_assert!(wait >= LEAST && wait <= MOST);
                    }
                    1 => copies += u32::from(patience.spend()),
                    _ => patience.answered(Duration::from_millis(ms)),
                }
                prop_assert!(f64::from(copies) <= PURSE_AT_FIRST + SHARE * f64::from(questions) + 1e-6);
            }
        }
    }
}
