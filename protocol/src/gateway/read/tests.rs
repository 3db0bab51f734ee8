//! Every method in both encodings, and what a parent may send instead.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::codec::{Encoding, encode};
use crate::gateway::ModelArg;
use crate::version::{V2_0, V2_1};

const MAX: usize = 1 << 20;

fn requests() -> Vec<GatewayRequest> {
    let speech = || SynthesisRequest { text: "Grüße.".into(), speed: Some(1.5), ..Default::default() };
    vec![
        GatewayRequest::Hello(Hello { accept: Some("^2".into()), client: Some("test/1".into()) }),
        GatewayRequest::Synthesize(Box::new(speech())),
        GatewayRequest::SynthesizeStream(Box::new(StreamRequest {
            request: speech(),
            window: Some(4),
            text_comes: false,
        })),
        GatewayRequest::Text(TextPiece { message_id: MessageId::new("m").unwrap(), text: "Grüße".into() }),
        GatewayRequest::Flush(OfText { message_id: MessageId::new("m").unwrap() }),
        GatewayRequest::End(OfText { message_id: MessageId::new("m").unwrap() }),
        GatewayRequest::Cancel(CancelRequest { message_id: MessageId::new("m").unwrap() }),
        GatewayRequest::Status,
        GatewayRequest::Metrics,
        GatewayRequest::ListModels,
        GatewayRequest::LoadModel(Box::new(LoadModelRequest { model: ModelArg::Named("joe".into()) })),
        GatewayRequest::UnloadModel(UnloadModel { model: "joe".parse().unwrap(), remove: true }),
        GatewayRequest::ClearCache,
        GatewayRequest::Subscribe(Subscribe { events: Some(vec!["workerFailed".into()]) }),
        GatewayRequest::Unsubscribe,
        GatewayRequest::Ping,
        GatewayRequest::Shutdown,
    ]
}

#[test]
fn every_method_reads_back_in_both_encodings() {
    let all: Vec<Method> = requests().iter().map(GatewayRequest::method).collect();
    assert_eq!(all, Method::ALL, "each method once");
    for request in requests() {
        for (encoding, version) in [(Encoding::Json, V2_0), (Encoding::MessagePack, V2_1)] {
            let envelope = Envelope { accept: None, ..Envelope::request(request.clone(), 1) };
            let bytes = encode(&envelope.clone().in_version(version.clone()), encoding).unwrap();
            let asked =
                Asked { id: envelope.message_id, request: request.clone(), version, traceparent: None };
            assert_eq!(read(&bytes, MAX).unwrap(), Heard::Asked(Box::new(asked)));
            assert_eq!(codec::decode::<GatewayRequest>(&bytes, MAX).unwrap().payload, request);
        }
    }
}

fn envelope(payload: Value) -> Vec<u8> {
    let value = json!({"version": "2.4.0", "messageId": "m-1", "timestamp": 1, "type": "request", "payload": payload,
        "metadata": {"priority": "high", "novel": 1}, "novel": [1]});
    value.to_string().into_bytes()
}

fn asked(payload: Value) -> Asked {
    match read(&envelope(payload), MAX).unwrap() {
        Heard::Asked(asked) => *asked,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payload_without_a_method_is_plan_mds_request() {
    let GatewayRequest::Synthesize(request) = asked(json!({"text": "a", "novel": true})).request else {
        panic!()
    };
    assert_eq!((request.text.as_str(), request.priority), ("a", Some(crate::Priority::High)));
}

#[test]
fn what_is_wrong_is_said_by_field_and_to_whom() {
    let wrong = |payload: Value| read(&envelope(payload), MAX).unwrap_err();
    for method in ["synthesize", "synthesizeStream"] {
        let unreadable = wrong(json!({"method": method, "text": "a", "speed": "fast"}));
        assert_eq!(unreadable.id.unwrap().as_str(), "m-1");
        assert_eq!(unreadable.method.unwrap().as_str(), method);
        assert_eq!(unreadable.error.details.unwrap()["field"], "speed");
    }
    assert_eq!(wrong(json!({"method": "fly"})).error.reason(), Some(Reason::UnknownMethod));
    assert_eq!(wrong(json!({"method": "cancel"})).error.reason(), Some(Reason::Malformed));
    let newer =
        json!({"version": "3.0.0", "messageId": "m-2", "timestamp": 1, "type": "request", "payload": {}});
    let unreadable = read(newer.to_string().as_bytes(), MAX).unwrap_err();
    assert_eq!(unreadable.error.reason(), Some(Reason::Version));
    assert_eq!(unreadable.id.unwrap().as_str(), "m-2");
}

#[test]
fn grants_are_heard_and_foreign_messages_left() {
    let event = |payload: Value| {
        let value = json!({"version": "2.0.0", "messageId": "m", "timestamp": 1, "type": "event", "payload": payload});
        read(value.to_string().as_bytes(), MAX).unwrap()
    };
    let grant = Grant { message_id: MessageId::new("s").unwrap(), chunks: 3 };
    assert_eq!(event(json!({"event": "grant", "messageId": "s", "chunks": 3})), Heard::Granted(grant));
    assert_eq!(event(json!({"event": "novel"})), Heard::Nothing);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _read_or_refused = read(&bytes, MAX);
    }

    #[test]
    fn no_cut_or_flipped_message_makes_it_panic(which in 0usize..14, at in any::<prop::sample::Index>(), byte: u8) {
        let envelope = Envelope::request(requests()[which].clone(), 1);
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let mut bytes = encode(&envelope, encoding).unwrap();
            let at = at.index(bytes.len());
            let _cut = read(&bytes[..at], MAX);
            bytes[at] = byte;
            let _flipped = read(&bytes, MAX);
        }
    }
}
