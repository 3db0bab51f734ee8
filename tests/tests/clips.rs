//! Speaker reference clips, end to end: from a file of the client to the engine's ears, by whichever way the client comes.
//!
//! The checkable engine folds the bytes of a clip into every frame of its audio, so that it can be told which clip it heard.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::time::Duration;

use async_nats::jetstream::{self, object_store::ObjectStore};
use chorus_protocol::ClipId;
use chorus_tests::{Fleet, Home, checkable, chorus, fleet, nats, poll, wav};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const TEXT: &str = "Somebody else says this.";
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that no other clip has.
fn clip(number: u32) -> Vec<u8> {
    (0..60_000u32).flat_map(|at| (at.wrapping_mul(2_654_435_761) ^ number).to_le_bytes()).collect()
}

/// Which clip this text was spoken with; 0 for none of the first few.
fn heard(samples: &[i16]) -> u32 {
    let like = |number: &u32| checkable::expected_like(TEXT, 0, &clip(*number)) == samples;
    (1..=4).find(like).unwrap_or_else(|| {
        assert_eq!(samples, checkable::expected(TEXT, 0), "neither like a clip nor like itself");
        0
    })
}

async fn ask(client: &async_nats::Client, request: Value) -> (Value, Vec<i16>) {
    let reply = nats::ask_json(client, "tts.synthesize", request.to_string()).await;
    if reply["success"] != true {
        return (reply, Vec::new());
    }
    let samples = wav::parse(&nats::audio_of(client, &reply).await).samples;
    (reply, samples)
}

/// Puts a clip there as any NATS client would.
async fn put(store: &ObjectStore, clip: &[u8]) -> ClipId {
    let id = ClipId::of(clip);
    store.put(id.key().as_str(), &mut &*clip).await.unwrap();
    id
}

#[tokio::test]
async fn a_clip_reaches_the_engine_by_every_way_and_is_sent_once() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let store = jetstream::new(client.clone()).get_object_store("tts-clips").await.unwrap();
    let home = &fleet.home;
    for number in [1, 2] {
        std::fs::write(home.file(&format!("{number}.wav")), clip(number)).unwrap();
    }
    // The command line.
    let say = async |number: u32, more: &[&str]| {
        let file = format!("{number}.wav");
        let args = [&["say", TEXT, "-o", "said.wav", "--json", "--speaker-clip", &file], more].concat();
        let said = chorus(home, &args).await.ok().json();
        assert_eq!(said["success"], true);
        heard(&wav::parse(&std::fs::read(home.file("said.wav")).unwrap()).samples)
    };
    assert_eq!((say(1, &[]).await, say(2, &[]).await), (1, 2));
    let first = store.info(ClipId::of(&clip(1)).key()).await.unwrap().nuid;
    assert_eq!(say(1, &[]).await, 1);
    let again = store.info(ClipId::of(&clip(1)).key()).await.unwrap().nuid;
    assert_eq!(first, again, "what is there is not sent again");

    // A durable job.
    let submit = ["jobs", "submit", TEXT, "--id", "like-2", "--speaker-clip", "2.wav", "--json"];
    let _queued = chorus(home, &submit).await.ok();
    poll("the job is spoken", PATIENCE, || async {
        let job = chorus(home, &["jobs", "status", "like-2", "--json"]).await.ok().json();
        (job["state"] == "done").then_some(())
    })
    .await;
    let _fetched = chorus(home, &["jobs", "fetch", "like-2", "-o", "job.wav"]).await.ok();
    assert_eq!(heard(&wav::parse(&std::fs::read(home.file("job.wav")).unwrap()).samples), 2);

    // A plain request of any NATS client.
    let id = put(&store, &clip(3)).await;
    let (reply, samples) = ask(&client, json!({"text": TEXT, "speakerClip": id})).await;
    assert_eq!(heard(&samples), 3, "{reply}");
    let (_, samples) = ask(&client, json!({"text": TEXT})).await;
    assert_eq!(heard(&samples), 0, "and without one it is the model's own voice");

    // A parent on stdio, by a path on its host, in all three versions.
    std::fs::write(home.file("4.wav"), clip(4)).unwrap();
    let path = home.file("4.wav").display().to_string();
    let mut parent = fleet::command(home, &["stdio", "--nats", &fleet.url]);
    let mut child = parent.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut to = child.stdin.take().unwrap();
    let asked = json!({"text": TEXT, "speakerClip": path, "outputPath": home.file("stdio.wav")});
    let message =
        json!({"version": "2.0.0", "messageId": "s", "timestamp": 1, "type": "request", "payload": asked});
    to.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    let answer: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(answer["payload"]["success"], true, "{answer}");
    assert_eq!(heard(&wav::parse(&std::fs::read(home.file("stdio.wav")).unwrap()).samples), 4);
    drop(to);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_clip_that_is_gone_wrong_or_unwanted_is_refused_by_name() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "1"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let store = jetstream::new(client.clone()).get_object_store("tts-clips").await.unwrap();
    let refused = async |clip: Value| {
        let (reply, _) = ask(&client, json!({"text": TEXT, "speakerClip": clip})).await;
        let error = &reply["error"];
        assert_eq!(
            (&error["code"], &error["details"]["field"]),
            (&json!("INVALID_REQUEST"), &json!("speakerClip"))
        );
        error["message"].as_str().unwrap().to_owned()
    };
    let absent = ClipId::of(b"nobody put this there");
    assert!(refused(json!(absent)).await.contains("not on the broker"));
    for hostile in ["../../../etc/passwd", "/etc/passwd", "sha256:", "", "sha256:../../x"] {
        refused(json!(hostile)).await;
    }
    refused(json!({"bucket": "tts-clips", "key": "x"})).await;

    // Other bytes under a clip's name, and a clip that has lost half of itself.
    let forged = ClipId::of(&clip(1));
    store.put(forged.key().as_str(), &mut &b"other bytes"[..]).await.unwrap();
    assert!(refused(json!(forged)).await.contains("cannot be used"));
    let half = put(&store, &clip(2)).await;
    let nuid = store.info(half.key()).await.unwrap().nuid;
    let stream = jetstream::new(client.clone()).get_stream("OBJ_tts-clips").await.unwrap();
    stream.purge().filter(format!("$O.tts-clips.C.{nuid}")).await.unwrap();
    assert!(refused(json!(half)).await.contains("not on the broker"));
    let large = vec![7; chorus_protocol::clip::MAX_CLIP_BYTES + 1];
    let large = put(&store, &large).await;
    refused(json!(large)).await;

    // What is put right is spoken with, and none of it was the worker's fault.
    let healed = put(&store, &clip(2)).await;
    let (reply, samples) = ask(&client, json!({"text": TEXT, "speakerClip": healed})).await;
    assert_eq!(heard(&samples), 2, "{reply}");
    let metrics = nats::ask_json(
        &client,
        "tts.metrics",
        r#"{"version":"2.0.0","messageId":"m","timestamp":1,"type":"request","payload":{}}"#,
    )
    .await;
    assert_eq!(metrics["payload"]["workerFaults"], 0, "{metrics}");
}

#[tokio::test]
async fn a_model_that_cannot_take_on_a_voice_says_so() {
    let home = Home::provisioned();
    std::fs::write(home.file("clip.wav"), clip(1)).unwrap();
    let args = ["say", TEXT, "-o", "x.wav", "--engine", "null", "--json", "--speaker-clip", "clip.wav"];
    let ran = chorus(&home, &args).await;
    assert_ne!(ran.code, 0);
    let details = ran.json()["error"]["details"].clone();
    assert_eq!(
        (&details["reason"], &details["field"]),
        (&json!("unsupported_option"), &json!("speakerClip"))
    );
    let missing = chorus(&home, &["say", "a", "--engine", "null", "--speaker-clip", "none.wav"]).await;
    assert!(missing.code != 0 && missing.stderr.contains("none.wav"), "{}", missing.stderr);
}

#[tokio::test]
async fn two_clips_never_share_a_take() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "1"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let store = jetstream::new(client.clone()).get_object_store("tts-clips").await.unwrap();
    let model = json!({"name": "cached", "engine": "checkable", "source": {"builtin": "checkable"}, "options": {"cache": true}});
    let load = json!({"version": "2.0.0", "messageId": "load", "timestamp": 0, "type": "request", "payload": {"model": model}});
    let loaded = nats::ask_json(&client, "tts.models.load", load.to_string()).await;
    assert_eq!(loaded["type"], "response", "{loaded}");
    let (one, two) = (put(&store, &clip(1)).await, put(&store, &clip(2)).await);
    let spoken = async |clip: Option<ClipId>| {
        let (reply, samples) =
            ask(&client, json!({"text": TEXT, "model": "cached", "speakerClip": clip})).await;
        (reply["metadata"]["cacheHit"] == true, heard(&samples))
    };
    // Until each is served from the cache, and always as itself.
    for (clip, number) in [(Some(one), 1), (Some(two), 2), (None, 0)] {
        let (hit, sounded) = spoken(clip).await;
        assert_eq!((hit, sounded), (false, number));
        poll("a take from the cache", PATIENCE, || async {
            let (hit, sounded) = spoken(clip).await;
            assert_eq!(sounded, number);
            hit.then_some(())
        })
        .await;
    }
}

/// A second of a tone, as a WAV file.
fn tone(hertz: f64) -> Vec<u8> {
    const RATE: u32 = 22_050;
    let wave = |at: u32| (f64::from(at) / f64::from(RATE) * std::f64::consts::TAU * hertz).sin() * 12_000.0;
    let samples: Vec<u8> = (0..RATE).flat_map(|at| (wave(at) as i16).to_le_bytes()).collect();
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + samples.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(RATE.to_le_bytes());
    file.extend((2 * RATE).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((samples.len() as u32).to_le_bytes());
    file.extend(samples);
    file
}

/// Coqui's own classes with random weights: the real one's way, no speech.
#[tokio::test]
async fn a_small_xtts_listens_to_a_clip() {
    let home = Home::provisioned();
    let setup = chorus(&home, &["setup", "--profile", "test", "--json"]).await.ok().json();
    let engine = concat!(env!("CARGO_MANIFEST_DIR"), "/../worker/engine");
    #[allow(clippy::disallowed_methods, reason = "the model is made by a program of its own")]
    let mut making = tokio::process::Command::new(setup["python"].as_str().unwrap());
    making.args(["-c", "import pathlib, sys, tiny_xtts; tiny_xtts.make(pathlib.Path(sys.argv[1]))"]);
    making.arg(home.file("xtts")).env("PYTHONPATH", format!("{engine}:{engine}/tests")).kill_on_drop(true);
    let made = making.output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    std::fs::write(home.file("clip.wav"), tone(220.0)).unwrap();
    std::fs::write(home.file("noise.wav"), "this is no recording").unwrap();
    let say = async |clip: &str| {
        let model = home.file("xtts").display().to_string();
        let args =
            ["say", "Hello to all of you.", "--model", &model, "--language", "en", "-o", "x.wav", "--json"];
        chorus(&home, &[&args[..], &["--speaker-clip", clip]].concat()).await
    };
    let said = say("clip.wav").await.ok().json();
    assert_eq!(said["success"], true, "{said}");
    let refused = say("noise.wav").await.json();
    assert_eq!(refused["error"]["details"]["field"], "speakerClip", "{refused}");
}
