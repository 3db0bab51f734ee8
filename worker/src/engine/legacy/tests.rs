//! The translator against scripts, through a real link.

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_protocol::job::Failed;
use chorus_protocol::pipe::EngineSpeech;
use chorus_runtime::clock::SystemClock;
use chorus_runtime::process::{Child, GuardBinary, Pipes, ProcessSpec};

use super::*;
use crate::engine::handshake::shake_hands;
use crate::engine::link::{Behind, Link, Liveness, Told};

const PATIENCE: Duration = Duration::from_secs(20);

/// A script of this test's own, and the link to it.
struct Script {
    link: Arc<Link>,
    hello: HelloAnswer,
    _child: Child,
    _folder: tempfile::TempDir,
}

/// What every script begins with: `speak(path, n)` writes n samples of a tone.
const PRELUDE: &str = r#"
import json, sys, time, wave, math, struct
def speak(path, n):
    with wave.open(path, "wb") as f:
        f.setnchannels(1); f.setsampwidth(2); f.setframerate(16000)
        f.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i / 9))) for i in range(n)))
def say(**fields): print(json.dumps(fields), flush=True)
"#;

async fn start(body: &str) -> Script {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script.py");
    std::fs::write(&file, format!("{PRELUDE}\n{body}")).unwrap();
    let python = std::env::var_os("CHORUS_ENGINE_PYTHON").unwrap_or_else(|| "python3".into());
    let mut spec = ProcessSpec::new("script", python).args([file.into_os_string()]);
    spec.pipes = Pipes::Stdio;
    spec.guard = GuardBinary::Unguarded;
    spec.env = BTreeMap::from([("PATH".into(), std::env::var_os("PATH").unwrap_or_default())]);
    let mut child = Child::spawn(&spec).unwrap();
    let config = Config {
        worker: "w".into(),
        kind: "command".into(),
        command: "script.py".into(),
        program: child.program(),
        silence: Duration::from_secs(5),
    };
    let behind = Behind { exit: child.exit_watch(), stderr: child.stderr_log().clone() };
    let ends = translate(config, child.take_frames().unwrap(), SystemClock::shared()).unwrap();
    let link = Link::open(ends, Some(behind), Liveness::default(), SystemClock::shared());
    let hello = shake_hands(&link, "w", PATIENCE).await.unwrap();
    Script { link, hello, _child: child, _folder: folder }
}

fn speech(text: &str, speed: Option<f64>) -> EngineRequest {
    EngineRequest::Synthesize(Box::new(EngineSpeech {
        model: "old".into(),
        text: text.into(),
        voice: None,
        speaker_clip: None,
        language: None,
        speed,
        pitch: None,
        seed: None,
        job: None,
    }))
}

impl Script {
    async fn speak(&self, text: &str, speed: Option<f64>) -> Result<(usize, u32), Box<Failed>> {
        let mut call = self.link.request(speech(text, speed), None).unwrap();
        let mut bytes = 0;
        loop {
            match tokio::time::timeout(PATIENCE, call.next()).await.unwrap() {
                Told::Piece { data, .. } => bytes += data.len(),
                Told::Progress => {}
                Told::Spoken(answer) => {
                    assert_eq!(answer.samples as usize, (bytes + answer.data.0.len()) / 2);
                    return Ok((answer.samples as usize, answer.sample_rate));
                }
                Told::Failed(failed) => return Err(failed),
                Told::Answer(_) => panic!("an answer where audio was due"),
            }
        }
    }
}

const V1: &str = r#"
print("Loading model ...", flush=True)
for line in sys.stdin:
    r = json.loads(line)
    if not r.get("text"): say(type="error", success=False, error="text is required"); continue
    print(" > Processing time: 0.1", flush=True); print("{'not': json}", flush=True)
    speak(r["outputPath"], 1000 * len(r["text"]))
    say(type="response", success=True, outputPath=r["outputPath"], latencyMs=1.5)
"#;

#[tokio::test]
async fn a_script_of_1_0_speaks_with_noise_between_its_answers() {
    let script = start(V1).await;
    assert_eq!(script.hello.engine.version, "1.0");
    let can = &script.hello.capabilities;
    assert_eq!((can.streaming, can.cancel, can.lanes), (false, false, 1));
    let load: LoadAnswer = {
        let model =
            serde_json::from_value(json!({"name": "old", "engine": "command", "source": {"builtin": "old"}}));
        script.link.call(EngineRequest::Load { model: Box::new(model.unwrap()) }, PATIENCE).await.unwrap()
    };
    assert_eq!(load.sample_rate, 16_000);
    assert_eq!(script.speak("0123456789", None).await.unwrap(), (10_000, 16_000));
    // A speed that it does not know is made of its audio.
    assert_eq!(script.speak("0123456789", Some(2.0)).await.unwrap(), (5_000, 16_000));
    let failed = script.speak("", None).await.unwrap_err();
    assert_eq!(
        (failed.error.reason(), failed.error.message.as_str()),
        (Some(Reason::EngineError), "text is required")
    );
}

#[tokio::test]
async fn several_requests_wait_for_one_another_and_one_that_waits_can_be_given_up() {
    let script = start(&V1.replace("    speak(", "    time.sleep(0.3); speak(")).await;
    let mut calls: Vec<_> = (0..3).map(|_| script.link.request(speech("abc", None), None).unwrap()).collect();
    calls[2].cancel();
    let mut last = calls.pop().unwrap();
    let Told::Failed(failed) = last.next().await else { panic!() };
    assert_eq!(failed.error.reason(), Some(Reason::Cancelled));
    // One under way is finished, and thrown away.
    calls[0].cancel();
    for (mut call, cancelled) in calls.into_iter().zip([true, false]) {
        let end = loop {
            match tokio::time::timeout(PATIENCE, call.next()).await.unwrap() {
                Told::Progress | Told::Piece { .. } => {}
                end => break end,
            }
        };
        assert_eq!(matches!(end, Told::Failed(_)), cancelled, "{end:?}");
    }
}

const V2: &str = r#"
def answer(r, kind, payload):
    say(version="2.0.0", messageId="x", timestamp=1, type=kind, payload=payload, metadata={"correlationId": r["messageId"]})
held = []
for line in sys.stdin:
    r = json.loads(line); p = r["payload"]
    if p.get("method") == "hello":
        answer(r, "response", {"version": "2.0.0", "engine": {"name": "mine", "version": "7"}, "pid": 1,
            "device": {"kind": "cpu"}, "capabilities": {"lanes": 2, "speed": True}})
    elif p.get("method") == "synthesize":
        held.append(r)
        if len(held) == 2:
            for r in reversed(held):
                p = r["payload"]; speak(p["outputPath"], int(1000 * len(p["text"]) / p.get("speed", 1)))
                answer(r, "response", {"success": True, "requestId": "q", "outputPath": p["outputPath"], "latencyMs": 1})
            held = []
    else: answer(r, "error", {"code": "INVALID_REQUEST", "message": "unknown", "retryable": False})
"#;

#[tokio::test]
async fn a_script_of_2_0_speaks_in_its_lanes_and_answers_in_any_order() {
    let script = start(V2).await;
    assert_eq!((script.hello.engine.version.as_str(), script.hello.capabilities.lanes), ("2.0", 2));
    let (one, two) = tokio::join!(script.speak("abcd", None), script.speak("abcdefgh", Some(2.0)));
    assert_eq!((one.unwrap().0, two.unwrap().0), (4_000, 4_000));
}

#[tokio::test]
async fn a_script_that_leaves_hello_unanswered_is_asked_as_one_of_1_0() {
    let silent = V1.replace("    if not r.get", "    if 'payload' in r: continue\n    if not r.get");
    let script = start(&silent).await;
    assert_eq!(script.hello.engine.version, "1.0");
    assert_eq!(script.speak("abc", None).await.unwrap().0, 3_000);
}

#[tokio::test]
async fn a_script_that_dies_or_hangs_ends_the_link() {
    let dying = start(&V1.replace("    speak(", "    sys.exit(3)\n    speak(")).await;
    let failed = dying.speak("abc", None).await.unwrap_err();
    assert_eq!(failed.error.reason(), Some(Reason::EngineCrashed));
    let hanging = start(&V1.replace("    speak(", "    time.sleep(60)\n    speak(")).await;
    let failed = hanging.speak("abc", None).await.unwrap_err();
    assert_eq!(failed.error.reason(), Some(Reason::EngineCrashed));
}

#[tokio::test]
async fn an_answer_without_audio_is_an_error_of_the_engine() {
    let script =
        start(&V1.replace("    speak(r[\"outputPath\"], 1000 * len(r[\"text\"]))", "    pass")).await;
    let failed = script.speak("abc", None).await.unwrap_err();
    assert_eq!(failed.error.reason(), Some(Reason::EngineProtocol));
    // Audio inside the answer will do, too.
    let inline = V1.replace(
        "say(type=\"response\", success=True, outputPath=r[\"outputPath\"], latencyMs=1.5)",
        "import base64; say(type=\"response\", success=True, audio={\"format\": \"wav\", \"sampleRate\": 16000, \
         \"data\": base64.b64encode(open(r[\"outputPath\"], \"rb\").read()).decode()})",
    );
    let script = start(&inline).await;
    assert_eq!(script.speak("abc", None).await.unwrap().0, 3_000);
}
