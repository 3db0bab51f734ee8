//! What the versions cost: encoding and decoding of every message of the wire in 2.0 (JSON) and 2.1 (MessagePack), of 1.0's
//! lines, and of a chunk of 44 KB, which is a second of audio. `cargo bench -p chorus-protocol`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a program of criterion's macros, over committed vectors"
)]

use std::path::Path;
use std::time::Duration;

use chorus_protocol::adapt::client::{answer_from_v1, answer_to_v1, request_from_v1, request_to_v1};
use chorus_protocol::codec::{Encoding, decode, encode};
use chorus_protocol::durable::{DurableJob, DurableText, JobAsk, JobStatus, PlainReply};
use chorus_protocol::fleet::{FleetEvent, Heartbeat, OrderTaken, Ping, Pong, WorkerOrder};
use chorus_protocol::gateway::Method;
use chorus_protocol::job::{
    ChunkGrant, Job, Outcome, ResultAnswer, RunChunk, RunRef, RunResult, Started, StartedAnswer,
};
use chorus_protocol::pipe::{EngineEvent, EngineRequest, HelloAnswer, LoadAnswer, SpokenAnswer};
use chorus_protocol::plan::{Advance, Advanced, Cancel, Finish, Finished, Open, Opened};
use chorus_protocol::service::{
    CacheCleared, CacheStatus, LoadModel, ModelList, ServiceMetrics, ServiceStatus, UnloadModel,
};
use chorus_protocol::takes::TakeRecord;
use chorus_protocol::{
    AudioChunk, AudioData, Envelope, RunId, ServiceError, SessionId, SynthesisRequest, SynthesisResult,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSIONS: [(&str, Encoding); 2] = [("2.0", Encoding::Json), ("2.1", Encoding::MessagePack)];
const MAX_BYTES: usize = 1024 * 1024;
/// A second at 22,050 Hz.
const CHUNK_BYTES: usize = 44_100;

fn measure<T: Serialize + DeserializeOwned>(criterion: &mut Criterion, name: &str, envelope: &Envelope<T>) {
    let mut group = criterion.benchmark_group(name);
    group
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(20);
    for (version, encoding) in VERSIONS {
        let bytes = encode(envelope, encoding).unwrap();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("encode {version}"), |bench| {
            bench.iter(|| encode(envelope, encoding).unwrap())
        });
        group.bench_function(format!("decode {version}"), |bench| {
            bench.iter(|| decode::<T>(&bytes, MAX_BYTES).unwrap());
        });
    }
    group.finish();
}

fn golden<T: Serialize + DeserializeOwned>(criterion: &mut Criterion, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
    let envelope = decode::<T>(&std::fs::read(path).unwrap(), MAX_BYTES).unwrap();
    measure(criterion, name, &envelope);
}

macro_rules! golden {
    ($criterion:expr, $($name:literal: $message:ty),+ $(,)?) => { $( golden::<$message>($criterion, $name); )+ };
}

fn messages(criterion: &mut Criterion) {
    golden!(criterion,
        "synthesis_request": SynthesisRequest, "synthesis_result": SynthesisResult, "audio_chunk": AudioChunk,
        "open": Open, "opened": Opened, "advance": Advance, "advanced": Advanced, "cancel": Cancel,
        "finish": Finish, "finished": Finished, "job": Job, "started": Started, "run_chunk": RunChunk,
        "chunk_grant": ChunkGrant, "outcome": Outcome, "heartbeat_worker": Heartbeat, "heartbeat_manager": Heartbeat,
        "ping": Ping, "pong": Pong, "fleet_event": FleetEvent, "service_status": ServiceStatus,
        "service_metrics": ServiceMetrics, "cache_status": CacheStatus, "model_list": ModelList,
        "job_ask": JobAsk, "job_status": JobStatus, "durable_job": DurableJob, "durable_text": DurableText,
        "started_go": StartedAnswer, "result_spoken": RunResult, "result_accepted": ResultAnswer, "order_load": WorkerOrder,
        "order_taken": OrderTaken, "load_model": LoadModel, "unload_model": UnloadModel, "cache_cleared": CacheCleared,
        "plain_reply": PlainReply, "service_error": ServiceError, "take_stored": TakeRecord, "pipe_hello": EngineRequest,
        "pipe_synthesize": EngineRequest, "pipe_hello_answer": HelloAnswer, "pipe_load_answer": LoadAnswer,
        "pipe_spoken": SpokenAnswer, "pipe_chunk": EngineEvent,
    );
}

fn second_of_audio(criterion: &mut Criterion) {
    let data: Vec<u8> = (0..CHUNK_BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let session = SessionId::from_u128(7);
    let run = RunRef { session, segment: 2, attempt: 1, run: RunId::from_u128(9) };
    let chunk = RunChunk { run, seq: 3, data: AudioData::from(data) };
    measure(criterion, "chunk of 44 KB", &Envelope::event(chunk, 1_767_225_600_000));
}

/// 1.0 has four requests and their answers, of which `synthesize` is all that is asked often.
fn lines(criterion: &mut Criterion) {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lines").join(name);
        std::fs::read(path).unwrap()
    };
    let (asked, answered) = (read("request_synthesize_full.json"), read("answer_spoken.json"));
    let request = request_from_v1(&asked, MAX_BYTES).unwrap();
    let answer = answer_from_v1(Method::Synthesize, &answered, MAX_BYTES).unwrap();
    criterion.bench_function("synthesis_request/encode 1.0", |bench| {
        bench.iter(|| serde_json::to_vec(&request_to_v1(&request).unwrap()).unwrap());
    });
    criterion.bench_function("synthesis_request/decode 1.0", |bench| {
        bench.iter(|| request_from_v1(&asked, MAX_BYTES).unwrap());
    });
    criterion.bench_function("synthesis_result/encode 1.0", |bench| {
        bench.iter(|| serde_json::to_vec(&answer_to_v1(&answer)).unwrap());
    });
    criterion.bench_function("synthesis_result/decode 1.0", |bench| {
        bench.iter(|| answer_from_v1(Method::Synthesize, &answered, MAX_BYTES).unwrap());
    });
}

criterion_group!(benches, second_of_audio, lines, messages);
criterion_main!(benches);
