//! Which worker is in the middle of which segment, and how soon another one took over: pure, fed by the wiretap.
//!
//! **Resume time** is the time from the blow (just before the signal is sent) to the first `started` that a session is asked
//! for the same segment by another run. Both ends are read on one clock, in the process that strikes. A segment counts as
//! interrupted when its run had asked `started` before the blow and no `result` of it had been heard; jobs that a worker
//! had pulled and not begun are not counted. A run whose `result` was under way at the blow and arrives after it is taken
//! back. What is measured so includes the way of `started` over the broker, and a worker's wait for room, if all are busy.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chorus_protocol::job::{RunRef, Started};
use chorus_protocol::{RunId, SegmentIndex, SessionId, WorkerId};

/// A segment of a session.
type Segment = (SessionId, SegmentIndex);

#[derive(Debug, Clone)]
struct Open {
    segment: Segment,
    worker: WorkerId,
    since: Instant,
}

/// The runs that were heard of.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    open: HashMap<RunId, Open>,
    heard: HashSet<RunId>,
    spoken: HashSet<Segment>,
    struck: HashSet<Segment>,
    interrupted: HashMap<RunId, (Segment, Instant)>,
    resumed: Vec<Duration>,
    superseded: u64,
}

impl Runs {
    /// A worker asks whether its run shall go on; asked again it changes nothing.
    pub(crate) fn started(&mut self, started: &Started, now: Instant) {
        let (run, segment) = (started.run.run, (started.run.session, started.run.segment));
        if !self.heard.insert(run) {
            return;
        }
        if self.spoken.contains(&segment) {
            self.superseded += u64::from(!self.struck.contains(&segment));
            return;
        }
        let before = self.open.len();
        self.open.retain(|_, open| open.segment != segment);
        self.superseded += (before - self.open.len()) as u64;
        self.interrupted.retain(|_, (interrupted, at)| {
            let other = *interrupted != segment;
            if !other {
                self.resumed.push(now.saturating_duration_since(*at));
            }
            other
        });
        self.open.insert(run, Open { segment, worker: started.worker.clone(), since: now });
    }

    /// A run has ended.
    pub(crate) fn ended(&mut self, run: &RunRef, spoken: bool) {
        self.open.remove(&run.run);
        if spoken {
            let segment = (run.session, run.segment);
            self.open.retain(|_, open| open.segment != segment);
            self.interrupted.retain(|_, (interrupted, _)| *interrupted != segment);
            self.spoken.insert(segment);
        }
    }

    /// The worker is struck now.
    pub(crate) fn struck(&mut self, worker: &WorkerId, now: Instant) {
        let hit: Vec<RunId> =
            self.open.iter().filter(|(_, open)| open.worker == *worker).map(|(run, _)| *run).collect();
        for run in hit {
            if let Some(open) = self.open.remove(&run) {
                self.struck.insert(open.segment);
                self.interrupted.insert(run, (open.segment, now));
            }
        }
    }

    /// The worker that has been in the middle of a segment for the longest time, and at least for `least`.
    pub(crate) fn speaking(&self, least: Duration, now: Instant) -> Option<&WorkerId> {
        let old_enough = |open: &&Open| now.saturating_duration_since(open.since) >= least;
        self.open.values().filter(old_enough).min_by_key(|open| open.since).map(|open| &open.worker)
    }

    /// Runs begun though another one of their segment was under way or had ended well, and nothing had happened to its worker.
    pub(crate) fn superseded(&self) -> u64 {
        self.superseded
    }

    /// How soon interrupted segments were begun elsewhere, and how many were not.
    pub(crate) fn resumed(&self) -> (Vec<Duration>, usize) {
        (self.resumed.clone(), self.interrupted.len())
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::Incarnation;

    use super::*;

    fn started(run: u128, worker: &str) -> Started {
        Started {
            run: RunRef {
                session: SessionId::from_u128(1),
                segment: 0,
                attempt: 1,
                run: RunId::from_u128(run),
            },
            worker: WorkerId::new(worker).unwrap(),
            incarnation: Incarnation::new(),
            deliveries: 1,
            overlapped: true,
        }
    }

    #[test]
    fn a_resumption_is_the_next_run_of_a_segment_that_was_interrupted() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut runs = Runs::default();
        runs.started(&started(1, "a"), at(0));
        assert!(runs.speaking(Duration::from_millis(5), at(4)).is_none());
        assert_eq!(runs.speaking(Duration::from_millis(5), at(5)).map(ToString::to_string), Some("a".into()));
        runs.struck(&WorkerId::new("b").unwrap(), at(9));
        runs.struck(&WorkerId::new("a").unwrap(), at(10));
        runs.started(&started(1, "a"), at(11));
        assert_eq!(runs.resumed(), (vec![], 1), "a repeated question is no other run");
        runs.started(&started(2, "b"), at(40));
        assert_eq!(runs.resumed(), (vec![Duration::from_millis(30)], 0));
        assert_eq!(runs.superseded(), 0);
        runs.started(&started(3, "a"), at(50));
        assert_eq!(runs.superseded(), 1, "nobody had hurt the worker of the run before");
    }

    #[test]
    fn a_run_of_what_was_spoken_is_one_too_many() {
        let t0 = Instant::now();
        let mut runs = Runs::default();
        runs.started(&started(1, "a"), t0);
        runs.ended(&started(1, "a").run, true);
        runs.started(&started(1, "a"), t0);
        assert_eq!(runs.superseded(), 0, "a repeated question is no other run");
        runs.started(&started(2, "b"), t0);
        assert_eq!(runs.superseded(), 1);
    }

    #[test]
    fn a_result_that_was_under_way_takes_the_interruption_back() {
        let t0 = Instant::now();
        let mut runs = Runs::default();
        runs.started(&started(1, "a"), t0);
        runs.struck(&WorkerId::new("a").unwrap(), t0);
        runs.ended(&started(1, "a").run, true);
        assert_eq!(runs.resumed(), (vec![], 0));
        runs.started(&started(2, "b"), t0);
        assert!(runs.speaking(Duration::ZERO, t0).is_none(), "a segment that was spoken is not begun again");
    }

    #[test]
    fn a_failure_told_by_the_worker_leaves_the_segment_interrupted() {
        let t0 = Instant::now();
        let mut runs = Runs::default();
        runs.started(&started(1, "a"), t0);
        runs.struck(&WorkerId::new("a").unwrap(), t0);
        runs.ended(&started(1, "a").run, false);
        assert_eq!(runs.resumed().1, 1);
    }
}
