//! Questions that are none: every one gets an error that names what is wrong, in an encoding that the asker can read.

use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::service::{Ask, ModelList, ServiceStatus};
use chorus_protocol::{Envelope, MessageType, ServiceError, names};
use serde_json::{Value, json};

use crate::support::*;

const QUESTIONS: [&str; 8] = [
    names::OPEN,
    names::ADVANCE,
    names::FINISH,
    names::STATUS,
    names::METRICS,
    names::MODELS_LIST,
    names::MODELS_LOAD,
    names::MODELS_UNLOAD,
];

fn error_in(reply: &[u8]) -> Envelope<ServiceError> {
    let envelope: Envelope<ServiceError> = codec::decode(reply, codec::MAX_MESSAGE_BYTES).unwrap();
    assert_eq!(envelope.message_type, MessageType::Error);
    envelope
}

#[tokio::test]
async fn garbage_is_answered_with_an_error() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let deep = format!("{}1{}", "{\"a\":".repeat(60), "}".repeat(60));
    let good = codec::encode(&Envelope::request(opening("hello"), 1), Encoding::MessagePack).unwrap();
    let payloads: [Vec<u8>; 7] = [
        Vec::new(),
        b"hello".to_vec(),
        b"{\"version\":".to_vec(),
        vec![0xff, 0xfe, 0x00],
        deep.into_bytes(),
        good[..good.len() / 2].to_vec(),
        json!({"version": "9.0.0", "messageId": "m", "timestamp": 1, "type": "request", "payload": {}})
            .to_string()
            .into_bytes(),
    ];
    for subject in QUESTIONS {
        for payload in &payloads {
            let error = error_in(&ask_raw(&bus, subject, payload.clone()).await).payload;
            assert!(!error.retryable, "{subject}: {error}");
        }
    }
    // It still serves.
    assert!(open(&bus, &opening("hello")).await.is_ok());
}

#[tokio::test]
async fn a_wrong_field_is_named_and_the_answer_is_in_the_askers_encoding() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let good = serde_json::to_value(Envelope::request(opening("hello"), 1)).unwrap();
    let wrong = [
        ("session", json!("no uuid")),
        ("inbox", json!("tts.jobs.>")),
        ("inbox", json!(7)),
        ("window", json!(-1)),
        ("request.text", json!({"a": 1})),
        ("textComplete", json!("yes")),
        ("request.priority", json!("urgent")),
    ];
    for (field, value) in wrong {
        let mut question = good.clone();
        let pointer = format!("/payload/{}", field.replace('.', "/"));
        let last = pointer.rsplit_once('/').unwrap();
        question.pointer_mut(last.0).unwrap()[last.1] = value;
        for bytes in [serde_json::to_vec(&question).unwrap(), packed(&question)] {
            let encoding = codec::detect(&bytes).unwrap();
            let reply = ask_raw(&bus, names::OPEN, bytes).await;
            assert_eq!(codec::detect(&reply).unwrap(), encoding);
            let envelope = error_in(&reply);
            assert_eq!(envelope.correlation_id().unwrap().as_str(), question["messageId"]);
            assert_eq!(envelope.payload.details.unwrap()["field"], field);
        }
    }
}

#[tokio::test]
async fn json_clients_are_answered_in_json() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let question = Envelope::request(Ask {}, 1);
    let json = codec::encode(&question, Encoding::Json).unwrap();
    let reply: Value = serde_json::from_slice(&ask_raw(&bus, names::STATUS, json).await).unwrap();
    assert_eq!((&reply["version"], &reply["type"]), (&json!("2.0.0"), &json!("response")));
    assert_eq!(reply["payload"]["models"][0]["name"], "joe");

    let only_json = Envelope { accept: Some("=2.0.0".into()), ..question };
    let asked_packed = codec::encode(&only_json, Encoding::MessagePack).unwrap();
    let reply = ask_raw(&bus, names::MODELS_LIST, asked_packed).await;
    assert_eq!(codec::detect(&reply).unwrap(), Encoding::Json);
    let list: Envelope<ModelList> = codec::decode_reply(&reply, codec::MAX_MESSAGE_BYTES).unwrap();
    assert_eq!(list.payload.models.len(), 1);
    let _status: ServiceStatus = ask(&bus, names::STATUS, Ask {}).await.unwrap();
}

fn packed(value: &Value) -> Vec<u8> {
    // Through an envelope of any payload, whose fields are the same.
    let envelope: Envelope<Value> = serde_json::from_value(value.clone()).unwrap();
    codec::encode(&envelope, Encoding::MessagePack).unwrap()
}
