//! Old configurations, and files that mean the same.

use proptest::prelude::*;

use super::*;
use crate::config::{Environment, Sources, load};

fn loaded(toml: &str) -> CliConfig {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("chorus.toml");
    std::fs::write(&file, toml).unwrap();
    let environment = Environment::new([("CHORUS_HOME".into(), home.path().into())]);
    load(&Sources { environment, file: Some(file), flags: Vec::new() })
        .unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

#[test]
fn the_plans_legacy_configuration_is_mapped() {
    let old = r#"{"ttsModel": "tts_models/en/ljspeech/vits", "ttsCacheDir": "/var/cache/tts", "ttsVoiceHint": {"warm": [1, 2]},
                  "volume": 0.8}"#;
    let migrated = migrate(old, "old.json").unwrap();
    let config = loaded(&migrated.toml);
    assert_eq!(config.tts.model_name.as_deref(), Some("tts_models/en/ljspeech/vits"));
    assert_eq!(config.tts.cache_dir, Some("/var/cache/tts".into()));
    let pool = &config.tts.worker_pool;
    assert_eq!((pool.min_workers, pool.max_workers), (1, Some(3)));
    assert_eq!((pool.scale_up_threshold, pool.scale_down_threshold), (5, 30_000));
    assert_eq!(config.tts.circuit_breaker, chorus_protocol::breaker::CircuitBreakerConfig::default());
    assert_eq!(migrated.unknown, ["ttsVoiceHint.warm", "volume"]);
    for line in
        ["# ttsVoiceHint.warm = [1,2]", "# volume = 0.8", "(was: ttsModel)", "(new; this is the default)"]
    {
        assert!(migrated.toml.contains(line), "{line} in\n{}", migrated.toml);
    }
}

#[test]
fn new_names_and_numbers_written_as_text_are_taken_too() {
    let old = r#"{"workerPool": {"minWorkers": "5"}, "cachePath": "cache", "pythonPath": "/usr/bin/python3", "ttsModel": "default",
                  "sla": {"synthesis": {"latency": {"p99": 900}}}, "models": {"my voice": "/v"}}"#;
    let config = loaded(&migrate(old, "o").unwrap().toml);
    assert_eq!((config.tts.worker_pool.min_workers, config.tts.worker_pool.max_workers), (5, Some(5)));
    assert_eq!((config.tts.sla.p99, config.tts.model_name), (900, None));
    assert_eq!(config.models["my voice"], "/v");
    assert!(
        config.tts.python_path.is_some() && config.tts.cache_dir.is_some_and(|path| path.ends_with("cache"))
    );
}

#[test]
fn every_fault_is_told_with_its_old_name() {
    let old = r#"{"workerPool": {"minWorkers": 4, "maxWorkers": 2}, "circuitBreaker": {"timeoutMs": 10, "failureThreshold": 2},
                  "ttsCacheDir": "a", "cachePath": "b"}"#;
    let faults = migrate(old, "old.json").unwrap_err().faults;
    let text = ConfigError { faults: faults.clone() }.to_string();
    for word in [
        "minWorkers (4) cannot exceed maxWorkers (2)",
        "circuitBreaker.timeoutMs",
        "failureThreshold",
        "cachePath",
        "ttsCacheDir",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert_eq!(faults.len(), 4, "{text}");
    for old in ["[]", "{", "null"] {
        assert_eq!(migrate(old, "x").unwrap_err().faults.len(), 1);
    }
}

#[test]
fn what_is_kept_as_a_comment_is_one() {
    let migrated = migrate(r#"{"no\u007fvel": "a\u007fb\nc = 1", "other": ["\u007f"]}"#, "o").unwrap();
    loaded(&migrated.toml);
    assert!(migrated.toml.contains(r##"# no vel = "a\u007fb\nc = 1""##), "{}", migrated.toml);
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        "\\PC{0,12}|a\nb|\"\"\"|a\u{7f}b".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let name = prop_oneof![
            "[a-z\n\"#=.]{0,6}",
            Just("models".to_owned()),
            Just("ttsModel".to_owned()),
            Just("nats".to_owned())
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::vec((name, inner), 0..5)
                .prop_map(|pairs| pairs.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

proptest! {
    /// Whatever it is: a file that can be read, or faults; never a panic, and nothing of it in force that is only a comment.
    #[test]
    fn what_is_written_can_be_read(old in any_json()) {
        if let Ok(migrated) = migrate(&old.to_string(), "a\nb = 1") {
            let table = migrated.toml.parse::<toml::Table>();
            prop_assert!(table.is_ok(), "{:?}\n{}", table, migrated.toml);
            loaded(&migrated.toml);
        }
    }
}
