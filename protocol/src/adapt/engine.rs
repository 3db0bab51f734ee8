//! A worker that speaks to an old engine: a script that reads 1.0 or 2.0 lines on stdin and answers on stdout.
//!
//! Such an engine is the old single-process service, or written like it. It is asked to speak into a file, and answers when
//! the file is there. It may print anything else between its answers.

use serde_json::{Map, Value, json};

use super::{Fields, error_of, is_envelope};
use crate::codec::{self, Encoding};
use crate::envelope::Envelope;
use crate::error::{Reason, ServiceError};
use crate::ids::MessageId;
use crate::pipe::{Capabilities, EngineRequest, EngineSpeech, HelloAnswer};
use crate::version;

/// Which version an old engine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// Bare lines.
    V1,
    /// Envelopes.
    V2,
}

/// A question as a line for an engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Which version? Always an envelope; an engine of 1.0 answers it with an error of its own, or not at all.
    Hello {
        /// The worker that asks.
        worker: String,
    },
    /// Are you there?
    Ping,
    /// Speak into this file.
    Speak(Box<EngineSpeech>, String),
    /// Give this request up (2.0 only).
    Cancel(MessageId),
    /// Exit.
    Shutdown,
}

/// What an engine's line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// An answer; `to` is the request, where it says so (2.0).
    Answer {
        /// The request it answers.
        to: Option<MessageId>,
        /// In which version.
        version: Spoken,
        /// What it says, or the error.
        what: Result<Fields, Box<ServiceError>>,
    },
    /// An event, of which nothing is known but that the engine lives.
    Event,
    /// No answer: a library's print, most likely.
    Noise,
}

/// A question as a line, without its end.
///
/// # Errors
/// Only when a value cannot be JSON.
pub fn write(
    question: &Question,
    spoken: Spoken,
    id: &MessageId,
    now_ms: u64,
) -> Result<Vec<u8>, ServiceError> {
    let payload = payload(question);
    if spoken == Spoken::V1 && !matches!(question, Question::Hello { .. }) {
        let mut line = Map::new();
        line.insert("type".into(), "request".into());
        let is_speech = matches!(question, Question::Speak(..));
        line.extend(payload.into_iter().filter(|(name, _)| !is_speech || name != "method"));
        return Ok(Value::Object(line).to_string().into_bytes());
    }
    let mut envelope = Envelope::request(Value::Object(payload), now_ms).in_version(version::V2_0);
    envelope.message_id = id.clone();
    codec::encode(&envelope, Encoding::Json)
}

fn payload(question: &Question) -> Fields {
    let value = match question {
        Question::Hello { worker } => {
            json!(EngineRequest::Hello { accept: "=2.0.0".into(), worker: worker.clone() })
        }
        Question::Ping => json!({"method": "ping"}),
        Question::Cancel(id) => json!({"method": "cancel", "messageId": id}),
        Question::Shutdown => json!({"method": "shutdown"}),
        Question::Speak(speech, path) => {
            let mut fields = match serde_json::to_value(speech) {
                Ok(Value::Object(fields)) => fields,
                _ => Map::new(),
            };
            // The run is nothing to an engine that knows no streams.
            fields.remove("job");
            fields.insert("method".into(), "synthesize".into());
            fields.insert("outputPath".into(), path.clone().into());
            fields.insert("outputFormat".into(), "wav".into());
            Value::Object(fields)
        }
    };
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// A line of an engine. Total: what is no answer is noise.
pub fn read(line: &[u8], max_bytes: usize) -> Line {
    let Ok(fields) = super::fields(line, max_bytes) else { return Line::Noise };
    if is_envelope(&fields) {
        return read_envelope(fields);
    }
    let kind = fields.get("type").and_then(Value::as_str);
    match kind {
        Some("event") => Line::Event,
        Some("response" | "error") => answer(None, Spoken::V1, fields),
        _ if fields.contains_key("success") => answer(None, Spoken::V1, fields),
        _ => Line::Noise,
    }
}

fn read_envelope(mut fields: Fields) -> Line {
    let to = fields.get("metadata").and_then(|metadata| metadata.get("correlationId"));
    let to = to.and_then(Value::as_str).and_then(|id| MessageId::new(id).ok());
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut payload = match fields.remove("payload") {
        Some(Value::Object(payload)) => payload,
        _ => Map::new(),
    };
    match kind.as_str() {
        "response" => answer(to, Spoken::V2, payload),
        "error" => {
            payload.insert("type".into(), "error".into());
            answer(to, Spoken::V2, payload)
        }
        "event" => Line::Event,
        _ => Line::Noise,
    }
}

fn answer(to: Option<MessageId>, version: Spoken, fields: Fields) -> Line {
    let what = match error_of(&fields) {
        Some(error) => Err(Box::new(error)),
        None => Ok(fields),
    };
    Line::Answer { to, version, what }
}

/// What an old engine can do: what its hello says, else nothing beyond speaking one text after another.
pub fn capabilities(version: Spoken, hello: Option<&Fields>) -> Capabilities {
    let least = Capabilities { lanes: 1, max_batch: 1, ..Capabilities::default() };
    let said =
        hello.and_then(|fields| serde_json::from_value::<HelloAnswer>(Value::Object(fields.clone())).ok());
    match (version, said) {
        (Spoken::V2, Some(said)) => Capabilities {
            // Whole files are all that is understood of it.
            streaming: false,
            lanes: said.capabilities.lanes.clamp(1, 64),
            max_batch: 1,
            ..said.capabilities
        },
        _ => least,
    }
}

/// An error of an engine that gives no code of ours: the engine's own.
pub fn without_audio(fields: &Fields) -> ServiceError {
    let shown: String = Value::Object(fields.clone()).to_string().chars().take(200).collect();
    ServiceError::new(Reason::EngineProtocol, format!("the engine answered without audio: {shown}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 20;

    fn speech() -> EngineSpeech {
        EngineSpeech {
            model: "old".into(),
            text: "Grüße.".into(),
            voice: None,
            speaker_clip: None,
            language: None,
            speed: Some(1.5),
            pitch: None,
            seed: None,
            job: None,
        }
    }

    fn written(question: &Question, spoken: Spoken) -> Value {
        let id = MessageId::new("m-1").unwrap();
        serde_json::from_slice(&write(question, spoken, &id, 5).unwrap()).unwrap()
    }

    #[test]
    fn questions_in_both_versions() {
        let speak = Question::Speak(Box::new(speech()), "/tmp/a.wav".into());
        let line = written(&speak, Spoken::V1);
        assert_eq!((&line["type"], &line["text"]), (&json!("request"), &json!("Grüße.")));
        assert_eq!((&line["outputPath"], line.get("method")), (&json!("/tmp/a.wav"), None));
        let line = written(&speak, Spoken::V2);
        assert_eq!((&line["version"], &line["messageId"]), (&json!("2.0.0"), &json!("m-1")));
        assert_eq!(
            (&line["payload"]["method"], &line["payload"]["speed"]),
            (&json!("synthesize"), &json!(1.5))
        );
        assert_eq!(written(&Question::Ping, Spoken::V1), json!({"type": "request", "method": "ping"}));
        let hello = written(&Question::Hello { worker: "w".into() }, Spoken::V1);
        assert_eq!(hello["payload"]["method"], "hello");
    }

    #[test]
    fn answers_errors_events_and_noise_are_told_apart() {
        let of = |text: &str| read(text.as_bytes(), MAX);
        let spoken = of(r#"{"type":"response","success":true,"outputPath":"a","latencyMs":1}"#);
        assert!(matches!(spoken, Line::Answer { to: None, version: Spoken::V1, what: Ok(_) }));
        let failed = of(r#"{"type":"error","success":false,"error":"no"}"#);
        let Line::Answer { what: Err(error), .. } = failed else { panic!() };
        assert_eq!((error.message.as_str(), error.reason()), ("no", Some(Reason::EngineError)));
        let envelope = of(
            r#"{"version":"2.0.0","messageId":"x","timestamp":1,"type":"response","payload":{"success":false,
                "error":{"code":"INVALID_REQUEST","message":"bad","retryable":false}},"metadata":{"correlationId":"m"}}"#,
        );
        let Line::Answer { to: Some(to), version: Spoken::V2, what: Err(error) } = envelope else { panic!() };
        assert_eq!((to.as_str(), error.code), ("m", crate::ErrorCode::InvalidRequest));
        for noise in
            ["", " > Processing time: 0.3", "{'text': 1}", "{\"loss\":0.5}", "null", "{\"type\":\"log\"}"]
        {
            assert_eq!(of(noise), Line::Noise, "{noise}");
        }
    }

    #[test]
    fn capabilities_are_believed_within_bounds() {
        assert_eq!(capabilities(Spoken::V1, None).lanes, 1);
        let hello = json!({"version": "2.0.0", "engine": {"name": "x", "version": "1"}, "pid": 1,
            "device": {"kind": "cpu"}, "capabilities": {"lanes": 4, "streaming": true, "speed": true, "cancel": true}});
        let told = capabilities(Spoken::V2, hello.as_object());
        assert_eq!((told.lanes, told.streaming, told.speed, told.cancel), (4, false, true, true));
        assert_eq!(capabilities(Spoken::V2, json!({}).as_object()).lanes, 1);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\{.{0,100}\\}") {
            let _line = read(&bytes, MAX);
            let _line = read(text.as_bytes(), MAX);
        }

        #[test]
        fn the_text_of_a_question_survives(text in ".{0,100}", v2: bool) {
            let spoken = if v2 { Spoken::V2 } else { Spoken::V1 };
            let question = Question::Speak(Box::new(EngineSpeech { text: text.clone(), ..speech() }), "p".into());
            let line = write(&question, spoken, &MessageId::fresh(), 1).unwrap();
            prop_assert!(!line.contains(&b'\n'));
            let value: Value = serde_json::from_slice(&line).unwrap();
            let at = if v2 { &value["payload"] } else { &value };
            prop_assert_eq!(&at["text"], &json!(text));
        }
    }
}
