//! `chorus stdio` as a parent sees it: the suite of the old service on both, and what newer versions add.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use chorus_tests::{Home, checkable, fleet, wav};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

const PATIENCE: Duration = Duration::from_secs(60);

/// What `chorus setup` brings.
const DEMO_VOICE: &str = "en_US-joe-medium";

/// `chorus stdio` with an embedded fleet, and our ends of its streams.
struct Gateway {
    home: Home,
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Gateway {
    fn start(args: &[&str]) -> Self {
        let home = Home::provisioned();
        let mut command = fleet::command(&home, &["stdio"]);
        let mut child = command.args(args).stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { home, child, to, from }
    }

    fn embedded() -> Self {
        Self::start(&["--engine", "checkable"])
    }

    async fn say(&mut self, message: Value) {
        self.to.as_mut().unwrap().write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.from.read_line(&mut line)).await.unwrap().unwrap();
        assert!(read > 0, "it ended where an answer was due");
        serde_json::from_str(&line).unwrap()
    }

    async fn frame(&mut self, message: Value) {
        let body = rmp_serde::to_vec_named(&message).unwrap();
        let to = self.to.as_mut().unwrap();
        to.write_u32(body.len() as u32).await.unwrap();
        to.write_all(&body).await.unwrap();
    }

    async fn hear_frame(&mut self) -> Vec<u8> {
        let len = tokio::time::timeout(PATIENCE, self.from.read_u32()).await.unwrap().unwrap();
        let mut body = vec![0; len as usize];
        self.from.read_exact(&mut body).await.unwrap();
        body
    }

    async fn ended(mut self) -> (i32, Home) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        (status.code().unwrap_or(-1), self.home)
    }
}

fn ask(id: &str, payload: Value) -> Value {
    json!({"version": "2.0.0", "messageId": id, "timestamp": 1, "type": "request", "payload": payload})
}

fn correlation(message: &Value) -> &str {
    message["metadata"]["correlationId"].as_str().unwrap_or_default()
}

/// Runs the suite of the old service on a command.
async fn old_suite(home: &Home, command: &Value, options: &[&str]) -> String {
    let python = fleet::python(home);
    #[allow(clippy::disallowed_methods, reason = "the tests stand where a user's shell stands")]
    let mut pytest = tokio::process::Command::new(&python);
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("legacy");
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(suite).args(options);
    pytest.env("TTS_COMMAND", command.to_string()).env("CHORUS_HOME", home.path());
    pytest.env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE * 4, pytest.output()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}:\n{told}");
    told
}

fn old_service() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("examples/legacy/tts_service.py")
}

/// The same file, first on the old service and then on chorus.
#[tokio::test]
async fn the_old_services_suite_passes_on_both() {
    let home = Home::provisioned();
    let old = json!([fleet::python(&home), old_service()]);
    let chorus = json!([fleet::binary(), "stdio", "--engine", "checkable"]);
    for command in [old, chorus] {
        let told = old_suite(&home, &command, &[]).await;
        assert!(told.contains("17 passed"), "{told}");
    }
    fleet::nothing_is_left(&home).await;
}

/// Starts a script as its user would, on a machine that has no `espeak-ng`, which Coqui runs for every piece of a text: the
/// engine's own package has it as a library.
fn with_espeak() -> String {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("worker/engine");
    let engine = json!(engine);
    format!(
        "import runpy, sys; sys.path.insert(0, {engine}); from chorus_engine import phonemes; phonemes.install(); \
         del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
}

/// The same around real Coqui and the demo voice. The two tests that need a start of their own are left to the run above.
#[tokio::test]
async fn the_old_services_suite_passes_on_both_with_a_real_voice() {
    let home = Home::provisioned();
    let voice = home.path().join("voices").join(DEMO_VOICE);
    let old = json!([fleet::python(&home), "-c", with_espeak(), old_service(), "--model", voice]);
    let chorus = json!([fleet::binary(), "stdio"]);
    for command in [old, chorus] {
        let told = old_suite(&home, &command, &["-k", "not end_of_the_input and not sigterm"]).await;
        assert!(told.contains("15 passed, 2 deselected"), "{told}");
    }
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn a_hundred_requests_at_once_are_answered_by_their_ids() {
    let mut gateway = Gateway::embedded();
    for number in 0..100 {
        gateway.say(ask(&format!("r{number}"), json!({"text": format!("Number {number}.")}))).await;
    }
    let mut open: HashSet<String> = (0..100).map(|number| format!("r{number}")).collect();
    while !open.is_empty() {
        let answer = gateway.hear().await;
        let id = correlation(&answer).to_owned();
        assert!(open.remove(&id), "{answer}");
        assert_eq!(
            (&answer["payload"]["success"], &answer["payload"]["requestId"]),
            (&json!(true), &json!(id))
        );
        let audio = answer["payload"]["audio"]["data"].as_str().unwrap();
        let audio = wav::parse(&base64::prelude::BASE64_STANDARD.decode(audio).unwrap());
        checkable::assert_spoken(&audio.samples, &[&format!("Number {}.", &id[1..])]);
    }
    gateway.say(ask("s", json!({"method": "shutdown"}))).await;
    assert_eq!(correlation(&gateway.hear().await), "s");
    let (code, home) = gateway.ended().await;
    assert_eq!(code, 0);
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn bare_lines_in_flight_are_answered_in_order() {
    let mut gateway = Gateway::embedded();
    let path = |gateway: &Gateway, number: usize| gateway.home.file(&format!("{number}.wav"));
    for number in 0..100 {
        let line = json!({"text": format!("Number {number}."), "outputPath": path(&gateway, number)});
        gateway.say(line).await;
    }
    for number in 0..100 {
        let answer = gateway.hear().await;
        assert_eq!(
            (&answer["type"], &answer["outputPath"]),
            (&json!("response"), &json!(path(&gateway, number)))
        );
        let audio = wav::parse(&std::fs::read(path(&gateway, number)).unwrap());
        checkable::assert_spoken(&audio.samples, &[&format!("Number {number}.")]);
    }
    gateway.to = None;
    assert_eq!(gateway.ended().await.0, 0);
}

#[tokio::test]
async fn frames_carry_streams_and_a_window_holds_them_back() {
    let mut gateway = Gateway::embedded();
    gateway.say(ask("h", json!({"method": "hello", "accept": ">=2.0.0 <3.0.0"}))).await;
    assert_eq!(gateway.hear().await["payload"]["version"], "2.1.0");
    let text = "First sentence here. Second sentence here. Third sentence here.";
    let asked = json!({"method": "synthesizeStream", "text": text, "window": 1});
    gateway.frame(ask("s", asked)).await;
    gateway.frame(ask("p", json!({"method": "ping"}))).await;
    let (mut audio, mut sequence, mut pinged) = (Vec::new(), 0, false);
    let result: chorus_protocol::SynthesisResult = loop {
        let frame = gateway.hear_frame().await;
        let head: chorus_protocol::Envelope<Value> = match rmp_serde::from_slice(&frame) {
            Ok(head) => head,
            Err(_bytes_are_no_json) => {
                let event: chorus_protocol::Envelope<chorus_protocol::AudioChunk> =
                    rmp_serde::from_slice(&frame).unwrap();
                assert_eq!(
                    (event.correlation_id().unwrap().as_str(), event.payload.sequence),
                    ("s", sequence)
                );
                sequence += 1;
                audio.extend_from_slice(&event.payload.data.0);
                let grant = json!({"event": "grant", "messageId": "s", "chunks": 1});
                let grant = json!({"version": "2.1.0", "messageId": "g", "timestamp": 1, "type": "event", "payload": grant});
                gateway.frame(grant).await;
                continue;
            }
        };
        if head.correlation_id().unwrap().as_str() == "p" {
            pinged = true;
            continue;
        }
        break serde_json::from_value(head.payload).unwrap();
    };
    assert!(result.success && pinged && sequence >= 4, "{result:?} {sequence}");
    let samples: Vec<i16> =
        audio.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    checkable::assert_spoken(
        &samples,
        &["First sentence here.", "Second sentence here.", "Third sentence here."],
    );
    gateway.to = None;
    let (code, home) = gateway.ended().await;
    assert_eq!(code, 0);
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn a_text_comes_in_pieces_and_is_spoken_as_it_comes() {
    let mut gateway = Gateway::embedded();
    let of = |method: &str| json!({"method": method, "messageId": "s"});
    let piece = |text: &str| json!({"method": "text", "messageId": "s", "text": text});
    let asked = json!({"method": "synthesizeStream", "text": "The first sent", "textComes": true});
    let mut audio = Vec::new();
    gateway.say(ask("s", asked)).await;
    gateway.say(ask("1", piece("ence is here. And here the sec"))).await;
    // Taken, and spoken as far as it is a sentence, before any more has come.
    let mut taken = false;
    while !taken || audio.is_empty() {
        let heard = gateway.hear().await;
        match heard["payload"]["data"].as_str() {
            Some(data) => audio.extend(base64::prelude::BASE64_STANDARD.decode(data).unwrap()),
            None => {
                assert_eq!((correlation(&heard), &heard["payload"]), ("1", &json!({})));
                taken = true;
            }
        }
    }
    let first_samples = audio.len() / 2;
    assert_eq!(first_samples, 800 * "The first sentence is here.".len());
    // A flush has spoken what looks unfinished.
    gateway.say(ask("2", piece("ond one"))).await;
    gateway.say(ask("3", of("flush"))).await;
    let (mut answered, mut heard_second) = (Vec::new(), false);
    while answered.len() < 2 || !heard_second {
        let heard = gateway.hear().await;
        match heard["payload"]["data"].as_str() {
            Some(data) => {
                audio.extend(base64::prelude::BASE64_STANDARD.decode(data).unwrap());
                heard_second = true;
            }
            None => answered.push(correlation(&heard).to_owned()),
        }
    }
    assert_eq!(answered, ["2", "3"], "in their order");
    gateway.say(ask("4", piece(" The last"))).await;
    gateway.say(ask("5", of("end"))).await;
    gateway.say(ask("6", piece("Too late."))).await;
    let (mut result, mut late) = (Value::Null, Value::Null);
    while result.is_null() || late.is_null() {
        let heard = gateway.hear().await;
        match (correlation(&heard), heard["payload"]["data"].as_str()) {
            (_, Some(data)) => audio.extend(base64::prelude::BASE64_STANDARD.decode(data).unwrap()),
            ("s", None) => result = heard["payload"].clone(),
            ("6", None) => late = heard,
            _ => {}
        }
    }
    assert_eq!(result["success"], true, "{result}");
    assert_eq!((&late["type"], &late["payload"]["details"]["field"]), (&json!("error"), &json!("messageId")));
    let samples: Vec<i16> =
        audio.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    checkable::assert_spoken(
        &samples,
        &["The first sentence is here.", "And here the second one", "The last"],
    );

    // The end of the input is the end of a text that is still open.
    let asked = json!({"method": "synthesizeStream", "text": "And nobody ends this", "textComes": true});
    gateway.say(ask("open", asked)).await;
    gateway.to = None;
    let ended = loop {
        let heard = gateway.hear().await;
        if heard["payload"]["data"].is_null() {
            break heard;
        }
    };
    assert_eq!((correlation(&ended), &ended["payload"]["success"]), ("open", &json!(true)), "{ended}");
    let (code, home) = gateway.ended().await;
    assert_eq!(code, 0);
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn a_fleet_of_its_own_has_as_many_workers_as_asked() {
    let mut gateway = Gateway::start(&["--engine", "null", "--workers", "2"]);
    gateway.say(ask("t", json!({"text": "hello"}))).await;
    assert_eq!(gateway.hear().await["payload"]["success"], true);
    gateway.say(ask("s", json!({"method": "status"}))).await;
    let status = gateway.hear().await;
    assert_eq!(status["payload"]["workers"].as_array().map(Vec::len), Some(2), "{status}");
    gateway.to = None;
    let (code, home) = gateway.ended().await;
    assert_eq!(code, 0);
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn a_remote_fleet_serves_and_is_managed_through_it() {
    let fleet = fleet::Fleet::up(&["--engine", "checkable", "--workers", "1"]).await;
    let mut gateway = Gateway::start(&["--nats", &fleet.url]);
    gateway.say(ask("e", json!({"method": "subscribe"}))).await;
    assert_eq!(correlation(&gateway.hear().await), "e");
    assert_eq!(gateway.hear().await["payload"]["kind"], "fleetReady");
    gateway.say(ask("s", json!({"method": "status"}))).await;
    assert_eq!(gateway.hear().await["payload"]["state"], "ready");
    gateway.say(ask("m", json!({"method": "metrics"}))).await;
    assert!(gateway.hear().await["payload"]["successes"].is_u64());
    gateway.say(ask("l", json!({"method": "listModels"}))).await;
    assert_eq!(gateway.hear().await["payload"]["models"][0]["name"], "checkable");
    gateway.say(ask("o", json!({"method": "loadModel", "model": "checkable"}))).await;
    assert_eq!(gateway.hear().await["payload"]["name"], "checkable");
    gateway.say(ask("u", json!({"method": "unloadModel", "model": "nonesuch"}))).await;
    let refused = gateway.hear().await;
    assert_eq!((&refused["type"], &refused["payload"]["code"]), (&json!("error"), &json!("MODEL_NOT_FOUND")));
    gateway.say(ask("t", json!({"text": "hello"}))).await;
    assert_eq!(gateway.hear().await["payload"]["success"], true);
    gateway.to = None;
    assert_eq!(gateway.ended().await.0, 0);
    let (exit, home) = fleet.interrupt().await;
    assert_eq!(exit, 130);
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn signals_and_a_dead_parent_leave_nothing_behind() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut gateway = Gateway::embedded();
        gateway.say(ask("t", json!({"text": "hello"}))).await;
        assert_eq!(gateway.hear().await["payload"]["success"], true);
        fleet::signal(gateway.child.id().unwrap(), signal);
        let (code, home) = gateway.ended().await;
        assert_eq!(code, if signal == rustix::process::Signal::TERM { 143 } else { 130 });
        fleet::nothing_is_left(&home).await;
    }
    // A parent that is done with it closes both streams in mid-work.
    let mut gateway = Gateway::embedded();
    gateway.say(ask("t", json!({"text": "hello"}))).await;
    let Gateway { home, mut child, to, from } = gateway;
    drop((to, from));
    assert!(tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
    fleet::nothing_is_left(&home).await;
}

/// A parent that asks, hears one answer, tells it, asks for much more, and waits to be killed.
const PARENT: &str = r#"
import json, subprocess, sys, time
child = subprocess.Popen(json.loads(sys.argv[1]), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
ask = lambda text: (child.stdin.write(json.dumps({"text": text}).encode() + b"\n"), child.stdin.flush())
ask("hello")
print(child.stdout.readline().decode(), end="", flush=True)
for number in range(50):
    ask(f"[[slow ms=200]]Number {number}.")
time.sleep(600)
"#;

#[tokio::test]
async fn a_parent_that_is_killed_takes_it_along() {
    let home = Home::provisioned();
    let gateway = json!([fleet::binary(), "stdio", "--engine", "checkable"]);
    #[allow(clippy::disallowed_methods, reason = "the parent is a program of its own")]
    let mut parent = tokio::process::Command::new(fleet::python(&home));
    parent.args(["-c", PARENT]).arg(gateway.to_string()).env("CHORUS_HOME", home.path());
    let mut parent = parent.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut answers = BufReader::new(parent.stdout.take().unwrap()).lines();
    let answer = tokio::time::timeout(PATIENCE, answers.next_line()).await.unwrap().unwrap().unwrap();
    assert!(answer.contains("\"success\":true"), "{answer}");
    assert!(home.processes().len() >= 4, "the parent, chorus, a broker, an engine: {:?}", home.processes());
    parent.kill().await.unwrap();
    fleet::nothing_is_left(&home).await;
}
