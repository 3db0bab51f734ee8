//! 1.0's lines: what the adapters write, and read back as it was.

use chorus_protocol::adapt::Fields;
use chorus_protocol::adapt::client::*;
use chorus_protocol::adapt::engine::{self, Question, Spoken};
use chorus_protocol::gateway::{GatewayRequest, Method};

use schemars::JsonSchema;
use serde::Serialize;

use super::vectors::{compare, file};
use super::*;

/// A line of a parent of 1.0, for its schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a type to be described, not used")]
enum RequestLine {
    /// Speak: the fields of a SynthesisRequest.
    Synthesize {
        /// What kind of line it is.
        #[serde(default, rename = "type")]
        kind: RequestKind,
        /// `synthesize`, which need not be said.
        #[serde(default)]
        method: Speak,
        #[serde(flatten)]
        request: Box<SynthesisRequest>,
    },
    /// Anything else.
    Other {
        /// What kind of line it is.
        #[serde(default, rename = "type")]
        kind: RequestKind,
        /// What is asked.
        method: OtherMethod,
    },
}

#[derive(Default, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
enum RequestKind {
    #[default]
    Request,
}

#[derive(Default, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
enum Speak {
    #[default]
    Synthesize,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "a type to be described, not used")]
enum OtherMethod {
    Ping,
    Status,
    Shutdown,
}

/// A line that answers one of 1.0, for its schema. An answer to `synthesize` has a SynthesisResult's fields too, and one to
/// `status` a ServiceStatus's.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "a type to be described, not used")]
struct AnswerLine {
    /// What kind of line it is.
    #[serde(rename = "type")]
    kind: AnswerKind,
    /// Whether it was done.
    success: bool,
    /// Why not, for a person.
    error: Option<String>,
    /// The file that was written.
    output_path: Option<String>,
    /// Milliseconds from the request to the complete audio.
    latency_ms: Option<f64>,
    /// What was asked, where it was not `synthesize`.
    method: Option<OtherMethod>,
    /// Of an error, from chorus: which of six it is.
    code: Option<ErrorCode>,
    /// Of an error, from chorus: whether the same request may succeed later.
    retryable: Option<bool>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "a type to be described, not used")]
enum AnswerKind {
    Response,
    Error,
}

const MAX_BYTES: usize = 1 << 20;

fn line(name: &str, fields: &Fields) -> Vec<u8> {
    let text = serde_json::to_string(fields).unwrap() + "\n";
    compare(&file(&format!("lines/{name}"), "json"), &text);
    text.into_bytes()
}

#[test]
fn what_a_parent_of_1_0_asks() {
    let spoken = SynthesisRequest {
        text: "Hello.".into(),
        output_path: Some("/tmp/hello.wav".into()),
        ..SynthesisRequest::default()
    };
    for (name, request) in [
        ("request_synthesize", GatewayRequest::Synthesize(Box::new(spoken))),
        ("request_synthesize_full", GatewayRequest::Synthesize(Box::new(request()))),
        ("request_ping", GatewayRequest::Ping),
        ("request_status", GatewayRequest::Status),
        ("request_shutdown", GatewayRequest::Shutdown),
    ] {
        let written = line(name, &request_to_v1(&request).unwrap());
        assert_eq!(request_from_v1(&written, MAX_BYTES).unwrap(), request, "{name}");
        let value = serde_json::from_slice(&written).unwrap();
        schemas::check_reader::<RequestLine, _, _>(name, &value, |value| {
            request_from_v1(value.to_string().as_bytes(), MAX_BYTES)
        });
    }
}

#[test]
fn what_a_gateway_answers_in_1_0() {
    let failed = SynthesisResult::failed(MessageId::new("req-1").unwrap(), 3.5, error());
    let told = json!({"state": "ready"}).as_object().cloned().unwrap();
    for (name, method, answer) in [
        ("answer_spoken", Method::Synthesize, Answer::Spoken(Box::new(result()))),
        ("answer_unspoken", Method::Synthesize, Answer::Spoken(Box::new(failed))),
        ("answer_failed", Method::Ping, Answer::Failed(error())),
        ("answer_ping", Method::Ping, Answer::Told(Method::Ping, Fields::new())),
        ("answer_status", Method::Status, Answer::Told(Method::Status, told)),
    ] {
        let written = line(name, &answer_to_v1(&answer));
        assert_eq!(answer_from_v1(method, &written, MAX_BYTES).unwrap(), answer, "{name}");
        let value = serde_json::from_slice(&written).unwrap();
        schemas::current::<AnswerLine>().validate(&value).unwrap();
    }
}

#[test]
fn what_an_old_engine_is_asked() {
    let speech = EngineSpeech {
        model: model().to_string(),
        text: "Grüße.".into(),
        voice: Some("p225".into()),
        speaker_clip: None,
        language: None,
        speed: Some(1.25),
        pitch: None,
        seed: None,
        job: Some(run()),
    };
    let id = MessageId::new("req-1").unwrap();
    for (name, question) in [
        ("engine_hello", Question::Hello { worker: "w-host-1".into() }),
        ("engine_ping", Question::Ping),
        ("engine_synthesize", Question::Speak(Box::new(speech), "/tmp/chorus-take.wav".into())),
        ("engine_shutdown", Question::Shutdown),
    ] {
        for (version, spoken) in [("1_0", Spoken::V1), ("2_0", Spoken::V2)] {
            let written = engine::write(&question, spoken, &id, NOW_MS).unwrap();
            let text = String::from_utf8(written).unwrap() + "\n";
            compare(&file(&format!("lines/{name}_{version}"), "json"), &text);
        }
    }
}
