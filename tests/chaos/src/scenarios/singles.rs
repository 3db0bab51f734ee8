//! How soon a segment is begun elsewhere after other blows than a worker's SIGKILL: one segment at a time, the others idle.

use std::time::Duration;

use crate::scenario::{Action, Amount, Checks, Fleet, Load, Part, Rounds, Scenario, Step, When, Which};

const SPEAKING: Part = Part::Worker(Which::Speaking);

pub(super) fn all() -> [Scenario; 2] {
    [stops(), engine_kills()]
}

fn single(
    name: &'static str,
    about: &'static str,
    rounds: u32,
    resumed_within: Duration,
    steps: Vec<Step>,
) -> Scenario {
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(200), ..Fleet::default() },
        loads: vec![Load { amount: Amount::UntilStepsEnd, concurrency: 1, segments: 1, ..Load::native() }],
        steps,
        rounds: Rounds::Times(rounds),
        checks: Checks { max_resume_p99: Some(resumed_within), ..Checks::default() },
        ..Scenario::new(name, about)
    }
}

fn stops() -> Scenario {
    let steps = vec![
        Step::when(When::Speaking, Action::Stop(SPEAKING)),
        Step::after(Duration::from_millis(1_500), Action::Continue(Part::Worker(Which::Same))),
        // Its breaker counts hangs: what it speaks well in between keeps it closed.
        Step::after(Duration::from_millis(3_000), Action::Recover),
    ];
    let about = "a worker stands still in mid-utterance while two others are idle";
    single("single-stops", about, 10, Duration::from_secs(1), steps)
}

fn engine_kills() -> Scenario {
    let steps = vec![
        Step::when(When::Speaking, Action::KillEngine(Which::Speaking)),
        // A worker gives its engine up after five failures in a minute.
        Step::after(Duration::from_secs(12), Action::Recover),
    ];
    let about = "an engine alone is killed in mid-utterance while four others are idle";
    let scenario = single("single-engine-kills", about, 15, Duration::from_millis(50), steps);
    Scenario { fleet: Fleet { workers: 5, ..scenario.fleet }, ..scenario }
}
