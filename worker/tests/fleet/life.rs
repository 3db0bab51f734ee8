//! An engine that is tried when it has nothing to do, and renewed when it has grown old or large.

use std::time::Duration;

use chorus_bus::{Bucket, Subscription};
use chorus_protocol::breaker::{BreakerRecord, BreakerState};
use chorus_protocol::fleet::{FleetEvent, WorkerHeartbeat};
use chorus_protocol::{Reason, names};
use chorus_worker::WorkerConfig;
use serde_json::json;
use tokio::time::timeout;

use crate::support::*;

/// A worker whose engine is tried with this text twenty times a second.
fn tried(broker: &Broker, text: &str) -> WorkerConfig {
    let mut config = worker_config(broker, "checkable", plain());
    config.canary.every = Some(Duration::from_millis(50));
    config.canary.text = text.to_owned();
    config.heartbeat_every = Duration::from_millis(50);
    config
}

async fn event(events: &mut Subscription) -> FleetEvent {
    let event = timeout(PATIENCE, events.next()).await.expect("no event").unwrap();
    event.decode::<FleetEvent>().unwrap().payload
}

async fn beat(worker: &Running, what: &str, holds: impl Fn(&WorkerHeartbeat) -> bool) {
    let now = || worker.handle.heartbeats().borrow().clone();
    poll(what, || now().filter(|beat| holds(beat))).await;
}

#[tokio::test]
async fn an_engine_that_speaks_no_more_is_replaced_before_a_listener_finds_out() {
    let faults = [
        ("silence", Reason::BadAudio),
        ("stall ms=60000", Reason::EngineError),
        ("hang", Reason::EngineCrashed),
        ("error code=SYNTHESIS_FAILED reason=engine_error", Reason::EngineError),
    ];
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut failures = bus.subscribe(&names::event_subject("workerFailed"), None).await.unwrap();
    for (fault, expected) in faults {
        let mut config = tried(&broker, &format!("yes [[{fault} attempts=2]]"));
        config.canary.within = Duration::from_millis(1_000);
        config.engine.liveness.ping_every = Duration::from_millis(100);
        config.engine.liveness.busy_silence = Duration::from_millis(500);
        let worker = Running::start(config).await;
        let failure = event(&mut failures).await;
        assert_eq!(failure.details["reason"], expected.as_str(), "{fault}: {}", failure.message);
        let mut session = Session::open(&bus).await;
        session.say(0, "still here").await;
        assert!(session.hear().await.unwrap().0 == checkable("still here", 0), "{fault}");
        // The canaries are nobody's jobs.
        beat(&worker, "restart", |beat| {
            (beat.engine_restarts, beat.jobs_done, beat.jobs_failed) == (1, 1, 0)
        })
        .await;
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_half_open_breaker_hears_of_recovery_without_traffic() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut canaries = bus.subscribe(&names::event_subject("canary"), None).await.unwrap();
    let mut config = tried(&broker, "yes [[silence attempts=40-999999]]");
    config.engine.restart.crash_limit = None;
    let worker = Running::start(config).await;
    let nobody_asked = timeout(Duration::from_millis(300), canaries.next()).await;
    assert!(nobody_asked.is_err(), "a closed breaker needs no canaries");
    let record = BreakerRecord { state: BreakerState::HalfOpen, ..BreakerRecord::default() };
    bus.records(Bucket::BREAKERS).put("tested", &record).await.unwrap();
    assert_eq!(event(&mut canaries).await.details["success"], true);
    // From the fortieth on they fail.
    while event(&mut canaries).await.details["success"] == true {}
    worker.stop().await;
}

#[tokio::test]
async fn a_text_that_does_not_suit_a_model_costs_no_engine() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(tried(&broker, "yes [[silence]]")).await;
    let mut session = Session::open(&bus).await;
    for segment in 0..3 {
        session.say(segment, "hello").await;
        assert!(session.hear().await.unwrap().0 == checkable("hello", segment));
        let before = worker.handle.heartbeats().borrow().as_ref().unwrap().sequence;
        beat(&worker, "idle time", |beat| beat.sequence > before + 4).await;
    }
    beat(&worker, "no restart", |beat| beat.engine_restarts == 0).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_does_not_wait_for_a_canary() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = tried(&broker, "yes [[slow ms=60000]]");
    config.canary.within = Duration::from_secs(120);
    let worker = Running::start(config).await;
    let mut session = Session::open(&bus).await;
    for segment in 0..5 {
        let before = worker.handle.heartbeats().borrow().as_ref().unwrap().sequence;
        beat(&worker, "idle time", |beat| beat.sequence > before + 4).await;
        session.say(segment, "hello").await;
        assert!(session.hear().await.unwrap().0 == checkable("hello", segment));
    }
    worker.stop().await;
}

#[tokio::test]
async fn an_engine_is_renewed_without_losing_work() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut renewals = bus.subscribe(&names::event_subject("workerRecycled"), None).await.unwrap();
    let mut failures = bus.subscribe(&names::event_subject("workerFailed"), None).await.unwrap();
    let mut config = tried(&broker, "yes");
    config.definitions = vec![model("checkable", json!({"computeMs": 20}))];
    config.engine.lanes = Some(2);
    config.recycle.requests = Some(5);
    config.recycle.least_age = Duration::from_millis(1);
    // Renewals are no failures: the crash limit does not count them.
    config.engine.restart.crash_limit = Some(1);
    let worker = Running::start(config).await;
    let sessions = (0..4).map(|number| {
        let bus = bus.clone();
        async move {
            let mut session = Session::open(&bus).await;
            for segment in 0..8 {
                let text = format!("session {number} says its sentence {segment}");
                session.say(segment, &text).await;
                let (pcm, _) = session.hear().await.unwrap();
                assert!(pcm == checkable(&text, segment), "{text}");
            }
        }
    });
    timeout(PATIENCE, futures::future::join_all(sessions)).await.unwrap();
    assert!(event(&mut renewals).await.message.contains("jobs"));
    beat(&worker, "renewals", |beat| {
        beat.engine_restarts >= 2 && (beat.jobs_done, beat.jobs_failed) == (32, 0)
    })
    .await;
    worker.stop().await;
    bus.flush().await.unwrap();
    let none = timeout(Duration::from_millis(100), failures.next()).await;
    assert!(none.is_err(), "a renewal was told as a failure");
}

#[tokio::test]
async fn memory_is_told_and_then_freed() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut renewals = bus.subscribe(&names::event_subject("workerRecycled"), None).await.unwrap();
    let mut alerts = bus.subscribe(&names::event_subject("memoryAlert"), None).await.unwrap();
    let mut config = tried(&broker, "yes");
    config.recycle.rss_bytes = Some(1_000_000);
    config.recycle.least_age = Duration::from_millis(500);
    let worker = Running::start(config).await;
    let alert = event(&mut alerts).await;
    assert!(alert.details["rssBytes"].as_u64() > alert.details["limitBytes"].as_u64());
    let renewal = event(&mut renewals).await;
    assert_eq!(renewal.details["unfinished"], 0);
    event(&mut renewals).await;
    let again = timeout(Duration::from_millis(100), alerts.next()).await;
    assert!(again.is_err(), "one alert per crossing");
    worker.stop().await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn the_engine_has_what_it_is_given_and_no_more() {
    let broker = Broker::start().await;
    let mut config = worker_config(&broker, "checkable", plain());
    config.engine.max_memory_bytes = Some(3_000_000_000);
    config.engine.max_cpus = Some(1);
    let given: Vec<_> = config.engine.env.keys().map(|name| name.to_str().unwrap().to_owned()).collect();
    let worker = Running::start(config).await;
    let pid = || worker.handle.heartbeats().borrow().as_ref().and_then(|beat| beat.engine_pid);
    let pid = poll("engine pid", pid).await;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let environment = read("environ");
    let names: Vec<_> =
        environment.split_terminator('\0').map(|pair| pair.split('=').next().unwrap()).collect();
    assert!(names.iter().all(|name| given.contains(&(*name).to_owned())), "{names:?}");
    assert_limited(pid);
    worker.stop().await;
}
