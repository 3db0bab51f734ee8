//! A text that kills every engine: the request ends, the letter tells the whole story, and no worker is blamed for it.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::time::Duration;

use chorus_tests::{Fleet, checkable, chorus, nats, poll, wav};
use serde_json::json;

#[tokio::test]
async fn poison_is_buried_shown_replayed_and_purged() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let text = "A text that kills. [[crash]]";
    let reply = nats::ask_json(&client, "tts.synthesize", json!({ "text": text }).to_string()).await;
    assert_eq!(reply["success"], false, "{reply}");
    assert_eq!(reply["error"]["details"]["reason"], "poison", "{reply}");
    let listed = poll("the letter", Duration::from_secs(10), || async {
        let listed = chorus(&fleet.home, &["dead", "list", "--json"]).await.ok().json();
        (listed["letters"].as_array().unwrap().len() == 1).then_some(listed)
    })
    .await;
    let seq = listed["letters"][0]["seq"].to_string();
    let shown = chorus(&fleet.home, &["dead", "show", &seq, "--json"]).await.ok().json();
    let history = shown["letter"]["history"].as_array().unwrap().clone();
    assert_eq!(history.len(), 3, "{shown}");
    assert!(history.iter().all(|failed| failed["error"]["details"]["reason"] == "engine_crashed"), "{shown}");
    assert!(history.iter().any(|failed| failed["worker"] != history[0]["worker"]), "{shown}");
    let human = chorus(&fleet.home, &["dead", "show", &seq]).await.ok();
    assert!(human.text().contains("attempt 3 on "), "{}", human.text());

    // The fleet speaks on: nobody is blamed.
    let reply = nats::ask_json(&client, "tts.synthesize", json!({ "text": "Still here." }).to_string()).await;
    assert_eq!(reply["success"], true, "{reply}");
    let wav = wav::parse(&nats::audio_of(&client, &reply).await);
    checkable::assert_spoken(&wav.samples, &["Still here."]);

    let again = chorus(&fleet.home, &["dead", "replay", &seq, "-o", "again.wav", "--json"]).await;
    assert_eq!(again.code, 1, "it kills again: {}", again.text());
    assert!(!fleet.home.file("again.wav").exists());
    let missing = chorus(&fleet.home, &["dead", "show", "999"]).await;
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("no dead letter 999"), "{}", missing.stderr);
    poll("a second letter", Duration::from_secs(10), || async {
        let listed = chorus(&fleet.home, &["dead", "list", "--json"]).await.ok().json();
        (listed["letters"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let purged = chorus(&fleet.home, &["dead", "purge", "--json"]).await.ok().json();
    assert_eq!(purged["deleted"], 2);
}
