//! Golden vectors: every message of the wire as bytes, in both encodings, committed and compared to the letter.
//!
//! `tests/golden/NAME.json` is the 2.0 form, `NAME.hex` the 2.1 form. A change here is a change of the wire: run with
//! `CHORUS_BLESS=1` to write the files anew, and read the difference as a peer of an older version would.

#![allow(clippy::unwrap_used, reason = "a test: what cannot be made here is a failure of it")]

use chorus_protocol::fleet::*;
use chorus_protocol::job::*;
use chorus_protocol::model::*;
use chorus_protocol::pipe::*;
use chorus_protocol::plan::*;
use chorus_protocol::request::*;
use chorus_protocol::service::*;
use chorus_protocol::*;
use serde_json::json;

#[path = "golden/clip.rs"]
mod clip;

#[path = "golden/durable.rs"]
mod durable;

#[path = "golden/gateway.rs"]
mod gateway;

#[path = "golden/lines.rs"]
mod lines;

#[path = "golden/pipe.rs"]
mod pipe;

#[path = "golden/takes.rs"]
mod takes;

#[path = "golden/schemas.rs"]
mod schemas;
#[path = "golden/ssml.rs"]
mod ssml;

#[path = "golden/vectors.rs"]
mod vectors;
use vectors::{NOW_MS, golden};

fn session() -> SessionId {
    SessionId::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0007)
}

fn run() -> RunRef {
    RunRef { session: session(), segment: 2, attempt: 1, run: RunId::from_u128(9) }
}

fn worker() -> WorkerId {
    WorkerId::new("w-host-1").unwrap()
}

fn model() -> ModelName {
    ModelName::new("tts_models/en/ljspeech/vits").unwrap()
}

fn speech() -> Speech {
    Speech {
        model: model(),
        voice: Some("p225".into()),
        speaker_clip: None,
        language: Some("en".into()),
        speed: Some(1.25),
        pitch: None,
        volume: None,
        seed: Some(42),
        priority: Priority::High,
        fresh: true,
        input_type: None,
    }
}

fn error() -> ServiceError {
    ServiceError::new(Reason::QueueFull, "the queue is full").retry_after_ms(250)
}

fn warning() -> Warning {
    Warning { reason: "unspeakable".into(), message: "left out: 🎉".into(), segment: Some(2) }
}

fn request() -> SynthesisRequest {
    SynthesisRequest {
        text: "Grüße, 世界.".into(),
        input_type: None,
        voice: Some("p225".into()),
        speaker_clip: None,
        model: Some("tts_models/en/ljspeech/vits".into()),
        language: Some("en".into()),
        speed: Some(1.25),
        pitch: Some(-2.0),
        output_format: Some(AudioFormat::Ogg),
        sample_rate: None,
        output_path: Some("out.ogg".into()),
        priority: Some(Priority::High),
        metadata: json!({"caller": {"line": 3}}).as_object().cloned(),
        deadline_ms: Some(5_000),
        seed: Some(42),
        fresh: true,
    }
}

fn result() -> SynthesisResult {
    SynthesisResult {
        success: true,
        request_id: MessageId::new("req-1").unwrap(),
        output_path: None,
        duration: Some(1.5),
        latency_ms: 120.25,
        error: None,
        metadata: Some(ResultMetadata {
            model_used: model().to_string(),
            worker_used: worker().to_string(),
            cache_hit: false,
            cached_segments: 1,
            segments: 3,
            retries: 1,
            first_audio_ms: Some(80.5),
            engine_ms: 79.0,
            warnings: vec![warning()],
        }),
        audio: Some(audio::AudioRef {
            format: AudioFormat::Wav,
            sample_rate: 22_050,
            data: Some(AudioData::from(vec![0, 1, 2, 255])),
            bucket: None,
            key: None,
        }),
    }
}

fn page() -> PlanPage {
    let segment = |index, disposition| PlannedSegment {
        index,
        text: "Grüße.".into(),
        pause_after_ms: 250,
        manner: None,
        class: JobClass::Urgent,
        end_bytes: 4 * (index as usize + 1),
        disposition,
    };
    let stored = Disposition::Stored {
        bucket: "tts-cache".into(),
        key: "k".into(),
        samples: 10,
        crc32: 7,
        sample_rate: 22_050,
        warnings: vec![warning()],
    };
    PlanPage {
        segments: vec![
            segment(0, Disposition::Queued { attempt: 1, seq: 88 }),
            segment(1, stored),
            segment(2, Disposition::Awaited { key: "k".into(), wait_ms: 150 }),
            segment(3, Disposition::Refused { error: error() }),
        ],
        consumed_bytes: 12,
        complete: false,
        warnings: vec![warning()],
    }
}

fn tuning() -> Tuning {
    Tuning { runtime: "onnx".into(), threads: 2, lanes: 2, lane_threads: 1, max_batch: 1 }
}

#[test]
fn what_clients_and_managers_say() {
    golden("synthesis_request", request());
    golden("synthesis_result", result());
    golden("service_error", error());
    let id = MessageId::new("req-1").unwrap();
    golden(
        "audio_chunk",
        AudioChunk {
            request_id: id.clone(),
            sequence: 1,
            data: AudioData::from(vec![1, 2]),
            format: AudioFormat::Pcm,
            sample_rate: 22_050,
            last: true,
        },
    );
    let inbox = "_INBOX.abc.1".to_owned();
    golden(
        "open",
        Open {
            session: session(),
            inbox: inbox.clone(),
            request_id: id.clone(),
            request: request(),
            text_complete: true,
            window: 8,
            first_segment: 3,
            takes: true,
            planned_bytes: 0,
        },
    );
    golden(
        "opened",
        Opened {
            manager: ManagerId::new("m-1").unwrap(),
            speech: speech(),
            deadline_ms: 30_000,
            attempt_timeout_ms: 10_000,
            finish: false,
            text: Some("as a hook left it".into()),
            ready_workers: 2,
            page: page(),
        },
    );
    let retry = Retry {
        segment: 1,
        text: "again".into(),
        manner: None,
        attempt: 2,
        class: JobClass::Urgent,
        failures: 1,
        tried: vec![worker()],
        supersedes: Some(88),
    };
    golden(
        "advance",
        Advance {
            session: session(),
            inbox,
            request_id: id,
            speech: speech(),
            next_segment: 3,
            text: "rest".into(),
            planned_bytes: 0,
            text_complete: true,
            window: 2,
            urgent: false,
            retries: vec![retry],
            lookups: vec![Lookup { segment: 2, attempt: 1, seq: 89 }],
            takes: true,
        },
    );
    golden(
        "advanced",
        Advanced {
            page: page(),
            ready_workers: 2,
            retries: vec![RetryAnswer {
                segment: 1,
                disposition: Disposition::Queued { attempt: 2, seq: 90 },
            }],
            lookups: vec![LookupAnswer { segment: 2, attempt: 1, present: true }],
        },
    );
    golden("cancel", Cancel { session: session(), seqs: vec![88, 89], workers: vec![worker()] });
    golden("finish", Finish { session: session(), result: result() });
    golden("finished", Finished { result: result() });
}

#[test]
fn what_workers_and_sessions_say() {
    let job = Job {
        session: session(),
        segment: 2,
        attempt: 1,
        text: "Grüße.".into(),
        speech: speech(),
        class: JobClass::High,
        keep: true,
    };
    golden("job", job);
    golden(
        "started",
        Started {
            run: run(),
            worker: worker(),
            incarnation: Incarnation::from_u128(4),
            deliveries: 1,
            overlapped: true,
        },
    );
    golden("started_go", StartedAnswer::Go);
    golden("started_stop", StartedAnswer::Stop { reason: StopReason::Superseded });
    golden("run_chunk", RunChunk { run: run(), seq: 0, data: AudioData::from(vec![1, 0, 2, 0]) });
    golden("chunk_grant", ChunkGrant { chunks: 16 });
    let spoken = Spoken {
        data: AudioData::from(vec![3, 0]),
        chunks: 2,
        samples: 3,
        sample_rate: 22_050,
        crc32: 0xdead_beef,
        engine_ms: 79.5,
        warnings: vec![warning()],
    };
    golden("result_spoken", RunResult { run: run(), worker: worker(), outcome: RunOutcome::Spoken(spoken) });
    let failed =
        Failed { error: ServiceError::new(Reason::EngineCrashed, "gone"), stderr: vec!["Segfault".into()] };
    golden("result_failed", RunResult { run: run(), worker: worker(), outcome: RunOutcome::Failed(failed) });
    golden("result_accepted", ResultAnswer::Accepted);
    golden("result_stale", ResultAnswer::STALE);
    golden("result_corrupt", ResultAnswer::Stale { fault: Some(RunFault::Corrupt) });
    golden("result_incomplete", ResultAnswer::Stale { fault: Some(RunFault::Incomplete) });
    golden("result_silent", ResultAnswer::Stale { fault: Some(RunFault::Silent) });
    golden("result_resend", ResultAnswer::Resend { from: 1 });
    golden(
        "outcome",
        Outcome {
            run: run(),
            worker: worker(),
            model: model(),
            class: JobClass::High,
            outcome: OutcomeKind::WorkerFault,
            engine_ms: 1.5,
            run_ms: 2.5,
            text_chars: 6,
            samples: 0,
            sample_rate: 0,
            error: Some(ServiceError::new(Reason::EngineCrashed, "gone")),
        },
    );
}

fn definition() -> ModelDefinition {
    ModelDefinition {
        name: model(),
        engine: "coqui".into(),
        source: ModelSource::Path { path: "/models/ljspeech".into(), config_path: None },
        aliases: vec!["alloy".into()],
        default: true,
        voices: vec!["p225".into()],
        languages: vec!["en".into()],
        max_text_chars: Some(250),
        sha256: None,
        options: json!({"computeMs": 20}).as_object().cloned().unwrap(),
    }
}

fn worker_heartbeat() -> WorkerHeartbeat {
    WorkerHeartbeat {
        worker: worker(),
        incarnation: Incarnation::from_u128(4),
        sequence: 3,
        pid: 100,
        engine_pid: Some(101),
        host: "host".into(),
        version: "0.1.0".into(),
        engine: "coqui".into(),
        device: Device { kind: "cpu".into(), name: "cpu".into(), threads: 2, memory_bytes: None },
        models: vec![LoadedModel {
            name: model(),
            state: ModelState::Ready,
            sample_rate: Some(22_050),
            load_ms: Some(3_900.0),
            tuning: None,
            error: None,
            identity: Some("5feceb66".into()),
        }],
        credits: Credits { total: 2, free: 1 },
        in_flight: 1,
        jobs_done: 7,
        jobs_failed: 1,
        engine_restarts: 0,
        rss_bytes: 1 << 30,
        cpu_percent: 150.5,
        gpu_memory_bytes: None,
        latency: LatencyFigures { p50_ms: 90.0, p95_ms: 120.0, p99_ms: 130.0, real_time_factor: 0.1 },
        uptime_ms: 60_000,
        draining: false,
    }
}

fn manager_heartbeat() -> ManagerHeartbeat {
    ManagerHeartbeat {
        manager: ManagerId::new("m-1").unwrap(),
        incarnation: Incarnation::from_u128(5),
        sequence: 3,
        pid: 99,
        host: "host".into(),
        version: "0.1.0".into(),
        sessions: 2,
        uptime_ms: 60_000,
    }
}

#[test]
fn what_the_fleet_says_of_itself() {
    golden("heartbeat_worker", Heartbeat::Worker(Box::new(worker_heartbeat())));
    golden("heartbeat_manager", Heartbeat::Manager(manager_heartbeat()));
    golden("ping", Ping { incarnation: Incarnation::from_u128(4) });
    let progress = RunProgress { run: RunId::from_u128(9), job: run().job(), frames: 3, idle_ms: 12 };
    golden("pong", Pong { incarnation: Incarnation::from_u128(4), runs: vec![progress] });
    golden("order_stop", WorkerOrder::Stop { session: session() });
    golden("order_drain", WorkerOrder::Drain);
    golden("order_load", WorkerOrder::Load { model: Box::new(definition()) });
    golden("order_unload", WorkerOrder::Unload { model: model() });
    golden("order_taken", OrderTaken { incarnation: Incarnation::from_u128(4) });
    golden(
        "fleet_event",
        FleetEvent {
            kind: "workerLost".into(),
            worker_id: Some(worker()),
            incarnation: Some(Incarnation::from_u128(4)),
            message: "no heartbeat for 5000 ms".into(),
            details: json!({"ageMs": 5000}).as_object().cloned().unwrap(),
        },
    );
    golden("ask", Ask {});
    let status = ModelStatus {
        name: model(),
        default: true,
        aliases: vec!["alloy".into()],
        ready_workers: 1,
        queued: 0,
    };
    golden("model_status", status.clone());
    golden("model_list", ModelList { models: vec![definition()] });
    golden("load_model", LoadModel { model: definition() });
    golden("placement", Placement { model: model(), since_ms: NOW_MS });
    golden("unload_model", UnloadModel { model: model(), remove: true });
    golden(
        "service_metrics",
        ServiceMetrics { successes: 5, queue_depth: 2, p50_ms: 90.5, ..Default::default() },
    );
    golden(
        "service_status",
        ServiceStatus {
            state: ServiceState::Ready,
            nats: Some(BrokerStatus {
                url: "nats://127.0.0.1:4222".into(),
                version: "2.15.1".into(),
                max_payload: 1 << 20,
            }),
            managers: vec![ManagerStatus {
                id: "m-1".into(),
                last_heartbeat_ms: 10,
                heartbeat: manager_heartbeat(),
            }],
            workers: vec![WorkerStatus {
                id: "w-host-1".into(),
                last_heartbeat_ms: 20,
                heartbeat: worker_heartbeat(),
                breaker: None,
            }],
            models: vec![status],
        },
    );
    golden("service_status_starting", ServiceStatus::starting());
    golden(
        "worker_status_breaker",
        WorkerStatus {
            id: "w-host-1".into(),
            last_heartbeat_ms: 20,
            heartbeat: worker_heartbeat(),
            breaker: Some(BreakerStatus {
                state: breaker::BreakerState::Open,
                since_ms: NOW_MS,
                failure_rate: 0.5,
                runs: 10,
                retry_in_ms: Some(59_000),
            }),
        },
    );
}
