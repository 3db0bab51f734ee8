//! Engines of every version side by side, clients of every version in front of them.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use chorus_tests::{Fleet, chorus, fleet, nats, poll, wav};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const PATIENCE: Duration = Duration::from_secs(60);

/// A script of 2.0: the old service with an envelope around it, and a hello.
const SCRIPT_OF_2_0: &str = r#"
import json, sys, importlib.util
spec = importlib.util.spec_from_file_location("old", sys.argv[1]); old = importlib.util.module_from_spec(spec)
spec.loader.exec_module(old)
service = old.Service(old.tone, "tone")
def answer(r, payload, kind="response"):
    print(json.dumps({"version": "2.0.0", "messageId": "x", "timestamp": 1, "type": kind, "payload": payload,
        "metadata": {"correlationId": r["messageId"]}}), flush=True)
print("warming up", flush=True)
for line in sys.stdin:
    r = json.loads(line); p = r["payload"]
    if p.get("method") == "hello":
        answer(r, {"version": "2.0.0", "engine": {"name": "two", "version": "1"}, "pid": 1, "device": {"kind": "cpu"},
            "capabilities": {"lanes": 1}})
    else:
        answer(r, {"requestId": r["messageId"], **service.answer(json.dumps(p))})
"#;

/// One fleet: a worker with an engine of 2.1, one of 2.0, one of 1.0. Each client asks each model.
#[tokio::test]
async fn every_client_gets_right_answers_from_every_engine() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "1"]).await;
    let python = fleet::python(&fleet.home);
    let service =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/legacy/tts_service.py");
    let newer = fleet.home.file("two.py");
    std::fs::write(&newer, SCRIPT_OF_2_0).unwrap();
    let commands = [
        ("one", format!("'{}' '{}'", python.display(), service.display())),
        ("two", format!("'{}' '{}' '{}'", python.display(), newer.display(), service.display())),
    ];
    let mut workers = Vec::new();
    for (model, command) in &commands {
        let mut worker = fleet::command(&fleet.home, &["worker", "--nats", &fleet.url, "--id", model]);
        let log = std::fs::File::create(fleet.home.file(&format!("{model}.log"))).unwrap();
        worker.args(["--engine-command", command, "--model", model]).stdout(Stdio::null()).stderr(log);
        workers.push(worker.spawn().unwrap());
    }
    poll("three models that can speak", PATIENCE, || async {
        let status = fleet.status().await;
        let ready = status["models"].as_array()?.iter().filter(|model| model["readyWorkers"] != 0).count();
        (ready == 3).then_some(())
    })
    .await;
    // What a script prints between its answers is skipped, and logged.
    let log = std::fs::read_to_string(fleet.home.file("two.log")).unwrap();
    assert!(log.contains("printed: warming up"), "{log}");
    let client = async_nats::connect(&fleet.url).await.unwrap();
    for model in ["checkable", "two", "one"] {
        over_nats(&client, model).await;
    }
    through_stdio(&fleet).await;
    // The speed that an old engine does not know is made of its audio.
    let slow = plain(&client, json!({"text": "Ten chars.", "model": "one", "speed": 0.5})).await;
    let usual = plain(&client, json!({"text": "Ten chars.", "model": "one"})).await;
    let ratio = slow["duration"].as_f64().unwrap() / usual["duration"].as_f64().unwrap();
    assert!((1.8..2.2).contains(&ratio), "{ratio}");
    for mut worker in workers {
        fleet::signal(worker.id().unwrap(), rustix::process::Signal::TERM);
        tokio::time::timeout(PATIENCE, worker.wait()).await.unwrap().unwrap();
    }
    let (exit, home) = fleet.interrupt().await;
    assert_eq!(exit, 130);
    fleet::nothing_is_left(&home).await;
}

async fn plain(client: &async_nats::Client, request: Value) -> Value {
    let reply = nats::ask_json(client, "tts.synthesize", request.to_string()).await;
    assert_eq!(reply["success"], true, "{reply}");
    reply
}

fn right(model: &str, text: &str, wav: &[u8]) {
    let audio = wav::parse(wav);
    let seconds = audio.samples.len() as f64 / f64::from(audio.sample_rate);
    match model {
        "checkable" => chorus_tests::checkable::assert_spoken(&audio.samples, &[text]),
        // The old service's tone: 60 ms for each character.
        _ => assert!((seconds - 0.06 * text.chars().count() as f64).abs() < 0.2, "{model}: {seconds} s"),
    }
}

async fn over_nats(client: &async_nats::Client, model: &str) {
    let text = "Hello from a stock client.";
    let bare = plain(client, json!({"text": text, "model": model})).await;
    right(model, text, &nats::audio_of(client, &bare).await);
    let id = chorus_protocol::MessageId::fresh();
    let envelope = json!({"version": "2.0.0", "messageId": id, "timestamp": 1, "type": "request",
        "payload": {"text": text, "model": model}});
    let reply = nats::ask_json(client, "tts.synthesize", envelope.to_string()).await;
    assert_eq!((&reply["version"], &reply["payload"]["success"]), (&json!("2.0.0"), &json!(true)), "{reply}");
    right(model, text, &nats::audio_of(client, &reply["payload"]).await);
    let envelope = json!({"version": "2.1.0", "messageId": chorus_protocol::MessageId::fresh(), "timestamp": 1,
        "type": "request", "payload": {"text": text, "model": model}});
    let packed = nats::ask(client, "tts.synthesize", rmp_serde::to_vec_named(&envelope).unwrap()).await;
    let reply: chorus_protocol::Envelope<chorus_protocol::SynthesisResult> =
        rmp_serde::from_slice(&packed).unwrap();
    assert_eq!((reply.version, reply.payload.success), (chorus_protocol::version::V2_1, true));
    right(model, text, &reply.payload.audio.unwrap().data.unwrap().0);
}

async fn through_stdio(fleet: &Fleet) {
    let mut command = fleet::command(&fleet.home, &["stdio", "--nats", &fleet.url]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) =
        (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    for model in ["checkable", "two", "one"] {
        let path = fleet.home.file(&format!("{model}.wav"));
        let line = json!({"type": "request", "text": "A bare line.", "model": model, "outputPath": path});
        to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, from.next_line()).await.unwrap().unwrap().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["success"], true, "{answer}");
        right(model, "A bare line.", &std::fs::read(path).unwrap());
    }
    drop(to);
    assert!(tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
}

/// `chorus up` with a script of 1.0 as its engine, kept up like any other.
#[tokio::test]
async fn a_fleet_of_old_scripts_speaks() {
    let home = chorus_tests::Home::provisioned();
    let service =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/legacy/tts_service.py");
    let command = format!("'{}' '{}'", fleet::python(&home).display(), service.display());
    let fleet = Fleet::up_in(home, &["--engine-command", &command, "--model", "old", "--workers", "2"]).await;
    let path = fleet.home.file("a.wav");
    let said = chorus(&fleet.home, &["say", "Hello there.", "-o", path.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{}", said.stderr);
    right("old", "Hello there.", &std::fs::read(path).unwrap());
    let (exit, home) = fleet.interrupt().await;
    assert_eq!(exit, 130);
    fleet::nothing_is_left(&home).await;
}
