//! The account of pulls under way: which pull a job answers, which pulls have ended. Pure; time comes in.
//!
//! A job does not say which pull it answers, only which consumer it comes from. The server serves the pulls waiting on a
//! consumer in turn: the first gets a job and, when it wants more, goes to the end of the line. So do we.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use chorus_protocol::ModelName;

/// A pull under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pull {
    pub(super) id: u64,
    /// Jobs still to come.
    pub(super) remaining: u32,
    pub(super) no_wait: bool,
    /// When the server must have ended it, or said that it still waits.
    pub(super) ends_at: Instant,
    /// When the server must have ended it, whatever it said.
    pub(super) last_end: Instant,
    /// Over which connection, counted from 1, it was sent.
    pub(super) connection: u64,
}

/// A pull that the server ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EndedPull {
    pub(super) no_wait: bool,
    pub(super) model: ModelName,
}

struct Line {
    model: ModelName,
    waiting: VecDeque<Pull>,
    last_id: u64,
}

/// Pulls under way, by consumer.
#[derive(Default)]
pub(super) struct Outstanding {
    lines: HashMap<String, Line>,
}

impl Outstanding {
    pub(super) fn opened(&mut self, consumer: &str, model: &ModelName, pull: Pull) {
        let id = pull.id;
        match self.lines.get_mut(consumer) {
            Some(line) => {
                line.last_id = id;
                line.waiting.push_back(pull);
            }
            None => {
                let line = Line { model: model.clone(), waiting: VecDeque::from([pull]), last_id: id };
                self.lines.insert(consumer.to_owned(), line);
            }
        }
    }

    /// A job came: the pull it answers, or the last one of its consumer when none is under way; `None` for a consumer
    /// that was never asked.
    pub(super) fn delivered(&mut self, consumer: &str) -> Option<u64> {
        let line = self.lines.get_mut(consumer)?;
        let Some(mut pull) = line.waiting.pop_front() else { return Some(line.last_id) };
        let id = pull.id;
        pull.remaining -= 1;
        if pull.remaining > 0 {
            line.waiting.push_back(pull);
        }
        Some(id)
    }

    /// The server ended it; `None` when it was not under way any more.
    pub(super) fn ended(&mut self, id: u64) -> Option<EndedPull> {
        self.lines.values_mut().find_map(|line| {
            let place = line.waiting.iter().position(|pull| pull.id == id)?;
            let pull = line.waiting.remove(place)?;
            Some(EndedPull { no_wait: pull.no_wait, model: line.model.clone() })
        })
    }

    /// The server says that it still waits: it is not overdue before `ends_at`.
    pub(super) fn alive(&mut self, id: u64, ends_at: Instant) {
        for pull in self.lines.values_mut().flat_map(|line| &mut line.waiting).filter(|pull| pull.id == id) {
            pull.ends_at = ends_at.min(pull.last_end);
        }
    }

    /// When the first pull is overdue.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.lines.values().flat_map(|line| &line.waiting).map(|pull| pull.ends_at).min()
    }

    /// Takes out what the server should have ended by `now`.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<u64> {
        self.take(|pull| pull.ends_at <= now)
    }

    /// Takes out what was sent over a connection before `connection`.
    pub(super) fn lost_before(&mut self, connection: u64) -> Vec<u64> {
        self.take(|pull| pull.connection < connection)
    }

    fn take(&mut self, gone: impl Fn(&Pull) -> bool) -> Vec<u64> {
        let mut taken = Vec::new();
        for line in self.lines.values_mut() {
            line.waiting.retain(|pull| {
                let stays = !gone(pull);
                if !stays {
                    taken.push(pull.id);
                }
                stays
            });
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn model() -> ModelName {
        ModelName::new("m").unwrap()
    }

    fn pull(id: u64, remaining: u32, ends_at: Instant) -> Pull {
        Pull {
            id,
            remaining,
            no_wait: false,
            ends_at,
            last_end: ends_at + Duration::from_secs(5),
            connection: 1,
        }
    }

    #[test]
    fn a_late_job_goes_to_the_last_pull_of_its_consumer() {
        let mut account = Outstanding::default();
        let now = Instant::now();
        assert_eq!(account.delivered("high_m"), None);
        account.opened("high_m", &model(), pull(1, 1, now));
        assert_eq!(account.delivered("high_m"), Some(1));
        assert_eq!(account.delivered("high_m"), Some(1));
        assert_eq!(account.ended(1), None);
    }

    #[test]
    fn pulls_of_one_consumer_are_served_in_turn() {
        let mut account = Outstanding::default();
        let now = Instant::now();
        account.opened("low_m", &model(), pull(1, 2, now));
        account.opened("low_m", &model(), pull(2, 1, now));
        let served: Vec<_> = (0..3).filter_map(|_| account.delivered("low_m")).collect();
        assert_eq!(served, [1, 2, 1]);
        assert_eq!(account.next_end(), None);
    }

    #[test]
    fn heartbeats_keep_a_pull_until_its_last_end() {
        let mut account = Outstanding::default();
        let now = Instant::now();
        let last_end = now + Duration::from_secs(5);
        account.opened("a", &model(), pull(1, 1, now));
        account.alive(1, now + Duration::from_secs(3));
        account.alive(2, now);
        assert_eq!(account.next_end(), Some(now + Duration::from_secs(3)));
        account.alive(1, now + Duration::from_secs(9));
        assert_eq!(account.next_end(), Some(last_end));
        assert_eq!(account.overdue(last_end), [1]);
    }

    #[test]
    fn lost_and_overdue_pulls_are_taken_out_once() {
        let mut account = Outstanding::default();
        let now = Instant::now();
        account.opened("a", &model(), pull(1, 1, now + Duration::from_secs(1)));
        account.opened("a", &model(), Pull { connection: 2, ..pull(2, 1, now + Duration::from_secs(2)) });
        assert_eq!(account.next_end(), Some(now + Duration::from_secs(1)));
        assert_eq!(account.lost_before(2), [1]);
        assert_eq!(account.overdue(now), [0; 0]);
        assert_eq!(account.overdue(now + Duration::from_secs(2)), [2]);
        assert_eq!(account.next_end(), None);
    }

    proptest! {
        /// Whatever comes in whatever order, no pull is answered by more jobs than it asked for while it is under way,
        /// and each ends once.
        #[test]
        fn the_account_balances(steps in proptest::collection::vec((0u8..4, 0u64..3, 1u32..4), 0..80)) {
            let mut account = Outstanding::default();
            let now = Instant::now();
            let mut open: HashMap<u64, u32> = HashMap::new();
            let mut next_id = 0;
            for (step, which, batch) in steps {
                let consumer = ["x", "y", "z"][which as usize];
                match step {
                    0 | 1 => {
                        next_id += 1;
                        account.opened(consumer, &model(), pull(next_id, batch, now));
                        open.insert(next_id, batch);
                    }
                    2 => if let Some(id) = account.delivered(consumer)
                        && let Some(left) = open.get_mut(&id)
                    {
                        *left -= 1;
                        if *left == 0 {
                            open.remove(&id);
                        }
                    },
                    _ => {
                        let id = open.keys().min().copied().unwrap_or(which);
                        prop_assert_eq!(account.ended(id).is_some(), open.remove(&id).is_some());
                        prop_assert!(account.ended(id).is_none());
                    }
                }
            }
            let mut left = account.overdue(now);
            left.sort_unstable();
            let mut expected: Vec<_> = open.into_keys().collect();
            expected.sort_unstable();
            prop_assert_eq!(left, expected);
        }
    }
}
