//! Hooks from end to end: which of them are called, with what, and in which order.

use std::sync::{Arc, Mutex};

use chorus_client::port::{BusPort, ManagerPort as _};
use chorus_manager::{Hook, HookError, HookPoint};
use chorus_protocol::fleet::{FleetEvent, WorkerHeartbeat};
use chorus_protocol::plan::{Finish, Finished};
use chorus_protocol::{Envelope, Incarnation, SynthesisRequest, SynthesisResult, WorkerId, names};
use chorus_runtime::clock::SystemClock;
use futures::future::BoxFuture;

use crate::support::*;

/// Writes down what it is called with, and leaves a trace where it may change something.
struct Recorder {
    name: &'static str,
    log: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn write<T: Send + 'static>(&self, what: String, answer: T) -> BoxFuture<'_, Result<T, HookError>> {
        Box::pin(async move {
            self.log.lock().unwrap().push(format!("{}: {what}", self.name));
            Ok(answer)
        })
    }
}

impl Hook for Recorder {
    fn name(&self) -> &str {
        self.name
    }
    fn points(&self) -> &[HookPoint] {
        &[
            HookPoint::BeforeSynthesis,
            HookPoint::AfterSynthesis,
            HookPoint::OnWorkerStarted,
            HookPoint::OnWorkerStopped,
        ]
    }
    fn before_synthesis(
        &self,
        request: SynthesisRequest,
    ) -> BoxFuture<'_, Result<SynthesisRequest, HookError>> {
        let speed = request.speed.unwrap_or(1.0);
        self.write(format!("before at {speed}"), SynthesisRequest { speed: Some(speed + 0.5), ..request })
    }
    fn after_synthesis(&self, result: SynthesisResult) -> BoxFuture<'_, Result<SynthesisResult, HookError>> {
        let (success, ms) = (result.success, result.latency_ms);
        let changed = SynthesisResult { latency_ms: ms + 1.0, ..result };
        self.write(format!("after, success {success}, {ms} ms"), changed)
    }
    fn on_worker_started(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), HookError>> {
        self.write(format!("{worker} started"), ())
    }
    fn on_worker_stopped(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), HookError>> {
        self.write(format!("{worker} stopped"), ())
    }
}

#[tokio::test]
async fn hooks_hear_of_workers_and_of_requests_in_order() {
    let broker = Broker::start().await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let recorder = |name| Arc::new(Recorder { name, log: Arc::clone(&log) }) as Arc<dyn Hook>;
    let _manager = start(broker.config("m1"), vec![recorder("first"), recorder("second")]).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let logged = async |entries: usize| {
        eventually("the hooks are called", async || {
            let mut log = log.lock().unwrap();
            (log.len() >= entries).then(|| std::mem::take(&mut *log))
        })
        .await
    };

    beat(&bus, worker_beat()).await;
    assert_eq!(logged(2).await, ["first: w1 started", "second: w1 started"]);

    let question = opening("Hello from chorus.");
    let opened = open(&bus, &question).await.unwrap();
    assert_eq!((opened.speech.speed, opened.finish), (Some(2.0), true));
    assert_eq!(logged(2).await, ["first: before at 1", "second: before at 1.5"]);

    let spoken = SynthesisResult {
        success: true,
        request_id: question.request_id.clone(),
        output_path: None,
        duration: Some(1.0),
        latency_ms: 10.0,
        error: None,
        metadata: None,
        audio: None,
    };
    let finish = Finish { session: question.session, result: spoken.clone() };
    let finished: Finished = ask(&bus, names::FINISH, finish).await.unwrap();
    assert_eq!(finished.result, SynthesisResult { latency_ms: 12.0, ..spoken });
    assert_eq!(logged(2).await, ["first: after, success true, 10 ms", "second: after, success true, 11 ms"]);

    // Its next start: the one that was is out, and only then is the new one in.
    beat(&bus, WorkerHeartbeat { incarnation: Incarnation::from_u128(2), ..worker_beat() }).await;
    let restarted = ["first: w1 stopped", "second: w1 stopped", "first: w1 started", "second: w1 started"];
    assert_eq!(logged(4).await, restarted);
    // It says that it leaves.
    let leaves = FleetEvent {
        kind: "workerStopped".into(),
        worker_id: Some(worker_beat().worker),
        incarnation: Some(Incarnation::from_u128(2)),
        message: "it leaves".into(),
        details: serde_json::Map::new(),
    };
    bus.publish(&names::event_subject("workerStopped"), &Envelope::event(leaves, 1)).await.unwrap();
    assert_eq!(logged(2).await, ["first: w1 stopped", "second: w1 stopped"]);
}

/// Never comes back.
struct Stuck;

impl Hook for Stuck {
    fn name(&self) -> &str {
        "stuck"
    }
    fn points(&self) -> &[HookPoint] {
        &[HookPoint::BeforeSynthesis]
    }
    fn before_synthesis(
        &self,
        _request: SynthesisRequest,
    ) -> BoxFuture<'_, Result<SynthesisRequest, HookError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_hook_that_never_comes_back_costs_a_session_no_more_than_its_time() {
    let broker = Broker::start().await;
    let _manager = start(broker.config("m1"), vec![Arc::new(Stuck)]).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let mut events = bus.subscribe(&names::event_subject("hookFailed"), None).await.unwrap();
    bus.flush().await.unwrap();
    // As a session asks, which does not wait for ever either.
    let port = BusPort::new(bus.clone(), SystemClock::shared());
    let opened = soon("the answer", port.open(opening("Hello from chorus."), None)).await;
    assert!(opened.is_ok(), "{opened:?}");
    let event = soon("the event", events.next()).await.unwrap();
    assert_eq!(event.decode::<FleetEvent>().unwrap().payload.details["hook"], "stuck");
}
