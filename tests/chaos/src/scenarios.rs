//! The scenarios there are: a short set for every change, a long one for the figures.

mod hosts;
mod parts;
mod promises;
mod singles;

use std::time::Duration;

use chorus_protocol::Priority;

use crate::error::ChaosError;
use crate::scenario::{
    Action, Amount, Checks, Client, EngineFault, Fleet, Load, Part, Proxied, Rounds, Scenario, Step, When,
    Which,
};
use hosts::{
    calm_little, calm_load, clocks_off, link_down, memory_limit, mixed_versions, node_killed, nodes_killed,
};
use parts::{engine_noise, lone_engine_killed, long_segments, managers_away, queue_emptied, sick_engine};

/// What a pause may be in the short set, on a machine that builds and tests at the same time.
const GENEROUS: Duration = Duration::from_secs(15);
const SPEAKING: Part = Part::Worker(Which::Speaking);

/// Each of the usual blows once, under a small load: seconds each.
pub fn short() -> Vec<Scenario> {
    vec![
        worker_killed(),
        plain_worker_killed(),
        worker_stopped(),
        engine_killed(),
        manager_killed(),
        broker_restarted(),
        engine_garbage(),
        engine_hangs(),
        nobody_left(),
        broker_gone(),
        links_cut(),
        rolling_upgrade(),
        managers_away(),
        long_segments(),
        queue_emptied(),
        engine_noise(),
        lone_engine_killed(),
        sick_engine(),
        memory_limit(),
        link_down(),
        clocks_off(),
        mixed_versions(),
        calm_little(),
        node_killed(),
        promises::managers_far(),
        promises::all_classes(),
        promises::ill_while_idle(),
        promises::leaking_engines(),
        promises::too_late(),
        promises::poison(),
        promises::poison_beside_innocents(),
        promises::listeners_leave(),
        promises::low_advances(),
        promises::durable_managers_killed(),
    ]
}

/// The figures of `docs/benchmarks.md`: minutes each.
pub fn long() -> Vec<Scenario> {
    let others = [
        half_killed(),
        managers_killed(),
        broker_once(),
        broker_outage(),
        nodes_killed(),
        overload(),
        calm_load(),
        soak(),
    ];
    [single_kills()].into_iter().chain(singles::all()).chain(others).collect()
}

/// One of either set.
///
/// # Errors
/// [`ChaosError::Unknown`] names those there are.
pub fn named(name: &str) -> Result<Scenario, ChaosError> {
    let all = || short().into_iter().chain(long());
    all().find(|scenario| scenario.name == name).ok_or_else(|| ChaosError::Unknown {
        name: name.to_owned(),
        known: all().map(|scenario| scenario.name).collect(),
    })
}

/// Twelve native requests of three segments, 100 ms of computing each: a second or two on three workers.
fn small(name: &'static str, about: &'static str) -> Scenario {
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(100), ..Fleet::default() },
        loads: vec![Load { amount: Amount::Requests(12), concurrency: 4, ..Load::native() }],
        checks: Checks { max_pause: Some(GENEROUS), ..Checks::default() },
        ..Scenario::new(name, about)
    }
}

fn worker_killed() -> Scenario {
    Scenario {
        steps: vec![Step::when(When::Speaking, Action::Kill(SPEAKING))],
        ..small("worker-sigkill", "a worker is killed in mid-utterance")
    }
}

fn plain_worker_killed() -> Scenario {
    Scenario {
        loads: vec![Load { amount: Amount::Requests(12), concurrency: 4, ..Load::plain() }],
        steps: vec![Step::when(When::Speaking, Action::Kill(SPEAKING))],
        ..small("plain-worker-sigkill", "a worker is killed while plain requests are answered")
    }
}

fn worker_stopped() -> Scenario {
    Scenario {
        steps: vec![
            Step::when(When::Speaking, Action::Stop(SPEAKING)),
            Step::after(Duration::from_secs(3), Action::Continue(Part::Worker(Which::Same))),
        ],
        checks: Checks { max_pause: Some(GENEROUS), losses: Some((1, 1)), ..Checks::default() },
        ..small("worker-sigstop", "a worker stands still in mid-utterance, and comes back as a zombie")
    }
}

fn engine_killed() -> Scenario {
    Scenario {
        steps: vec![Step::when(When::Speaking, Action::KillEngine(Which::Speaking))],
        ..small("engine-sigkill", "an engine is killed in mid-utterance")
    }
}

fn manager_killed() -> Scenario {
    Scenario {
        steps: vec![
            Step::when(When::Speaking, Action::Kill(Part::Manager(Which::Number(0)))),
            Step::when(When::Ended(2), Action::Start(Part::Manager(Which::Number(0)))),
        ],
        ..small("manager-sigkill", "one of two managers is killed while native clients listen")
    }
}

fn broker_restarted() -> Scenario {
    let load = Load { amount: Amount::Requests(12), concurrency: 4, ..Load::native() };
    let durable = Load { client: Client::Durable, amount: Amount::Requests(4), ..load.clone() };
    Scenario {
        loads: vec![load, durable],
        steps: vec![
            Step::when(When::Speaking, Action::Kill(Part::Broker)),
            Step::after(Duration::from_millis(500), Action::Start(Part::Broker)),
        ],
        ..small("broker-restart", "the broker is killed and started again half a second later")
    }
}

fn engine_garbage() -> Scenario {
    let fault = |directive| Some(EngineFault { every: 4, directive });
    let load = Load { amount: Amount::Requests(8), concurrency: 4, ..Load::native() };
    Scenario {
        loads: vec![
            Load { fault: fault("garbage attempts=1"), ..load.clone() },
            Load { fault: fault("crash attempts=1"), ..load.clone() },
            Load { fault: fault("dropchunk attempts=1"), ..load },
        ],
        ..small("engine-garbage", "engines write garbage, crash and lose audio in first attempts")
    }
}

fn engine_hangs() -> Scenario {
    let hang = EngineFault { every: 12, directive: "hang attempts=1" };
    let load = Load { amount: Amount::Requests(12), concurrency: 4, fault: Some(hang), ..Load::native() };
    Scenario {
        loads: vec![load],
        ..small("engine-hang", "an engine holds its interpreter's lock for good in a first attempt")
    }
}

fn nobody_left() -> Scenario {
    const REQUESTS: u32 = 8;
    let deadline = Duration::from_secs(3);
    let load = Load { amount: Amount::Requests(REQUESTS), concurrency: 4, deadline, ..Load::native() };
    Scenario {
        fleet: Fleet { workers: 1, compute: Duration::from_millis(100), ..Fleet::default() },
        loads: vec![Load { client: Client::Plain, ..load.clone() }, load],
        steps: vec![Step::when(When::Speaking, Action::Kill(SPEAKING))],
        // After first audio a session waits for 30 s for a worker to come back; its listener is told so then.
        checks: Checks { max_errors: 2 * REQUESTS, ..Checks::default() },
        ..Scenario::new(
            "nobody-left",
            "the only worker is killed for good: typed errors, inside the deadline",
        )
    }
}

/// Many sessions, a short deadline: what is under way between them and workers when the broker dies must keep none of them
/// from telling its listener in time.
fn broker_gone() -> Scenario {
    const REQUESTS: u32 = 60;
    let deadline = Duration::from_millis(800);
    let load = Load { amount: Amount::Requests(REQUESTS), concurrency: 30, deadline, ..Load::native() };
    Scenario {
        fleet: Fleet { lanes: 4, compute: Duration::from_millis(50), ..Fleet::default() },
        loads: vec![load],
        steps: vec![
            Step::when(When::Ended(10), Action::Kill(Part::Broker)),
            Step::after(Duration::from_secs(5), Action::Start(Part::Broker)),
        ],
        checks: Checks { max_errors: REQUESTS, ..Checks::default() },
        ..Scenario::new("broker-gone", "the broker is away for longer than the deadline: errors come in time")
    }
}

fn links_cut() -> Scenario {
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(100), proxied: Proxied::Workers, ..Fleet::default() },
        steps: vec![
            Step::when(When::Speaking, Action::DelayLinks(Duration::from_millis(20))),
            Step::after(Duration::from_millis(100), Action::CutLinks),
            Step::after(Duration::from_millis(100), Action::DelayLinks(Duration::ZERO)),
        ],
        ..small("links-cut", "the workers' connections grow slow and are reset")
    }
}

fn rolling_upgrade() -> Scenario {
    Scenario {
        loads: vec![Load { amount: Amount::UntilStepsEnd, concurrency: 3, ..Load::native() }],
        steps: vec![Step::when(When::Speaking, Action::Roll)],
        ..small("rolling-upgrade", "each worker and each manager in turn is asked to leave and begun again")
    }
}

/// One segment at a time: with more, all workers speak, and what is measured is how long they still do.
fn single_kills() -> Scenario {
    let restarted = Part::Worker(Which::Same);
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(200), ..Fleet::default() },
        loads: vec![Load { amount: Amount::UntilStepsEnd, concurrency: 1, segments: 1, ..Load::native() }],
        steps: vec![
            Step::when(When::Speaking, Action::Kill(SPEAKING)),
            Step::after(Duration::from_millis(100), Action::Start(restarted)),
            Step::after(Duration::from_millis(100), Action::Recover),
        ],
        rounds: Rounds::Times(50),
        checks: Checks { max_resume_p99: Some(Duration::from_millis(250)), ..Checks::default() },
        ..Scenario::new(
            "single-kills",
            "50 times a worker is killed in mid-utterance while two others are idle",
        )
    }
}

/// 2,000 requests of two segments on six workers.
fn two_thousand(name: &'static str, about: &'static str) -> Scenario {
    let load = Load { amount: Amount::Requests(2_000), concurrency: 12, segments: 2, ..Load::native() };
    Scenario {
        fleet: Fleet { workers: 6, compute: Duration::from_millis(40), ..Fleet::default() },
        loads: vec![load],
        rounds: Rounds::WhileLoaded,
        ..Scenario::new(name, about)
    }
}

fn half_killed() -> Scenario {
    Scenario {
        steps: vec![
            Step::after(Duration::from_millis(1_500), Action::Kill(Part::Worker(Which::Half))),
            Step::after(Duration::from_millis(500), Action::Start(Part::Worker(Which::Same))),
        ],
        ..two_thousand("half-killed", "2,000 requests while half of the workers are killed every 2 s")
    }
}

fn managers_killed() -> Scenario {
    Scenario {
        steps: vec![
            Step::after(Duration::from_millis(1_500), Action::Kill(Part::Manager(Which::Half))),
            Step::after(Duration::from_millis(500), Action::Start(Part::Manager(Which::Same))),
        ],
        ..two_thousand("managers-killed", "2,000 requests while every 2 s one of two managers is killed")
    }
}

fn broker_once() -> Scenario {
    Scenario {
        steps: vec![
            Step::when(When::Ended(600), Action::Terminate(Part::Broker)),
            Step::after(Duration::from_millis(200), Action::Start(Part::Broker)),
        ],
        rounds: Rounds::Times(1),
        ..two_thousand("broker-once", "2,000 requests with one restart of the broker")
    }
}

fn broker_outage() -> Scenario {
    let load = Load {
        amount: Amount::UntilStepsEnd,
        concurrency: 4,
        every: Some(Duration::from_millis(250)),
        ..Load::native()
    };
    Scenario {
        loads: vec![load.clone(), Load { client: Client::Plain, ..load }],
        steps: vec![
            Step::after(Duration::from_secs(3), Action::Kill(Part::Broker)),
            Step::after(Duration::from_secs(60), Action::Start(Part::Broker)),
            Step::after(Duration::ZERO, Action::Recover),
            Step::after(Duration::from_secs(3), Action::Recover),
        ],
        checks: Checks { max_errors: 1_000, ..Checks::default() },
        ..Scenario::new(
            "broker-outage",
            "the broker is away for a minute: exact audio or typed errors, and recovery",
        )
    }
}

/// The first segment of a normal request travels in class `high`, so normal requests of one sentence would be rivals of the
/// high ones by design: what is piled up here is low.
fn overload() -> Scenario {
    let load = Load { segments: 1, ..Load::native() };
    let of = |priority, concurrency, amount| Load {
        amount: Amount::Requests(amount),
        concurrency,
        priority,
        ..load.clone()
    };
    Scenario {
        fleet: Fleet { workers: 4, lanes: 4, compute: Duration::from_millis(20), ..Fleet::default() },
        loads: vec![of(Priority::High, 8, 1_000), of(Priority::Low, 56, 6_000)],
        checks: Checks { max_p50: Some((Priority::High, Duration::from_millis(40))), ..Checks::default() },
        ..Scenario::new("overload", "64 clients want 16 slots, 20 ms a job: four times too much")
    }
}

fn soak() -> Scenario {
    let load = Load { amount: Amount::Requests(10_000), concurrency: 8, segments: 1, ..Load::native() };
    Scenario {
        fleet: Fleet { workers: 2, compute: Duration::ZERO, recycle_after: 1_000, ..Fleet::default() },
        loads: vec![load],
        checks: Checks {
            max_rss_slope: Some(1_048_576.0),
            max_fd_slope: Some(1.0),
            min_recycled: 4,
            ..Checks::default()
        },
        ..Scenario::new("soak", "10,000 requests, while engines are renewed every 1,000 segments")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_a_load() {
        let all: Vec<_> = short().into_iter().chain(long()).collect();
        let names: HashSet<_> = all.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|scenario| !scenario.loads.is_empty()));
        assert!(named("soak").is_ok());
        assert!(named("sock").unwrap_err().to_string().contains("soak"));
    }

    #[test]
    fn a_fault_travels_in_the_second_sentence() {
        let fault = EngineFault { every: 2, directive: "crash attempts=1" };
        let load = Load { fault: Some(fault), ..Load::native() };
        let text = "In x request 0 says part 0. [[crash attempts=1]]In x request 0 says part 1. In x request 0 says part 2.";
        assert_eq!(load.text("x", 0), text);
        assert!(!load.text("x", 1).contains("[["));
    }
}
