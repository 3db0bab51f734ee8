//! Status, metrics, heartbeats, and a life's beginning and end.

use chorus_manager::{Manager, ManagerConfig};
use chorus_protocol::fleet::{FleetEvent, WorkerHeartbeat};
use chorus_protocol::job::{Outcome, OutcomeKind, RunRef};
use chorus_protocol::service::{Ask, ServiceMetrics, ServiceState, ServiceStatus};
use chorus_protocol::{Envelope, Incarnation, JobClass, RunId, SessionId, WorkerId, names};
use chorus_runtime::clock::SystemClock;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::support::*;

fn heartbeat(in_flight: u32) -> WorkerHeartbeat {
    WorkerHeartbeat { in_flight, ..worker_beat() }
}

async fn status(bus: &chorus_bus::Bus) -> ServiceStatus {
    ask(bus, names::STATUS, Ask {}).await.unwrap()
}

#[tokio::test]
async fn the_status_shows_who_is_there() {
    let broker = Broker::start().await;
    let (_first, bus) = broker.with_joe().await;
    let _second = broker.manager("m2").await;
    open(&bus, &opening("hello")).await.unwrap();
    let alone = eventually("both managers are seen", async || {
        let status = status(&bus).await;
        (status.managers.len() == 2 && status.models.len() == 1).then_some(status)
    })
    .await;
    assert_eq!((alone.state, alone.models[0].queued), (ServiceState::Down, 1));
    assert_eq!(alone.nats.unwrap().url, broker.url);
    assert!(alone.managers.iter().any(|manager| manager.id == "m1"));

    beat(&bus, heartbeat(0)).await;
    let ready = eventually("the worker is seen", async || {
        let status = status(&bus).await;
        (status.state == ServiceState::Ready).then_some(status)
    })
    .await;
    assert_eq!((ready.workers[0].id.as_str(), ready.workers[0].heartbeat.pid), ("w1", 7));
    assert_eq!(ready.models[0].ready_workers, 1);
    let opened = eventually("both managers count it", async || {
        let opened = open(&bus, &opening("hello")).await.unwrap();
        (opened.ready_workers == 1).then_some(opened)
    })
    .await;
    assert_eq!(opened.ready_workers, 1);
}

#[tokio::test]
async fn metrics_count_outcomes_and_the_queue() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    open(&bus, &opening("hello")).await.unwrap();
    beat(&bus, heartbeat(0)).await;
    let outcome = Outcome {
        run: RunRef { session: SessionId::new(), segment: 0, attempt: 1, run: RunId::new() },
        worker: WorkerId::new("w1").unwrap(),
        model: joe(),
        class: JobClass::High,
        outcome: OutcomeKind::Success,
        engine_ms: 100.0,
        run_ms: 120.0,
        text_chars: 5,
        samples: 44_100,
        sample_rate: 22_050,
        error: None,
    };
    let subject = names::event_subject("outcome");
    bus.publish(&subject, &Envelope::event(outcome, 1)).await.unwrap();
    let metrics = eventually("the outcome is counted", async || {
        let metrics: ServiceMetrics = ask(&bus, names::METRICS, Ask {}).await.unwrap();
        (metrics.successes == 1 && metrics.active_workers == 1).then_some(metrics)
    })
    .await;
    assert_eq!((metrics.queue_depth, metrics.active_workers), (1, 1));
    assert_eq!((metrics.p50_ms, metrics.audio_seconds), (120.0, 2.0));
}

#[tokio::test]
async fn a_busy_worker_that_falls_silent_is_told_of() {
    let broker = Broker::start().await;
    let config = ManagerConfig {
        worker_timeout: Duration::from_millis(400),
        heartbeat_interval: Duration::from_millis(50),
        ..broker.config("m1")
    };
    let _manager = start(config, Vec::new()).await;
    let bus = broker.bus().await;
    let mut events = bus.subscribe(&names::event_subject("workerLost"), None).await.unwrap();
    bus.flush().await.unwrap();
    beat(&bus, heartbeat(2)).await;
    let event = soon("workerLost", events.next()).await.unwrap().decode::<FleetEvent>().unwrap().payload;
    assert_eq!(event.worker_id, Some(WorkerId::new("w1").unwrap()));
    assert_eq!(event.incarnation, Some(Incarnation::from_u128(1)));
    assert_eq!(event.details["inFlight"], 2);
}

#[tokio::test]
async fn a_worker_that_another_manager_found_dead_is_out_and_not_told_of_again() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    beat(&bus, heartbeat(0)).await;
    eventually("it is seen", async || (!status(&bus).await.workers.is_empty()).then_some(())).await;
    let mut events = bus.subscribe(&names::event_subject("workerLost"), None).await.unwrap();
    let lost = |cause: &str| FleetEvent {
        kind: "workerLost".into(),
        worker_id: Some(WorkerId::new("w1").unwrap()),
        incarnation: Some(Incarnation::from_u128(1)),
        message: "lost".into(),
        details: serde_json::from_value(serde_json::json!({ "cause": cause })).unwrap(),
    };
    for cause in ["engineHung", "crashed"] {
        assert_eq!(status(&bus).await.workers.len(), 1, "a hung engine leaves its worker in view");
        let subject = names::event_subject("workerLost");
        bus.publish(&subject, &Envelope::event(lost(cause), 1)).await.unwrap();
    }
    eventually("it is out", async || status(&bus).await.workers.is_empty().then_some(())).await;
    for _ in 0..2 {
        soon("our own event", events.next()).await.unwrap();
    }
    bus.publish(&names::event_subject("workerLost"), &Envelope::event(0u8, 1)).await.unwrap();
    let next = soon("the mark", events.next()).await.unwrap();
    assert!(next.decode::<u8>().is_ok(), "nobody told of it again: {next:?}");
}

#[tokio::test]
async fn a_stopped_manager_leaves_the_questions_to_the_others() {
    let broker = Broker::start().await;
    let (first, bus) = broker.with_joe().await;
    let second = broker.manager("m2").await;
    soon("the first stops", first.stop()).await;
    for _ in 0..20 {
        assert_eq!(open(&bus, &opening("hello")).await.unwrap().manager.as_str(), "m2");
    }
    soon("the second stops", second.stop()).await;
    let nobody = open(&bus, &opening("hello")).await.unwrap_err();
    assert_eq!(nobody.reason(), Some(chorus_protocol::Reason::NoManager));
}

#[tokio::test]
async fn a_manager_waits_for_its_broker_until_it_is_told_to_stop() {
    let mut broker = Broker::start().await;
    let config = broker.config("m1");
    broker.kill().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let manager = Manager::new(config.clone(), SystemClock::shared());
    let given_up = soon("the start gives up", manager.start(&cancel)).await;
    assert!(matches!(given_up, Err(chorus_manager::ManagerError::Bus(_))));

    let starting = start(config, Vec::new());
    let (manager, ()) = tokio::join!(starting, async { broker.restart() });
    assert_eq!(manager.id().as_str(), "m1");
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    assert!(open(&bus, &opening("hello")).await.is_ok());
}

#[tokio::test]
async fn a_broker_that_comes_back_finds_the_manager_serving() {
    let mut broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    open(&bus, &opening("hello")).await.unwrap();
    broker.kill().await;
    broker.restart();
    let opened =
        eventually("the manager answers again", async || open(&bus, &opening("hello")).await.ok()).await;
    assert_eq!(opened.page.segments.len(), 1);
    eventually("both jobs are there", async || (queued(&bus, JobClass::High).await.len() == 2).then_some(()))
        .await;
}
