//! The ways in.

use chorus_protocol::adapt::client::{answer_to_v1, request_from_v1, request_to_v1};
use chorus_protocol::adapt::{self, client::Answer, engine};
use chorus_protocol::breaker::{BreakerRecord, DeadLetter};
use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::durable::{DurableJob, DurableText, JobAsk, JobStatus};
use chorus_protocol::fleet::{FleetEvent, Heartbeat, OrderTaken, Ping, Pong, WorkerOrder};
use chorus_protocol::gateway::{self, GatewayEvent, Heard, Method};
use chorus_protocol::job::{
    ChunkGrant, Job, Outcome, ResultAnswer, RunChunk, RunResult, Started, StartedAnswer,
};
use chorus_protocol::model::ModelDefinition;
use chorus_protocol::pipe::{EngineEvent, EngineRequest, HelloAnswer, LoadAnswer, SpokenAnswer};
use chorus_protocol::plan::{Advance, Advanced, Cancel, Finish, Finished, Open, Opened};
use chorus_protocol::service::{
    CacheStatus, LoadModel, ModelList, ServiceMetrics, ServiceStatus, UnloadModel,
};
use chorus_protocol::takes::TakeRecord;
use chorus_protocol::{AudioChunk, Envelope, ServiceError, SynthesisRequest, SynthesisResult, names};
use chorus_text::{SsmlConfig, parse_ssml};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The most that any way in reads here.
const MAX_BYTES: usize = 64 * 1024;

/// A way in.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, as `cargo fuzz run` takes it.
    pub name: &'static str,
    /// Takes bytes, and panics where something is wrong.
    pub run: fn(&[u8]),
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
    Target { name: "names", run: subjects },
    Target { name: "ssml", run: ssml },
];

/// The one of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// Reads bytes as each of these messages.
macro_rules! messages {
    ($bytes:expr, $($message:ty),+ $(,)?) => { $( message::<$message>($bytes); )+ };
}

/// What sessions and managers say to each other.
fn sessions(bytes: &[u8]) {
    messages!(
        bytes,
        Open,
        Opened,
        Advance,
        Advanced,
        Cancel,
        Finish,
        Finished,
        SynthesisRequest,
        SynthesisResult
    );
    messages!(bytes, AudioChunk, ServiceError, JobAsk, JobStatus, DurableJob, DurableText);
    if let Ok(request) = codec::decode_value::<SynthesisRequest>(bytes, MAX_BYTES) {
        // Whatever it says is judged, not trusted.
        if request.validate().is_ok() {
            assert!(!request.text.trim().is_empty());
        }
    }
}

/// What workers say and hear.
fn workers(bytes: &[u8]) {
    messages!(bytes, Job, Started, StartedAnswer, RunChunk, ChunkGrant, RunResult, ResultAnswer, Outcome);
    messages!(
        bytes,
        Heartbeat,
        Ping,
        Pong,
        WorkerOrder,
        OrderTaken,
        FleetEvent,
        BreakerRecord,
        DeadLetter,
        TakeRecord
    );
}

/// What people and programs ask of managers.
fn services(bytes: &[u8]) {
    messages!(
        bytes,
        ServiceStatus,
        ServiceMetrics,
        CacheStatus,
        ModelList,
        LoadModel,
        UnloadModel,
        ModelDefinition
    );
}

/// The pipe of an engine.
fn engine_pipe(bytes: &[u8]) {
    messages!(bytes, EngineRequest, EngineEvent, HelloAnswer, LoadAnswer, SpokenAnswer);
}

/// A parent's message, in 2.0 or 2.1.
fn gateway_message(bytes: &[u8]) {
    message::<GatewayEvent>(bytes);
    match gateway::read(bytes, MAX_BYTES) {
        Ok(Heard::Asked(asked)) => {
            let line = request_to_v1(&asked.request);
            if let Ok(line) = line {
                assert!(line.contains_key("type"));
            }
        }
        Ok(Heard::Granted(_) | Heard::Nothing) => {}
        Err(unreadable) => assert!(!unreadable.error.message.is_empty()),
    }
}

/// A parent that speaks 1.0: what is read is read alike after it was written.
fn client_v1(bytes: &[u8]) {
    match request_from_v1(bytes, MAX_BYTES) {
        Ok(request) => {
            let line = request_to_v1(&request).expect("what came as 1.0 can go as 1.0");
            let line = Value::Object(line).to_string();
            let again = request_from_v1(line.as_bytes(), usize::MAX).expect("what was written can be read");
            let again = request_to_v1(&again).expect("and written");
            assert_eq!(Value::Object(again).to_string(), line);
        }
        Err(error) => {
            let told = answer_to_v1(&Answer::Failed(error));
            assert_eq!(told.get("success"), Some(&Value::Bool(false)));
        }
    }
    if let Ok(envelope) = codec::decode::<SynthesisResult>(bytes, MAX_BYTES) {
        let success = envelope.payload.success;
        let told = answer_to_v1(&Answer::Spoken(Box::new(envelope.payload)));
        assert_eq!(told.get("success"), Some(&Value::Bool(success)));
    }
    if let Ok(fields) = adapt::fields(bytes, MAX_BYTES) {
        let told = answer_to_v1(&Answer::Told(Method::Status, fields));
        assert_eq!(told.get("success"), Some(&Value::Bool(true)));
    }
}

/// A line of an old engine.
fn engine_v1(bytes: &[u8]) {
    if let engine::Line::Answer { what: Err(error), .. } = engine::read(bytes, MAX_BYTES) {
        let _fields = adapt::error_fields(&error);
    }
}

/// Subjects and tokens, and the version ranges of plain requests.
fn subjects(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = names::decode_token(text) {
        assert_eq!(names::encode_token(&name), text, "one name has one token");
    }
    let _session = names::parse_session_subject(text);
    let _version = chorus_protocol::version::negotiate(text, &chorus_protocol::version::SUPPORTED);
}

/// A document.
fn ssml(bytes: &[u8]) {
    let Ok(document) = std::str::from_utf8(bytes) else { return };
    if let Ok(spans) = parse_ssml(document, &SsmlConfig::default()) {
        let said: usize = spans.iter().map(|span| span.text.len()).sum();
        assert!(said <= document.len(), "nothing is said that is not there");
    }
}

/// What is accepted is the same after it was written and read again, in either version.
fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(envelope) = codec::decode::<T>(bytes, MAX_BYTES) else { return };
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        // A payload may hold what JSON cannot carry; that is an error and no panic.
        let Ok(once) = codec::encode(&envelope, encoding) else { continue };
        let again: Envelope<T> = match codec::decode(&once, usize::MAX) {
            Ok(again) => again,
            Err(error) => panic!("what was written cannot be read: {error}"),
        };
        let twice = codec::encode(&again, encoding).expect("what was written once can be written again");
        assert_eq!(once, twice, "writing and reading changed it");
    }
}
