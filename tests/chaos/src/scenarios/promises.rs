//! What a fleet promises beyond surviving blows: whom it serves first, whom it refuses, what it gives up and for whom.

use std::time::Duration;

use chorus_protocol::{Priority, Reason};

use super::{GENEROUS, small};
use crate::scenario::{
    Action, Amount, Checks, Client, EngineFault, Fleet, Load, Part, Proxied, Scenario, Step, When, Which,
};

const EVERY_TEXT: u32 = 1;

/// Answers take long, so sessions ask more than one manager the same, and each of them queues the same jobs.
pub(super) fn managers_far() -> Scenario {
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(100), proxied: Proxied::Managers, ..Fleet::default() },
        loads: vec![Load { amount: Amount::Requests(24), concurrency: 3, ..Load::native() }],
        steps: vec![Step::when(When::Speaking, Action::DelayLinks(Duration::from_millis(150)))],
        checks: Checks { max_pause: Some(GENEROUS), max_superseded: Some(0), ..Checks::default() },
        ..small("managers-far", "managers answer late and are asked again: no segment is begun twice")
    }
}

/// The idle worker waits for jobs of every class; when two come at once, it has room for one.
pub(super) fn all_classes() -> Scenario {
    let load = Load { amount: Amount::Requests(20), ..Load::native() };
    Scenario {
        fleet: Fleet { workers: 1, compute: Duration::from_millis(50), ..Fleet::default() },
        loads: vec![load],
        checks: Checks { max_p50: Some((Priority::Normal, Duration::from_millis(800))), ..Checks::default() },
        ..small("all-classes", "jobs of two classes come at once: the one that is handed back is not late")
    }
}

/// Between two requests, engines fall ill of which nothing is asked.
pub(super) fn ill_while_idle() -> Scenario {
    let every = Some(Duration::from_secs(16));
    Scenario {
        loads: vec![Load { amount: Amount::UntilStepsEnd, every, ..Load::native() }],
        steps: vec![
            Step::when(When::Ended(1), Action::Sicken(Which::All)),
            Step::after(Duration::from_secs(15), Action::Recover),
            Step::when(When::Ended(2), Action::Recover),
        ],
        checks: Checks { max_pause: Some(GENEROUS), retries: Some((0, 0)), ..Checks::default() },
        ..small(
            "ill-while-idle",
            "idle engines fall ill: they are replaced before anybody is in need of them",
        )
    }
}

/// Each text costs an engine 20 MB for good: after some twenty it would be over its limit.
pub(super) fn leaking_engines() -> Scenario {
    let leak = EngineFault { every: EVERY_TEXT, directive: "leak mb=20" };
    let load = Load { amount: Amount::Requests(60), concurrency: 4, fault: Some(leak), ..Load::native() };
    Scenario {
        fleet: Fleet {
            workers: 2,
            compute: Duration::from_millis(100),
            max_memory_bytes: Some(super::hosts::MEMORY_BYTES),
            recycle_rss_bytes: Some(250_000_000),
            ..Fleet::default()
        },
        loads: vec![load],
        checks: Checks {
            max_pause: Some(GENEROUS),
            retries: Some((0, 0)),
            min_recycled: 2,
            ..Checks::default()
        },
        ..small("leaking-engines", "engines grow with each text, and are renewed before they are too large")
    }
}

/// Five times as much is asked as can be heard in time.
pub(super) fn too_late() -> Scenario {
    const REQUESTS: u32 = 250;
    let load = Load {
        amount: Amount::Requests(REQUESTS),
        concurrency: 64,
        every: Some(Duration::from_millis(20)),
        segments: 1,
        deadline: Duration::from_millis(1_500),
        ..Load::native()
    };
    Scenario {
        fleet: Fleet { workers: 1, compute: Duration::from_millis(100), ..Fleet::default() },
        loads: vec![load],
        checks: Checks {
            max_errors: REQUESTS,
            min_per_second: 2.0,
            max_refusal_p50: Some(Duration::from_millis(700)),
            ..Checks::default()
        },
        ..small("too-late", "more is asked than can be heard in time: the rest is told so at once")
    }
}

/// Each of them ends three engines, and no more.
pub(super) fn poison() -> Scenario {
    let crash = EngineFault { every: EVERY_TEXT, directive: "crash" };
    let poison = Load {
        amount: Amount::Requests(2),
        fault: Some(crash),
        refused_as: Some(Reason::Poison),
        ..Load::native()
    };
    let load = Load { amount: Amount::Requests(40), concurrency: 2, ..Load::native() };
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(50), ..Fleet::default() },
        loads: vec![load, poison],
        ..small(
            "poison",
            "texts crash every engine that tries them: they are given up, all others are spoken",
        )
    }
}

/// The same with four texts at a time in an engine: those beside it crash with it.
pub(super) fn poison_beside_innocents() -> Scenario {
    let poison = poison();
    let loads = poison.loads.into_iter().map(|load| match load.refused_as {
        Some(_) => Load { amount: Amount::Requests(3), ..load },
        None => Load { amount: Amount::Requests(60), concurrency: 12, ..load },
    });
    Scenario {
        fleet: Fleet { lanes: 4, compute: Duration::from_millis(150), ..poison.fleet },
        loads: loads.collect(),
        ..small(
            "poison-beside-innocents",
            "texts crash engines that speak others beside them: no other is held to be guilty",
        )
    }
}

/// Their sentence would take eight seconds; whoever comes next does not wait for it.
pub(super) fn listeners_leave() -> Scenario {
    let slow = EngineFault { every: EVERY_TEXT, directive: "slow ms=8000" };
    let leaving = Load {
        amount: Amount::Requests(30),
        segments: 1,
        priority: Priority::Low,
        fault: Some(slow),
        leaves_after: Some(Duration::from_millis(200)),
        ..Load::native()
    };
    let staying =
        Load { amount: Amount::Requests(12), segments: 1, priority: Priority::High, ..Load::native() };
    Scenario {
        fleet: Fleet { workers: 1, compute: Duration::from_millis(50), ..Fleet::default() },
        loads: vec![leaving, staying],
        checks: Checks { max_pause: Some(Duration::from_secs(4)), ..Checks::default() },
        ..small("listeners-leave", "listeners go away in mid-sentence: their worker is free at once")
    }
}

/// Eight clients of high priority keep the one worker busy for some seconds.
pub(super) fn low_advances() -> Scenario {
    let of = |priority, concurrency, amount| Load {
        amount: Amount::Requests(amount),
        concurrency,
        segments: 1,
        priority,
        ..Load::native()
    };
    Scenario {
        fleet: Fleet { workers: 1, compute: Duration::from_millis(20), ..Fleet::default() },
        loads: vec![of(Priority::High, 8, 200), of(Priority::Low, 2, 8)],
        ..small(
            "low-advances",
            "there is always work of high priority, and low priority gets on all the same",
        )
    }
}

/// Both managers are killed while they have jobs; each is begun again, and whoever lives takes over what is left.
pub(super) fn durable_managers_killed() -> Scenario {
    let deadline = Duration::from_secs(45);
    let load = Load {
        client: Client::Durable,
        amount: Amount::Requests(4),
        concurrency: 4,
        segments: 20,
        deadline,
        ..Load::native()
    };
    let killed = |number| {
        let manager = Part::Manager(Which::Number(number));
        [Step::when(When::Speaking, Action::Kill(manager)), Step::after(SOON, Action::Start(manager))]
    };
    let recover = Step::after(SOON, Action::Recover);
    Scenario {
        loads: vec![load],
        steps: [killed(0).as_slice(), &[recover], &killed(1)].concat(),
        ..small(
            "durable-managers-sigkill",
            "each manager is killed while it has durable jobs: others take them over",
        )
    }
}

const SOON: Duration = Duration::from_millis(100);
