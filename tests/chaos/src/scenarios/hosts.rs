//! What befalls hosts and the broker's cluster: memory, links, clocks, load, lost nodes.

use std::time::Duration;

use super::{GENEROUS, small};
use crate::scenario::{
    Action, Amount, Checks, Client, EngineFault, Fleet, Load, Node, Part, Rounds, Scenario, Step, When, Which,
};

/// Enough for a checkable engine to live in, far too little for what the directive wants.
pub(super) const MEMORY_BYTES: u64 = 512 << 20;

const SOON: Duration = Duration::from_millis(100);

pub(super) fn memory_limit() -> Scenario {
    let greed = EngineFault { every: 6, directive: "allocate mb=800 attempts=1" };
    let load = Load { amount: Amount::Requests(12), concurrency: 4, fault: Some(greed), ..Load::native() };
    Scenario {
        fleet: Fleet {
            compute: Duration::from_millis(50),
            max_memory_bytes: Some(MEMORY_BYTES),
            ..Fleet::default()
        },
        loads: vec![load],
        checks: Checks { max_pause: Some(GENEROUS), retries: Some((2, u64::MAX)), ..Checks::default() },
        ..small("memory-limit", "an engine wants more memory than it may have: another attempt speaks")
    }
}

/// The worker behind the link is silent for three seconds; when it is back, its old runs count no more.
pub(super) fn link_down() -> Scenario {
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(100), far_worker: true, ..Fleet::default() },
        loads: vec![Load { amount: Amount::UntilStepsEnd, concurrency: 4, ..Load::native() }],
        steps: vec![
            Step::when(When::Ended(4), Action::LinkDown),
            Step::after(Duration::from_secs(3), Action::LinkUp),
            Step::after(Duration::from_millis(500), Action::Recover),
        ],
        checks: Checks { max_pause: Some(GENEROUS), losses: Some((1, u64::MAX)), ..Checks::default() },
        ..small("link-down", "the cable of a worker's host is pulled, and put back")
    }
}

/// Managers and workers that write 2.1, 2.0 and a 2.2 to come, in turn; clients of 2.1 in front of them; a worker of each
/// version is killed, and a manager replaced.
pub(super) fn mixed_versions() -> Scenario {
    let load = Load { amount: Amount::UntilStepsEnd, concurrency: 3, ..Load::native() };
    let blow = |part, end: fn(Part) -> Action| {
        [Step::when(When::Speaking, end(part)), Step::after(SOON, Action::Start(part))]
    };
    let killed = |number| blow(Part::Worker(Which::Number(number)), Action::Kill);
    let replaced = blow(Part::Manager(Which::Number(0)), Action::Terminate);
    let blows = [killed(0), killed(1), killed(2), replaced];
    let recover = Step::after(SOON, Action::Recover);
    Scenario {
        fleet: Fleet {
            managers: 3,
            compute: Duration::from_millis(50),
            mixed_versions: true,
            ..Fleet::default()
        },
        loads: vec![load.clone(), Load { client: Client::Plain, ..load }],
        steps: blows.iter().flat_map(|[kill, start]| [*kill, *start, recover]).collect(),
        ..small("mixed-versions", "parts of three versions of the protocol work together, and are replaced")
    }
}

pub(super) fn clocks_off() -> Scenario {
    Scenario {
        fleet: Fleet {
            compute: Duration::from_millis(50),
            clocks_off: Duration::from_secs(3_600),
            ..Fleet::default()
        },
        checks: Checks { losses: Some((0, 0)), ..Checks::default() },
        ..small("clocks-off", "the clocks of managers and workers are an hour ahead or behind")
    }
}

pub(super) fn calm_little() -> Scenario {
    calm(
        "calm-little",
        "every core is busy for ten seconds: nobody is declared dead",
        Duration::from_secs(10),
    )
}

pub(super) fn calm_load() -> Scenario {
    calm("calm-load", "every core is busy for ten minutes: nobody is declared dead", Duration::from_secs(600))
}

fn calm(name: &'static str, about: &'static str, time: Duration) -> Scenario {
    let every = Some(Duration::from_millis(200));
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(200), burning: true, ..Fleet::default() },
        loads: vec![Load { amount: Amount::UntilStepsEnd, concurrency: 4, every, ..Load::native() }],
        steps: vec![Step::after(time, Action::Recover)],
        checks: Checks { losses: Some((0, 0)), ..Checks::default() },
        ..Scenario::new(name, about)
    }
}

/// Audio that is queued flows on while one of three servers is away. An election takes 4 to 9 s (ADR 0007); a request that
/// begins meanwhile waits for it.
pub(super) fn node_killed() -> Scenario {
    let load = Load { amount: Amount::UntilStepsEnd, concurrency: 3, ..Load::native() };
    Scenario {
        fleet: Fleet { compute: Duration::from_millis(100), nodes: 3, ..Fleet::default() },
        loads: vec![load.clone(), Load { client: Client::Durable, concurrency: 1, ..load }],
        steps: around(Node::Leader, Action::Kill).to_vec(),
        checks: Checks { max_pause: Some(2 * GENEROUS), ..Checks::default() },
        ..Scenario::new("node-killed", "the leading server of a cluster of three is killed and begun again")
    }
}

/// Leader by SIGKILL, leader by SIGTERM, a follower: three rounds.
pub(super) fn nodes_killed() -> Scenario {
    let blows = [
        around(Node::Leader, Action::Kill),
        around(Node::Leader, Action::Terminate),
        around(Node::Follower, Action::Kill),
    ];
    Scenario {
        steps: blows.concat(),
        rounds: Rounds::Times(3),
        ..node_killed_as("nodes-killed", "leaders by SIGKILL and SIGTERM and a follower, three times each")
    }
}

fn node_killed_as(name: &'static str, about: &'static str) -> Scenario {
    Scenario { name, about, ..node_killed() }
}

fn around(node: Node, blow: fn(Part) -> Action) -> [Step; 3] {
    [
        Step::when(When::Speaking, blow(Part::Node(node))),
        Step::after(Duration::from_secs(2), Action::Start(Part::Node(Node::Same))),
        Step::after(Duration::from_secs(8), Action::Recover),
    ]
}
