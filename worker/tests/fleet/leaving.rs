//! How a worker leaves, and what it tells while it is there.

use std::time::Duration;

use chorus_protocol::fleet::{Heartbeat, ModelState, OrderTaken, WorkerOrder};
use chorus_protocol::job::{ResultAnswer, RunOutcome, StartedAnswer};
use chorus_protocol::names::{WorkerControl, worker_control};
use chorus_protocol::{Envelope, names};
use chorus_runtime::clock::SystemClock;
use chorus_worker::{WorkerError, WorkerService};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::*;

#[tokio::test]
async fn draining_finishes_what_is_begun_and_leaves_the_rest_in_the_queue() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", json!({"computeMs": 400}))).await;
    let mut session = Session::open(&bus).await;
    session.say(0, "the first").await;
    let (_, question) = session.started().await;
    session.answer(&question, StartedAnswer::Go).await;
    let order = Envelope::request(WorkerOrder::Drain, 1);
    let subject = worker_control(worker.handle.id(), WorkerControl::Drain);
    let _taken: OrderTaken = bus.request(&subject, &order, PATIENCE).await.unwrap();
    let waiting = session.say(1, "the second").await;
    assert!(session.hear().await.unwrap().0 == checkable("the first", 0));
    timeout(PATIENCE, worker.task).await.unwrap().unwrap().unwrap();
    assert!(bus.job_exists(waiting).await.unwrap());
    // Another worker has it at once, not after ack_wait.
    let worker = Running::start(worker_config(&broker, "checkable", plain())).await;
    assert!(session.hear().await.unwrap().0 == checkable("the second", 1));
    worker.stop().await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_told_to_its_session() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", json!({"computeMs": 60_000}));
    config.drain_within = Duration::from_millis(100);
    let worker = Running::start(config).await;
    let mut session = Session::open(&bus).await;
    let seq = session.say(0, "hello").await;
    let (_, question) = session.started().await;
    session.answer(&question, StartedAnswer::Go).await;
    worker.handle.drain();
    let (result, question, _) = session.listen().await;
    let RunOutcome::Failed(failed) = result.outcome else { panic!("it was spoken") };
    assert!(failed.error.retryable, "{}", failed.error);
    session.answer(&question, ResultAnswer::Accepted).await;
    timeout(PATIENCE, worker.task).await.unwrap().unwrap().unwrap();
    session.gone(seq).await;
}

#[tokio::test]
async fn heartbeats_tell_what_is() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", json!({"computeMs": 500}));
    config.heartbeat_every = Duration::from_secs(60);
    let worker = Running::start(config).await;
    let mut beats = bus.subscribe(names::ALL_HEARTBEATS, None).await.unwrap();
    bus.flush().await.unwrap();
    let mut session = Session::open(&bus).await;
    session.say(0, "hello").await;
    // The next regular heartbeat is a minute away: one comes because the worker turned busy.
    let beat = loop {
        let beat = timeout(PATIENCE, beats.next()).await.unwrap().unwrap();
        let Heartbeat::Worker(beat) = beat.decode::<Heartbeat>().unwrap().payload else { panic!() };
        if beat.in_flight > 0 {
            break beat;
        }
    };
    assert_eq!((beat.credits.total, beat.credits.free), (1, 0));
    assert_eq!((&beat.worker, beat.incarnation), (worker.handle.id(), worker.handle.incarnation()));
    assert_eq!((beat.models[0].state, beat.models[0].sample_rate), (ModelState::Ready, Some(16_000)));
    assert_eq!((beat.device.kind.as_str(), beat.host.as_str()), ("cpu", "here"));
    if cfg!(target_os = "linux") {
        assert!(beat.rss_bytes > 5_000_000 && beat.engine_pid.is_some());
    }
    session.hear().await.unwrap();
    worker.stop().await;
}

#[tokio::test]
async fn an_engine_that_cannot_start_ends_the_worker_with_the_cause() {
    let broker = Broker::start().await;
    let mut config = worker_config(&broker, "checkable", plain());
    config.engine.program = "/nowhere/python".into();
    config.engine.restart.crash_limit = Some(2);
    let (service, _handle) = WorkerService::new(config, SystemClock::shared()).unwrap();
    let end = timeout(PATIENCE, service.run(CancellationToken::new())).await.unwrap();
    let Err(WorkerError::Engine(error)) = end else { panic!("{end:?}") };
    assert!(error.message.contains("/nowhere/python"), "{error}");
}

#[tokio::test]
async fn a_worker_that_waits_for_its_broker_can_be_ended() {
    let broker = Broker::start().await;
    let mut config = worker_config(&broker, "null", plain());
    config.bus.url = "nats://127.0.0.1:1".to_owned();
    let (service, handle) = WorkerService::new(config, SystemClock::shared()).unwrap();
    let stop = async { handle.drain() };
    let (end, ()) = tokio::join!(timeout(PATIENCE, service.run(CancellationToken::new())), stop);
    end.unwrap().unwrap();
}
