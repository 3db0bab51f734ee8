//! A text that kills every engine: the request ends, the letter tells the whole story, and no worker is blamed for it.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::time::Duration;

use async_nats::jetstream;
use chorus_protocol::breaker::{BreakerRecord, BreakerState, DeadLetter};
use chorus_protocol::{ClipId, Envelope, codec, names};
use chorus_tests::{Fleet, Home, checkable, chorus, nats, poll, wav};
use futures::TryStreamExt;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn poison_is_buried_shown_replayed_and_purged() {
    // Two faults are enough to open a breaker, and of three on two workers two are one worker's.
    let strict = [("CHORUS_CIRCUIT_BREAKER_MINIMUM_CALLS", "2")];
    let fleet =
        Fleet::up_set(Home::provisioned(), &["--engine", "checkable", "--workers", "2"], &strict).await;
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

    // Nobody is blamed, and the fleet speaks on.
    all_taken_back(&client, 3).await;
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

/// Waits until this many faults were taken back, no breaker is open, and nothing is held against anybody.
async fn all_taken_back(client: &async_nats::Client, faults: usize) {
    let breakers = jetstream::new(client.clone()).get_key_value(names::BREAKERS_BUCKET).await.unwrap();
    poll("the faults are taken back", PATIENCE, || async {
        let mut taken_back = 0;
        let workers: Vec<String> = breakers.keys().await.unwrap().try_collect().await.unwrap();
        for worker in workers {
            let Some(bytes) = breakers.get(&worker).await.unwrap() else { continue };
            let record = codec::decode_value::<BreakerRecord>(&bytes, bytes.len()).unwrap();
            let blamed = record.window.iter().any(|entry| !entry.success && !entry.spent);
            if record.state != BreakerState::Closed || blamed {
                return None;
            }
            taken_back += record.window.iter().filter(|entry| !entry.success).count();
        }
        (taken_back == faults).then_some(())
    })
    .await;
}

/// A letter whose words can be spoken by now, by a voice that the model takes on: it is spoken as it was to be.
#[tokio::test]
async fn a_replay_that_succeeds_is_spoken_alike_and_ends_the_letter() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let kills = json!({ "text": "It kills. [[crash attempts=1-3]]" });
    let reply = nats::ask_json(&client, "tts.synthesize", kills.to_string()).await;
    assert_eq!(reply["error"]["details"]["reason"], "poison", "{reply}");
    let letter = poll("the letter", PATIENCE, || async {
        let listed = chorus(&fleet.home, &["dead", "list", "--json"]).await.ok().json();
        listed["letters"].as_array().unwrap().first().map(|found| found["letter"].clone())
    })
    .await;

    // As it would be had the engine been mended since: a replay begins with the first attempt again.
    let jetstream = jetstream::new(client.clone());
    let clip = b"somebody's speech".repeat(1_000);
    let id = ClipId::of(&clip);
    let clips = jetstream.get_object_store("tts-clips").await.unwrap();
    clips.put(id.key().as_str(), &mut clip.as_slice()).await.unwrap();
    let mut letter: DeadLetter = serde_json::from_value(letter).unwrap();
    letter.text = "It can be said.".into();
    letter.speech.speaker_clip = Some(id);
    let subject = names::dead_subject(&letter.speech.model);
    let payload = serde_json::to_vec(&Envelope::event(letter, 1)).unwrap();
    let stored = jetstream.publish(subject, payload.into()).await.unwrap().await.unwrap();
    let seq = stored.sequence.to_string();

    let expected = checkable::expected_like("It can be said.", 0, &clip);
    for (keep, code_after) in [(Some("--keep"), 0), (None, 2)] {
        let args = ["dead", "replay", &seq, "-o", "again.wav", "--json"];
        let _said = chorus(&fleet.home, &args.into_iter().chain(keep).collect::<Vec<_>>()).await.ok();
        let said = wav::parse(&std::fs::read(fleet.home.file("again.wav")).unwrap()).samples;
        assert!(said == expected, "{keep:?}: not spoken with the clip");
        let shown = chorus(&fleet.home, &["dead", "show", &seq, "--json"]).await;
        assert_eq!(shown.code, code_after, "{keep:?}: {}", shown.stderr);
    }
    let left = chorus(&fleet.home, &["dead", "list", "--json"]).await.ok().json();
    assert_eq!(left["letters"].as_array().unwrap().len(), 1, "only its own letter is deleted: {left}");
}
