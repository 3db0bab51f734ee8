//! The cache, end to end: what was spoken once is heard again, and whatever is wrong with it costs only the speaking.
//!
//! The model is a checkable one that asks for its takes to be stored and computes for a while, so that it can be told
//! whether an engine spoke. Each test has a fleet of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::time::Duration;

use async_nats::jetstream::{self, object_store::ObjectStore};
use chorus_tests::fleet::signal;
use chorus_tests::{Fleet, checkable, chorus, nats, poll, wav};
use futures::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    fleet: Fleet,
    client: async_nats::Client,
    takes: ObjectStore,
}

impl World {
    /// A fleet of so many workers that speak the model `cached`.
    async fn new(workers: &str, compute_ms: u64) -> Self {
        let fleet = Fleet::up(&["--engine", "checkable", "--workers", workers]).await;
        let client = async_nats::connect(&fleet.url).await.unwrap();
        let options = json!({"cache": true, "computeMs": compute_ms});
        let model = json!({"name": "cached", "engine": "checkable", "source": {"builtin": "checkable"}, "options": options});
        let load = json!({"version": "2.0.0", "messageId": "load", "timestamp": 0, "type": "request", "payload": {"model": model}});
        let loaded = nats::ask_json(&client, "tts.models.load", load.to_string()).await;
        assert_eq!(loaded["type"], "response", "{loaded}");
        let takes = jetstream::new(client.clone()).get_object_store("tts-cache").await.unwrap();
        let world = Self { fleet, client, takes };
        world.all_know_the_model(workers.parse().unwrap()).await;
        world
    }

    async fn all_know_the_model(&self, workers: usize) {
        poll("the model's identity", PATIENCE, || async {
            let status = self.fleet.status().await;
            let of = |worker: &Value| worker["models"].as_array().cloned().unwrap_or_default();
            let knows = |worker: &&Value| {
                of(worker).iter().any(|m| m["name"] == "cached" && m["identity"].is_string())
            };
            (status["workers"].as_array().unwrap().iter().filter(knows).count() == workers).then_some(())
        })
        .await;
    }

    /// Asks for a text, checks every sample, and gives the result.
    async fn say(&self, text: &str, more: Value) -> Value {
        let mut request = json!({"text": text, "model": "cached"});
        request.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let reply = nats::ask_json(&self.client, "tts.synthesize", request.to_string()).await;
        assert_eq!(reply["success"], true, "{reply}");
        let wav = wav::parse(&nats::audio_of(&self.client, &reply).await);
        checkable::assert_spoken(&wav.samples, &[text]);
        reply
    }

    /// Whether it came from the cache.
    async fn hit(&self, text: &str) -> bool {
        let reply = self.say(text, json!({})).await;
        let metadata = &reply["metadata"];
        let cached = metadata["cachedSegments"].as_u64().unwrap_or_default();
        assert_eq!(cached == 1, metadata["cacheHit"] == true, "{reply}");
        assert_eq!(metadata["retries"], 0, "{reply}");
        metadata["cacheHit"] == true
    }

    /// Asks until it comes from the cache: takes are stored off the path of the first answer.
    async fn hit_at_last(&self, text: &str) {
        poll("a hit", PATIENCE, || async { self.hit(text).await.then_some(()) }).await;
    }

    async fn jobs_done(&self) -> u64 {
        let status = self.fleet.status().await;
        status["workers"].as_array().unwrap().iter().map(|w| w["jobsDone"].as_u64().unwrap()).sum()
    }

    /// Waits until so many jobs are done: heartbeats tell it a little later.
    async fn spoken(&self, jobs: u64) {
        poll("the jobs that are done", PATIENCE, || async { (self.jobs_done().await == jobs).then_some(()) })
            .await;
    }

    /// The process of the worker that speaks now.
    async fn busy(&self) -> u32 {
        poll("a busy worker", PATIENCE, || async {
            let status = self.fleet.status().await;
            let busy = status["workers"].as_array()?.iter().find(|worker| worker["inFlight"] != 0)?;
            busy["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
        })
        .await
    }

    async fn keys(&self) -> Vec<String> {
        let mut list = self.takes.list().await.unwrap();
        let mut keys = Vec::new();
        while let Some(Ok(object)) = list.next().await {
            keys.push(object.name);
        }
        keys
    }

    /// Speaks a text for the first time and waits until its take is stored; its key.
    async fn stored(&self, text: &str) -> String {
        let before = self.keys().await;
        assert!(!self.hit(text).await, "{text} was never spoken before");
        poll("a stored take", PATIENCE, || async {
            self.keys().await.into_iter().find(|key| !before.contains(key))
        })
        .await
    }

    async fn status(&self) -> Value {
        chorus(&self.fleet.home, &["cache", "status", "--json"]).await.ok().json()
    }

    async fn claimed(&self) {
        let store = jetstream::new(self.client.clone()).get_key_value("tts-takes").await.unwrap();
        poll("a claim", PATIENCE, || async {
            let mut keys = store.keys().await.unwrap();
            while let Some(Ok(key)) = keys.next().await {
                let value = store.get(key).await.unwrap().unwrap_or_default();
                if String::from_utf8_lossy(&value).contains("claimed") {
                    return Some(());
                }
            }
            None
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_spoken_is_heard_again_until_it_is_cleared() {
    let world = World::new("2", 20).await;
    world.stored("Good morning.").await;
    world.spoken(1).await;
    for _ in 0..5 {
        assert!(world.hit("Good morning.").await);
    }
    let from_cache = world.say("Good morning.", json!({})).await;
    assert_eq!(from_cache["metadata"]["workerUsed"], "");

    // Whatever makes another take is another key; a new take can be asked for.
    let mut spoken = 1;
    for more in [json!({"seed": 7}), json!({"fresh": true})] {
        let reply = world.say("Good morning.", more.clone()).await;
        assert_eq!(reply["metadata"]["cacheHit"], false, "{more}: {reply}");
        spoken += 1;
        // One more, and none for all that came from the cache.
        world.spoken(spoken).await;
    }
    poll("the seeded take", PATIENCE, || async {
        let reply = world.say("Good morning.", json!({"seed": 7})).await;
        (reply["metadata"]["cacheHit"] == true).then_some(())
    })
    .await;

    // A part of a text may come from the cache, too.
    let text = json!({"text": "Good morning. And good night.", "model": "cached"});
    let reply = nats::ask_json(&world.client, "tts.synthesize", text.to_string()).await;
    let metadata = &reply["metadata"];
    assert_eq!((&metadata["cacheHit"], &metadata["cachedSegments"]), (&json!(false), &json!(1)), "{reply}");

    // Takes have the voice's own rate; what is heard has the one that is asked for.
    let text = json!({"text": "Good morning. And good night.", "model": "cached", "sampleRate": 24_000});
    let reply = poll("both sentences as hits", PATIENCE, || async {
        let reply = nats::ask_json(&world.client, "tts.synthesize", text.to_string()).await;
        (reply["metadata"]["cachedSegments"] == 2).then_some(reply)
    })
    .await;
    assert_eq!(reply["audio"]["sampleRate"], 24_000, "{reply}");

    let status = world.status().await;
    assert!(status["enabled"] == true && status["hits"].as_u64() >= Some(6), "{status}");
    assert!(status["takes"].as_u64() >= Some(2) && status["bytes"].as_u64() > Some(0), "{status}");
    let cleared = chorus(&world.fleet.home, &["cache", "clear", "--json"]).await.ok().json();
    assert!(cleared["takes"].as_u64() >= Some(2), "{cleared}");
    assert!(!world.hit("Good morning.").await);
    world.hit_at_last("Good morning.").await;
    let say = ["say", "Good morning.", "--model", "cached", "-o", "a.wav", "--json"];
    let said = chorus(&world.fleet.home, &say).await.ok().json();
    assert_eq!(said["metadata"]["cacheHit"], true, "a client's own session fetches too: {said}");
}

#[tokio::test]
async fn a_take_that_is_gone_or_damaged_is_spoken_anew_and_heals() {
    let world = World::new("1", 0).await;
    let key = world.stored("This one is deleted.").await;
    world.takes.delete(&key).await.unwrap();
    assert!(!world.hit("This one is deleted.").await);
    world.hit_at_last("This one is deleted.").await;

    let key = world.stored("This one is another.").await;
    world.takes.put(key.as_str(), &mut &b"something else"[..]).await.unwrap();
    assert!(!world.hit("This one is another.").await);
    world.hit_at_last("This one is another.").await;

    // Half of it is gone, as when the oldest make room: its chunks, but not what says that it is there.
    let key = world.stored("This one lost its audio.").await;
    let nuid = world.takes.info(&key).await.unwrap().nuid;
    let context = jetstream::new(world.client.clone());
    let stream = context.get_stream("OBJ_tts-cache").await.unwrap();
    stream.purge().filter(format!("$O.tts-cache.C.{nuid}")).await.unwrap();
    assert!(!world.hit("This one lost its audio.").await);
    world.hit_at_last("This one lost its audio.").await;

    // Without its buckets there is no cache, and nothing else is lost.
    context.delete_stream("KV_tts-takes").await.unwrap();
    context.delete_object_store("tts-cache").await.unwrap();
    for text in ["This one is deleted.", "A new one."] {
        assert!(!world.hit(text).await);
    }
}

#[tokio::test]
async fn a_second_asker_waits_for_the_first_and_a_killed_worker_keeps_nobody_waiting() {
    let world = World::new("2", 700).await;
    // So that the fleet knows how long speaking takes. Shorter than what follows, which takes this engine as long: the
    // second asker's patience is what it expects to need itself.
    world.stored("Time it.").await;
    let second = async {
        world.claimed().await;
        world.hit("Both want this.").await
    };
    let (first, second) = tokio::join!(world.hit("Both want this."), second);
    assert_eq!((first, second), (false, true));
    // It was spoken once.
    world.spoken(2).await;

    let second = async {
        world.claimed().await;
        let waiting = world.say("Nobody stores this.", json!({}));
        let killing = async { signal(world.busy().await, Signal::KILL) };
        tokio::join!(waiting, killing).0
    };
    let (_first, second) = tokio::join!(world.say("Nobody stores this.", json!({})), second);
    assert_eq!(second["metadata"]["segments"], 1, "{second}");
}

#[tokio::test]
async fn without_a_cache_everything_is_spoken() {
    let home = chorus_tests::Home::provisioned();
    std::fs::write(home.file("config.toml"), "[cache]\nenabled = false\n").unwrap();
    let fleet = Fleet::up_in(home, &["--engine", "checkable", "--workers", "1"]).await;
    let status = chorus(&fleet.home, &["cache", "status", "--json"]).await.ok().json();
    assert_eq!((&status["enabled"], &status["takes"]), (&json!(false), &json!(0)));
}
