//! Layers, faults, and where each is told.

use std::path::Path;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::new(pairs.iter().map(|(name, value)| (name.into(), value.into())))
}

fn sources(home: &Path, pairs: &[(&str, &str)]) -> Sources {
    let home = home.to_str().unwrap();
    let all: Vec<_> = [("CHORUS_HOME", home)].into_iter().chain(pairs.iter().copied()).collect();
    Sources { environment: environment(&all), ..Sources::default() }
}

#[test]
fn later_layers_win() {
    let home = tempfile::tempdir().unwrap();
    let file = "[nats]\nurl = \"nats://file:1\"\nport = 4300\n[engine]\nthreads = 3\n[models]\njoe = \"/voices/joe\"\n";
    std::fs::write(home.path().join("config.toml"), file).unwrap();
    let mut sources =
        sources(home.path(), &[("CHORUS_NATS_URL", "nats://env:2"), ("CHORUS_ENGINE_THREADS", "5")]);
    sources.flags = vec![Value::flag("engine.threads", "--engine-threads", "7")];
    let config = load(&sources).unwrap();
    assert_eq!(config.home, home.path());
    assert_eq!(config.nats.port, Some(4300), "the file's stands where nothing is over it");
    assert_eq!(config.nats.url.as_deref(), Some("nats://env:2"), "the environment is over the file");
    assert_eq!(config.engine.threads, Some(7), "a flag is over the environment");
    assert_eq!(config.models["joe"], "/voices/joe");
    assert_eq!(config.tts.worker_pool.min_workers, 1, "a default");
}

#[test]
fn every_fault_is_listed_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let file = "[nats]\nport = \"many\"\nspeed = 1\n[engine]\nthreads = [1]\n[models]\njoe = 1\n";
    std::fs::write(home.path().join("config.toml"), file).unwrap();
    let mut sources = sources(
        home.path(),
        &[
            ("CHORUS_FLEET_WORKERS", "0"),
            ("CHORUS_NATS_URL", "http://x"),
            ("CHORUS_ENGINE_PYTHON", "/usr/bin/python3"),
        ],
    );
    sources.flags = vec![Value::flag("engine.kind", "--engine", "loud")];
    let faults = load(&sources).unwrap_err().faults;
    let places: Vec<&str> = faults.iter().map(|fault| fault.place.rsplit(": ").next().unwrap()).collect();
    assert_eq!(faults.len(), 8, "{faults:#?}");
    for place in ["nats.port", "nats.speed", "engine.threads", "models.joe", "CHORUS_FLEET_WORKERS"] {
        assert!(places.contains(&place), "{place} in {places:?}");
    }
    for place in ["CHORUS_NATS_URL", "--engine", "engine"] {
        assert!(places.contains(&place), "{place} in {places:?}");
    }
}

#[test]
fn a_missing_file_is_a_fault_only_when_it_was_named() {
    let home = tempfile::tempdir().unwrap();
    let mut sources = sources(home.path(), &[]);
    assert!(load(&sources).is_ok());
    sources.file = Some(home.path().join("other.toml"));
    assert!(load(&sources).unwrap_err().to_string().contains("other.toml"));
    std::fs::write(home.path().join("other.toml"), "[nats\n").unwrap();
    assert!(load(&sources).unwrap_err().to_string().contains("other.toml"));
}

#[test]
fn misspelt_variables_are_noticed_and_empty_ones_are_not_set() {
    let found =
        environment(&[("CHORUS_NAT_URL", "x"), ("CHORUS_HOME", "/h"), ("CHORUS_LOG", ""), ("PATH", "/bin")]);
    assert_eq!(found.unknown(), ["CHORUS_NAT_URL"]);
    assert_eq!(found.get("CHORUS_LOG"), None);
    assert!(found.on_path("sh").is_some() && found.on_path("no-such-program").is_none());
}

#[test]
fn every_setting_has_a_name_and_a_variable_of_its_own() {
    let mut names: Vec<_> = settings::all().flat_map(|setting| [setting.key, setting.variable]).collect();
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before);
}

#[test]
fn the_plans_configuration_is_read_from_nested_tables() {
    let home = tempfile::tempdir().unwrap();
    let file = "modelName = \"joe\"\n[workerPool]\nminWorkers = 2\nworkerTimeoutMs = 2000\nmodelSpecialization = true\n\
                [circuitBreaker]\nfailureThreshold = 0.25\n[sla.synthesis.latency]\np50 = 20\n\
                [features]\ncircuitBreaker = false\nprotocol = \"<2.1.0\"\n";
    std::fs::write(home.path().join("config.toml"), file).unwrap();
    let config = load(&sources(home.path(), &[("CHORUS_FLEET_WORKERS", "3")])).unwrap();
    let pool = &config.tts.worker_pool;
    assert_eq!((pool.min_workers, pool.most_workers(), pool.model_specialization), (3, 3, true));
    assert_eq!((config.tts.circuit_breaker.failure_threshold, config.tts.sla.p50), (0.25, 20));
    assert!(!config.tts.features.circuit_breaker);
    assert_eq!(config.origins["workerPool.minWorkers"], "CHORUS_FLEET_WORKERS", "its earlier name");
}

#[test]
fn rules_between_the_plans_fields_are_told_together() {
    let home = tempfile::tempdir().unwrap();
    let file = "[workerPool]\nminWorkers = 4\nmaxWorkers = 2\nworkerTimeoutMs = 999\n[circuitBreaker]\ntimeoutMs = 999\n\
                minimumCalls = 11\nresetTimeoutMs = 700000\nfailureThreshold = 1.5\n[sla.synthesis.latency]\np95 = 100\n\
                [sla.synthesis]\navailability = 101\n[features]\nprotocol = \">=3\"\n[fleet]\nworkers = 4\n[sla.other]\nx = 1\n";
    std::fs::write(home.path().join("config.toml"), file).unwrap();
    let text = load(&sources(home.path(), &[])).unwrap_err().to_string();
    for what in [
        "minWorkers (4) cannot exceed maxWorkers (2)",
        "workerTimeoutMs: \"999\"",
        "circuitBreaker.timeoutMs: \"999\"",
        "minimumCalls (11)",
        "resetTimeoutMs (700000)",
        "failureThreshold: \"1.5\"",
        "must not fall",
        "availability: \"101\"",
        "Unsupported protocol version: >=3",
        "says the same as",
        "sla.other: there is no such setting",
    ] {
        assert!(text.contains(what), "{what} in {text}");
    }
}

/// `cli/schemas/config.json`, which is what `chorus config schema` prints. CHORUS_BLESS=1 writes it anew.
fn schema() -> serde_json::Value {
    let schema = settings::schema(&CliConfig::defaults("CHORUS_HOME".into()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/config.json");
    let text = format!("{schema:#}\n");
    if std::env::var_os("CHORUS_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{} is old", path.display());
    schema
}

#[test]
fn the_committed_schema_is_current_and_says_what_loading_says() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let home = tempfile::tempdir().unwrap();
    for (text, good) in [
        ("", true),
        ("modelName = \"joe\"\n[workerPool]\nminWorkers = 2\nworkerTimeoutMs = 2000\n", true),
        ("[nats]\nurl = \"nats://file:1\"\nport = 4300\n[models]\njoe = \"/voices/joe\"\n", true),
        ("[circuitBreaker]\nfailureThreshold = 0.25\n[features]\ncircuitBreaker = false\n", true),
        ("[fleet]\nworkers = 2\n", true),
        ("[nats]\nport = \"many\"\n", false),
        ("[nats]\nport = 70000\n", false),
        ("[nats]\nspeed = 1\n", false),
        ("[engine]\nthreads = [1]\n", false),
        ("[models]\njoe = 1\n", false),
        ("[circuitBreaker]\ntimeoutMs = 999\n", false),
        ("[circuitBreaker]\nfailureThreshold = 1.5\n", false),
        ("[engine]\nkind = \"loud\"\n", false),
        ("engine = 1\n", false),
        ("nonsense = 1\n", false),
    ] {
        std::fs::write(home.path().join("config.toml"), text).unwrap();
        let loaded = load(&sources(home.path(), &[]));
        assert_eq!(loaded.is_ok(), good, "{text}: {loaded:?}");
        let value = serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
        let found: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(found.is_empty(), good, "{text}: {found:?}");
    }
}

#[test]
fn the_migrated_configuration_is_valid() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let old = r#"{"ttsModel": "tts_models/en/ljspeech/vits", "ttsCacheDir": "/var/cache/tts", "novel": [1]}"#;
    let migrated = migrate::migrate(old, "old.json").unwrap();
    let value = serde_json::to_value(toml::from_str::<toml::Table>(&migrated.toml).unwrap()).unwrap();
    assert!(validator.is_valid(&value), "{value}");
}
