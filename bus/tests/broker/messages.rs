//! Told, asked, heard, answered.

use std::time::{Duration, Instant};

use chorus_bus::{BusErrorKind, RequestErrorKind};
use chorus_protocol::codec::Encoding;
use chorus_protocol::{Envelope, Reason, ServiceError};

use crate::support::*;

#[tokio::test]
async fn nobody_there_is_known_at_once_and_silence_after_the_timeout() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let question = Envelope::request("hello", 1);
    let begun = Instant::now();
    let error = bus.request::<_, String>("nobody", &question, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind, RequestErrorKind::NoResponders);
    assert!(begun.elapsed() < PATIENCE / 4);
    assert_eq!(error.into_service_error().reason(), Some(Reason::NoManager));

    let _silent = bus.subscribe("silent", None).await.unwrap();
    let short = Duration::from_millis(50);
    let error = bus.request::<_, String>("silent", &question, short).await.unwrap_err();
    assert_eq!(error.kind, RequestErrorKind::Timeout);
}

#[tokio::test]
async fn answers_and_refusals_come_back() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let mut questions = bus.subscribe("add.one", Some("adders")).await.unwrap();
    let refusal = ServiceError::new(Reason::BreakerOpen, "resting");
    let serving = async {
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let heard = questions.next().await.unwrap();
            let question = heard.decode::<u64>().unwrap();
            assert_eq!((heard.subject(), heard.encoding()), ("add.one", Encoding::MessagePack));
            let answer = Envelope::response(&question.message_id, question.payload + 1, 1);
            bus.respond(&heard, &answer, encoding).await.unwrap();
        }
        let heard = questions.next().await.unwrap();
        bus.respond(&heard, &Envelope::error(None, refusal.clone(), 1), Encoding::MessagePack).await.unwrap();
    };
    let asking = async {
        let ask = || async { bus.request::<u64, u64>("add.one", &Envelope::request(41, 1), PATIENCE).await };
        assert_eq!(ask().await.unwrap(), 42);
        assert_eq!(ask().await.unwrap(), 42);
        ask().await.unwrap_err()
    };
    let ((), error) = soon("three answers", async { tokio::join!(serving, asking) }).await;
    assert_eq!(error.kind, RequestErrorKind::Refused(refusal));
}

#[tokio::test]
async fn what_is_too_large_is_not_sent() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let mut heard = bus.subscribe("big", None).await.unwrap();
    let big = Envelope::event("x".repeat(bus.server().max_payload), 1);
    assert_eq!(bus.publish("big", &big).await.unwrap_err().kind, BusErrorKind::TooLarge);
    let error = bus.request::<_, String>("big", &big, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind, RequestErrorKind::TooLarge);

    let answering = async {
        let question = heard.next().await.unwrap();
        assert_eq!(question.decode::<String>().unwrap().payload, "small");
        bus.respond(&question, &big, Encoding::MessagePack).await.unwrap();
    };
    let question = Envelope::request("small", 1);
    let asking = bus.request::<_, String>("big", &question, PATIENCE);
    let (answer, ()) = soon("an answer", async { tokio::join!(asking, answering) }).await;
    let RequestErrorKind::Refused(error) = answer.unwrap_err().kind else { panic!("expected an error") };
    assert_eq!(error.reason(), Some(Reason::TooLarge));
}

#[tokio::test]
async fn an_event_awaits_no_answer_and_a_drained_subscription_ends() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let mut heard = bus.subscribe("told", None).await.unwrap();
    bus.publish("told", &Envelope::event(1u8, 1)).await.unwrap();
    let event = soon("the event", heard.next()).await.unwrap();
    assert_eq!(event.reply(), None);
    bus.respond(&event, &Envelope::event(2u8, 1), Encoding::Json).await.unwrap();
    heard.drain().await;
    assert!(soon("the end", heard.next()).await.is_none());
}
