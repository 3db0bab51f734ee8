//! One typed configuration for every command, made once at the start.
//!
//! Four layers, each over the one before: the defaults, a TOML file (`config.toml` in CHORUS_HOME, or `--config`), the
//! environment (`CHORUS_…`), flags. Every layer is a list of [`Value`]s under the same [`settings`] table, so a setting has
//! one name, one parser and one set of rules, wherever it comes from. Nothing stops at the first fault: a [`ConfigError`]
//! lists them all, each with the place where it was found. What the parts need (the broker's address, the manager's and the
//! worker's own configurations) is derived from here by the code that starts them. [`migrate`] turns the configuration of
//! the single-process service into this one's file.

mod environment;
mod file;
pub mod migrate;
mod plan;
pub mod settings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chorus_runtime::telemetry::LogFormat;

pub use environment::Environment;
pub use plan::{Features, ServiceSla, TtsConfig, WorkerPoolConfig};

/// Where the broker is, and the one that we start ourselves when none is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NatsConfig {
    /// `nats.url`: a broker that is there. Without it the running fleet's, or one of our own.
    pub url: Option<String>,
    /// `nats.token`: what the broker asks for; one that `chorus up` starts asks for it too.
    pub token: Option<String>,
    /// `nats.user`, with `nats.password`.
    pub user: Option<String>,
    /// `nats.password`.
    pub password: Option<String>,
    /// `nats.creds_file`: a credentials file as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// `nats.server`: the program to start; otherwise the provisioned one.
    pub server: Option<PathBuf>,
    /// `nats.port`: the port of a broker that `chorus up` starts; 0 is any. Without it 4222 when that is free, else any.
    pub port: Option<u16>,
    /// `nats.replicas`: copies of the queue and of everything else that the broker keeps; more than 1 needs a cluster, and
    /// every manager and worker must be told the same.
    pub replicas: u32,
}

/// Which engine speaks, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// `engine.kind`.
    pub kind: EngineKind,
    /// `engine.command`: a script that speaks protocol 1.0 or 2.0 on stdin and stdout, as a shell reads it; it is the engine.
    pub command: Option<String>,
    /// `engine.python`: an interpreter to use instead of the provisioned environment's; needs `engine.path`.
    pub python: Option<PathBuf>,
    /// `engine.path`: the folder that holds the package `chorus_engine`; needs `engine.python`.
    pub path: Option<PathBuf>,
    /// `engine.threads`: threads of one inference; the engine's own choice without it.
    pub threads: Option<u32>,
    /// `engine.lanes`: segments that one worker speaks at once; the engine's own choice without it.
    pub lanes: Option<u32>,
    /// `engine.max_memory_bytes`: what its process may use (each of its processes, if it is a command); no limit without it.
    pub max_memory_bytes: Option<u64>,
    /// `engine.max_cpus`: processors that its process keeps to; all without it.
    pub max_cpus: Option<u32>,
    /// `engine.canary`: whether an engine with nothing to do is tried.
    pub canary: bool,
    /// `engine.recycle_requests`: jobs after which it is renewed; 0 is never.
    pub recycle_requests: u64,
    /// `engine.recycle_age_ms`: the age at which it is renewed; 0 is never.
    pub recycle_age: Duration,
    /// `engine.recycle_least_age_ms`: it is never renewed before this age.
    pub recycle_least_age: Duration,
    /// `engine.recycle_rss_bytes`: the size at which it is renewed; 0 is never. `sla.resources.memoryUsageGB` without it.
    pub recycle_rss_bytes: Option<u64>,
}

/// The kinds of engine that come with chorus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Real speech.
    Coqui,
    /// One second of a quiet tone at once, for measuring everything else.
    Null,
    /// Samples that say who they are, for tests.
    Checkable,
    /// A script of the user's own: `engine.command`.
    Command,
}

impl EngineKind {
    /// As the engine's command line and the catalogue name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coqui => "coqui",
            Self::Null => "null",
            Self::Checkable => "checkable",
            Self::Command => "command",
        }
    }
}

/// How a fleet of our own is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetConfig {
    /// `fleet.ready_timeout_ms`: how long the first model may take to be able to speak.
    pub ready_timeout: Duration,
    /// `fleet.stop_timeout_ms`: how long each phase of the end may take.
    pub stop_timeout: Duration,
}

/// What is kept of what was spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// `cache.enabled`: whether takes are looked up and stored.
    pub enabled: bool,
    /// `cache.max_bytes`: how large the broker's store may be; the oldest takes go first.
    pub max_bytes: u64,
    /// `cache.ttl_ms`: how long takes are kept.
    pub ttl: Duration,
    /// `cache.local_bytes`: takes that each process of ours keeps in memory; 0 is none.
    pub local_bytes: u64,
}

/// Speaker reference clips on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipsConfig {
    /// `clips.max_bytes`: how large they may be together.
    pub max_bytes: u64,
    /// `clips.ttl_ms`: how long one is kept after it was last put there.
    pub ttl: Duration,
}

/// Silence between what is spoken; every manager of a fleet must be told the same. Milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseConfig {
    /// `pauses.sentence_ms`: after a sentence.
    pub sentence_ms: u32,
    /// `pauses.clause_ms`: after a part of a sentence that was too long to be spoken at once.
    pub clause_ms: u32,
    /// `pauses.paragraph_ms`: at a blank line.
    pub paragraph_ms: u32,
}

/// What retries of each class may cost, from a segment's second failure on.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryConfig {
    /// `retries.share`: retries that each segment pays for.
    pub share: f64,
    /// `retries.per_second`: retries per second beside that.
    pub per_second: f64,
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct CliConfig {
    /// CHORUS_HOME, absolute.
    pub home: PathBuf,
    /// The broker.
    pub nats: NatsConfig,
    /// The engine.
    pub engine: EngineConfig,
    /// A fleet of our own.
    pub fleet: FleetConfig,
    /// The cache.
    pub cache: CacheConfig,
    /// Speaker reference clips.
    pub clips: ClipsConfig,
    /// Silence between what is spoken.
    pub pauses: PauseConfig,
    /// Retries.
    pub retries: RetryConfig,
    /// The plan's configuration.
    pub tts: TtsConfig,
    /// `[models]`: names and where they are (a file, a folder, or a name on Coqui's hub).
    pub models: BTreeMap<String, String>,
    /// `log.filter` (`CHORUS_LOG`): directives such as `warn,chorus_worker=debug`; each command has its own default.
    pub log_filter: Option<String>,
    /// `log.format`: `human` or `json`.
    pub log_format: LogFormat,
    /// The file that was read, whether or not it was there.
    pub file: PathBuf,
    /// By setting: where its value comes from, but for defaults.
    pub origins: BTreeMap<&'static str, String>,
}

impl CliConfig {
    /// What holds where nothing is said.
    pub fn defaults(home: PathBuf) -> Self {
        Self {
            home,
            nats: NatsConfig { replicas: 1, ..NatsConfig::default() },
            engine: EngineConfig {
                kind: EngineKind::Coqui,
                command: None,
                python: None,
                path: None,
                threads: None,
                lanes: None,
                max_memory_bytes: None,
                max_cpus: None,
                canary: true,
                recycle_requests: 0,
                recycle_age: Duration::ZERO,
                recycle_least_age: Duration::from_secs(60),
                recycle_rss_bytes: None,
            },
            fleet: FleetConfig {
                ready_timeout: Duration::from_secs(300),
                stop_timeout: Duration::from_secs(5),
            },
            cache: CacheConfig {
                enabled: true,
                max_bytes: 512 * 1024 * 1024,
                ttl: Duration::from_secs(7 * 24 * 3600),
                local_bytes: 32 * 1024 * 1024,
            },
            clips: ClipsConfig { max_bytes: 256 * 1024 * 1024, ttl: Duration::from_secs(24 * 3600) },
            pauses: PauseConfig { sentence_ms: 300, clause_ms: 120, paragraph_ms: 600 },
            retries: RetryConfig { share: 0.2, per_second: 5.0 },
            tts: TtsConfig::default(),
            models: BTreeMap::new(),
            log_filter: None,
            log_format: LogFormat::Human,
            file: PathBuf::new(),
            origins: BTreeMap::new(),
        }
    }

    /// The configuration once all layers are in it, where none has a fault and all go together.
    fn settled(mut self, mut faults: Vec<Fault>) -> Result<Self, ConfigError> {
        if self.engine.command.is_some() && !self.origins.contains_key("engine.kind") {
            self.engine.kind = EngineKind::Command;
        }
        self.check(&mut faults);
        if faults.is_empty() { Ok(self) } else { Err(ConfigError { faults }) }
    }

    /// Rules that hold between settings.
    fn check(&self, faults: &mut Vec<Fault>) {
        let mut fault =
            |place: &str, what: &str| faults.push(Fault { place: place.into(), what: what.into() });
        if self.engine.python.is_some() != self.engine.path.is_some() {
            fault("engine", "engine.python and engine.path are given together or not at all");
        }
        if self.engine.kind == EngineKind::Command && self.engine.command.is_none() {
            fault("engine", "engine.kind is command, but engine.command does not say which");
        }
        if self.nats.user.is_some() != self.nats.password.is_some() {
            fault("nats", "nats.user and nats.password are given together or not at all");
        }
        for (place, what) in self.tts.faults() {
            fault(place, &what);
        }
    }
}

/// One setting as one layer gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The setting's name, such as `nats.url`.
    pub key: String,
    /// Where it was given, for messages: a variable's name, a flag, a file.
    pub place: String,
    /// What was given.
    pub text: String,
}

impl Value {
    /// A flag of the command line.
    pub fn flag(key: &str, flag: &str, text: impl Into<String>) -> Self {
        Self { key: key.to_owned(), place: flag.to_owned(), text: text.into() }
    }
}

/// Something in one layer that cannot be taken as it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

/// Every fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is wrong:{}", list(.faults))]
pub struct ConfigError {
    /// At least one.
    pub faults: Vec<Fault>,
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {}: {}", fault.place, fault.what)).collect()
}

/// What is given to [`load`].
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The process's environment, read once.
    pub environment: Environment,
    /// `--config`: a file that must be there.
    pub file: Option<PathBuf>,
    /// What flags say.
    pub flags: Vec<Value>,
}

/// Puts the layers together.
///
/// # Errors
/// Every fault of every layer.
pub fn load(sources: &Sources) -> Result<CliConfig, ConfigError> {
    let mut faults = Vec::new();
    let home = home(&sources.environment).unwrap_or_else(|fault| {
        faults.push(fault);
        PathBuf::new()
    });
    let mut config = CliConfig::defaults(home.clone());
    let (path, required) = match &sources.file {
        Some(path) => (path.clone(), true),
        None => (home.join("config.toml"), false),
    };
    let from_file = file::read(&path, required, &mut config.models, &mut faults);
    let from_environment = environment::values(&sources.environment, &mut faults);
    config.file = path;
    for layer in [&from_file, &from_environment, &sources.flags] {
        apply(&mut config, layer, &mut faults);
    }
    config.settled(faults)
}

/// What the text of a file makes of the defaults, without an environment or flags; `place` names it in faults.
///
/// # Errors
/// Every fault of it.
pub fn of_text(text: &str, place: &str) -> Result<CliConfig, ConfigError> {
    let (mut config, mut faults) = (CliConfig::defaults(PathBuf::new()), Vec::new());
    let values = file::parse(text, place, &mut config.models, &mut faults);
    apply(&mut config, &values, &mut faults);
    config.settled(faults)
}

/// Puts one layer over what is there. A setting that it gives twice, by two names, is a fault: neither can be meant.
fn apply(config: &mut CliConfig, layer: &[Value], faults: &mut Vec<Fault>) {
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for value in layer {
        let fault = |what| Fault { place: value.place.clone(), what };
        match settings::apply(config, value) {
            Ok(setting) => {
                if let Some(other) = given.insert(setting.key, &value.place) {
                    faults.push(fault(format!("says the same as {other}; leave one of them out")));
                }
                config.origins.insert(setting.key, value.place.clone());
            }
            Err(what) => faults.push(fault(what)),
        }
    }
}

fn home(environment: &Environment) -> Result<PathBuf, Fault> {
    chorus_provision::Config::from_environment(environment.pairs())
        .map(|provisioning| provisioning.home)
        .map_err(|error| Fault { place: "CHORUS_HOME".into(), what: error.to_string() })
}

#[cfg(test)]
mod tests;
