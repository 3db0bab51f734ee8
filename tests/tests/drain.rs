//! A worker that leaves under load, by order or by signal, loses nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::time::Duration;

use chorus_tests::fleet::signal;
use chorus_tests::{Fleet, checkable, chorus, nats, poll, wav};
use futures::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Asks for a few sentences, each of which takes a while, and checks them to the sample.
async fn speak(client: &async_nats::Client, number: usize) {
    let spoken: Vec<String> = (0..4).map(|part| format!("Request {number} part {part}.")).collect();
    let text: Vec<String> = spoken.iter().map(|text| format!("[[slow ms=100]]{text}")).collect();
    let reply = nats::ask_json(client, "tts.synthesize", json!({"text": text.join(" ")}).to_string()).await;
    assert_eq!(reply["success"], true, "{reply}");
    let wav = wav::parse(&nats::audio_of(client, &reply).await);
    checkable::assert_spoken(&wav.samples, &spoken.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A worker in the midst of a job.
async fn busy(fleet: &Fleet) -> Value {
    poll("a busy worker", Duration::from_secs(10), || async {
        let status = fleet.status().await;
        status["workers"].as_array().unwrap().iter().find(|worker| worker["inFlight"] != 0).cloned()
    })
    .await
}

#[tokio::test]
async fn a_drained_worker_leaves_under_load_and_stays_away() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let asked = join_all((0..20).map(|number| speak(&client, number)));
    let drained = async {
        let worker = busy(&fleet).await["id"].as_str().unwrap().to_owned();
        let report = chorus(&fleet.home, &["drain", &worker, "--json"]).await.ok().json();
        assert_eq!(report["worker"], worker.as_str());
        assert!(report["leftAfterMs"].as_u64().unwrap() < 15_000, "{report}");
        worker
    };
    let (_, worker) = tokio::join!(asked, drained);
    let again = chorus(&fleet.home, &["drain", &worker]).await;
    assert_eq!(again.code, 1, "{}", again.text());
    assert!(again.stderr.contains("no worker called"), "{}", again.stderr);
    assert!(fleet.log().contains("drained, and left"), "{}", fleet.log());
    speak(&client, 99).await;
}

#[tokio::test]
async fn a_worker_told_to_end_by_a_signal_loses_nothing_and_is_begun_again() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let asked = join_all((0..20).map(|number| speak(&client, number)));
    let ended = async {
        let worker = busy(&fleet).await;
        signal(worker["pid"].as_u64().unwrap() as u32, Signal::TERM);
        worker
    };
    let (_, worker) = tokio::join!(asked, ended);
    poll("the worker is back", Duration::from_secs(30), || async {
        let status = fleet.status().await;
        let same = |w: &&Value| w["id"] == worker["id"] && w["pid"] != worker["pid"];
        status["workers"].as_array().unwrap().iter().find(same).cloned()
    })
    .await;
}
