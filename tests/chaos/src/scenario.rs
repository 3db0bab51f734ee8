//! A scenario as data: a fleet, loads, steps that hurt the fleet, and what must hold all the same.
//!
//! A scenario reads like its own description:
//! ```text
//! Scenario {
//!     loads: vec![Load { amount: Amount::Requests(20), concurrency: 4, ..Load::native() }],
//!     steps: vec![Step::when(When::Speaking, Action::Kill(Part::Worker(Which::Speaking)))],
//!     ..Scenario::new("worker-sigkill", "a worker is killed in mid-utterance")
//! }
//! ```
//! The defaults of [`Checks`] are the promise of the system: every request ends with exact audio, none with an error. A
//! scenario that allows more says so.

use std::time::Duration;

use chorus_protocol::{Priority, Reason};

use crate::switches::Mechanism;

/// One scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name, for `--scenario` and the report.
    pub name: &'static str,
    /// What happens, in one line.
    pub about: &'static str,
    /// What is hurt.
    pub fleet: Fleet,
    /// What is asked of it, all at once.
    pub loads: Vec<Load>,
    /// What happens to it, one after the other, from the moment at which the load begins.
    pub steps: Vec<Step>,
    /// How often the steps are gone through.
    pub rounds: Rounds,
    /// What must hold.
    pub checks: Checks,
}

/// Real processes: one nats-server, managers, workers with a `checkable` engine each.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// How many managers.
    pub managers: u32,
    /// How many workers.
    pub workers: u32,
    /// Segments that one worker speaks at once.
    pub lanes: u32,
    /// How long the engine pretends to compute for a segment.
    pub compute: Duration,
    /// Segments after which a worker renews its engine; 0 is never.
    pub recycle_after: u32,
    /// The size at which a worker renews its engine, in bytes; the usual one without it.
    pub recycle_rss_bytes: Option<u64>,
    /// Who reaches the broker through a proxy of ours, which [`Action::CutLinks`] and [`Action::DelayLinks`] need.
    pub proxied: Proxied,
    /// nats-servers: one, or a cluster that keeps everything as often as there are servers.
    pub nodes: u32,
    /// What an engine may use, in bytes; no limit without it.
    pub max_memory_bytes: Option<u64>,
    /// Whether the first worker lives in a network namespace of its own, behind a link that [`Action::LinkDown`] takes
    /// down. Needs root and iproute2; without them the scenario cannot be run, and says so.
    pub far_worker: bool,
    /// How far each part's wall clock is off: this much ahead, behind, ahead, and so on.
    pub clocks_off: Duration,
    /// Whether every segment fails in the engine of the first worker.
    pub sick_worker: bool,
    /// Whether, of every three parts, one writes as an earlier version of the protocol does, and one as a later.
    pub mixed_versions: bool,
    /// Whether processes that do nothing but compute compete with it for every core.
    pub burning: bool,
    /// A mechanism that is switched off, to see that a scenario notices.
    pub off: Option<Mechanism>,
}

/// Who reaches the broker through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// There is none.
    Nobody,
    /// Workers.
    Workers,
    /// Managers.
    Managers,
}

/// How requests reach the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Sessions in this process, as a native client has them.
    Native,
    /// One NATS request, one reply: a manager runs the session.
    Plain,
    /// A job that is handed in, asked after until it is over, and fetched.
    Durable,
}

impl Client {
    /// For the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native session",
            Self::Plain => "plain request",
            Self::Durable => "durable job",
        }
    }
}

/// How many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Requests(u32),
    /// One after the other until the last round of steps is over.
    UntilStepsEnd,
}

/// Requests of one kind. Every text is another one.
#[derive(Debug, Clone)]
pub struct Load {
    /// How they are asked.
    pub client: Client,
    /// How many.
    pub amount: Amount,
    /// How many at once.
    pub concurrency: u32,
    /// Time between the beginnings of two; none means that a request begins when there is room for it.
    pub every: Option<Duration>,
    /// Sentences of each, which are its segments.
    pub segments: u32,
    /// Their priority.
    pub priority: Priority,
    /// What the client gives each: to first audio (native), to the reply (plain), to its end (durable).
    pub deadline: Duration,
    /// A directive of the checkable engine in the second sentence of every so many requests.
    pub fault: Option<EngineFault>,
    /// After how long the listener of a native session goes away.
    pub leaves_after: Option<Duration>,
    /// The reason for which every one must be refused for good.
    pub refused_as: Option<Reason>,
}

/// A fault that travels in the text (`worker/engine/chorus_engine/directives.py` has them all).
#[derive(Debug, Clone, Copy)]
pub struct EngineFault {
    /// In every so many requests, from the first.
    pub every: u32,
    /// Such as `garbage attempts=1`.
    pub directive: &'static str,
}

/// When a step is taken.
#[derive(Debug, Clone, Copy)]
pub enum When {
    /// So long after the step before (after the load's begin, for the first).
    After(Duration),
    /// As soon as a worker is in the middle of a segment.
    Speaking,
    /// As soon as so many requests of the scenario have ended.
    Ended(u32),
}

/// A moment and what happens then.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
}

impl Step {
    /// Both.
    pub fn when(when: When, action: Action) -> Self {
        Self { when, action }
    }

    /// After a time since the step before.
    pub fn after(time: Duration, action: Action) -> Self {
        Self::when(When::After(time), action)
    }
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// SIGKILL.
    Kill(Part),
    /// SIGKILL to the engine of a worker.
    KillEngine(Which),
    /// The engine of a worker falls ill: it lives, answers pings, and fails whatever it is given.
    Sicken(Which),
    /// SIGTERM, and its end is awaited.
    Terminate(Part),
    /// SIGSTOP.
    Stop(Part),
    /// SIGCONT.
    Continue(Part),
    /// What has ended is started again, under its old name and on its old store.
    Start(Part),
    /// Every connection of the proxy is reset.
    CutLinks,
    /// What goes through the proxy is late from now on.
    DelayLinks(Duration),
    /// Each worker in turn, then each manager: SIGTERM, its end, a new start, recovery.
    Roll,
    /// Bytes that are no frame, written into the pipe by which the engine of a worker answers.
    Garbage(Which),
    /// The link of the far worker is taken down.
    LinkDown,
    /// And up again.
    LinkUp,
    /// All jobs that wait in the queue vanish.
    EmptyQueue,
    /// Waits until all workers and managers that run are known to the fleet and ready.
    Recover,
}

/// A part of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The broker; of a cluster the first node.
    Broker,
    /// A node of the broker's cluster.
    Node(Node),
    /// Managers.
    Manager(Which),
    /// Workers.
    Worker(Which),
}

/// Which node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The one that leads the stream of jobs.
    Leader,
    /// One that follows.
    Follower,
    /// That of the step before.
    Same,
}

/// Which of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// This one, from 0.
    Number(u32),
    /// The worker that has been in the middle of a segment for the longest time; of managers the first.
    Speaking,
    /// Every one.
    All,
    /// Every second one; the others in the next round.
    Half,
    /// Those of the step before that chose some.
    Same,
}

/// How often the steps are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounds {
    /// So many times.
    Times(u32),
    /// Until every request has ended.
    WhileLoaded,
}

/// What must hold at the end.
#[derive(Debug, Clone, Copy)]
pub struct Checks {
    /// Requests that may end with one typed, retryable error inside their deadline.
    pub max_errors: u32,
    /// The longest that a listener of a native session may wait for its next audio.
    pub max_pause: Option<Duration>,
    /// Exact requests per second.
    pub min_per_second: f64,
    /// Median latency of requests of a priority.
    pub max_p50: Option<(Priority, Duration)>,
    /// Median time to the refusal of those that are refused.
    pub max_refusal_p50: Option<Duration>,
    /// The 99th percentile of the time until an interrupted segment is begun elsewhere.
    pub max_resume_p99: Option<Duration>,
    /// Runs that may be begun though another one of their segment was under way or had ended well, and nothing had happened
    /// to its worker.
    pub max_superseded: Option<u64>,
    /// Engines that must at least be renewed though they are well.
    pub min_recycled: u64,
    /// Workers that managers declared lost: no fewer, no more.
    pub losses: Option<(u64, u64)>,
    /// Attempts that failed and were made again, by all requests together: no fewer (what a fault is there for did happen
    /// then), no more.
    pub retries: Option<(u64, u64)>,
    /// Growth of the memory of the fleet's workers and managers (not of their engines), in bytes per 1,000 requests.
    pub max_rss_slope: Option<f64>,
    /// Growth of their open files, per 1,000 requests.
    pub max_fd_slope: Option<f64>,
}

impl Scenario {
    /// Two managers, three workers, nothing asked, nothing done.
    pub fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            fleet: Fleet::default(),
            loads: Vec::new(),
            steps: Vec::new(),
            rounds: Rounds::Times(1),
            checks: Checks::default(),
        }
    }
}

impl Default for Fleet {
    fn default() -> Self {
        let compute = Duration::from_millis(20);
        Self {
            managers: 2,
            workers: 3,
            lanes: 1,
            compute,
            recycle_after: 0,
            recycle_rss_bytes: None,
            proxied: Proxied::Nobody,
            nodes: 1,
            max_memory_bytes: None,
            far_worker: false,
            clocks_off: Duration::ZERO,
            sick_worker: false,
            mixed_versions: false,
            burning: false,
            off: None,
        }
    }
}

impl Load {
    /// Native sessions of three segments, the default deadline.
    pub fn native() -> Self {
        Self {
            client: Client::Native,
            amount: Amount::Requests(1),
            concurrency: 1,
            every: None,
            segments: 3,
            priority: Priority::Normal,
            deadline: Duration::from_millis(chorus_protocol::request::DEFAULT_DEADLINE_MS),
            fault: None,
            leaves_after: None,
            refused_as: None,
        }
    }

    /// Plain requests of the same kind.
    pub fn plain() -> Self {
        Self { client: Client::Plain, ..Self::native() }
    }

    /// The segments of a request as the checkable engine will say them.
    pub fn sentences(&self, scenario: &str, number: u32) -> Vec<String> {
        (0..self.segments).map(|part| format!("In {scenario} request {number} says part {part}.")).collect()
    }

    /// The text that asks for them.
    pub fn text(&self, scenario: &str, number: u32) -> String {
        let mut sentences = self.sentences(scenario, number);
        if let Some(fault) = self.fault.filter(|fault| number.is_multiple_of(fault.every)) {
            let at = sentences.len().min(2) - 1;
            sentences[at].insert_str(0, &format!("[[{}]]", fault.directive));
        }
        sentences.join(" ")
    }
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            max_errors: 0,
            max_pause: None,
            min_per_second: 0.0,
            max_p50: None,
            max_refusal_p50: None,
            max_resume_p99: None,
            max_superseded: None,
            min_recycled: 0,
            losses: None,
            retries: None,
            max_rss_slope: None,
            max_fd_slope: None,
        }
    }
}
