//! Requests that would be heard too late are refused at once, the lowest priority first.

use std::time::Duration;

use chorus_bus::Bus;
use chorus_protocol::fleet::{Credits, LatencyFigures, WorkerHeartbeat};
use chorus_protocol::job::{Outcome, OutcomeKind, RunRef};
use chorus_protocol::plan::{Open, Opened};
use chorus_protocol::{
    Envelope, ErrorCode, JobClass, Priority, Reason, RunId, ServiceError, SessionId, SynthesisRequest, names,
};

use crate::support::*;

/// A one-sentence request.
fn asking(priority: Priority, deadline_ms: u64) -> Open {
    let request = opening("Hello from chorus.").request;
    let request = SynthesisRequest { priority: Some(priority), deadline_ms: Some(deadline_ms), ..request };
    Open { request, ..opening("x") }
}

async fn ask_for(bus: &Bus, priority: Priority, deadline_ms: u64) -> Result<Opened, ServiceError> {
    open(bus, &asking(priority, deadline_ms)).await
}

fn millis(error: &ServiceError, key: &str) -> u64 {
    error.details.as_ref().unwrap()[key].as_u64().unwrap()
}

/// A worker that takes a second for a job, one at a time.
fn slow_worker() -> WorkerHeartbeat {
    WorkerHeartbeat {
        credits: Credits { total: 1, free: 1 },
        latency: LatencyFigures { p50_ms: 1_000.0, ..LatencyFigures::default() },
        ..worker_beat()
    }
}

#[tokio::test]
async fn what_would_be_late_is_refused_and_low_goes_first() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    for _ in 0..6 {
        ask_for(&bus, Priority::Low, 3_000).await.expect("nobody is known to be slow");
    }
    beat(&bus, slow_worker()).await;
    // The manager looks at the depth now and then, so what it says may be a job behind.
    let (late, ahead) = eventually("the depth and the worker are known", async || {
        let late = ask_for(&bus, Priority::Low, 3_000).await.err()?;
        let ahead = bus.queue_depth(&joe()).await.unwrap().total();
        (millis(&late, "jobsAhead") == ahead).then_some((late, ahead))
    })
    .await;
    assert_eq!(
        (late.code, late.reason(), late.retryable),
        (ErrorCode::ResourceExhausted, Some(Reason::WouldBeLate), true)
    );
    assert_eq!(millis(&late, "predictedMs"), (ahead + 1) * 1_000);
    assert_eq!(millis(&late, "retryAfterMs"), (ahead + 1) * 1_000 - 3_000);

    // A first segment of normal priority travels ahead of all of them.
    assert!(ask_for(&bus, Priority::Normal, 3_000).await.is_ok());
    assert!(ask_for(&bus, Priority::High, 3_000).await.is_ok());
    assert!(ask_for(&bus, Priority::Low, 60_000).await.is_ok());
    assert_eq!(queued(&bus, JobClass::High).await.len(), 2);
}

#[tokio::test]
async fn a_worker_that_turns_out_fast_is_believed() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    for _ in 0..6 {
        ask_for(&bus, Priority::Low, 3_000).await.unwrap();
    }
    beat(&bus, slow_worker()).await;
    eventually("it is taken for slow", async || ask_for(&bus, Priority::Low, 3_000).await.err()).await;
    let outcome = Outcome {
        run: RunRef { session: SessionId::new(), segment: 0, attempt: 1, run: RunId::new() },
        worker: worker_beat().worker,
        model: joe(),
        class: JobClass::Normal,
        outcome: OutcomeKind::Success,
        engine_ms: 20.0,
        run_ms: 22.0,
        text_chars: 18,
        samples: 22_050,
        sample_rate: 22_050,
        error: None,
    };
    bus.publish(&names::event_subject("outcome"), &Envelope::event(outcome, 1)).await.unwrap();
    eventually("it is known to be fast", async || ask_for(&bus, Priority::Low, 3_000).await.ok()).await;
}

#[tokio::test]
async fn an_emptied_queue_admits_again() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let mut opened = Vec::new();
    for _ in 0..6 {
        opened.push(ask_for(&bus, Priority::Low, 3_000).await.unwrap());
    }
    beat(&bus, slow_worker()).await;
    eventually("it is too deep", async || ask_for(&bus, Priority::Low, 3_000).await.err()).await;
    while bus.queue_depth(&joe()).await.unwrap().total() > 0 {
        for delivery in queued(&bus, JobClass::Normal).await {
            bus.delete_job(delivery.seq).await.unwrap();
        }
    }
    let before = std::time::Instant::now();
    eventually("it is known to be empty", async || ask_for(&bus, Priority::Low, 1).await.ok()).await;
    println!("admitted again after {:?}", before.elapsed());
    assert!(before.elapsed() < Duration::from_secs(5));
}

/// What is ahead is told in seconds of audio too, once it is known how much audio a job is.
#[tokio::test]
async fn a_refusal_tells_how_much_audio_is_ahead() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    for _ in 0..6 {
        ask_for(&bus, Priority::Low, 3_000).await.expect("nobody is known to be slow");
    }
    beat(&bus, slow_worker()).await;
    let late = eventually("it is taken for slow", async || ask_for(&bus, Priority::Low, 3_000).await.err());
    assert!(late.await.details.unwrap().get("audioSecondsAhead").is_none(), "nobody has spoken yet");
    let outcome = Outcome {
        run: RunRef { session: SessionId::new(), segment: 0, attempt: 1, run: RunId::new() },
        worker: worker_beat().worker,
        model: joe(),
        class: JobClass::Normal,
        outcome: OutcomeKind::Success,
        engine_ms: 1_000.0,
        run_ms: 1_002.0,
        text_chars: 18,
        samples: 3 * 22_050,
        sample_rate: 22_050,
        error: None,
    };
    bus.publish(&names::event_subject("outcome"), &Envelope::event(outcome, 1)).await.unwrap();
    let late = eventually("its audio is known", async || {
        let late = ask_for(&bus, Priority::Low, 3_000).await.err()?;
        late.details.as_ref()?.contains_key("audioSecondsAhead").then_some(late)
    })
    .await;
    let (ahead, seconds) = (millis(&late, "jobsAhead"), &late.details.unwrap()["audioSecondsAhead"]);
    assert!(ahead >= 3, "{ahead}");
    assert!((seconds.as_f64().unwrap() - 3.0 * ahead as f64).abs() < 1e-6, "{seconds} for {ahead} jobs");
}
