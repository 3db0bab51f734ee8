//! The programs and voices that a fleet of our own stands on: configured, or provisioned.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chorus_bus::Layout;
use chorus_client::SessionHostConfig;
use chorus_manager::{CacheConfig, ManagerConfig};
use chorus_protocol::{ModelDefinition, ModelName, ModelSource, WorkerId};
use chorus_provision::{DEMO_VOICE, Profile, Provisioner, Voice, Want};
use chorus_runtime::process::{ProcessSpec, spec::USUAL_ENV};
use chorus_worker::{Assigned, WorkerConfig};

use super::models::{self, KnownModels};
use crate::config::{CliConfig, EngineKind, Environment};
use crate::error::CliError;
use crate::ui::Ui;

/// Variables beyond the usual that Python, PyTorch and Coqui read.
const ENGINE_ENV: &[&str] = &[
    "CUDA_*",
    "NVIDIA_*",
    "OMP_*",
    "MKL_*",
    "LD_LIBRARY_PATH",
    "HF_*",
    "TORCH_*",
    "TTS_HOME",
    "COQUI_TOS_AGREED",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// What a fleet needs of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// A server of our own.
    pub nats_server: bool,
    /// The engine's environment.
    pub engine: bool,
    /// Something to speak with when no model is named.
    pub voice: bool,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// The server's program.
    pub nats_server: Option<PathBuf>,
    /// The engine.
    pub engine: Option<EngineProgram>,
    /// The demo voice.
    pub voice: Option<Voice>,
}

/// How the engine is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineProgram {
    /// The interpreter.
    pub python: PathBuf,
    /// The folder that holds its package.
    pub path: PathBuf,
}

/// A provisioner of the configured home that shows what it does.
pub fn provisioner(config: &CliConfig, environment: &Environment, ui: Ui) -> Result<Provisioner, CliError> {
    let mut provisioning = provisioning(environment)?;
    provisioning.python.clone_from(&config.tts.python_path);
    Ok(Provisioner::new(provisioning, ui.progress()))
}

/// Finds or installs what is needed; what the configuration names is taken from there.
pub async fn provide(
    config: &CliConfig,
    environment: &Environment,
    ui: Ui,
    need: Need,
) -> Result<Parts, CliError> {
    let own_engine = configured_engine(config);
    let want = want(config, need, own_engine.is_some());
    let provided = provisioner(config, environment, ui)?.provide(want).await?;
    let engine = provided.engine.map(|engine| EngineProgram { python: engine.python, path: engine.source });
    let mut parts = Parts {
        nats_server: config.nats.server.clone().filter(|_| need.nats_server).or(provided.nats_server),
        engine: own_engine.filter(|_| need.engine).or(engine),
        voice: provided.voice,
    };
    if need.voice && parts.voice.is_none() && config.engine.kind == EngineKind::Coqui {
        // With an engine of one's own nothing is installed, but a voice may be there.
        let installed = chorus_provision::voices(&provisioning(environment)?)?;
        parts.voice = installed.into_iter().find(|voice| voice.name == DEMO_VOICE);
    }
    Ok(parts)
}

fn configured_engine(config: &CliConfig) -> Option<EngineProgram> {
    if config.engine.kind == EngineKind::Command {
        // The command brings its own interpreter.
        return Some(EngineProgram { python: "/bin/sh".into(), path: PathBuf::new() });
    }
    let (python, path) = config.engine.python.clone().zip(config.engine.path.clone())?;
    Some(EngineProgram { python, path })
}

fn want(config: &CliConfig, need: Need, own_engine: bool) -> Want {
    let coqui = config.engine.kind == EngineKind::Coqui;
    let profile = if coqui { Profile::Coqui } else { Profile::Light };
    Want {
        nats_server: need.nats_server && config.nats.server.is_none(),
        engine: (need.engine && !own_engine).then_some(profile),
        voice: need.voice && coqui && !own_engine,
    }
}

fn provisioning(environment: &Environment) -> Result<chorus_provision::Config, CliError> {
    Ok(chorus_provision::Config::from_environment(environment.pairs())?)
}

/// The models that can be named on this machine.
pub fn known_models(config: &CliConfig, environment: &Environment) -> Result<KnownModels, CliError> {
    let installed = chorus_provision::voices(&provisioning(environment)?)?;
    Ok(KnownModels { configured: config.models.clone(), installed })
}

/// What to serve: the models named, else `modelName` and all of `[models]`, else the demo voice or what the test engine has
/// built in. The first is meant when a request names none.
pub fn definitions(
    config: &CliConfig,
    known: &KnownModels,
    specs: &[String],
    demo: Option<&Voice>,
) -> Result<Vec<ModelDefinition>, CliError> {
    let kind = config.engine.kind;
    let specs: Vec<&String> = match (specs, kind) {
        ([], EngineKind::Coqui) => {
            let first = config.tts.model_name.as_ref();
            let others = known.configured.keys().filter(|name| Some(*name) != first);
            first.into_iter().chain(others).collect()
        }
        (named, _) => named.iter().collect(),
    };
    let mut definitions = Vec::new();
    for spec in specs {
        definitions.push(known.resolve(spec, kind)?);
    }
    if definitions.is_empty() {
        definitions.push(match (kind, demo) {
            (EngineKind::Coqui, Some(voice)) => models::of_voice(voice)?,
            (EngineKind::Coqui, None) => return Err(CliError::NoVoice),
            (other, _) => models::built_in(other.as_str(), other)?,
        });
    }
    definitions[0].default = true;
    Ok(definitions)
}

/// Whether the demo voice is needed: nothing else is named.
pub fn needs_demo_voice(config: &CliConfig, specs: &[String]) -> bool {
    let none_named = specs.is_empty() && config.models.is_empty() && config.tts.model_name.is_none();
    none_named && config.engine.kind == EngineKind::Coqui
}

/// The manager's own configuration.
pub fn manager_config(config: &CliConfig, bus: chorus_bus::BusConfig) -> ManagerConfig {
    let mut manager = ManagerConfig::new(host(), bus);
    manager.segmenter.sentence_pause_ms = config.pauses.sentence_ms;
    manager.segmenter.clause_pause_ms = config.pauses.clause_ms;
    manager.segmenter.paragraph_pause_ms = config.pauses.paragraph_ms;
    manager.retry_budget.share = config.retries.share;
    manager.retry_budget.per_second = config.retries.per_second;
    ManagerConfig {
        worker_timeout: Duration::from_millis(config.tts.worker_pool.worker_timeout_ms),
        breaker: config.tts.circuit_breaker.clone(),
        breaker_enabled: config.tts.features.circuit_breaker,
        layout: layout(config),
        sessions: session_config(config),
        cache: CacheConfig { enabled: config.cache.enabled, ..CacheConfig::default() },
        ..manager
    }
}

/// How sessions of this process work.
pub fn session_config(config: &CliConfig) -> SessionHostConfig {
    let mut sessions = SessionHostConfig::default();
    sessions.takes.enabled = config.cache.enabled;
    sessions.takes.local_bytes = config.cache.local_bytes;
    sessions
}

/// What the broker keeps: the same for every part, or they would change it in turns.
fn layout(config: &CliConfig) -> Layout {
    Layout {
        replicas: config.nats.replicas as usize,
        cache_ttl: config.cache.ttl,
        cache_max_bytes: config.cache.max_bytes,
        clips_ttl: config.clips.ttl,
        clips_max_bytes: config.clips.max_bytes,
        ..Layout::default()
    }
}

/// The worker's own configuration; the broker's address is filled in by who starts it.
pub fn worker_config(
    config: &CliConfig,
    environment: &Environment,
    engine: &EngineProgram,
    id: WorkerId,
    definitions: Vec<ModelDefinition>,
) -> WorkerConfig {
    let kind = config.engine.kind.as_str();
    let mut program = match &config.engine.command {
        Some(command) if config.engine.kind == EngineKind::Command => {
            chorus_worker::EngineConfig::command(kind, command)
        }
        _ => chorus_worker::EngineConfig::new(kind, &engine.python),
    };
    program.env = engine_environment(environment, engine);
    if let Some(cache) = &config.tts.cache_dir {
        // Where Coqui puts the models that it fetches.
        program.env.entry("TTS_HOME".into()).or_insert_with(|| cache.join("models").into());
    }
    program.threads = config.engine.threads;
    program.lanes = config.engine.lanes;
    program.max_memory_bytes = config.engine.max_memory_bytes;
    program.max_cpus = config.engine.max_cpus;
    let bus = chorus_bus::BusConfig::default();
    let local_paths = definitions.iter().filter_map(local_path).collect();
    let assigned = match definitions.as_slice() {
        [] => Assigned::AllOfEngine,
        named => Assigned::Listed(named.iter().map(|model| model.name.clone()).collect()),
    };
    let mut worker =
        WorkerConfig { definitions, local_paths, assigned, ..WorkerConfig::new(id, host(), bus, program) };
    worker.layout = layout(config);
    worker.canary.every = worker.canary.every.filter(|_| config.engine.canary);
    worker.recycle.requests = Some(config.engine.recycle_requests).filter(|count| *count > 0);
    worker.recycle.age = Some(config.engine.recycle_age).filter(|age| !age.is_zero());
    worker.recycle.least_age = config.engine.recycle_least_age;
    let size = config.engine.recycle_rss_bytes.unwrap_or_else(|| config.tts.memory_bytes());
    worker.recycle.rss_bytes = Some(size).filter(|bytes| *bytes > 0);
    worker.breaker = config.tts.circuit_breaker.clone();
    worker.breaker_enabled = config.tts.features.circuit_breaker;
    worker
}

fn local_path(model: &ModelDefinition) -> Option<(ModelName, PathBuf)> {
    match &model.source {
        ModelSource::Path { path, .. } => Some((model.name.clone(), PathBuf::from(path))),
        ModelSource::Hub { .. } | ModelSource::Builtin { .. } => None,
    }
}

fn engine_environment(environment: &Environment, engine: &EngineProgram) -> BTreeMap<OsString, OsString> {
    let spec = ProcessSpec::new("engine", &engine.python);
    let spec =
        if engine.path.as_os_str().is_empty() { spec } else { spec.set_env("PYTHONPATH", &engine.path) };
    let spec = spec
        .set_env("PYTHONUNBUFFERED", "1")
        .allow_env(environment.pairs(), USUAL_ENV)
        .allow_env(environment.pairs(), ENGINE_ENV);
    // Where it keeps exported graphs and calibrations: beside everything else that is installed.
    match chorus_provision::Config::from_environment(environment.pairs()) {
        Ok(config) => spec.set_env("CHORUS_HOME", config.home).env,
        Err(_without_a_home) => spec.env,
    }
}

/// This host's name, as heartbeats tell it.
pub fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn config(pairs: &[(&str, &str)]) -> (CliConfig, Environment) {
        let home =
            [("CHORUS_HOME", "/nowhere"), ("PATH", "/bin"), ("SECRET", "x"), ("CUDA_VISIBLE_DEVICES", "0")];
        let all = home.iter().chain(pairs).map(|(name, value)| (name.into(), value.into()));
        let environment = Environment::new(all);
        let sources = Sources { environment: environment.clone(), ..Sources::default() };
        (load(&sources).unwrap(), environment)
    }

    #[test]
    fn only_what_is_not_configured_is_installed() {
        let all = Need { nats_server: true, engine: true, voice: true };
        let (plain, _) = config(&[]);
        let wanted = want(&plain, all, false);
        assert_eq!(wanted, Want { nats_server: true, engine: Some(Profile::Coqui), voice: true });
        let (null, _) = config(&[("CHORUS_ENGINE_KIND", "null"), ("CHORUS_NATS_SERVER", "/bin/nats-server")]);
        assert_eq!(
            want(&null, all, false),
            Want { nats_server: false, engine: Some(Profile::Light), voice: false }
        );
        assert_eq!(want(&plain, all, true), Want { nats_server: true, engine: None, voice: false });
    }

    #[test]
    fn the_first_model_is_the_default_and_something_must_speak() {
        let (null, _) = config(&[("CHORUS_ENGINE_KIND", "null")]);
        let models = definitions(&null, &KnownModels::default(), &[], None).unwrap();
        assert_eq!((models.len(), models[0].name.as_str(), models[0].default), (1, "null", true));
        let two = definitions(&null, &KnownModels::default(), &["a".into(), "b".into()], None).unwrap();
        assert_eq!((two[0].default, two[1].default), (true, false));
        let (plain, _) = config(&[]);
        assert!(matches!(definitions(&plain, &KnownModels::default(), &[], None), Err(CliError::NoVoice)));
        let voice = Voice { name: "joe".into(), path: "/voices/joe".into() };
        assert_eq!(
            definitions(&plain, &KnownModels::default(), &[], Some(&voice)).unwrap()[0].name.as_str(),
            "joe"
        );
    }

    #[test]
    fn what_is_set_about_the_engine_reaches_the_worker() {
        let worker = |pairs: &[(&str, &str)]| {
            let (config, environment) = config(pairs);
            let engine = EngineProgram { python: "/env/bin/python".into(), path: "/engine".into() };
            worker_config(&config, &environment, &engine, WorkerId::new("w").unwrap(), Vec::new())
        };
        let usual = worker(&[]);
        assert_eq!((usual.engine.max_memory_bytes, usual.recycle.rss_bytes), (None, Some(4_000_000_000)));
        assert_eq!((usual.recycle.requests, usual.recycle.age), (None, None));
        assert!(usual.canary.every.is_some() && usual.breaker_enabled);
        let set = worker(&[
            ("CHORUS_ENGINE_MAX_MEMORY_BYTES", "8000000000"),
            ("CHORUS_ENGINE_MAX_CPUS", "3"),
            ("CHORUS_ENGINE_CANARY", "false"),
            ("CHORUS_ENGINE_RECYCLE_REQUESTS", "1000"),
            ("CHORUS_ENGINE_RECYCLE_AGE_MS", "3600000"),
            ("CHORUS_ENGINE_RECYCLE_LEAST_AGE_MS", "5000"),
            ("CHORUS_ENGINE_RECYCLE_RSS_BYTES", "0"),
            ("CHORUS_CACHE_DIR", "/cache"),
            ("CHORUS_CIRCUIT_BREAKER_SUCCESS_THRESHOLD", "7"),
            ("CHORUS_FEATURES_CIRCUIT_BREAKER", "false"),
        ]);
        assert_eq!((set.breaker.success_threshold, set.breaker_enabled), (7, false));
        assert_eq!(set.engine.env[std::ffi::OsStr::new("TTS_HOME")], "/cache/models");
        let size = worker(&[("CHORUS_SLA_RESOURCES_MEMORY_USAGE_GB", "1.5")]).recycle.rss_bytes;
        assert_eq!(size, Some(1_500_000_000), "the plan's name for it");
        assert_eq!((set.engine.max_memory_bytes, set.recycle.rss_bytes), (Some(8_000_000_000), None));
        assert_eq!(
            (set.recycle.requests, set.recycle.age.map(|age| age.as_secs())),
            (Some(1000), Some(3600))
        );
        assert_eq!(
            (usual.recycle.least_age, set.recycle.least_age),
            (Duration::from_secs(60), Duration::from_secs(5))
        );
        assert_eq!((usual.engine.max_cpus, set.engine.max_cpus), (None, Some(3)));
        assert!(set.canary.every.is_none());
        usual.check().unwrap();
        set.check().unwrap();
    }

    #[test]
    fn what_is_set_about_pool_and_breakers_reaches_the_manager() {
        let (config, _) = config(&[
            ("CHORUS_WORKER_POOL_WORKER_TIMEOUT_MS", "2500"),
            ("CHORUS_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "0.25"),
            ("CHORUS_CIRCUIT_BREAKER_TIMEOUT_MS", "4000"),
            ("CHORUS_FEATURES_CIRCUIT_BREAKER", "false"),
            ("CHORUS_RETRIES_SHARE", "0.5"),
            ("CHORUS_RETRIES_PER_SECOND", "2"),
        ]);
        let manager = manager_config(&config, chorus_bus::BusConfig::default());
        assert_eq!(manager.worker_timeout, Duration::from_millis(2_500));
        assert_eq!((manager.breaker.failure_threshold, manager.breaker.timeout_ms), (0.25, 4_000));
        assert!(!manager.breaker_enabled);
        assert_eq!((manager.retry_budget.share, manager.retry_budget.per_second), (0.5, 2.0));
        manager.validate().unwrap();
    }

    #[test]
    fn the_configured_model_comes_first() {
        let (config, _) = config(&[("CHORUS_MODEL_NAME", "joe")]);
        let known = KnownModels {
            configured: [("ann".to_owned(), "/".to_owned()), ("joe".to_owned(), "/".to_owned())].into(),
            installed: Vec::new(),
        };
        let models = definitions(&config, &known, &[], None).unwrap();
        let names: Vec<_> = models.iter().map(|model| (model.name.as_str(), model.default)).collect();
        assert_eq!(names, [("joe", true), ("ann", false)]);
        assert!(!needs_demo_voice(&config, &[]));
    }

    #[test]
    fn the_engine_sees_what_it_needs_and_no_secrets() {
        let (_, environment) = config(&[]);
        let engine = EngineProgram { python: "/env/bin/python".into(), path: "/engine".into() };
        let env = engine_environment(&environment, &engine);
        let names: Vec<_> = env.keys().filter_map(|name| name.to_str()).collect();
        assert_eq!(names, ["CHORUS_HOME", "CUDA_VISIBLE_DEVICES", "PATH", "PYTHONPATH", "PYTHONUNBUFFERED"]);
    }
}
