//! Conversations without a fleet: what is settled, answered and refused before anybody speaks.

use std::sync::Arc;

use chorus_protocol::{Reason, ServiceError};
use chorus_runtime::clock::SystemClock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::watch;

use super::*;
use crate::fleet::FleetState;

struct Far {
    to: DuplexStream,
    from: BufReader<DuplexStream>,
    state: watch::Sender<FleetState>,
    stop: CancellationToken,
    end: chorus_runtime::task::TaskHandle<End>,
}

fn start(range: &str) -> Far {
    let (to, input) = tokio::io::duplex(1 << 16);
    let (output, from) = tokio::io::duplex(1 << 16);
    let (state, watched) = watch::channel(FleetState::Starting);
    let resolver = Arc::new(|name: &str| Err(ServiceError::new(Reason::UnknownModel, name)));
    let access = Access::new(watched, SystemClock::shared(), resolver);
    let supported = chorus_protocol::version::SUPPORTED;
    let wanted = semver::VersionReq::parse(range).unwrap();
    let config = Config {
        supported: supported.into_iter().filter(|version| wanted.matches(version)).collect(),
        root: Root::new(&std::env::temp_dir()).unwrap(),
        version: "0.0.0".into(),
        finish_within: Duration::from_secs(1),
    };
    let stop = CancellationToken::new();
    let serving = serve(config, access, (input, output), stop.clone());
    let end = chorus_runtime::task::spawn(
        "gateway",
        CancellationToken::new(),
        chorus_runtime::task::FailureMeans::Log,
        serving,
    );
    Far { to, from: BufReader::new(from), state, stop, end }
}

impl Far {
    async fn say(&mut self, line: impl ToString) {
        self.to.write_all(format!("{}\n", line.to_string()).as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), self.from.read_line(&mut line)).await;
        assert!(read.unwrap().unwrap() > 0, "the gateway said nothing more");
        serde_json::from_str(&line).unwrap()
    }

    async fn frame(&mut self, value: Value) -> Value {
        let body = rmp_serde::to_vec_named(&value).unwrap();
        self.to.write_u32(body.len() as u32).await.unwrap();
        self.to.write_all(&body).await.unwrap();
        let len = self.from.read_u32().await.unwrap();
        let mut body = vec![0; len as usize];
        self.from.read_exact(&mut body).await.unwrap();
        rmp_serde::from_slice(&body).unwrap()
    }

    async fn end(self) -> End {
        drop(self.to);
        tokio::time::timeout(Duration::from_secs(5), self.end).await.unwrap().unwrap()
    }
}

fn ask(id: &str, payload: Value) -> Value {
    json!({"version": "2.0.0", "messageId": id, "timestamp": 1, "type": "request", "payload": payload})
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_lines_are_answered_in_order() {
    let mut far = start("*");
    far.say(r#"{"type":"request","method":"ping"}"#).await;
    far.say("no json").await;
    far.say(r#"{"method":"status"}"#).await;
    far.say(r#"{"text":""}"#).await;
    far.say(r#"{"method":"shutdown"}"#).await;
    assert_eq!(far.hear().await, json!({"type": "response", "success": true, "method": "ping"}));
    assert_eq!(far.hear().await["success"], false);
    let status = far.hear().await;
    assert_eq!((&status["status"], &status["protocol"]), (&json!("starting"), &json!("1.0.0")));
    let refused = far.hear().await;
    assert_eq!((&refused["type"], &refused["success"]), (&json!("error"), &json!(false)));
    assert!(refused["error"].as_str().unwrap().contains("text"));
    assert_eq!(far.hear().await["method"], "shutdown");
    assert_eq!(far.end().await, End::Shutdown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_settles_the_version() {
    for (range, version) in
        [("^1", "1.0.0"), ("=2.0.0", "2.0.0"), (">=2 <3", "2.1.0"), ("1.x || 2.x", "2.1.0")]
    {
        let mut far = start("*");
        far.say(ask("h", json!({"method": "hello", "accept": range, "client": "test"}))).await;
        let hello = far.hear().await;
        assert_eq!(
            (&hello["metadata"]["correlationId"], &hello["payload"]["version"]),
            (&json!("h"), &json!(version))
        );
        assert_eq!(hello["payload"]["deprecations"][0]["version"], "1.0.0");
        match version {
            "1.0.0" => {
                far.say(r#"{"method":"ping"}"#).await;
                assert_eq!(far.hear().await["success"], true);
            }
            "2.0.0" => {
                far.say(ask("p", json!({"method": "ping"}))).await;
                assert_eq!(far.hear().await["metadata"]["correlationId"], "p");
            }
            _ => {
                let pong = far.frame(ask("p", json!({"method": "ping"}))).await;
                assert_eq!(
                    (&pong["metadata"]["correlationId"], &pong["version"]),
                    (&json!("p"), &json!("2.1.0"))
                );
            }
        }
        assert_eq!(far.end().await, End::EndOfInput);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_common_version_the_supported_ones_are_listed_and_another_try_is_free() {
    let mut far = start("<2.1.0");
    far.say(ask("h", json!({"method": "hello", "accept": ">=2.1.0"}))).await;
    let refused = far.hear().await;
    assert_eq!((&refused["type"], &refused["payload"]["code"]), (&json!("error"), &json!("INVALID_REQUEST")));
    let message = "Unsupported protocol version: >=2.1.0 (supported: 1.0.0, 2.0.0)";
    assert_eq!(refused["payload"]["message"], message);
    assert_eq!(refused["payload"]["details"]["supported"], json!(["1.0.0", "2.0.0"]));
    far.say(ask("h", json!({"method": "hello", "accept": "^2"}))).await;
    assert_eq!(far.hear().await["payload"]["version"], "2.0.0");
    far.say(ask("h2", json!({"method": "hello"}))).await;
    assert_eq!(far.hear().await["type"], "error");
    let mut modern = start(">=2.0.0");
    modern.say(r#"{"method":"ping"}"#).await;
    assert!(modern.hear().await["error"].as_str().unwrap().contains("Unsupported protocol version: 1.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_speak_is_always_answered_by_a_result_and_can_be_given_up() {
    let mut far = start("*");
    far.say(ask("bad", json!({"text": "a", "speed": "fast"}))).await;
    let bad = far.hear().await;
    assert_eq!((&bad["type"], &bad["payload"]["success"]), (&json!("response"), &json!(false)));
    assert_eq!(bad["payload"]["error"]["details"]["field"], "speed");
    far.say(ask("s", json!({"text": "waits for the fleet"}))).await;
    far.say(ask("s", json!({"text": "the same id"}))).await;
    assert_eq!(far.hear().await["payload"]["details"]["reason"], "id_reused");
    far.say(ask("c", json!({"method": "cancel", "messageId": "s"}))).await;
    let (one, two) = (far.hear().await, far.hear().await);
    let (told, ended) = if one["metadata"]["correlationId"] == "c" { (one, two) } else { (two, one) };
    assert_eq!(told["payload"]["cancelled"], true);
    assert_eq!(ended["payload"]["error"]["details"]["reason"], "cancelled");
    far.say(ask("f", json!({"text": "a", "outputPath": "/proc/x.wav"}))).await;
    assert_eq!(far.hear().await["payload"]["error"]["details"]["field"], "outputPath");
    assert_eq!(far.end().await, End::EndOfInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_in_pieces_is_refused_where_it_cannot_be_taken() {
    let mut far = start("*");
    let about = |answer: &Value| answer["metadata"]["correlationId"].as_str().unwrap().to_owned();
    let piece =
        |id: &str, of: &str, text: &str| ask(id, json!({"method": "text", "messageId": of, "text": text}));
    let stream = |id: &str| ask(id, json!({"method": "synthesizeStream", "text": "", "textComes": true}));

    // There is no such text: a request of that name, or one that was given its text as a whole.
    far.say(piece("p1", "s", "Hello.")).await;
    let refused = far.hear().await;
    assert_eq!((&refused["type"], about(&refused)), (&json!("error"), "p1".to_owned()));
    assert_eq!(refused["payload"]["details"]["reason"], "unknown_request");
    far.say(ask("whole", json!({"method": "synthesizeStream", "text": "A whole."}))).await;
    far.say(ask("f1", json!({"method": "flush", "messageId": "whole"}))).await;
    assert_eq!(far.hear().await["payload"]["details"]["reason"], "unknown_request");
    far.say(ask("p2", json!({"method": "text", "messageId": "s", "text": 7}))).await;
    assert_eq!(far.hear().await["payload"]["details"]["field"], "text");

    // Nothing follows the end, and that is no fault of the request, which waits for its fleet.
    far.say(stream("ended")).await;
    far.say(piece("e1", "ended", "Hello.")).await;
    far.say(ask("e2", json!({"method": "end", "messageId": "ended"}))).await;
    far.say(piece("e3", "ended", "Too late.")).await;
    let late = far.hear().await;
    assert_eq!((about(&late), &late["payload"]["details"]["field"]), ("e3".to_owned(), &json!("messageId")));

    // A piece that cannot be taken is answered, and so is its request.
    far.say(stream("long")).await;
    far.say(piece("l1", "long", &"x".repeat(70_000))).await;
    let (one, two) = (far.hear().await, far.hear().await);
    let (piece_error, result) = if about(&one) == "l1" { (one, two) } else { (two, one) };
    assert_eq!(piece_error["payload"]["details"]["reason"], "too_large");
    assert_eq!((about(&result), &result["payload"]["success"]), ("long".to_owned(), &json!(false)));
    assert_eq!(result["payload"]["error"]["details"]["reason"], "too_large");

    // What waited for the fleet is told that its request is over.
    far.state.send_replace(FleetState::Failed(ServiceError::new(Reason::EngineStart, "no engine")));
    let mut answered = std::collections::BTreeMap::new();
    for _ in 0..4 {
        let answer = far.hear().await;
        answered.insert(about(&answer), answer);
    }
    assert_eq!(answered["e1"]["payload"]["details"]["reason"], "unknown_request");
    assert_eq!(answered["e2"]["type"], "error");
    for request in ["whole", "ended"] {
        assert_eq!(answered[request]["payload"]["error"]["message"], "no engine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_outside_the_folder_or_unfit_is_refused_before_there_is_a_fleet() {
    let mut far = start("*");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name).display().to_string()
    };
    let bad = [
        "/proc/self/status".to_owned(),
        "sha256:../../etc/passwd".to_owned(),
        folder.path().display().to_string(),
        file("empty.wav", ""),
        format!("{}/none.wav", folder.path().display()),
        String::new(),
    ];
    for (number, clip) in bad.iter().enumerate() {
        far.say(ask(&format!("c{number}"), json!({"text": "a", "speakerClip": clip}))).await;
        let refused = far.hear().await;
        assert_eq!(refused["payload"]["error"]["details"]["field"], "speakerClip", "{clip}: {refused}");
    }
    far.say(ask("good", json!({"text": "a", "speakerClip": file("clip.wav", "speech")}))).await;
    far.say(ask("p", json!({"method": "ping"}))).await;
    assert_eq!(far.hear().await["metadata"]["correlationId"], "p", "it waits for the fleet");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fleet_everybody_is_told() {
    for legacy in [true, false] {
        let mut far = start("*");
        far.say(if legacy { json!({"text": "a"}) } else { ask("s", json!({"text": "a"})) }).await;
        far.say(if legacy { json!({"text": "b"}) } else { ask("t", json!({"text": "b"})) }).await;
        tokio::task::yield_now().await;
        let error = ServiceError::new(Reason::EngineStart, "no engine");
        far.state.send_replace(FleetState::Failed(error.clone()));
        for _ in 0..2 {
            let told = far.hear().await.to_string();
            assert!(told.contains("no engine"), "{told}");
        }
        assert_eq!(far.end().await, End::NoFleet(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_and_a_parent_that_is_gone_end_it() {
    let mut far = start("*");
    far.say(ask("s", json!({"text": "a"}))).await;
    far.stop.cancel();
    assert_eq!(far.hear().await["payload"]["error"]["details"]["reason"], "cancelled");
    assert_eq!(far.end().await, End::Stopped);

    let Far { mut to, from, end, state: _state, .. } = start("*");
    drop(from);
    to.write_all(b"{\"method\":\"ping\"}\n").await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(5), end).await;
    assert_eq!(end.unwrap().unwrap(), End::ParentGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_before_there_is_a_fleet_is_what_its_schema_says() {
    let mut far = start("*");
    far.say(ask("s", json!({"method": "status"}))).await;
    let told = far.hear().await["payload"].take();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/schemas/ServiceStatus.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    jsonschema::validate(&schema, &told).unwrap_or_else(|error| panic!("{told}: {error}"));
    assert_eq!((&told["state"], told.get("nats")), (&json!("starting"), None));
    assert_eq!(far.end().await, End::EndOfInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_line_is_refused_and_survived() {
    let mut far = start("*");
    far.say(r#"{"method":"ping"}"#).await;
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(2 << 20));
    far.say(long).await;
    far.say(r#"{"method":"ping"}"#).await;
    assert_eq!(far.hear().await["success"], true);
    assert!(far.hear().await["error"].as_str().unwrap().contains("at most"));
    assert_eq!(far.hear().await["success"], true);
}
