//! Blows to single parts that need a fleet, a load or a check of their own.

use std::time::Duration;

use super::{GENEROUS, small};
use crate::scenario::{Action, Amount, Checks, Fleet, Load, Part, Scenario, Step, When, Which};

const MANAGERS: Part = Part::Manager(Which::All);

/// Requests begin all the time: some of them find nobody.
pub(super) fn managers_away() -> Scenario {
    let every = Some(Duration::from_millis(50));
    let load = Load { amount: Amount::UntilStepsEnd, concurrency: 6, every, ..Load::native() };
    Scenario {
        loads: vec![load],
        steps: vec![
            Step::when(When::Ended(3), Action::Kill(MANAGERS)),
            Step::after(Duration::from_millis(700), Action::Start(MANAGERS)),
            Step::after(Duration::ZERO, Action::Recover),
        ],
        ..small("managers-away", "all managers are killed and begun again: requests wait for them")
    }
}

/// Each takes longer than a job may stay without a word to the queue, and idle workers would begin it anew; and longer than
/// an attempt may stay without a word to its session, which would give it up.
pub(super) fn long_segments() -> Scenario {
    let deadline = Duration::from_secs(30);
    Scenario {
        fleet: Fleet { compute: Duration::from_secs(11), ..Fleet::default() },
        loads: vec![Load {
            amount: Amount::Requests(2),
            concurrency: 2,
            segments: 1,
            deadline,
            ..Load::native()
        }],
        checks: Checks {
            max_pause: Some(GENEROUS),
            max_superseded: Some(0),
            retries: Some((0, 0)),
            ..Checks::default()
        },
        ..Scenario::new(
            "long-segments",
            "segments take longer than queue and session wait for a sign of life",
        )
    }
}

/// One worker, slow: most jobs wait in the queue when it is emptied.
pub(super) fn queue_emptied() -> Scenario {
    let load = Load { amount: Amount::Requests(6), concurrency: 6, ..Load::native() };
    Scenario {
        fleet: Fleet { workers: 1, compute: Duration::from_millis(150), ..Fleet::default() },
        loads: vec![load],
        steps: vec![Step::when(When::Speaking, Action::EmptyQueue)],
        ..small("queue-emptied", "jobs that wait vanish from the queue: sessions find out and ask again")
    }
}

pub(super) fn engine_noise() -> Scenario {
    Scenario {
        steps: vec![Step::when(When::Speaking, Action::Garbage(Which::Speaking))],
        checks: Checks { max_pause: Some(GENEROUS), retries: Some((1, u64::MAX)), ..Checks::default() },
        ..small("engine-noise", "somebody writes garbage into the pipe of an engine in mid-utterance")
    }
}

/// It fails at once, so it has room for a job more often than the others: until its breaker opens.
pub(super) fn sick_engine() -> Scenario {
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(40), sick_worker: true, ..Fleet::default() },
        loads: vec![Load { amount: Amount::Requests(40), concurrency: 4, ..Load::native() }],
        checks: Checks { max_pause: Some(GENEROUS), retries: Some((5, 25)), ..Checks::default() },
        ..Scenario::new(
            "sick-engine",
            "one engine fails whatever it is given: its breaker keeps jobs from it",
        )
    }
}

pub(super) fn lone_engine_killed() -> Scenario {
    Scenario {
        fleet: Fleet { workers: 1, compute: Duration::from_millis(100), ..Fleet::default() },
        steps: vec![Step::when(When::Speaking, Action::KillEngine(Which::Speaking))],
        ..small("lone-engine-sigkill", "the only engine is killed, and started again by its worker")
    }
}
