//! Workers made by hand that crash, hang or are slow, and the managers that ping them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chorus_bus::{Bus, Subscription};
use chorus_manager::rendezvous::owner;
use chorus_protocol::fleet::{FleetEvent, HEARTBEAT_INTERVAL_MS, Ping, Pong, RunProgress, WorkerHeartbeat};
use chorus_protocol::names::{self, WorkerControl};
use chorus_protocol::{Envelope, Incarnation, JobId, ManagerId, RunId, SessionId, WorkerId};
use chorus_runtime::task::{FailureMeans, TaskGroup};
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// A worker that has a job, beats, and answers pings as it is told.
struct Busy {
    worker: WorkerId,
    shared: Arc<Shared>,
    scope: CancellationToken,
    _tasks: TaskGroup,
}

/// How the worker behaves, and what it has seen.
struct Shared {
    incarnation: Incarnation,
    /// Neither answers nor beats, but keeps its subscription, as a stopped process does.
    frozen: AtomicBool,
    /// How long it takes to answer a ping, in milliseconds.
    answers_after_ms: AtomicU64,
    /// How long its engine has made nothing, in milliseconds.
    idle_ms: AtomicU64,
    pings: AtomicU64,
    beats: AtomicU64,
}

impl Busy {
    async fn start(broker: &Broker, name: &str) -> Self {
        Self::start_as(broker, name, Incarnation::new()).await
    }

    async fn start_as(broker: &Broker, name: &str, incarnation: Incarnation) -> Self {
        let (bus, worker) = (broker.bus().await, WorkerId::new(name).unwrap());
        let shared = Arc::new(Shared {
            incarnation,
            frozen: AtomicBool::new(false),
            answers_after_ms: AtomicU64::new(0),
            idle_ms: AtomicU64::new(0),
            pings: AtomicU64::new(0),
            beats: AtomicU64::new(0),
        });
        let ping = names::worker_control(&worker, WorkerControl::Ping);
        let pings = bus.subscribe(&ping, None).await.unwrap();
        bus.flush().await.unwrap();
        let scope = CancellationToken::new();
        let tasks = TaskGroup::new("busy-worker", &scope);
        let answers = TaskGroup::new("pongs", &scope);
        tasks.spawn("pongs", FailureMeans::Log, answer(bus.clone(), Arc::clone(&shared), pings, answers));
        tasks.spawn("beats", FailureMeans::Log, keep_beating(bus, Arc::clone(&shared), worker.clone()));
        Self { worker, shared, scope, _tasks: tasks }
    }

    /// Its subscription is gone at once, as when its process was killed.
    fn crash(&self) {
        self.scope.cancel();
    }

    fn freeze(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::SeqCst);
    }

    fn pings(&self) -> u64 {
        self.shared.pings.load(Ordering::SeqCst)
    }

    /// Waits until a manager looks after it.
    async fn is_watched(&self) {
        let before = self.pings();
        eventually("it is pinged", async || (self.pings() >= before + 2).then_some(())).await;
    }
}

async fn answer(bus: Bus, shared: Arc<Shared>, mut pings: Subscription, answers: TaskGroup) {
    while let Some(question) = pings.next().await {
        shared.pings.fetch_add(1, Ordering::SeqCst);
        let id = question.decode::<Ping>().unwrap().message_id;
        let job = JobId { session: SessionId::from_u128(1), segment: 0, attempt: 1 };
        let idle_ms = shared.idle_ms.load(Ordering::SeqCst);
        let run = RunProgress { run: RunId::from_u128(1), job, frames: 1, idle_ms };
        let pong = Pong { incarnation: shared.incarnation, runs: vec![run] };
        let delay = Duration::from_millis(shared.answers_after_ms.load(Ordering::SeqCst));
        let (bus, shared) = (bus.clone(), Arc::clone(&shared));
        answers.spawn("pong", FailureMeans::Log, async move {
            tokio::time::sleep(delay).await;
            if !shared.frozen.load(Ordering::SeqCst) {
                let envelope = Envelope::response(&id, pong, 1);
                bus.respond(&question, &envelope, question.encoding()).await.unwrap();
            }
        });
    }
}

async fn keep_beating(bus: Bus, shared: Arc<Shared>, worker: WorkerId) {
    let mut ticks = tokio::time::interval(Duration::from_millis(HEARTBEAT_INTERVAL_MS));
    let mut sequence = 0;
    loop {
        ticks.tick().await;
        if shared.frozen.load(Ordering::SeqCst) {
            continue;
        }
        sequence += 1;
        let (worker, incarnation) = (worker.clone(), shared.incarnation);
        beat(&bus, WorkerHeartbeat { worker, incarnation, sequence, in_flight: 1, ..worker_beat() }).await;
        shared.beats.fetch_add(1, Ordering::SeqCst);
    }
}

/// What is told of lost workers.
struct Losses {
    bus: Bus,
    events: Subscription,
}

impl Losses {
    async fn listen(broker: &Broker) -> Self {
        let bus = broker.bus().await;
        let events = bus.subscribe(&names::event_subject("workerLost"), None).await.unwrap();
        bus.flush().await.unwrap();
        Self { bus, events }
    }

    async fn next(&mut self) -> FleetEvent {
        soon("workerLost", self.events.next()).await.unwrap().decode::<FleetEvent>().unwrap().payload
    }

    /// Everything told until now.
    async fn none_so_far(&mut self) -> Result<(), FleetEvent> {
        let mark = Envelope::event(0u8, 1);
        self.bus.publish(&names::event_subject("workerLost"), &mark).await.unwrap();
        let next = soon("the mark", self.events.next()).await.unwrap();
        next.decode::<u8>().map(|_| ()).map_err(|_| next.decode::<FleetEvent>().unwrap().payload)
    }
}

fn is_of(event: &FleetEvent, busy: &Busy, cause: &str) {
    assert_eq!(event.details["cause"], cause, "{event:?}");
    assert_eq!(
        (event.worker_id.as_ref(), event.incarnation),
        (Some(&busy.worker), Some(busy.shared.incarnation))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_told_of_at_once_fifty_times() {
    let broker = Broker::start().await;
    let _manager = broker.manager("m1").await;
    let mut losses = Losses::listen(&broker).await;
    let mut taken = Vec::new();
    for n in 0..50 {
        let busy = Busy::start(&broker, &format!("w{n}")).await;
        busy.is_watched().await;
        // Not in step with the pings.
        tokio::time::sleep(Duration::from_millis(n * 7 % 50)).await;
        let crashed_at = Instant::now();
        busy.crash();
        let event = losses.next().await;
        taken.push(crashed_at.elapsed());
        is_of(&event, &busy, "crashed");
        assert_eq!(event.details["inFlight"], 1);
    }
    taken.sort();
    println!("crash to workerLost, 50 tries: p50 {:?}, p99 {:?}", taken[24], taken[49]);
    assert!(taken[24] < Duration::from_millis(150), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_is_lost_within_a_second_and_let_in_again() {
    let broker = Broker::start().await;
    let manager = broker.manager("m1").await;
    let mut losses = Losses::listen(&broker).await;
    let busy = Busy::start(&broker, "w1").await;
    let mut taken = Vec::new();
    for _ in 0..5 {
        busy.is_watched().await;
        let stopped_at = Instant::now();
        busy.freeze(true);
        let event = losses.next().await;
        taken.push(stopped_at.elapsed());
        is_of(&event, &busy, "hung");
        let status = manager.core().answer_status().await.unwrap();
        assert!(status.workers.is_empty(), "it counts no more");
        busy.freeze(false);
    }
    taken.sort();
    println!("stop to workerLost, 5 tries: {taken:?}");
    assert!(taken[2] < Duration::from_secs(1), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_worker_is_not_lost() {
    let broker = Broker::start().await;
    // Ten seconds of checks in one, with a worker that takes as long to answer as it may.
    let mut config = broker.config("m1");
    config.liveness.ping_interval = Duration::from_millis(5);
    config.liveness.hang_after = Duration::from_millis(1_500);
    let _manager = start(config, Vec::new()).await;
    let mut losses = Losses::listen(&broker).await;
    let busy = Busy::start(&broker, "w1").await;
    busy.is_watched().await;
    for delay_ms in [0, 20, 100, 300, 600] {
        busy.shared.answers_after_ms.store(delay_ms, Ordering::SeqCst);
        let (pings, beats) = (busy.pings(), busy.shared.beats.load(Ordering::SeqCst));
        eventually("it is checked often", async || {
            let checked = busy.pings() >= pings + 8 && busy.shared.beats.load(Ordering::SeqCst) > beats;
            checked.then_some(())
        })
        .await;
    }
    losses.none_so_far().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_makes_nothing_is_told_of_once() {
    let broker = Broker::start().await;
    let manager = broker.manager("m1").await;
    let mut losses = Losses::listen(&broker).await;
    let busy = Busy::start(&broker, "w1").await;
    busy.is_watched().await;
    busy.shared.idle_ms.store(12_000, Ordering::SeqCst);
    is_of(&losses.next().await, &busy, "engineHung");
    busy.is_watched().await;
    losses.none_so_far().await.unwrap();
    assert_eq!(manager.core().answer_status().await.unwrap().workers.len(), 1, "the worker itself lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_start_ends_the_earlier() {
    let broker = Broker::start().await;
    let _manager = broker.manager("m1").await;
    let mut losses = Losses::listen(&broker).await;
    let old = Busy::start_as(&broker, "w1", Incarnation::from_u128(1)).await;
    old.is_watched().await;
    let _new = Busy::start_as(&broker, "w1", Incarnation::from_u128(2)).await;
    is_of(&losses.next().await, &old, "replaced");
}

/// Two names of workers that `manager` of the two looks after.
fn names_of(manager: &ManagerId, both: &[ManagerId; 2]) -> Vec<String> {
    let is_its = |name: &String| owner(&WorkerId::new(name).unwrap(), both) == Some(manager);
    (0..).map(|n| format!("w{n}")).filter(is_its).take(2).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_one_manager_and_another_when_that_one_dies() {
    let broker = Broker::start().await;
    let takes_over_after = Duration::from_secs(4);
    let mut managers = Vec::new();
    for id in ["m1", "m2"] {
        let mut config = broker.config(id);
        config.liveness.manager_timeout = takes_over_after;
        managers.push(start(config, Vec::new()).await);
    }
    let mut losses = Losses::listen(&broker).await;
    eventually("they know one another", async || {
        for manager in &managers {
            if manager.core().answer_status().await.unwrap().managers.len() < 2 {
                return None;
            }
        }
        Some(())
    })
    .await;
    let both = [managers[0].id().clone(), managers[1].id().clone()];
    let mut workers = Vec::new();
    for name in both.iter().flat_map(|manager| names_of(manager, &both)) {
        workers.push(Busy::start(&broker, &name).await);
    }
    for busy in &workers {
        busy.is_watched().await;
        let (at, pings) = (Instant::now(), busy.pings());
        eventually("it is pinged on", async || (busy.pings() >= pings + 20).then_some(())).await;
        // Two managers would have sent them in half the time.
        assert!(at.elapsed() >= Duration::from_millis(800), "{:?}", at.elapsed());
    }
    let died_at = Instant::now();
    drop(managers.remove(0));
    workers.iter().for_each(Busy::crash);
    let mut told = Vec::new();
    for _ in &workers {
        let event = losses.next().await;
        assert_eq!(event.details["cause"], "crashed");
        told.push((died_at.elapsed(), event.worker_id.unwrap()));
    }
    println!("a manager died with all workers, the other takes over after 4 s: {told:?}");
    assert!(told[3].0 < takes_over_after + Duration::from_secs(2), "{told:?}");
    let mut names: Vec<_> = told.into_iter().map(|(_, worker)| worker).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4, "each is told of once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_costs_no_worker() {
    let mut broker = Broker::start().await;
    let _manager = broker.manager("m1").await;
    let busy = Busy::start(&broker, "w1").await;
    busy.is_watched().await;
    broker.kill().await;
    broker.restart();
    let mut losses = Losses::listen(&broker).await;
    let beats = busy.shared.beats.load(Ordering::SeqCst);
    eventually("it beats again", async || (busy.shared.beats.load(Ordering::SeqCst) > beats).then_some(()))
        .await;
    busy.is_watched().await;
    losses.none_so_far().await.unwrap();
}
