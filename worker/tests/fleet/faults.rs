//! What a worker does when engine, session or queue do not behave.

use std::time::Duration;

use bytes::Bytes;
use chorus_protocol::fleet::FleetEvent;
use chorus_protocol::job::Job;
use chorus_protocol::{JobClass, Reason, names};
use serde_json::json;
use tokio::time::timeout;

use crate::support::*;

/// The reason of the failure that `text` leads to, and the engine's last words.
async fn failure(session: &mut Session, segment: u32, text: &str) -> (Reason, Vec<String>) {
    let seq = session.say(segment, text).await;
    let failed = session.hear().await.expect_err("it was spoken");
    session.gone(seq).await;
    (failed.error.reason().unwrap(), failed.stderr)
}

async fn second_attempt(session: &mut Session, segment: u32, text: &str) {
    session.publish(&Job { attempt: 2, class: JobClass::Urgent, ..session.job(segment, text) }).await;
}

#[tokio::test]
async fn an_engine_that_dies_in_mid_utterance_fails_the_run_and_speaks_again() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut events = bus.subscribe(&names::event_subject("workerFailed"), None).await.unwrap();
    let worker = Running::start(worker_config(&broker, "checkable", json!({"streaming": true}))).await;
    let mut session = Session::open(&bus).await;
    let text = "a sentence in several pieces [[stderr bytes=3000]][[crash after=2 attempts=1]]";
    let (reason, stderr) = failure(&mut session, 0, text).await;
    assert_eq!(reason, Reason::EngineCrashed);
    assert!(stderr.last().unwrap().contains("checkable noise"), "{stderr:?}");
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    let event = event.decode::<FleetEvent>().unwrap().payload;
    assert!(event.message.contains("70"), "{}", event.message);
    second_attempt(&mut session, 0, text).await;
    let (pcm, _) = session.hear().await.unwrap();
    assert!(pcm == checkable("a sentence in several pieces", 0));
    let restarts = || worker.handle.heartbeats().borrow().as_ref().map(|beat| beat.engine_restarts);
    poll("restart in a heartbeat", || restarts().filter(|count| *count == 1)).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_killed_engine_is_seen_at_once() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", json!({"computeMs": 60_000}))).await;
    let mut session = Session::open(&bus).await;
    session.say(0, "hello").await;
    let (_, question) = session.started().await;
    session.answer(&question, chorus_protocol::job::StartedAnswer::Go).await;
    worker.progress(&bus).await;
    let pid = || worker.handle.heartbeats().borrow().as_ref().and_then(|beat| beat.engine_pid);
    let pid = poll("engine pid", pid).await;
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let failed = session.hear().await.expect_err("it was spoken");
    assert_eq!(failed.error.reason(), Some(Reason::EngineCrashed));
    assert!(failed.error.message.contains("signal 9"), "{}", failed.error);
    worker.stop().await;
}

#[tokio::test]
async fn an_engine_that_breaks_its_frames_is_replaced() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", plain());
    config.engine.restart.crash_limit = None;
    let worker = Running::start(config).await;
    let mut session = Session::open(&bus).await;
    let faults = [
        ("garbage", Reason::EngineProtocol),
        ("oversize", Reason::EngineProtocol),
        ("truncate", Reason::EngineCrashed),
    ];
    for (segment, (fault, expected)) in faults.into_iter().enumerate() {
        let segment = segment as u32;
        let text = format!("hello [[{fault} attempts=1]][[slow ms=2000 attempts=1]]");
        assert_eq!(failure(&mut session, segment, &text).await.0, expected, "{fault}");
        second_attempt(&mut session, segment, &text).await;
        let (pcm, _) = session.hear().await.unwrap();
        assert!(pcm == checkable("hello", segment), "{fault}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_replaced() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", plain());
    config.engine.liveness.ping_every = Duration::from_millis(100);
    config.engine.liveness.busy_silence = Duration::from_millis(1000);
    let worker = Running::start(config).await;
    let mut session = Session::open(&bus).await;
    let text = "hello [[hang attempts=1]]";
    assert_eq!(failure(&mut session, 0, text).await.0, Reason::EngineCrashed);
    second_attempt(&mut session, 0, text).await;
    assert!(session.hear().await.unwrap().0 == checkable("hello", 0));
    worker.stop().await;
}

#[tokio::test]
async fn audio_that_cannot_be_right_is_not_passed_on() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", plain())).await;
    let mut session = Session::open(&bus).await;
    let faults = [
        ("badcrc", Reason::EngineProtocol),
        ("dropchunk", Reason::EngineProtocol),
        ("silence", Reason::BadAudio),
        ("clip", Reason::BadAudio),
        ("short", Reason::BadAudio),
        ("error code=SYNTHESIS_FAILED reason=engine_error", Reason::EngineError),
    ];
    for (segment, (fault, expected)) in faults.into_iter().enumerate() {
        let text = format!("a sentence of some length [[{fault}]]");
        assert_eq!(failure(&mut session, segment as u32, &text).await.0, expected, "{fault}");
    }
    assert_eq!(failure(&mut session, 90, "[[slow ms=1]]").await.0, Reason::Unspeakable);
    session.say(91, "still here").await;
    assert!(session.hear().await.unwrap().0 == checkable("still here", 91), "none of it costs the engine");
    let restarts = worker.handle.heartbeats().borrow().as_ref().unwrap().engine_restarts;
    assert_eq!(restarts, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_flood_of_logs_harms_nothing() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", plain())).await;
    let mut session = Session::open(&bus).await;
    session.say(0, "hello [[stderr bytes=20000000]][[stdout bytes=5000000]]").await;
    assert!(session.hear().await.unwrap().0 == checkable("hello", 0));
    worker.stop().await;
}

#[tokio::test]
async fn a_job_whose_session_is_away_comes_back_and_at_last_goes() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "null", plain());
    config.run.max_deliveries = 4;
    config.run.retry_after = Duration::from_millis(50);
    let worker = Running::start(config).await;
    // The session asks, goes away, and comes back: the job is still there, and is told how often it was tried.
    let mut session = Session::open(&bus).await;
    let inbox = std::mem::replace(&mut session.inbox, format!("{}.nobody", bus.new_inbox()));
    let seq = session.say(0, "hello").await;
    session.gone(seq).await;
    session.inbox = inbox;
    session.say(1, "hello").await;
    session.hear().await.unwrap();
    let failed =
        || worker.handle.heartbeats().borrow().as_ref().map(|beat| (beat.jobs_done, beat.jobs_failed));
    poll("count of jobs", || failed().filter(|counts| *counts == (1, 1))).await;
    worker.stop().await;
}

#[tokio::test]
async fn what_is_no_job_leaves_the_queue_with_an_event() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "null", plain())).await;
    let mut events = bus.subscribe(&names::event_subject("jobUnreadable"), None).await.unwrap();
    bus.flush().await.unwrap();
    let subject = names::job_subject(&model_name(), JobClass::High);
    bus.request_raw(&subject, Bytes::from_static(b"\xc1\xff not a job"), PATIENCE).await.unwrap();
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(event.decode::<FleetEvent>().unwrap().payload.details["subject"], subject.as_str());
    let mut session = Session::open(&bus).await;
    session.say(0, "hello").await;
    session.hear().await.unwrap();
    worker.stop().await;
}
