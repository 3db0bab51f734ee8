//! The host on a real nats-server: what it answers to workers that ask for sessions which are not there (any more).

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chorus_bus::{Bus, BusConfig};
use chorus_client::{BusPort, SessionHost, SessionHostConfig, SpeakAsk};
use chorus_protocol::job::{
    ChunkGrant, ResultAnswer, RunChunk, RunOutcome, RunRef, RunResult, Spoken, Started, StartedAnswer,
    StopReason,
};
use chorus_protocol::names::{self, SessionSubject};
use chorus_protocol::plan::Open;
use chorus_protocol::{
    AudioData, Envelope, Incarnation, MessageId, RunId, SessionId, SynthesisRequest, WorkerId,
};
use chorus_runtime::clock::SystemClock;
use chorus_runtime::process::{Child, GuardBinary, ProcessSpec};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// A nats-server with its store in this folder, killed when it is dropped.
fn broker(folder: &Path) -> Child {
    let program = std::env::var_os("CHORUS_NATS_SERVER").map_or("nats-server".into(), PathBuf::from);
    let mut spec = ProcessSpec::new("nats-server", program)
        .args(["-a", "127.0.0.1", "-p", "-1", "-js"])
        .args([Path::new("--ports_file_dir"), folder, Path::new("-sd"), &folder.join("store")])
        .allow_env(std::env::vars_os(), &["PATH", "HOME"]);
    spec.guard = GuardBinary::Unguarded;
    Child::spawn(&spec)
        .unwrap_or_else(|error| panic!("{error}: set CHORUS_NATS_SERVER to a nats-server of 2.11 or newer"))
}

/// Where it listens, once it says so.
async fn url(folder: &Path) -> String {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        let text = files
            .filter(|path| path.extension().is_some_and(|end| end == "ports"))
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .find(|text| text.contains("nats://"));
        if let Some(url) =
            text.as_deref().and_then(|text| text.split('"').find(|part| part.starts_with("nats://")))
        {
            return url.to_owned();
        }
        assert!(Instant::now() < give_up, "the broker names no port");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks as a worker does.
async fn ask<Q: serde::Serialize, A: serde::de::DeserializeOwned>(
    bus: &Bus,
    inbox: &str,
    subject: SessionSubject,
    question: Q,
) -> A {
    let subject = names::session_subject(inbox, subject);
    bus.request(&subject, &Envelope::request(question, 1), PATIENCE).await.unwrap()
}

#[tokio::test]
async fn a_run_of_a_session_that_is_not_known_is_stopped_at_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let _broker = broker(folder.path());
    let url = url(folder.path()).await;
    let connect = async || Bus::connect(BusConfig::new(&url)).await.unwrap();
    let (bus, workers) = (connect().await, connect().await);
    // No manager: the opening is only there to tell where the process listens.
    let mut openings = workers.subscribe(names::OPEN, None).await.unwrap();
    workers.flush().await.unwrap();
    let clock = SystemClock::shared();
    let port = Arc::new(BusPort::new(bus.clone(), clock.clone()));
    let config = SessionHostConfig::default();
    let host = SessionHost::start(bus, port, clock, config, CancellationToken::new()).await.unwrap();
    let request = SynthesisRequest { text: "hello".into(), ..SynthesisRequest::default() };
    let speaking = host.speak(SpeakAsk {
        request_id: MessageId::fresh(),
        request,
        traceparent: None,
        whole_reply_deadline: false,
    });
    let opening = tokio::time::timeout(PATIENCE, openings.next()).await.unwrap().unwrap();
    let open = opening.decode::<Open>().unwrap().payload;
    let process = open.inbox.strip_suffix(&open.session.to_string()).unwrap().trim_end_matches('.');
    let gone = SessionId::new();
    let inbox = names::session_inbox(process, gone);
    drop(speaking);

    let run = RunRef { session: gone, segment: 0, attempt: 1, run: RunId::new() };
    let worker = WorkerId::new("w").unwrap();
    let started = Started {
        run: run.clone(),
        worker: worker.clone(),
        incarnation: Incarnation::new(),
        deliveries: 1,
        overlapped: false,
    };
    let answer: StartedAnswer = ask(&workers, &inbox, SessionSubject::Started, started).await;
    assert_eq!(answer, StartedAnswer::Stop { reason: StopReason::Unknown });
    let chunk = RunChunk { run: run.clone(), seq: 0, data: AudioData::from(vec![0, 0]) };
    let answer: ChunkGrant = ask(&workers, &inbox, SessionSubject::Chunk, chunk).await;
    assert_eq!(answer.chunks, 0);
    let spoken = Spoken {
        data: AudioData::from(vec![0, 0]),
        chunks: 1,
        samples: 1,
        sample_rate: 16_000,
        crc32: 0,
        engine_ms: 1.0,
        warnings: Vec::new(),
    };
    let result = RunResult { run, worker, outcome: RunOutcome::Spoken(spoken) };
    let answer: ResultAnswer = ask(&workers, &inbox, SessionSubject::Result, result).await;
    assert_eq!(answer, ResultAnswer::STALE);
}
