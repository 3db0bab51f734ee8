//! The pipe against a scripted engine.

use std::time::Duration;

use chorus_protocol::MessageId;
use chorus_protocol::breaker::counted_as;
use chorus_runtime::clock::SystemClock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// The far end of a link: an engine played by the test.
struct FarEnd {
    requests: DuplexStream,
    answers: DuplexStream,
}

fn linked() -> (Arc<Link>, FarEnd) {
    let (near_in, answers) = tokio::io::duplex(1 << 20);
    let (near_out, requests) = tokio::io::duplex(1 << 20);
    let link = Link::open((near_in, near_out), None, Liveness::default(), SystemClock::shared());
    (link, FarEnd { requests, answers })
}

impl FarEnd {
    async fn request(&mut self) -> Value {
        let len = self.requests.read_u32().await.unwrap();
        let mut body = vec![0; len as usize];
        self.requests.read_exact(&mut body).await.unwrap();
        rmp_serde::from_slice(&body).unwrap()
    }

    async fn answer(&mut self, kind: &str, to: &Value, payload: Value) {
        let envelope = json!({"version": "2.1.0", "messageId": "x", "timestamp": 1, "type": kind,
            "payload": payload, "metadata": {"correlationId": to}});
        let body = rmp_serde::to_vec_named(&envelope).unwrap();
        self.answers.write_u32(body.len() as u32).await.unwrap();
        self.answers.write_all(&body).await.unwrap();
    }
}

fn crashed(told: Told) -> Failed {
    match told {
        Told::Failed(failed) => *failed,
        other => panic!("{other:?} came where the end was due"),
    }
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let (link, mut far) = linked();
    let mut calls = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        calls.push(link.request(EngineRequest::Ping, None).unwrap());
        ids.push(far.request().await["messageId"].clone());
    }
    far.answer("event", &json!("nobody"), json!({"event": "progress"})).await;
    for id in ids.iter().rev() {
        far.answer("response", id, json!({"method": "ping"})).await;
    }
    for call in &mut calls {
        assert!(matches!(call.next().await, Told::Answer(_)));
    }
    assert_eq!(link.under_way(), 0);
}

#[tokio::test]
async fn the_end_of_the_pipe_ends_every_request_at_once() {
    let (link, far) = linked();
    let mut calls = [0, 1].map(|_| link.request(EngineRequest::Ping, None).unwrap());
    drop(far);
    let mut ends = Vec::new();
    for call in &mut calls {
        let error = crashed(call.next().await).error;
        assert_eq!(error.reason(), Some(Reason::EngineCrashed));
        ends.push(counted_as(RunId::new(), &error));
    }
    assert_eq!(ends[0], ends[1], "breakers count it once");
    link.ended().await;
    assert!(link.request(EngineRequest::Ping, None).is_err());
}

#[tokio::test]
async fn what_is_no_frame_ends_the_link_as_a_broken_protocol() {
    for noise in [&[0xff; 16][..], &[0, 0, 0, 2, 0xc1, 0xc1][..]] {
        let (link, mut far) = linked();
        let mut call = link.request(EngineRequest::Ping, None).unwrap();
        far.answers.write_all(noise).await.unwrap();
        assert_eq!(crashed(call.next().await).error.reason(), Some(Reason::EngineProtocol));
    }
}

#[tokio::test]
async fn a_frame_cut_short_is_a_crash() {
    let (link, mut far) = linked();
    let mut call = link.request(EngineRequest::Ping, None).unwrap();
    far.answers.write_all(&[0, 0, 1, 0, 0x80]).await.unwrap();
    drop(far);
    let failed = crashed(call.next().await);
    assert_eq!(failed.error.reason(), Some(Reason::EngineCrashed));
    assert!(failed.error.message.contains("within a frame"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_engine_is_pinged_and_then_given_up() {
    let (link, mut far) = linked();
    let mut call =
        link.request(EngineRequest::Hello { accept: "*".into(), worker: "w".into() }, None).unwrap();
    assert_eq!(far.request().await["payload"]["method"], "hello");
    let began = tokio::time::Instant::now();
    let ping = far.request().await;
    assert_eq!(ping["payload"]["method"], "ping");
    far.answer("response", &ping["messageId"], json!({"method": "ping"})).await;
    let failed = crashed(call.next().await);
    assert!(failed.error.message.contains("hangs"), "{}", failed.error);
    let took = began.elapsed();
    assert!((Duration::from_millis(2000)..Duration::from_millis(3000)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn with_nothing_to_do_or_while_loading_it_may_be_silent_for_longer() {
    let (idle, _far) = linked();
    let (loading, _silent) = linked();
    let _longer = loading.loading();
    let _call = loading.request(EngineRequest::Ping, None).unwrap();
    let began = tokio::time::Instant::now();
    idle.ended().await;
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&began.elapsed()));
    loading.ended().await;
    assert!((Duration::from_secs(120)..Duration::from_secs(121)).contains(&began.elapsed()));
}

#[tokio::test]
async fn a_forgotten_request_is_cancelled() {
    let (link, mut far) = linked();
    drop(link.request(EngineRequest::Ping, None).unwrap());
    let asked = far.request().await;
    let cancel = far.request().await;
    assert_eq!(cancel["payload"]["method"], "cancel");
    assert_eq!(cancel["payload"]["messageId"], asked["messageId"]);
    assert!(MessageId::new(asked["messageId"].as_str().unwrap()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_lasts_as_long_as_there_is_progress() {
    let (link, mut far) = linked();
    let silence = Duration::from_secs(5);
    let _loading = link.loading();
    let calling = link.call::<Value>(EngineRequest::Ping, silence);
    let playing = async {
        let id = far.request().await["messageId"].clone();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            far.answer("event", &id, json!({"event": "progress", "stage": "load"})).await;
        }
        far.answer("response", &id, json!({"method": "load", "done": true})).await;
    };
    let (answer, ()) = tokio::join!(calling, playing);
    assert_eq!(answer.unwrap()["done"], true);
    let late = link.call::<Value>(EngineRequest::Ping, silence).await.unwrap_err();
    assert_eq!(late.error.reason(), Some(Reason::AttemptTimeout));
}
