//! A fleet of several workers: sample-exact, supervised, and gone when it shall be gone.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::time::Duration;

use chorus_tests::fleet::{nothing_is_left, signal};
use chorus_tests::{Fleet, checkable, chorus, nats, poll, wav};
use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

#[tokio::test]
async fn forty_requests_on_two_workers_are_spoken_to_the_sample() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let ask = |number: usize| {
        let client = client.clone();
        async move {
            let texts: Vec<String> = (0..3).map(|part| format!("Request {number} part {part}.")).collect();
            let reply =
                nats::ask_json(&client, "tts.synthesize", json!({"text": texts.join(" ")}).to_string()).await;
            assert_eq!(reply["success"], true, "{reply}");
            let wav = wav::parse(&nats::audio_of(&client, &reply).await);
            checkable::assert_spoken(&wav.samples, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        }
    };
    join_all((0..40).map(ask)).await;
    let status = fleet.status().await;
    let done: Vec<u64> =
        status["workers"].as_array().unwrap().iter().map(|w| w["jobsDone"].as_u64().unwrap()).collect();
    assert_eq!(done.len(), 2);
    assert!(done.iter().all(|&jobs| jobs > 0), "both workers spoke: {done:?}");
}

#[tokio::test]
async fn status_tells_who_is_there() {
    let fleet = Fleet::up(&["--engine", "null", "--workers", "1"]).await;
    let status = fleet.status().await;
    assert_eq!(status["nats"]["url"].as_str(), Some(fleet.url.as_str()));
    assert_eq!(status["managers"].as_array().unwrap().len(), 1);
    let worker = &status["workers"][0];
    for field in
        ["id", "pid", "enginePid", "host", "device", "models", "inFlight", "jobsDone", "lastHeartbeatMs"]
    {
        assert!(!worker[field].is_null(), "{field} is missing: {worker}");
    }
    let human = chorus(&fleet.home, &["status"]).await.ok();
    assert!(human.text().contains(worker["id"].as_str().unwrap()), "{}", human.text());
    let ask = chorus(&fleet.home, &["say", "hello", "-o", "hello.wav", "--json"]).await.ok();
    assert_eq!(ask.json()["success"], true, "the running fleet is found by its run file");
    assert!(wav::parse(&std::fs::read(fleet.home.file("hello.wav")).unwrap()).samples.len() >= 22_050);
    let unknown = chorus(&fleet.home, &["say", "hello", "--model", "nonesuch"]).await;
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("nonesuch") && unknown.stderr.contains("null"), "{}", unknown.stderr);
}

#[tokio::test]
async fn a_killed_engine_and_a_killed_worker_lose_nothing() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    for field in ["enginePid", "pid"] {
        let texts: Vec<String> = (0..6).map(|i| format!("[[slow ms=400]]{field} part {i}.")).collect();
        let spoken: Vec<String> = texts.iter().map(|t| t.split("]]").nth(1).unwrap().to_owned()).collect();
        let asked = nats::ask_json(&client, "tts.synthesize", json!({"text": texts.join(" ")}).to_string());
        let killed = async {
            let busy = poll("a busy worker", Duration::from_secs(10), || async {
                let status = fleet.status().await;
                status["workers"].as_array().unwrap().iter().find(|w| w["inFlight"] != 0).cloned()
            })
            .await;
            signal(busy[field].as_u64().unwrap() as u32, Signal::KILL);
            busy["id"].as_str().unwrap().to_owned()
        };
        let (reply, _) = tokio::join!(asked, killed);
        assert_eq!(reply["success"], true, "{field}: {reply}");
        let wav = wav::parse(&nats::audio_of(&client, &reply).await);
        checkable::assert_spoken(&wav.samples, &spoken.iter().map(String::as_str).collect::<Vec<_>>());
        poll("two workers again", Duration::from_secs(30), || async {
            let status = fleet.status().await;
            let ready = |w: &&Value| {
                w["models"][0]["state"] == "ready" && w["lastHeartbeatMs"].as_u64() < Some(1_500)
            };
            (status["workers"].as_array().unwrap().iter().filter(ready).count() == 2).then_some(())
        })
        .await;
    }
}

/// Kills what there is of a worker that `chorus up` keeps.
fn kill_worker(fleet: &Fleet, worker: &str) {
    let wanted = [b"--id".as_slice(), worker.as_bytes()];
    for pid in fleet.home.processes() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.split(|&byte| byte == 0).collect::<Vec<_>>().windows(2).any(|pair| pair == wanted) {
            let process = Pid::from_raw(pid as i32);
            let _it_may_have_ended = process.map(|process| kill_process(process, Signal::KILL));
        }
    }
}

#[tokio::test]
async fn a_pool_that_cannot_form_goes_on_with_a_single_worker() {
    let fleet = Fleet::up(&["--engine", "null", "--workers", "2"]).await;
    let workers = poll("two workers", Duration::from_secs(30), || async {
        let status = fleet.status().await;
        let ids: Vec<String> =
            status["workers"].as_array()?.iter().filter_map(|w| Some(w["id"].as_str()?.to_owned())).collect();
        (ids.len() == 2).then_some(ids)
    })
    .await;
    poll("a pool that is given up", Duration::from_secs(90), || async {
        if fleet.log().contains("the pool cannot form: going on with a single worker") {
            return Some(());
        }
        workers.iter().for_each(|worker| kill_worker(&fleet, worker));
        None
    })
    .await;
    assert!(fleet.log().contains("going on with 1 of the pool"), "{}", fleet.log());
    let said = poll("the single worker speaks", Duration::from_secs(30), || async {
        let said = chorus(&fleet.home, &["say", "still here", "-o", "here.wav", "--json"]).await;
        (said.code == 0).then(|| said.json())
    })
    .await;
    assert_eq!(said["success"], true, "{said}");
    let (exit, home) = fleet.interrupt().await;
    assert_eq!(exit, 130);
    nothing_is_left(&home).await;
}

#[tokio::test]
async fn a_worker_that_comes_back_serves_again_what_it_was_told_to_serve() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "1"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let order = async |subject: &'static str, payload: Value| {
        let question = json!({"version": "2.0.0", "messageId": "o", "timestamp": 0, "type": "request", "payload": payload});
        let answer = nats::ask_json(&client, subject, question.to_string()).await;
        assert_eq!(answer["type"], "response", "{answer}");
    };
    // The worker once its process is another than `before` and it serves exactly these models.
    let serving = async |before: u64, names: &[&str]| {
        poll("a worker with its models", Duration::from_secs(30), || async {
            let status = fleet.status().await;
            let worker = &status["workers"][0];
            let models = worker["models"].as_array()?;
            let ready = models.iter().all(|model| model["state"] == "ready");
            let named: Vec<_> = models.iter().filter_map(|model| model["name"].as_str()).collect();
            let pid = worker["pid"].as_u64()?;
            (ready && named == names && pid != before && worker["lastHeartbeatMs"].as_u64() < Some(1_500))
                .then_some(pid)
        })
        .await
    };
    let model = json!({"name": "second", "engine": "checkable", "source": {"builtin": "checkable"}});
    order("tts.models.load", json!({"model": model})).await;
    let first = serving(0, &["checkable", "second"]).await;
    signal(first as u32, Signal::KILL);
    let again = serving(first, &["checkable", "second"]).await;
    let asked = json!({"text": "It is here again.", "model": "second"});
    let reply = nats::ask_json(&client, "tts.synthesize", asked.to_string()).await;
    assert_eq!(
        (&reply["success"], &reply["metadata"]["modelUsed"]),
        (&json!(true), &json!("second")),
        "{reply}"
    );

    order("tts.models.unload", json!({"model": "second"})).await;
    serving(0, &["checkable"]).await;
    signal(again as u32, Signal::KILL);
    serving(again, &["checkable"]).await;
}

#[tokio::test]
async fn no_orphan_outlives_a_killed_fleet() {
    let fleet = Fleet::up(&["--engine", "null", "--workers", "2"]).await;
    assert!(
        fleet.home.processes().len() >= 6,
        "chorus, broker, workers, engines: {:?}",
        fleet.home.processes()
    );
    signal(fleet.pid(), Signal::KILL);
    nothing_is_left(&fleet.home).await;
    let status = chorus(&fleet.home, &["status"]).await;
    assert_ne!(status.code, 0, "the run file is stale");
    assert!(status.stderr.contains("chorus up"), "it says what to do: {}", status.stderr);
}

#[tokio::test]
async fn a_broker_that_cannot_serve_says_why() {
    let home = chorus_tests::Home::provisioned();
    let nobody = chorus(&home, &["say", "hi", "--nats", "nats://127.0.0.1:1"]).await;
    assert_ne!(nobody.code, 0);
    assert!(nobody.stderr.contains("127.0.0.1:1"), "{}", nobody.stderr);
}
