//! `open`, `advance`, `cancel`: what sessions ask, and what is on the queue then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chorus_client::port::{BusPort, ManagerPort as _};
use chorus_manager::admit::retries::RetryBudget;
use chorus_manager::{Hook, HookError, HookPoint, ManagerConfig};
use chorus_protocol::plan::{Cancel, Disposition, Finish, Finished, Lookup, Retry, RetryAnswer};
use chorus_protocol::{
    Envelope, ErrorCode, JobClass, Priority, Reason, SynthesisRequest, SynthesisResult, WorkerId, names,
};
use chorus_runtime::clock::SystemClock;
use futures::future::BoxFuture;

use crate::support::*;

const TWO: &str = "The first sentence is here. The second sentence follows it.";

#[tokio::test]
async fn an_opening_queues_its_window_in_order() {
    let broker = Broker::start().await;
    let (manager, bus) = broker.with_joe().await;
    let question = opening(TWO);
    let opened = open(&bus, &question).await.unwrap();
    assert_eq!(opened.manager.as_str(), "m1");
    assert_eq!(opened.speech.model, joe());
    assert_eq!(texts(&opened.page), ["The first sentence is here.", "The second sentence follows it."]);
    assert_eq!(classes(&opened.page), [JobClass::High, JobClass::Normal]);
    assert!(opened.page.complete && !opened.finish);
    assert_eq!(opened.page.consumed_bytes, TWO.len());
    assert_eq!((opened.deadline_ms, opened.attempt_timeout_ms, opened.ready_workers), (30_000, 10_000, 0));
    let seqs = seqs(&opened.page);
    assert!(seqs[0] < seqs[1], "{seqs:?}");

    let first = queued(&bus, JobClass::High).await;
    let job = first[0].job().unwrap().payload;
    assert_eq!((job.session, job.segment, job.attempt), (question.session, 0, 1));
    assert_eq!(first[0].inbox.as_deref(), Some(question.inbox.as_str()));
    assert_eq!(first[0].seq, seqs[0]);
    assert!(first[0].traceparent.is_some());
    manager.stop().await;
}

#[tokio::test]
async fn asking_twice_queues_once() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let other = broker.manager("m2").await;
    let question = opening(TWO);
    let answers = [
        open(&bus, &question).await.unwrap(),
        open(&bus, &question).await.unwrap(),
        // In the same process, without the bus.
        eventually("the other manager knows the model", async || {
            other.core().answer_open(question.clone(), None).await.ok()
        })
        .await,
    ];
    for again in &answers[1..] {
        assert_eq!(again.page, answers[0].page);
    }
    assert_eq!(queued(&bus, JobClass::High).await.len(), 1);
    assert_eq!(queued(&bus, JobClass::Normal).await.len(), 1);
}

#[tokio::test]
async fn a_question_that_died_with_its_manager_is_asked_again_soon() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    // Hears one question and is gone before it has answered.
    let mut dying = bus.subscribe(names::OPEN, Some(names::MANAGERS_GROUP)).await.unwrap();
    bus.flush().await.unwrap();
    let dies = async {
        let heard = dying.next().await;
        drop(dying);
        heard.is_some()
    };
    let port = BusPort::new(broker.bus().await, SystemClock::shared());
    let asks = async {
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            let asked = Instant::now();
            port.open(opening(TWO), None).await.unwrap();
            longest = longest.max(asked.elapsed());
        }
        longest
    };
    let (heard, longest) = soon("all are answered", async { tokio::join!(dies, asks) }).await;
    assert!(heard, "one in two questions goes there");
    println!("the longest answer: {longest:?}");
    assert!(longest < BusPort::TIMEOUT / 2, "{longest:?}");
}

#[tokio::test]
async fn a_long_text_goes_on_page_by_page() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let text = (0..10).map(|i| format!("Sentence number {i} is here. ")).collect::<String>();
    let question = chorus_protocol::plan::Open {
        window: 3,
        request: SynthesisRequest { priority: Some(Priority::Low), ..opening(&text).request },
        ..opening(&text)
    };
    let opened = open(&bus, &question).await.unwrap();
    assert_eq!(classes(&opened.page), [JobClass::Normal, JobClass::Low, JobClass::Low]);
    assert!(!opened.page.complete);
    let more = advance(&bus, advancing(&question, &opened)).await.unwrap();
    assert!(more.page.complete);
    let indexes: Vec<u32> = more.page.segments.iter().map(|s| s.index).collect();
    assert_eq!(indexes, [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(texts(&more.page)[6], "Sentence number 9 is here.");
    let urgent = chorus_protocol::plan::Advance { urgent: true, ..advancing(&question, &opened) };
    let urgent = chorus_protocol::plan::Advance { next_segment: 50, window: 1, ..urgent };
    let mut shrill = urgent.clone();
    shrill.speech.pitch = Some(99.0);
    assert_eq!(advance(&bus, shrill).await.unwrap_err().details.unwrap()["field"], "pitch");
    assert_eq!(classes(&advance(&bus, urgent).await.unwrap().page), [JobClass::Urgent]);
}

#[tokio::test]
async fn text_in_pieces_is_spoken_as_sentences_are_complete() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let blank = chorus_protocol::plan::Open { text_complete: false, ..opening("") };
    let opened = open(&bus, &blank).await.unwrap();
    assert!(opened.page.segments.is_empty() && !opened.page.complete);
    let first = chorus_protocol::plan::Advance {
        text: "One sentence is here. And a half".into(),
        text_complete: false,
        ..advancing(&blank, &opened)
    };
    let page = advance(&bus, first).await.unwrap().page;
    assert_eq!(texts(&page), ["One sentence is here."]);
    assert!(!page.complete);
}

#[tokio::test]
async fn retries_replace_what_they_supersede_and_lookups_tell_what_is_there() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let question = opening(TWO);
    let opened = open(&bus, &question).await.unwrap();
    let seqs = seqs(&opened.page);
    let lookup = |index: usize| Lookup { segment: index as u32, attempt: 1, seq: seqs[index] };
    let retry = Retry {
        segment: 0,
        text: opened.page.segments[0].text.clone(),
        manner: None,
        attempt: 2,
        class: JobClass::Urgent,
        failures: 1,
        tried: vec![WorkerId::new("w1").unwrap()],
        supersedes: Some(seqs[0]),
    };
    let asked = chorus_protocol::plan::Advance {
        retries: vec![retry],
        lookups: vec![lookup(1), lookup(0)],
        ..advancing(&question, &opened)
    };
    let answer = advance(&bus, asked.clone()).await.unwrap();
    assert!(answer.lookups.iter().all(|lookup| lookup.present), "{:?}", answer.lookups);
    assert!(matches!(answer.retries[0].disposition, Disposition::Queued { attempt: 2, .. }));

    let after = chorus_protocol::plan::Advance { retries: Vec::new(), ..asked };
    let answer = advance(&bus, after).await.unwrap();
    let present: Vec<(u32, bool)> = answer.lookups.iter().map(|l| (l.segment, l.present)).collect();
    assert_eq!(present, [(1, true), (0, false)]);
    let urgent = queued(&bus, JobClass::Urgent).await;
    assert_eq!(urgent[0].job().unwrap().payload.attempt, 2);
    assert_eq!((urgent[0].failures, urgent[0].tried.len()), (1, 1));
    assert!(queued(&bus, JobClass::High).await.is_empty());
}

#[tokio::test]
async fn retries_wait_when_their_class_has_spent_its_budget() {
    let broker = Broker::start().await;
    let config = ManagerConfig {
        retry_budget: RetryBudget { share: 0.0, per_second: 0.01, most: 1.0 },
        ..broker.config("m1")
    };
    let (_manager, bus) = (start(config, Vec::new()).await, broker.bus().await);
    load(&bus, definition("joe")).await.unwrap();
    let question = opening(TWO);
    let opened = open(&bus, &question).await.unwrap();
    let retry = |segment: u32, failures, class| Retry {
        segment,
        text: opened.page.segments[segment as usize].text.clone(),
        manner: None,
        attempt: failures + 1,
        class,
        failures,
        tried: Vec::new(),
        supersedes: None,
    };
    let retries = vec![
        retry(0, 2, JobClass::Normal),
        retry(1, 2, JobClass::Normal),
        // The first retry of a segment is free, and so is what its listener is about to miss.
        retry(1, 1, JobClass::Normal),
        retry(1, 3, JobClass::Urgent),
        // Each class has its own.
        retry(1, 4, JobClass::Low),
    ];
    let asked = chorus_protocol::plan::Advance { retries, ..advancing(&question, &opened) };
    let answer = advance(&bus, asked).await.unwrap();
    let reason = |retry: &RetryAnswer| match &retry.disposition {
        Disposition::Refused { error } => error.reason(),
        _ => None,
    };
    let refused: Vec<_> = answer.retries.iter().map(reason).collect();
    assert_eq!(refused, [None, Some(Reason::RateLimited), None, None, None]);
}

#[tokio::test]
async fn a_cancel_empties_the_queue_and_stops_the_workers() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let question = opening(TWO);
    let opened = open(&bus, &question).await.unwrap();
    let worker = WorkerId::new("w1").unwrap();
    let stop = names::worker_control(&worker, names::WorkerControl::Stop);
    let mut orders = bus.subscribe(&stop, None).await.unwrap();
    bus.flush().await.unwrap();
    let cancel = Cancel { session: question.session, seqs: seqs(&opened.page), workers: vec![worker] };
    bus.publish(names::CANCEL, &Envelope::event(cancel, 1)).await.unwrap();
    let order = soon("the order to stop", orders.next()).await.unwrap();
    let order = order.decode::<chorus_protocol::fleet::WorkerOrder>().unwrap().payload;
    assert_eq!(order, chorus_protocol::fleet::WorkerOrder::Stop { session: question.session });
    eventually("the queue is empty", async || {
        (bus.queue_depth(&joe()).await.unwrap().total() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_is_an_answer_at_first_and_a_wait_later() {
    let broker = Broker::start().await;
    let config = chorus_manager::ManagerConfig { layout: small_queue(1), ..broker.config("m1") };
    let _manager = start(config, Vec::new()).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let three = format!("{TWO} And the third sentence ends it.");
    let question = opening(&three);
    let opened = open(&bus, &question).await.unwrap();
    assert_eq!(opened.page.segments.len(), 3);
    let Disposition::Refused { error } = &opened.page.segments[2].disposition else { panic!("{opened:?}") };
    assert_eq!(error.reason(), Some(Reason::QueueFull));
    assert!(error.details.as_ref().unwrap().contains_key("retryAfterMs"));
    assert!(!opened.page.complete);
    assert_eq!(&three[opened.page.consumed_bytes..], "And the third sentence ends it.");

    let refused = open(&bus, &opening(TWO)).await.unwrap_err();
    assert_eq!((refused.reason(), refused.retryable), (Some(Reason::QueueFull), true));
    assert!(refused.details.unwrap().contains_key("retryAfterMs"));
}

#[tokio::test]
async fn requests_that_cannot_be_honoured_fail_at_once() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let failing = async |request: SynthesisRequest| {
        let question = chorus_protocol::plan::Open { request, ..opening("x") };
        open(&bus, &question).await.unwrap_err()
    };
    let saying = |text: &str| SynthesisRequest { text: text.into(), ..SynthesisRequest::default() };
    let unknown = failing(SynthesisRequest { model: Some("jo".into()), ..saying("a") }).await;
    assert_eq!(unknown.code, ErrorCode::ModelNotFound);
    assert!(unknown.message.contains("joe"), "{unknown}");
    for text in ["", " \n", "😀😀", "***"] {
        assert_eq!(failing(saying(text)).await.reason(), Some(Reason::Unspeakable), "{text:?}");
    }
    assert_eq!(failing(saying("a\0b")).await.reason(), Some(Reason::Malformed));
    assert_eq!(failing(saying(&"a ".repeat(140_000))).await.reason(), Some(Reason::TooLarge));
    let fast = failing(SynthesisRequest { speed: Some(9.0), ..saying("a") }).await;
    assert_eq!(fast.details.unwrap()["field"], "speed");
    assert_eq!(bus.queue_depth(&joe()).await.unwrap().total(), 0);
}

/// Speaks everything twice as fast, fails at the end.
struct Hasty;

impl Hook for Hasty {
    fn name(&self) -> &str {
        "hasty"
    }
    fn points(&self) -> &[HookPoint] {
        &[HookPoint::BeforeSynthesis, HookPoint::AfterSynthesis]
    }
    fn before_synthesis(
        &self,
        request: SynthesisRequest,
    ) -> BoxFuture<'_, Result<SynthesisRequest, HookError>> {
        Box::pin(async move { Ok(SynthesisRequest { speed: Some(2.0), ..request }) })
    }
    fn after_synthesis(&self, _result: SynthesisResult) -> BoxFuture<'_, Result<SynthesisResult, HookError>> {
        Box::pin(async { Err("out of breath".into()) })
    }
}

#[tokio::test]
async fn hooks_see_requests_and_their_failure_is_an_event() {
    let broker = Broker::start().await;
    let config =
        chorus_manager::ManagerConfig { hook_timeout: Duration::from_millis(1_900), ..broker.config("m1") };
    let _manager = start(config, vec![Arc::new(Hasty)]).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let mut events = bus.subscribe(&names::event_subject("hookFailed"), None).await.unwrap();
    bus.flush().await.unwrap();
    let question = opening(TWO);
    let opened = open(&bus, &question).await.unwrap();
    assert_eq!((opened.speech.speed, opened.finish), (Some(2.0), true));
    let error = chorus_protocol::ServiceError::new(Reason::Stalled, "late");
    let result = SynthesisResult::failed(question.request_id.clone(), 1.0, error);
    let finish = Finish { session: question.session, result: result.clone() };
    let finished: Finished = ask(&bus, names::FINISH, finish).await.unwrap();
    assert_eq!(finished.result, result);
    let event = soon("the event", events.next()).await.unwrap();
    let event = event.decode::<chorus_protocol::fleet::FleetEvent>().unwrap().payload;
    assert_eq!(event.details["hook"], "hasty");
    assert!(event.message.contains("out of breath"), "{}", event.message);
}
