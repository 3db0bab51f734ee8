//! The programs and voices that a fleet of our own stands on: configured, or provisioned.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

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
pub fn provisioner(environment: &Environment, ui: Ui) -> Result<Provisioner, CliError> {
    let config = chorus_provision::Config::from_environment(environment.pairs())?;
    Ok(Provisioner::new(config, ui.progress()))
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
    let provided = provisioner(environment, ui)?.provide(want).await?;
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

/// What to serve: the models named, else all of `[models]`, else the demo voice or what the test engine has built in. The
/// first is meant when a request names none.
pub fn definitions(
    config: &CliConfig,
    known: &KnownModels,
    specs: &[String],
    demo: Option<&Voice>,
) -> Result<Vec<ModelDefinition>, CliError> {
    let kind = config.engine.kind;
    let specs: Vec<&String> = match (specs, kind) {
        ([], EngineKind::Coqui) => known.configured.keys().collect(),
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
    specs.is_empty() && config.models.is_empty() && config.engine.kind == EngineKind::Coqui
}

/// The worker's own configuration; the broker's address is filled in by who starts it.
pub fn worker_config(
    config: &CliConfig,
    environment: &Environment,
    engine: &EngineProgram,
    id: WorkerId,
    definitions: Vec<ModelDefinition>,
) -> WorkerConfig {
    let mut program = chorus_worker::EngineConfig::new(config.engine.kind.as_str(), &engine.python);
    program.env = engine_environment(environment, engine);
    program.threads = config.engine.threads;
    program.lanes = config.engine.lanes;
    program.max_memory_bytes = config.engine.max_memory_bytes;
    let bus = chorus_bus::BusConfig::default();
    let local_paths = definitions.iter().filter_map(local_path).collect();
    let assigned = match definitions.as_slice() {
        [] => Assigned::AllOfEngine,
        named => Assigned::Listed(named.iter().map(|model| model.name.clone()).collect()),
    };
    let mut worker =
        WorkerConfig { definitions, local_paths, assigned, ..WorkerConfig::new(id, host(), bus, program) };
    worker.canary.every = worker.canary.every.filter(|_| config.engine.canary);
    worker.recycle.requests = Some(config.engine.recycle_requests).filter(|count| *count > 0);
    worker.recycle.age = Some(config.engine.recycle_age).filter(|age| !age.is_zero());
    worker.recycle.rss_bytes = Some(config.engine.recycle_rss_bytes).filter(|bytes| *bytes > 0);
    worker
}

fn local_path(model: &ModelDefinition) -> Option<(ModelName, PathBuf)> {
    match &model.source {
        ModelSource::Path { path, .. } => Some((model.name.clone(), PathBuf::from(path))),
        ModelSource::Hub { .. } | ModelSource::Builtin { .. } => None,
    }
}

fn engine_environment(environment: &Environment, engine: &EngineProgram) -> BTreeMap<OsString, OsString> {
    let spec = ProcessSpec::new("engine", &engine.python)
        .set_env("PYTHONPATH", &engine.path)
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
        assert!(usual.canary.every.is_some());
        let set = worker(&[
            ("CHORUS_ENGINE_MAX_MEMORY_BYTES", "8000000000"),
            ("CHORUS_ENGINE_CANARY", "false"),
            ("CHORUS_ENGINE_RECYCLE_REQUESTS", "1000"),
            ("CHORUS_ENGINE_RECYCLE_AGE_MS", "3600000"),
            ("CHORUS_ENGINE_RECYCLE_RSS_BYTES", "0"),
        ]);
        assert_eq!((set.engine.max_memory_bytes, set.recycle.rss_bytes), (Some(8_000_000_000), None));
        assert_eq!(
            (set.recycle.requests, set.recycle.age.map(|age| age.as_secs())),
            (Some(1000), Some(3600))
        );
        assert!(set.canary.every.is_none());
        usual.check().unwrap();
        set.check().unwrap();
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
