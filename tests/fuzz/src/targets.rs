//! The ways in.

use chorus_protocol::adapt::client::{
    Answer, METHODS, answer_from_v1, answer_to_v1, envelope_to_v1, request_from_v1, request_to_v1,
};
use chorus_protocol::adapt::{self, engine};
use chorus_protocol::breaker::{BreakerRecord, DeadLetter};
use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::durable::{DurableJob, DurableText, JobAsk, JobStatus, PlainReply};
use chorus_protocol::fleet::{FleetEvent, Heartbeat, OrderTaken, Ping, Pong, WorkerOrder};
use chorus_protocol::gateway::{self, CancelAnswer, GatewayEvent, GatewayHello, GatewayRequest, Heard};
use chorus_protocol::job::{
    ChunkGrant, Job, Outcome, ResultAnswer, RunChunk, RunResult, Started, StartedAnswer,
};
use chorus_protocol::model::ModelDefinition;
use chorus_protocol::pipe::{
    EngineEvent, EngineRequest, HelloAnswer, LoadAnswer, SpokenAnswer, UnloadAnswer,
};
use chorus_protocol::plan::{Advance, Advanced, Cancel, Finish, Finished, Open, Opened, PlanPage};
use chorus_protocol::service::{
    Ask, CacheCleared, CacheStatus, LoadModel, ModelList, ModelStatus, ServiceMetrics, ServiceStatus,
    UnloadModel, WorkerStatus,
};
use chorus_protocol::takes::TakeRecord;
use chorus_protocol::{AudioChunk, Envelope, ServiceError, SynthesisRequest, SynthesisResult, names};
use chorus_text::{SsmlConfig, parse_ssml};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{configuration, frames};

/// The most that any way in reads here.
const MAX_BYTES: usize = 64 * 1024;

/// A way in.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, as `cargo fuzz run` takes it.
    pub name: &'static str,
    /// Takes bytes, and says how many messages they were; panics where something is wrong.
    pub run: fn(&[u8]) -> u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "sessions", run: sessions },
    Target { name: "workers", run: workers },
    Target { name: "services", run: services },
    Target { name: "engine_pipe", run: engine_pipe },
    Target { name: "gateway", run: gateway_message },
    Target { name: "client_v1", run: client_v1 },
    Target { name: "engine_v1", run: engine_v1 },
    Target { name: "frames", run: framed },
    Target { name: "names", run: subjects },
    Target { name: "ssml", run: ssml },
    Target { name: "config", run: configuration::config },
    Target { name: "migrate", run: configuration::migrated },
];

/// The one of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// Reads bytes as each of these messages, and counts those that they are.
macro_rules! messages {
    ($bytes:expr, $($message:ty),+ $(,)?) => { [$( message::<$message>($bytes) ),+].into_iter().sum::<u64>() };
}

/// What sessions and managers say to each other.
fn sessions(bytes: &[u8]) -> u64 {
    if let Ok(request) = codec::decode_value::<SynthesisRequest>(bytes, MAX_BYTES) {
        // Whatever it says is judged, not trusted.
        if request.validate().is_ok() {
            assert!(!request.text.trim().is_empty());
        }
    }
    if let Err(error) = codec::decode_reply::<Opened>(bytes, MAX_BYTES) {
        let _shown = error.to_string();
    }
    messages!(bytes, Open, Opened, Advance, Advanced, PlanPage, Cancel, Finish, Finished)
        + messages!(bytes, SynthesisRequest, SynthesisResult, AudioChunk, ServiceError)
        + messages!(bytes, JobAsk, JobStatus, DurableJob, DurableText, PlainReply)
}

/// What workers say and hear.
fn workers(bytes: &[u8]) -> u64 {
    messages!(bytes, Job, Started, StartedAnswer, RunChunk, ChunkGrant, RunResult, ResultAnswer, Outcome)
        + messages!(bytes, Heartbeat, Ping, Pong, WorkerOrder, OrderTaken, FleetEvent)
        + messages!(bytes, BreakerRecord, DeadLetter, TakeRecord)
}

/// What people and programs ask of managers.
fn services(bytes: &[u8]) -> u64 {
    messages!(bytes, Ask, ServiceStatus, WorkerStatus, ServiceMetrics, CacheStatus, CacheCleared)
        + messages!(bytes, ModelList, ModelStatus, LoadModel, UnloadModel, ModelDefinition)
}

/// The pipe of an engine.
fn engine_pipe(bytes: &[u8]) -> u64 {
    messages!(bytes, EngineRequest, EngineEvent, HelloAnswer, LoadAnswer, UnloadAnswer, SpokenAnswer)
}

/// A parent's message, in 2.0 or 2.1.
fn gateway_message(bytes: &[u8]) -> u64 {
    let said = messages!(bytes, GatewayRequest, GatewayEvent, GatewayHello, CancelAnswer);
    match gateway::read(bytes, MAX_BYTES) {
        Ok(Heard::Asked(asked)) => {
            if let Ok(line) = request_to_v1(&asked.request) {
                let line = Value::Object(line).to_string();
                let again = request_from_v1(line.as_bytes(), usize::MAX).expect("1.0 has words for it");
                assert_eq!(again.method(), asked.request.method());
            }
            said + 1
        }
        Ok(Heard::Granted(_) | Heard::Nothing) => said,
        Err(unreadable) => {
            assert!(!unreadable.error.message.is_empty());
            said
        }
    }
}

/// A parent that speaks 1.0: what is read is read alike after it was written.
fn client_v1(bytes: &[u8]) -> u64 {
    let mut read = 0;
    match request_from_v1(bytes, MAX_BYTES) {
        Ok(request) => {
            let line = request_to_v1(&request).expect("what came as 1.0 can go as 1.0");
            let line = Value::Object(line).to_string();
            let again = request_from_v1(line.as_bytes(), usize::MAX).expect("what was written can be read");
            let again = request_to_v1(&again).expect("and written");
            assert_eq!(Value::Object(again).to_string(), line);
            read += 1;
        }
        Err(error) => {
            let told = answer_to_v1(&Answer::Failed(error));
            assert_eq!(told.get("success"), Some(&Value::Bool(false)));
        }
    }
    for method in METHODS {
        if let Ok(answer) = answer_from_v1(method, bytes, MAX_BYTES) {
            let line = Value::Object(answer_to_v1(&answer));
            let again = answer_from_v1(method, line.to_string().as_bytes(), usize::MAX);
            let again = again.expect("it is an answer again");
            assert_eq!(Value::Object(answer_to_v1(&again)), line);
            read += 1;
        }
    }
    if let Ok(envelope) = codec::decode::<SynthesisResult>(bytes, MAX_BYTES) {
        let success = envelope.payload.success;
        let told = answer_to_v1(&Answer::Spoken(Box::new(envelope.payload)));
        assert_eq!(told.get("success"), Some(&Value::Bool(success)));
    }
    if let Ok(envelope) = codec::decode::<Value>(bytes, MAX_BYTES) {
        assert!(envelope_to_v1(&envelope).contains_key("type"));
    }
    read
}

/// A line of an old engine.
fn engine_v1(bytes: &[u8]) -> u64 {
    match engine::read(bytes, MAX_BYTES) {
        engine::Line::Answer { what: Err(error), .. } => {
            let told = adapt::error_fields(&error);
            assert!(adapt::error_of(&told).is_some(), "an error is one in 1.0 too");
            1
        }
        engine::Line::Answer { what: Ok(fields), version, .. } => {
            let told = engine::capabilities(version, Some(&fields));
            assert!((1..=64).contains(&told.lanes) && !told.streaming);
            1
        }
        engine::Line::Event | engine::Line::Noise => 0,
    }
}

/// The streams of pipes and stdio, and what their frames and lines say.
fn framed(bytes: &[u8]) -> u64 {
    let frames = frames::frames(bytes);
    let lines = frames::lines(bytes);
    let said = frames.iter().map(|frame| messages!(frame, EngineEvent, SpokenAnswer));
    let asked = frames.iter().chain(&lines).map(|heard| gateway::read(heard, MAX_BYTES).is_ok());
    said.sum::<u64>() + asked.filter(|&good| good).count() as u64
}

/// Subjects and tokens, and the version ranges of plain requests.
fn subjects(bytes: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    if let Ok(name) = names::decode_token(text) {
        assert_eq!(names::encode_token(&name), text, "one name has one token");
    }
    let _session = names::parse_session_subject(text);
    chorus_protocol::version::negotiate(text, &chorus_protocol::version::SUPPORTED).is_ok().into()
}

/// A document.
fn ssml(bytes: &[u8]) -> u64 {
    let Ok(document) = std::str::from_utf8(bytes) else { return 0 };
    let Ok(spans) = parse_ssml(document, &SsmlConfig::default()) else { return 0 };
    let said: usize = spans.iter().map(|span| span.text.len()).sum();
    assert!(said <= document.len(), "nothing is said that is not there");
    1
}

/// What is accepted is the same after it was written and read again, in either version, and by way of the other.
fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> u64 {
    let Ok(envelope) = codec::decode::<T>(bytes, MAX_BYTES) else { return 0 };
    let packed = written(&envelope, Encoding::MessagePack);
    let again = read_back::<T>(&packed);
    assert_eq!(written(&again, Encoding::MessagePack), packed, "2.1 changed it");
    let text = written(&again, Encoding::Json);
    let again = read_back::<T>(&text);
    assert_eq!(written(&again, Encoding::Json), text, "2.0 changed it");
    assert_eq!(written(&again, Encoding::MessagePack), packed, "2.0 lost some of it");
    1
}

fn written<T: Serialize>(envelope: &Envelope<T>, encoding: Encoding) -> Vec<u8> {
    codec::encode(envelope, encoding).expect("what was read can be written")
}

fn read_back<T: DeserializeOwned>(bytes: &[u8]) -> Envelope<T> {
    match codec::decode(bytes, usize::MAX) {
        Ok(envelope) => envelope,
        Err(error) => panic!("what was written cannot be read: {error}"),
    }
}
