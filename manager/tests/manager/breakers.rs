//! Breakers in KV: managers that agree, a restart that forgets nothing, refusals, canaries, and poison from end to end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chorus_bus::{Bucket, Bus, DeadQuery, Subscription, Versioned};
use chorus_client::port::{BusPort, ManagerPort as _};
use chorus_manager::{ManagerConfig, ManagerHandle};
use chorus_protocol::breaker::{
    BreakerRecord, BreakerState, CircuitBreakerConfig, DETAIL_CRASH, DeadLetter, FailedRun, WindowEntry,
};
use chorus_protocol::fleet::{FleetEvent, WorkerHeartbeat};
use chorus_protocol::job::{Outcome, OutcomeKind, RunRef};
use chorus_protocol::plan::Speech;
use chorus_protocol::service::{Ask, ServiceMetrics, ServiceStatus};
use chorus_protocol::{
    Envelope, Incarnation, JobClass, MessageId, Reason, RunId, ServiceError, SessionId, WorkerId, names,
};
use chorus_runtime::clock::SystemClock;
use serde_json::{Map, Value};

use crate::support::*;

fn worker() -> WorkerId {
    WorkerId::new("w1").unwrap()
}

fn quick() -> CircuitBreakerConfig {
    CircuitBreakerConfig { reset_timeout_ms: 300, max_reset_timeout_ms: 1_000, ..Default::default() }
}

async fn manager(broker: &Broker, id: &str, breaker: CircuitBreakerConfig) -> ManagerHandle {
    start(ManagerConfig { breaker, ..broker.config(id) }, Vec::new()).await
}

async fn record(bus: &Bus) -> Option<Versioned<BreakerRecord>> {
    bus.records(Bucket::BREAKERS).get("w1").await.unwrap()
}

/// The record once it is in this state.
async fn reached(bus: &Bus, state: BreakerState) -> BreakerRecord {
    let what = format!("the breaker is {state:?}");
    eventually(&what, async || {
        record(bus).await.map(|found| found.value).filter(|found| found.state == state)
    })
    .await
}

fn died() -> ServiceError {
    ServiceError::new(Reason::EngineCrashed, "it died")
}

/// A run of `w1` has ended.
async fn ended(bus: &Bus, run: RunId, success: bool) {
    ended_with(bus, run, (!success).then(died)).await;
}

async fn ended_with(bus: &Bus, run: RunId, error: Option<ServiceError>) {
    let outcome = if error.is_none() { OutcomeKind::Success } else { OutcomeKind::WorkerFault };
    ended_as(bus, run, outcome, error).await;
}

async fn ended_as(bus: &Bus, run: RunId, outcome: OutcomeKind, error: Option<ServiceError>) {
    let outcome = Outcome {
        run: RunRef { session: SessionId::new(), segment: 0, attempt: 1, run },
        worker: worker(),
        model: joe(),
        class: JobClass::High,
        outcome,
        engine_ms: 1.0,
        run_ms: 0.0,
        text_chars: 5,
        samples: 1,
        sample_rate: 22_050,
        error,
    };
    bus.publish(&names::event_subject("outcome"), &Envelope::event(outcome, 1)).await.unwrap();
}

async fn five_faults(bus: &Bus) -> Vec<RunId> {
    let runs: Vec<RunId> = (0..5).map(|_| RunId::new()).collect();
    for run in &runs {
        ended(bus, *run, false).await;
    }
    runs
}

async fn events(bus: &Bus, kind: &str) -> Subscription {
    let events = bus.subscribe(&names::event_subject(kind), None).await.unwrap();
    bus.flush().await.unwrap();
    events
}

async fn event(events: &mut Subscription) -> FleetEvent {
    soon("an event", events.next()).await.unwrap().decode().unwrap().payload
}

#[tokio::test]
async fn two_managers_agree_and_open_is_refused_at_once() {
    let broker = Broker::start().await;
    let _first = manager(&broker, "m1", CircuitBreakerConfig::default()).await;
    let _second = manager(&broker, "m2", CircuitBreakerConfig::default()).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    beat(&bus, worker_beat()).await;
    let (mut changes, mut failures) = (events(&bus, "breaker").await, events(&bus, "workerFailed").await);
    let runs = five_faults(&bus).await;
    let open = reached(&bus, BreakerState::Open).await;
    // Both have heard every run, and each is there once.
    let mut found: Vec<RunId> = open.window.iter().map(|entry| entry.run).collect();
    found.sort();
    let mut runs = runs;
    runs.sort();
    assert_eq!(found, runs);
    let change = event(&mut changes).await;
    assert_eq!((change.worker_id, change.details["to"].as_str()), (Some(worker()), Some("open")));
    let failed = event(&mut failures).await;
    assert_eq!(failed.worker_id, Some(worker()));
    assert_eq!(
        (failed.details["error"].as_str(), failed.details["timestamp"].as_u64()),
        (Some("it died"), Some(open.since_ms))
    );
    let told = eventually("the status tells it", async || {
        let status: ServiceStatus = ask(&bus, names::STATUS, Ask {}).await.ok()?;
        let breaker = status.workers.into_iter().find_map(|worker| worker.breaker)?;
        (breaker.state == BreakerState::Open).then_some(breaker)
    })
    .await;
    assert_eq!((told.since_ms, told.failure_rate, told.runs), (open.since_ms, 1.0, 5));
    assert!(told.retry_in_ms.is_some_and(|ms| ms <= open.reset_after_ms));
    // Whichever of the two answers.
    eventually("both refuse", async || {
        beat(&bus, heartbeat_now()).await;
        let mut refused = 0;
        for _ in 0..16 {
            let Err(error) = open_one(&bus).await else { return None };
            assert_eq!((error.reason(), error.retryable), (Some(Reason::BreakerOpen), true));
            let after_ms = error.details.unwrap()["retryAfterMs"].as_u64().unwrap();
            assert!((1_000..=open.reset_after_ms).contains(&after_ms), "{after_ms}");
            refused += 1;
        }
        (refused == 16).then_some(())
    })
    .await;
}

fn heartbeat_now() -> WorkerHeartbeat {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    WorkerHeartbeat { sequence: since_epoch.as_micros() as u64, ..worker_beat() }
}

async fn open_one(bus: &Bus) -> Result<(), ServiceError> {
    open(bus, &opening("hello")).await.map(|_| ())
}

/// A worker is lost with these runs.
async fn lost(bus: &Bus, cause: &str, incarnation: u128, runs: &[RunId]) {
    let mut details = Map::new();
    details.insert("cause".into(), cause.into());
    details.insert("runs".into(), runs.iter().map(ToString::to_string).collect());
    let event = FleetEvent {
        kind: "workerLost".into(),
        worker_id: Some(worker()),
        incarnation: Some(Incarnation::from_u128(incarnation)),
        message: "it is lost".into(),
        details,
    };
    bus.publish(&names::event_subject("workerLost"), &Envelope::event(event, 1)).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_hangs_is_opened_each_run_counts_once_and_a_crash_not_at_all() {
    let broker = Broker::start().await;
    let _managers = [
        manager(&broker, "m1", quick()).await,
        manager(&broker, "m2", CircuitBreakerConfig::default()).await,
    ];
    let bus = broker.bus().await;
    let run = RunId::new();
    for _ in 0..6 {
        // Two managers may both find it dead.
        lost(&bus, "hung", 1, &[run]).await;
        lost(&bus, "crashed", 9, &[RunId::new()]).await;
    }
    for incarnation in 2..5 {
        lost(&bus, "engineHung", incarnation, &[]).await;
    }
    let counted = eventually("the losses are counted", async || {
        record(&bus).await.map(|found| found.value).filter(|found| found.window.len() == 4)
    })
    .await;
    assert_eq!(counted.state, BreakerState::Closed, "four runs are too few to judge by");
    lost(&bus, "hung", 5, &[]).await;
    assert_eq!(reached(&bus, BreakerState::Open).await.window.len(), 5);
}

#[tokio::test]
async fn without_breakers_nobody_is_judged() {
    let broker = Broker::start().await;
    let config = ManagerConfig { breaker_enabled: false, breaker: quick(), ..broker.config("m1") };
    let _manager = start(config, Vec::new()).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    beat(&bus, worker_beat()).await;
    five_faults(&bus).await;
    eventually("the outcomes are counted", async || {
        let metrics: ServiceMetrics = ask(&bus, names::METRICS, Ask {}).await.ok()?;
        (metrics.worker_faults == 5).then_some(())
    })
    .await;
    open_one(&bus).await.unwrap();
    assert!(record(&bus).await.is_none());
    let status: ServiceStatus = ask(&bus, names::STATUS, Ask {}).await.unwrap();
    assert!(status.workers.iter().all(|worker| worker.breaker.is_none()));
}

#[tokio::test]
async fn a_restarted_manager_goes_on_where_the_last_one_was() {
    let broker = Broker::start().await;
    let first = manager(&broker, "m1", quick()).await;
    let bus = broker.bus().await;
    five_faults(&bus).await;
    let open = reached(&bus, BreakerState::Open).await;
    drop(first);
    let _second = manager(&broker, "m2", quick()).await;
    let half_open = reached(&bus, BreakerState::HalfOpen).await;
    assert_eq!((half_open.openings, open.openings), (1, 1));
    // One fault opens it again, for longer, also on the new manager.
    ended(&bus, RunId::new(), false).await;
    let again = eventually("it opens again", async || {
        record(&bus).await.map(|found| found.value).filter(|found| found.openings == 2)
    })
    .await;
    assert_eq!(again.state, BreakerState::Open);
    assert!(again.reset_after_ms > open.reset_after_ms);
    reached(&bus, BreakerState::HalfOpen).await;
    for _ in 0..3 {
        ended(&bus, RunId::new(), true).await;
    }
    let closed = reached(&bus, BreakerState::Closed).await;
    assert_eq!(closed.openings, 0);
}

#[tokio::test]
async fn canaries_alone_close_a_breaker() {
    let broker = Broker::start().await;
    let _manager = manager(&broker, "m1", quick()).await;
    let bus = broker.bus().await;
    five_faults(&bus).await;
    reached(&bus, BreakerState::HalfOpen).await;
    eventually("it is closed", async || {
        canary(&bus, RunId::new()).await;
        let state = record(&bus).await?.value.state;
        assert_ne!(state, BreakerState::Open);
        (state == BreakerState::Closed).then_some(())
    })
    .await;
}

async fn canary(bus: &Bus, run: RunId) {
    let mut details = Map::new();
    details.insert("run".into(), Value::from(run.to_string()));
    details.insert("success".into(), true.into());
    let event = FleetEvent {
        kind: "canary".into(),
        worker_id: Some(worker()),
        incarnation: Some(Incarnation::new()),
        message: "spoken".into(),
        details,
    };
    bus.publish(&names::event_subject("canary"), &Envelope::event(event, 1)).await.unwrap();
}

#[tokio::test]
async fn poison_lies_in_the_dead_letters_and_is_taken_back() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let runs = five_faults(&bus).await;
    reached(&bus, BreakerState::Open).await;
    let opened = open(&bus, &opening("hello")).await.unwrap();
    let failed = |run: RunId, attempt: u32| FailedRun {
        attempt,
        run,
        worker: worker(),
        error: died(),
        stderr: vec!["Segmentation fault".into()],
    };
    let letter = letter(opened.speech, vec![failed(runs[3], 1), failed(runs[4], 2)]);
    // As a session does it.
    BusPort::new(bus.clone(), SystemClock::shared()).bury(letter.clone()).await;
    let query = DeadQuery { limit: 10, model: None, after: 0 };
    let stored = bus.dead_letters::<DeadLetter>().list(query).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].letter.as_ref().unwrap().payload, letter);
    let closed = reached(&bus, BreakerState::Closed).await;
    let spent: Vec<bool> = closed.window.iter().map(|WindowEntry { spent, .. }| *spent).collect();
    assert_eq!(spent, [false, false, false, true, true]);
}

fn letter(speech: Speech, history: Vec<FailedRun>) -> DeadLetter {
    DeadLetter {
        request_id: MessageId::new("r").unwrap(),
        session: SessionId::new(),
        segment: 3,
        text: "a text that kills".into(),
        speech,
        at_ms: 7,
        history,
    }
}

/// Four runs die with one engine: that is one fault of their worker's, and none when the text was poison.
#[tokio::test]
async fn an_end_of_an_engine_counts_once_however_many_runs_it_fails() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let speech = open(&bus, &opening("hello")).await.unwrap().speech;
    let crashes: Vec<RunId> = (0..5).map(|_| RunId::new()).collect();
    let crashed = |crash: &RunId| died().with(DETAIL_CRASH, crash.to_string());
    let mut runs = Vec::new();
    for crash in &crashes {
        runs = (0..4).map(|_| RunId::new()).collect();
        for run in &runs {
            ended_with(&bus, *run, Some(crashed(crash))).await;
        }
    }
    let open = reached(&bus, BreakerState::Open).await;
    assert_eq!(open.window.iter().map(|entry| entry.run).collect::<Vec<_>>(), crashes);
    // Of the last crash, the text that was poison was not the one that was told first.
    let guilty = FailedRun {
        attempt: 3,
        run: runs[2],
        worker: worker(),
        error: crashed(&crashes[4]),
        stderr: Vec::new(),
    };
    BusPort::new(bus.clone(), SystemClock::shared()).bury(letter(speech, vec![guilty])).await;
    let closed = reached(&bus, BreakerState::Closed).await;
    assert!(closed.window.iter().any(|entry| entry.run == crashes[4] && entry.spent));
}

#[tokio::test]
async fn a_worker_that_is_long_gone_leaves_no_record() {
    let broker = Broker::start().await;
    let config = ManagerConfig {
        worker_timeout: Duration::from_millis(200),
        heartbeat_interval: Duration::from_millis(50),
        forget_breakers_after: Duration::from_millis(400),
        ..broker.config("m1")
    };
    let _manager = start(config, Vec::new()).await;
    let bus = broker.bus().await;
    ended(&bus, RunId::new(), false).await;
    eventually("there is a record", async || record(&bus).await).await;
    eventually("it is gone", async || record(&bus).await.is_none().then_some(())).await;
}

/// Wrong requests and full workers say nothing about how well a worker works.
#[tokio::test]
async fn only_faults_of_the_worker_are_held_against_it() {
    let broker = Broker::start().await;
    let _manager = manager(&broker, "m1", CircuitBreakerConfig::default()).await;
    let bus = broker.bus().await;
    for _ in 0..20 {
        let wrong = ServiceError::new(Reason::Unspeakable, "nothing to say");
        ended_as(&bus, RunId::new(), OutcomeKind::ClientFault, Some(wrong)).await;
        let full = ServiceError::new(Reason::QueueFull, "no room");
        ended_as(&bus, RunId::new(), OutcomeKind::BackPressure, Some(full)).await;
    }
    // Heard after all of them, so what is written for it shows what they left.
    let fault = RunId::new();
    ended(&bus, fault, false).await;
    let first = eventually("the fault is written", async || record(&bus).await).await;
    assert_eq!(first.value.window, [WindowEntry { run: fault, success: false, spent: false }]);
    assert_eq!((first.value.state, first.value.openings), (BreakerState::Closed, 0));
}
