//! Plain requests, with a worker of a few lines at the other end.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use chorus_bus::{Bucket, Bus, Delivery, PullEvent, PullRequest, PullWait, Versioned};
use chorus_protocol::audio::AudioData;
use chorus_protocol::durable::{Lease, PlainReply};
use chorus_protocol::job::{
    Job, ResultAnswer, RunOutcome, RunRef, RunResult, Spoken, Started, StartedAnswer,
};
use chorus_protocol::names::{self, SessionSubject};
use chorus_protocol::{Envelope, Incarnation, JobClass, ManagerId, RunId, SynthesisRequest, WorkerId};
use chorus_runtime::task::{self, FailureMeans};
use futures::FutureExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::*;

/// A worker that says so many samples of silence for every job. Ends when the guard is dropped.
async fn worker(bus: Bus, samples: usize) -> DropGuard {
    let cancel = CancellationToken::new();
    let mut puller = bus.puller().await.unwrap();
    let working = async move {
        for id in 0.. {
            let wait = PullWait::For(PATIENCE);
            let pull = PullRequest { id, model: &joe(), class: JobClass::High, batch: 1, wait };
            puller.pull(pull).await.unwrap();
            match puller.next().await {
                Some(PullEvent::Job { delivery, .. }) => speak(&bus, delivery, samples).await,
                ended => panic!("{ended:?}"),
            }
        }
    };
    drop(task::spawn("worker", cancel.clone(), FailureMeans::Log, working));
    cancel.drop_guard()
}

async fn speak(bus: &Bus, delivery: Delivery, samples: usize) {
    let job: Job = delivery.job().unwrap().payload;
    let inbox = delivery.inbox.clone().unwrap();
    let run = RunRef { session: job.session, segment: job.segment, attempt: job.attempt, run: RunId::new() };
    let worker = WorkerId::new("w1").unwrap();
    let started = Started {
        run: run.clone(),
        worker: worker.clone(),
        incarnation: Incarnation::from_u128(1),
        deliveries: 1,
        overlapped: true,
    };
    let subject = names::session_subject(&inbox, SessionSubject::Started);
    assert_eq!(ask::<_, StartedAnswer>(bus, &subject, started).await.unwrap(), StartedAnswer::Go);
    let pcm = vec![0u8; samples * 2];
    let crc32 = crc32fast::hash(&pcm);
    let spoken = Spoken {
        data: AudioData::from(pcm),
        chunks: 1,
        samples: samples as u64,
        sample_rate: 22_050,
        crc32,
        engine_ms: 1.0,
        warnings: Vec::new(),
    };
    let result = RunResult { run, worker, outcome: RunOutcome::Spoken(spoken) };
    let subject = names::session_subject(&inbox, SessionSubject::Result);
    assert_eq!(ask::<_, ResultAnswer>(bus, &subject, result).await.unwrap(), ResultAnswer::Accepted);
    delivery.ack().await.unwrap();
}

async fn synthesize(bus: &Bus, question: Value) -> Value {
    let reply = ask_raw(bus, names::SYNTHESIZE, question.to_string()).await;
    serde_json::from_slice(&reply).unwrap()
}

#[tokio::test]
async fn bare_json_in_and_a_wav_out() {
    let broker = Broker::start().await;
    let (manager, bus) = broker.with_joe().await;
    let _worker = worker(broker.bus().await, 2_205).await;
    let result = synthesize(&bus, json!({"text": "hello", "unknown": 1})).await;
    assert_eq!(result["success"], true, "{result}");
    assert_eq!(result["audio"]["format"], "wav");
    assert_eq!(result["audio"]["sampleRate"], 22_050);
    assert_eq!(result["metadata"]["modelUsed"], "joe");
    let wav = BASE64_STANDARD.decode(result["audio"]["data"].as_str().unwrap()).unwrap();
    assert_eq!((&wav[..4], &wav[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
    assert!(wav.len() >= 44 + 2 * 2_205, "{}", wav.len());

    let envelope = json!({"version": "2.0.0", "messageId": "my-id", "timestamp": 1, "type": "request",
                          "payload": {"text": "hello", "outputFormat": "pcm"}});
    let reply = synthesize(&bus, envelope).await;
    assert_eq!((&reply["version"], &reply["type"]), (&json!("2.0.0"), &json!("response")));
    assert_eq!(reply["metadata"]["correlationId"], "my-id");
    assert_eq!(reply["payload"]["requestId"], "my-id");
    assert_eq!(reply["payload"]["audio"]["format"], "pcm");
    soon("the manager stops", manager.stop()).await;
}

#[tokio::test]
async fn audio_too_large_for_a_reply_is_stored() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let _worker = worker(broker.bus().await, 450_000).await;
    let result = synthesize(&bus, json!({"text": "hello"})).await;
    assert_eq!(result["success"], true, "{result}");
    assert_eq!(result["audio"]["bucket"], names::AUDIO_BUCKET);
    assert!(result["audio"]["data"].is_null());
    let key = result["audio"]["key"].as_str().unwrap();
    let wav = bus.audio_store().get(key).await.unwrap();
    assert!(wav.starts_with(b"RIFF") && wav.len() > 900_000);
}

#[tokio::test]
async fn a_cancel_by_message_id_ends_a_plain_request() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let dressed = |id: &str, payload: Value| json!({"version": "2.0.0", "messageId": id, "timestamp": 1, "type": "request", "payload": payload});
    let question = dressed("my-id", json!({"text": "Nobody is there to speak it."}));
    let asking = synthesize(&bus, question);
    let giving_up = async {
        let depth = async || Some(bus.queue_depth(&joe()).await.unwrap().total());
        eventually("it is queued", async || depth().await.filter(|jobs| *jobs > 0)).await;
        for id in ["another-id", "my-id"] {
            let cancel = dressed("c", json!({ "messageId": id })).to_string();
            bus.respond_raw(names::CANCEL, cancel.into()).await.unwrap();
        }
        eventually("nothing is queued", async || depth().await.filter(|jobs| *jobs == 0)).await;
    };
    let (reply, ()) = soon("the end", async { tokio::join!(asking, giving_up) }).await;
    assert_eq!(reply["payload"]["error"]["details"]["reason"], "cancelled", "{reply}");
}

#[tokio::test]
async fn failures_are_results_too() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let error = async |question: Value| {
        let result = synthesize(&bus, question).await;
        assert_eq!(result["success"], false, "{result}");
        result["error"].clone()
    };
    let unknown = error(json!({"text": "a", "model": "nobody"})).await;
    assert_eq!(unknown["code"], "MODEL_NOT_FOUND");
    assert_eq!(error(json!({"text": ""})).await["details"]["field"], "text");
    assert_eq!(error(json!({"speed": 1})).await["code"], "INVALID_REQUEST");
    assert_eq!(
        error(json!({"text": "a", "outputPath": "/x"})).await["details"]["reason"],
        "unsupported_option"
    );
    let late = error(json!({"text": "a", "deadlineMs": 50})).await;
    assert_eq!(late["retryable"], true, "{late}");
    for garbage in [&b"hello"[..], b"", b"\xff", b"{\"text\":\"\xff\"}"] {
        let reply: Value = serde_json::from_slice(&ask_raw(&bus, names::SYNTHESIZE, garbage).await).unwrap();
        assert_eq!(reply["success"], false);
    }
    let unserved = Envelope::request(json!({"text": 5}), 1);
    let packed =
        chorus_protocol::codec::encode(&unserved, chorus_protocol::codec::Encoding::MessagePack).unwrap();
    let reply = ask_raw(&bus, names::SYNTHESIZE, packed).await;
    let reply: Envelope<chorus_protocol::SynthesisResult> =
        chorus_protocol::codec::decode(&reply, chorus_protocol::codec::MAX_MESSAGE_BYTES).unwrap();
    assert_eq!((reply.payload.success, &reply.payload.request_id), (false, &unserved.message_id));
}

#[tokio::test]
async fn a_manager_that_stops_answers_what_it_cannot_finish() {
    let broker = Broker::start().await;
    let config = chorus_manager::ManagerConfig {
        drain_timeout: std::time::Duration::from_millis(50),
        ..broker.config("m1")
    };
    let manager = start(config, Vec::new()).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let asked = synthesize(&bus, json!({"text": "nobody speaks this"}));
    let stopped = async {
        eventually("the job is queued", async || {
            (bus.queue_depth(&joe()).await.unwrap().total() == 1).then_some(())
        })
        .await;
        soon("the manager stops", manager.stop()).await;
    };
    let (result, ()) = tokio::join!(asked, stopped);
    assert_eq!(result["error"]["details"]["reason"], "no_manager", "{result}");
    assert_eq!(result["error"]["retryable"], true);
    assert_eq!(bus.queue_depth(&joe()).await.unwrap().total(), 0, "what it had queued is gone");
}

#[tokio::test]
async fn a_plain_request_over_the_bound_is_refused_at_once() {
    let broker = Broker::start().await;
    let config = chorus_manager::ManagerConfig { max_plain_requests: 1, ..broker.config("m1") };
    let _manager = start(config, Vec::new()).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let first = synthesize(&bus, json!({"text": "nobody speaks this", "deadlineMs": 2_000}));
    let second = async {
        eventually("the first is under way", async || {
            (bus.queue_depth(&joe()).await.unwrap().total() == 1).then_some(())
        })
        .await;
        let envelope = json!({"version": "2.0.0", "messageId": "second", "timestamp": 1, "type": "request",
                              "payload": {"text": "hello"}});
        synthesize(&bus, envelope).await["payload"].clone()
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first["success"], false);
    assert_eq!(second["requestId"], "second");
    assert_eq!(second["error"]["details"]["reason"], "queue_full", "{second}");
    assert!(second["error"]["details"]["retryAfterMs"].is_u64());
}

#[tokio::test]
async fn a_reply_that_would_hold_too_much_audio_is_refused() {
    let broker = Broker::start().await;
    let config = chorus_manager::ManagerConfig { max_reply_pcm_bytes: 1_000, ..broker.config("m1") };
    let _manager = start(config, Vec::new()).await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let _worker = worker(broker.bus().await, 2_205).await;
    let result = synthesize(&bus, json!({"text": "hello"})).await;
    assert_eq!(result["error"]["details"]["reason"], "too_large", "{result}");
}

fn named(id: &str, text: &str) -> Value {
    json!({"version": "2.0.0", "messageId": id, "timestamp": 1, "type": "request",
           "payload": {"text": text, "outputFormat": "pcm"}})
}

#[tokio::test]
async fn the_same_message_id_is_one_synthesis_and_one_answer() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let other = broker.manager("m2").await;
    let _worker = worker(broker.bus().await, 2_205).await;
    eventually("both know the model", async || {
        let asks = (0..8).map(|_| synthesize(&bus, json!({"text": "hello"})));
        futures::future::join_all(asks).await.iter().all(|result| result["success"] == true).then_some(())
    })
    .await;
    let mut spoken = bus.subscribe("_INBOX.*.*.result", None).await.unwrap();
    bus.flush().await.unwrap();
    // At once, whichever manager each comes to, and once more when all is over.
    let asks = (0..8).map(|_| synthesize(&bus, named("once", "hello")));
    let mut answers = futures::future::join_all(asks).await;
    answers.push(synthesize(&bus, named("once", "hello")).await);
    bus.flush().await.unwrap();
    assert!(spoken.next().now_or_never().is_some(), "one synthesis");
    assert!(spoken.next().now_or_never().is_none(), "and not two");
    let payload = &answers[0]["payload"];
    assert_eq!(payload["success"], true, "{payload}");
    assert!(payload["audio"]["data"].is_string());
    for answer in &answers {
        assert_eq!(answer["payload"], *payload);
        assert_eq!(answer["metadata"]["correlationId"], "once");
    }
    let reused = &synthesize(&bus, named("once", "something else")).await["payload"]["error"];
    assert_eq!(
        (&reused["code"], &reused["details"]["reason"]),
        (&json!("INVALID_REQUEST"), &json!("id_reused"))
    );
    soon("the other stops", other.stop()).await;
}

#[tokio::test]
async fn what_failed_may_be_tried_again_under_its_id() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let mut question = named("again", "hello");
    question["payload"]["deadlineMs"] = json!(200);
    let late = synthesize(&bus, question.clone()).await;
    assert_eq!(late["payload"]["success"], false, "{late}");
    let _worker = worker(broker.bus().await, 2_205).await;
    let spoken = eventually("it is spoken", async || {
        let answer = synthesize(&bus, question.clone()).await;
        (answer["payload"]["success"] == true).then_some(answer)
    })
    .await;
    assert_eq!(spoken["payload"]["requestId"], "again");
}

#[tokio::test]
async fn the_claim_of_a_dead_manager_is_taken_over() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let question = named("orphan", "hello");
    let request: SynthesisRequest = serde_json::from_value(question["payload"].clone()).unwrap();
    let digest = Sha256::digest(serde_json::to_vec(&request).unwrap());
    let reply = PlainReply {
        digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        holder: Lease { manager: ManagerId::new("gone").unwrap(), incarnation: Incarnation::from_u128(1) },
        result: None,
        created_ms: 1,
    };
    bus.records(Bucket::REPLIES).create("default/orphan", &reply).await.unwrap();
    let _worker = worker(broker.bus().await, 2_205).await;
    let answer = synthesize(&bus, question).await;
    assert_eq!(answer["payload"]["success"], true, "{answer}");
    let kept = eventually("the answer is kept", async || {
        let found: Versioned<PlainReply> =
            bus.records(Bucket::REPLIES).get("default/orphan").await.unwrap()?;
        found.value.result
    })
    .await;
    assert!(kept.success && kept.audio.is_some());
}
