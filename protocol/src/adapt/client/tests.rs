//! Lines there and back, for all that they can carry.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audio::AudioFormat;
use crate::error::ErrorCode;
use crate::ids::MessageId;
use crate::request::{Priority, ResultMetadata, SynthesisRequest, Warning};

const MAX: usize = 1 << 20;

fn line(fields: &Fields) -> Vec<u8> {
    serde_json::to_vec(fields).unwrap()
}

fn read(text: &str) -> Result<GatewayRequest, ServiceError> {
    request_from_v1(text.as_bytes(), MAX)
}

#[test]
fn the_lines_of_the_specification() {
    let request = read(r#"{"type":"request","text":"hello","outputPath":"/tmp/a.wav","novel":1}"#).unwrap();
    let GatewayRequest::Synthesize(request) = request else { panic!() };
    assert_eq!((request.text.as_str(), request.output_path.as_deref()), ("hello", Some("/tmp/a.wav")));
    assert_eq!(read(r#"{"type":"request","method":"ping"}"#), Ok(GatewayRequest::Ping));
    assert_eq!(read(r#"{"method":"shutdown"}"#), Ok(GatewayRequest::Shutdown));
    for (wrong, reason) in [
        ("", Reason::Malformed),
        ("[1]", Reason::Malformed),
        ("{", Reason::Malformed),
        (r#"{"type":"response","text":"a"}"#, Reason::Malformed),
        (r#"{"text":5}"#, Reason::Malformed),
        (r#"{"method":"synthesizeStream","text":"a"}"#, Reason::UnknownMethod),
        (r#"{"method":7}"#, Reason::Malformed),
    ] {
        assert_eq!(read(wrong).unwrap_err().reason(), Some(reason), "{wrong}");
    }
    assert_eq!(read(r#"{"text":"a","speed":"fast"}"#).unwrap_err().details.unwrap()["field"], "speed");
}

#[test]
fn answers_have_the_shape_that_old_parents_read() {
    let mut result =
        SynthesisResult::failed(MessageId::new("r").unwrap(), 12.5, ServiceError::new(Reason::Stalled, "no"));
    let failed = answer_to_v1(&Answer::Spoken(Box::new(result.clone())));
    assert_eq!(
        (&failed["type"], &failed["success"], &failed["error"]),
        (&json!("error"), &json!(false), &json!("no"))
    );
    (result.success, result.error, result.output_path) = (true, None, Some("/tmp/a.wav".into()));
    let spoken = answer_to_v1(&Answer::Spoken(Box::new(result)));
    assert_eq!((&spoken["type"], &spoken["success"]), (&json!("response"), &json!(true)));
    assert_eq!((&spoken["outputPath"], &spoken["latencyMs"]), (&json!("/tmp/a.wav"), &json!(12.5)));
    assert!(!spoken.contains_key("error"));
    let told = answer_to_v1(&Answer::Told(Method::Ping, Map::new()));
    assert_eq!(Value::Object(told), json!({"type": "response", "success": true, "method": "ping"}));
}

#[test]
fn an_old_services_error_without_a_code_is_still_an_error() {
    let answer =
        answer_from_v1(Method::Synthesize, br#"{"type":"error","success":false,"error":"no voice"}"#, MAX);
    let Answer::Failed(error) = answer.unwrap() else { panic!() };
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::SynthesisFailed, "no voice"));
}

fn optional<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::of(strategy)
}

/// JSON text keeps a number to its last digit but one; a thousandth is finer than any figure here.
fn figure(least: i32, most: i32) -> impl Strategy<Value = f64> {
    (least * 1000..most * 1000).prop_map(|thousandths| f64::from(thousandths) / 1000.0)
}

#[allow(clippy::needless_update, reason = "fields that come later are absent here")]
fn speech() -> impl Strategy<Value = SynthesisRequest> {
    let words = || optional(".{0,20}");
    let first = (".{0,60}", words(), words(), words(), optional(figure(1, 4)), optional(figure(-12, 12)));
    let formats = proptest::sample::select(AudioFormat::ALL.to_vec());
    let priorities = proptest::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]);
    let own = optional(Just(json!({"k": [1, null, "v"]}).as_object().cloned().unwrap()));
    let second = (
        optional(formats),
        words(),
        optional(priorities),
        own,
        optional(any::<u64>()),
        optional(any::<u64>()),
    );
    (first, second).prop_map(|(first, second)| SynthesisRequest {
        text: first.0,
        voice: first.1,
        model: first.2,
        language: first.3,
        speed: first.4,
        pitch: first.5,
        output_format: second.0,
        output_path: second.1,
        priority: second.2,
        metadata: second.3,
        deadline_ms: second.4,
        seed: second.5,
        ..Default::default()
    })
}

fn service_error() -> impl Strategy<Value = ServiceError> {
    (proptest::sample::select(Reason::ALL.to_vec()), ".{0,40}", any::<u32>())
        .prop_map(|(reason, message, more)| ServiceError::new(reason, message).with("more", more))
}

fn result() -> impl Strategy<Value = SynthesisResult> {
    let metadata =
        ("[a-z]{1,8}", any::<bool>(), 0u32..9).prop_map(|(name, cache_hit, segments)| ResultMetadata {
            model_used: name.clone(),
            worker_used: name.clone(),
            cache_hit,
            segments,
            warnings: vec![Warning { reason: name.clone(), message: name, segment: Some(segments) }],
            ..Default::default()
        });
    let error = optional(service_error());
    (error, optional(".{0,30}"), optional(figure(0, 1000)), figure(0, 100_000), optional(metadata)).prop_map(
        |(error, output_path, duration, latency_ms, metadata)| SynthesisResult {
            success: error.is_none(),
            output_path,
            duration,
            error,
            metadata,
            ..SynthesisResult::failed(
                MessageId::new("r-1").unwrap(),
                latency_ms,
                ServiceError::new(Reason::Poison, ""),
            )
        },
    )
}

proptest! {
    #[test]
    fn a_request_comes_back_from_its_line(speech in speech()) {
        let request = GatewayRequest::Synthesize(Box::new(speech));
        let fields = request_to_v1(&request).unwrap();
        prop_assert!(!fields.contains_key("method"));
        prop_assert_eq!(request_from_v1(&line(&fields), MAX).unwrap(), request);
    }

    #[test]
    fn a_result_comes_back_from_its_line(result in result()) {
        let answer = Answer::Spoken(Box::new(result));
        prop_assert_eq!(answer_from_v1(Method::Synthesize, &line(&answer_to_v1(&answer)), MAX).unwrap(), answer);
    }

    #[test]
    fn an_error_comes_back_from_its_line(error in service_error()) {
        let answer = Answer::Failed(error);
        prop_assert_eq!(answer_from_v1(Method::Ping, &line(&answer_to_v1(&answer)), MAX).unwrap(), answer);
    }

    #[test]
    fn no_line_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\{.{0,100}\\}") {
        for bytes in [bytes, text.into_bytes()] {
            let _request = request_from_v1(&bytes, MAX);
            for method in METHODS {
                let _answer = answer_from_v1(method, &bytes, MAX);
            }
        }
    }

    #[test]
    fn unknown_fields_are_handed_on(names in proptest::collection::btree_map("x[a-z]{1,6}", any::<i32>(), 0..5)) {
        let payload: Fields = names.into_iter().map(|(name, value)| (name, value.into())).collect();
        let envelope = Envelope::event(Value::Object(payload.clone()), 1);
        let mut fields = envelope_to_v1(&envelope);
        prop_assert_eq!(fields.remove("type").unwrap(), "event");
        prop_assert_eq!(&fields, &payload);
        let answer = answer_from_v1(Method::Status, &line(&payload), MAX).unwrap();
        prop_assert_eq!(answer, Answer::Told(Method::Status, payload));
    }
}

#[test]
fn what_a_line_cannot_carry_is_refused_by_name() {
    for method in [GatewayRequest::Metrics, GatewayRequest::ClearCache, GatewayRequest::ListModels] {
        assert_eq!(request_to_v1(&method).unwrap_err().reason(), Some(Reason::UnsupportedOption));
    }
    for method in [GatewayRequest::Ping, GatewayRequest::Status, GatewayRequest::Shutdown] {
        assert_eq!(request_from_v1(&line(&request_to_v1(&method).unwrap()), MAX).unwrap(), method);
    }
}
