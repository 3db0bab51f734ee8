//! `chorus config` as a shell sees it: the built binary on good, bad and old files; its streams and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use chorus_tests::{Home, chorus, fleet};
use serde_json::{Value, json};

const GOOD: &str = "modelName = \"joe\"\n[workerPool]\nminWorkers = 2\n[nats]\ntoken = \"hush\"\n\
                    [circuitBreaker]\ntimeoutMs = 2000\n[models]\njoe = \"/voices/joe\"\n";

/// One fault of each kind: a type, a range, a rule between two settings, a name that is none, a syntax that no version has.
const BAD: &str = "[workerPool]\nminWorkers = 4\nmaxWorkers = 2\nworkerTimeoutMs = 999\n[circuitBreaker]\ntimeoutMs = 999\n\
                   failureThreshold = 1.5\n[nats]\nport = \"many\"\nspeed = 1\n[features]\nprotocol = \">=3\"\n";
const FAULTS_OF_BAD: [&str; 7] = [
    "minWorkers (4) cannot exceed maxWorkers (2)",
    "workerTimeoutMs",
    "circuitBreaker.timeoutMs",
    "failureThreshold",
    "nats.port",
    "nats.speed",
    "Unsupported protocol version: >=3",
];

const OLD: &str = r#"{"ttsModel": "tts_models/en/ljspeech/vits", "ttsCacheDir": "/var/cache/tts", "maxWorkers": 5,
                      "volume": 0.8}"#;

fn home_with(file: &str) -> Home {
    let home = Home::empty();
    std::fs::write(home.file("config.toml"), file).unwrap();
    home
}

#[tokio::test]
async fn a_good_file_is_found_good() {
    let home = home_with(GOOD);
    let told = chorus(&home, &["config", "check"]).await.ok();
    assert!(told.text().starts_with("good: "), "{}", told.text());
    assert_eq!(told.stderr, "");
    let told = chorus(&home, &["config", "check", "--json"]).await.ok().json();
    assert_eq!(told["success"], true);
    assert_eq!(told["file"], json!(home.file("config.toml")));
    assert_eq!(told["set"].as_object().unwrap().len(), 4, "{told}");
    // No file is no fault, unless it was named.
    let empty = Home::empty();
    assert_eq!(chorus(&empty, &["config", "check", "--json"]).await.ok().json()["file"], Value::Null);
    let missing = chorus(&empty, &["config", "check", "--config", "missing.toml"]).await;
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("missing.toml"), "{}", missing.stderr);
}

#[tokio::test]
async fn every_fault_of_a_bad_file_is_listed() {
    let home = home_with(BAD);
    for command in ["check", "show"] {
        let told = chorus(&home, &["config", command]).await;
        assert_eq!((told.code, told.text().as_str()), (2, ""), "{}", told.stderr);
        for fault in FAULTS_OF_BAD {
            assert!(told.stderr.contains(fault), "{fault} in\n{}", told.stderr);
        }
        assert!(told.stderr.contains("hint: "), "{}", told.stderr);
        let told = chorus(&home, &["config", command, "--json"]).await;
        assert_eq!(told.code, 2);
        let error = &told.json()["error"];
        let faults = error["faults"].as_array().unwrap();
        assert_eq!((faults.len(), &error["retryable"]), (FAULTS_OF_BAD.len(), &json!(false)), "{error}");
        // A value is found in the file; a rule between settings is about them, wherever they come from.
        let in_file = |fault: &&Value| fault["place"].as_str().unwrap().contains("config.toml");
        assert_eq!(faults.iter().filter(in_file).count(), 5, "{error}");
    }
    // A file that is no TOML at all is one fault, which says where.
    let broken = home_with("[nats\nport = 1\n");
    let told = chorus(&broken, &["config", "check"]).await;
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("config.toml") && told.stderr.contains("line 1"), "{}", told.stderr);
}

#[tokio::test]
async fn the_environment_is_checked_and_shown_too() {
    let home = home_with(GOOD);
    let mut command = fleet::command(&home, &["config", "check", "--json"]);
    command.env("CHORUS_WORKER_POOL_MIN_WORKERS", "0").env("CHORUS_NATS_URL", "http://x");
    let told = fleet::finish(command).await;
    assert_eq!(told.code, 2);
    let text = told.json().to_string();
    assert!(text.contains("CHORUS_WORKER_POOL_MIN_WORKERS") && text.contains("CHORUS_NATS_URL"), "{text}");
    // A variable that is misspelt is no fault, but it is told.
    let mut command = fleet::command(&home, &["config", "check"]);
    command.env("CHORUS_WORKER_POOL_MIN_WORKERZ", "3");
    let told = fleet::finish(command).await.ok();
    assert!(told.stderr.contains("CHORUS_WORKER_POOL_MIN_WORKERZ"), "{}", told.stderr);
}

#[tokio::test]
async fn settings_are_shown_with_their_origin_and_without_secrets() {
    let home = home_with(GOOD);
    let mut command = fleet::command(&home, &["config", "show", "--json"]);
    command.env("CHORUS_CIRCUIT_BREAKER_TIMEOUT_MS", "3000");
    let told = fleet::finish(command).await.ok();
    assert!(!told.text().contains("hush"));
    let shown = told.json();
    let settings = &shown["settings"];
    let pair = |name: &str| (settings[name]["value"].clone(), settings[name]["from"].clone());
    assert_eq!(pair("circuitBreaker.timeoutMs"), (json!(3000), json!("CHORUS_CIRCUIT_BREAKER_TIMEOUT_MS")));
    assert_eq!(pair("workerPool.minWorkers").0, 2);
    assert!(pair("workerPool.minWorkers").1.as_str().unwrap().contains("config.toml"));
    assert_eq!(pair("circuitBreaker.resetTimeoutMs").1, "default");
    assert_eq!(shown["models"]["joe"], "/voices/joe");
    let table = chorus(&home, &["config", "show"]).await.ok().text();
    assert!(table.starts_with("SETTING") && table.contains("models.joe"), "{table}");
    assert!(!table.contains("hush"));
}

#[tokio::test]
async fn the_schema_is_told_whatever_state_the_file_is_in() {
    let text = chorus(&home_with("]"), &["config", "schema"]).await.ok().text();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let threshold = &schema["properties"]["circuitBreaker"]["properties"]["failureThreshold"];
    assert_eq!((&threshold["default"], &threshold["maximum"]), (&json!(0.5), &json!(1.0)));
    assert_eq!(schema["properties"]["workerPool"]["additionalProperties"], false);
}

#[tokio::test]
async fn an_old_file_becomes_a_new_one_that_is_good() {
    let home = Home::empty();
    std::fs::write(home.file("old.json"), OLD).unwrap();
    let printed = chorus(&home, &["config", "migrate", "old.json"]).await.ok();
    assert!(printed.text().contains("modelName = \"tts_models/en/ljspeech/vits\""), "{}", printed.text());
    assert!(printed.text().contains("# volume = 0.8"), "{}", printed.text());
    assert!(printed.stderr.contains("volume"), "what is kept as a comment is told: {}", printed.stderr);

    let migrate = ["config", "migrate", "old.json", "-o", "chorus.toml"];
    let _written = chorus(&home, &migrate).await.ok();
    let new = std::fs::read_to_string(home.file("chorus.toml")).unwrap();
    assert_eq!(new.trim_end(), printed.text().trim_end());
    let show = ["config", "show", "--json", "--config", "chorus.toml"];
    let shown = chorus(&home, &show).await.ok().json();
    let value = |name: &str| shown["settings"][name]["value"].clone();
    assert_eq!(value("modelName"), "tts_models/en/ljspeech/vits");
    assert_eq!((value("cacheDir"), value("workerPool.maxWorkers")), (json!("/var/cache/tts"), json!(5)));
    let _good = chorus(&home, &["config", "check", "--config", "chorus.toml"]).await.ok();

    // What is there is somebody's work.
    let again = chorus(&home, &migrate).await;
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("chorus.toml") && again.stderr.contains("hint: "), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(home.file("chorus.toml")).unwrap(), new);
}

#[tokio::test]
async fn an_old_file_that_cannot_be_meant_is_refused_with_every_fault() {
    let home = Home::empty();
    let old = r#"{"workerPool": {"minWorkers": 4, "maxWorkers": 2}, "circuitBreaker": {"timeoutMs": 10}}"#;
    std::fs::write(home.file("old.json"), old).unwrap();
    let told = chorus(&home, &["config", "migrate", "old.json", "-o", "new.toml"]).await;
    assert_eq!((told.code, told.text().as_str()), (2, ""));
    for fault in ["minWorkers (4) cannot exceed maxWorkers (2)", "circuitBreaker.timeoutMs"] {
        assert!(told.stderr.contains(fault), "{fault} in {}", told.stderr);
    }
    assert!(!home.file("new.toml").exists());
    std::fs::write(home.file("old.json"), "no json").unwrap();
    assert_eq!(chorus(&home, &["config", "migrate", "old.json"]).await.code, 2);
    let missing = chorus(&home, &["config", "migrate", "nowhere.json"]).await;
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("nowhere.json"), "{}", missing.stderr);
}
