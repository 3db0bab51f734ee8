//! What a parent and its gateway say to each other.

use chorus_protocol::codec::{Encoding, encode};
use chorus_protocol::gateway::*;

use super::vectors::{golden_in, message};
use super::*;

/// Compares a request, and reads it as the gateway does.
fn asked(name: &str, request: GatewayRequest) {
    golden(name, request.clone());
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let bytes = encode(&message(Envelope::request(request.clone(), NOW_MS)), encoding).unwrap();
        match read(&bytes, MAX_REQUEST_BYTES).unwrap() {
            Heard::Asked(heard) => assert_eq!(heard.request, request, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn what_a_parent_asks() {
    let hello = Hello { accept: Some(version::ACCEPT.into()), client: Some("my-app".into()) };
    asked("gateway_hello", GatewayRequest::Hello(hello));
    asked("gateway_synthesize", GatewayRequest::Synthesize(Box::new(request())));
    asked(
        "gateway_synthesize_stream",
        GatewayRequest::SynthesizeStream(Box::new(StreamRequest {
            request: SynthesisRequest {
                text: "Hello. And more.".into(),
                output_format: Some(AudioFormat::Pcm),
                ..SynthesisRequest::default()
            },
            window: Some(8),
            text_comes: false,
        })),
    );
    asked(
        "gateway_synthesize_stream_coming",
        GatewayRequest::SynthesizeStream(Box::new(StreamRequest {
            request: SynthesisRequest { text: "Once upon ".into(), ..SynthesisRequest::default() },
            window: Some(8),
            text_comes: true,
        })),
    );
    let message_id = MessageId::new("3").unwrap();
    let piece = TextPiece { message_id: message_id.clone(), text: "a time there was".into() };
    asked("gateway_text", GatewayRequest::Text(piece));
    asked("gateway_flush", GatewayRequest::Flush(OfText { message_id: message_id.clone() }));
    asked("gateway_end", GatewayRequest::End(OfText { message_id: message_id.clone() }));
    asked("gateway_cancel", GatewayRequest::Cancel(CancelRequest { message_id }));
    asked("gateway_status", GatewayRequest::Status);
    asked("gateway_metrics", GatewayRequest::Metrics);
    asked("gateway_list_models", GatewayRequest::ListModels);
    let named = LoadModelRequest { model: ModelArg::Named(model().to_string()) };
    asked("gateway_load_model", GatewayRequest::LoadModel(Box::new(named)));
    let defined = LoadModelRequest { model: ModelArg::Defined(Box::new(definition())) };
    asked("gateway_load_model_defined", GatewayRequest::LoadModel(Box::new(defined)));
    asked("gateway_unload_model", GatewayRequest::UnloadModel(UnloadModel { model: model(), remove: true }));
    asked("gateway_clear_cache", GatewayRequest::ClearCache);
    let events = Some(vec!["workerFailed".into(), "workerStarted".into()]);
    asked("gateway_subscribe", GatewayRequest::Subscribe(Subscribe { events }));
    asked("gateway_unsubscribe", GatewayRequest::Unsubscribe);
    asked("gateway_ping", GatewayRequest::Ping);
    asked("gateway_shutdown", GatewayRequest::Shutdown);
}

#[test]
fn what_a_gateway_answers() {
    golden(
        "gateway_hello_answer",
        GatewayHello {
            version: version::V2_1,
            supported: version::SUPPORTED.to_vec(),
            server: ServerInfo { name: "chorus".into(), version: "0.1.0".into() },
            pid: 99,
            formats: AudioFormat::ALL.map(|format| format.name().to_owned()).to_vec(),
            methods: Method::ALL.iter().map(|method| method.as_str().to_owned()).collect(),
            limits: GatewayLimits::default(),
            deprecations: version::deprecations(),
        },
    );
    golden("gateway_cancel_answer", CancelAnswer { cancelled: true });
    golden("gateway_done", Done {});
}

#[test]
fn what_is_told_between_them() {
    let told = |name, event: GatewayEvent| golden_in(name, Envelope::event(event, NOW_MS));
    let chunk = AudioChunk {
        request_id: MessageId::new("3").unwrap(),
        sequence: 1,
        data: AudioData::from(vec![1, 2]),
        format: AudioFormat::Pcm,
        sample_rate: 22_050,
        last: true,
    };
    told("gateway_audio", GatewayEvent::Audio(chunk));
    told(
        "gateway_fleet",
        GatewayEvent::Fleet(FleetEvent {
            kind: "workerLost".into(),
            worker_id: Some(worker()),
            incarnation: Some(Incarnation::from_u128(4)),
            message: "no heartbeat for 5000 ms".into(),
            details: serde_json::Map::new(),
        }),
    );
    let grant = Grant { message_id: MessageId::new("3").unwrap(), chunks: 8 };
    told("gateway_grant", GatewayEvent::Grant(grant.clone()));
    let event = message(Envelope::event(GatewayEvent::Grant(grant.clone()), NOW_MS));
    let bytes = encode(&event, Encoding::MessagePack).unwrap();
    assert_eq!(read(&bytes, MAX_REQUEST_BYTES).unwrap(), Heard::Granted(grant));
}
