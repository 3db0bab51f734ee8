//! What a worker is told at its start, checked as a whole before anything runs.
//!
//! Whoever embeds a worker fills in a [`WorkerConfig`]; it reads no environment of its own. [`WorkerConfig::check`] lists
//! every error at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chorus_bus::{BusConfig, Layout};
use chorus_protocol::breaker::CircuitBreakerConfig;
use chorus_protocol::fleet::HEARTBEAT_INTERVAL_MS;
use chorus_protocol::{ModelDefinition, ModelName, ModelSource, WorkerId};
use chorus_runtime::process::supervisor::RestartPolicy;
use chorus_runtime::process::{GuardBinary, Pipes, ProcessSpec, ProgramLimits};

use crate::engine::Liveness;
use crate::life::canary::CanaryConfig;
use crate::life::recycle::RecycleConfig;
use crate::pull::controller;
use crate::run::Limits;

/// What an engine speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Frames of protocol 2.1 on descriptors of their own.
    Frames,
    /// Lines of protocol 1.0 or 2.0 on stdin and stdout.
    Lines,
}

/// Which engine a worker runs, and how.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Its kind: `coqui`, `null`, `checkable`, or one of a plugin's.
    pub kind: String,
    /// The program: a Python that has the engine's packages.
    pub program: PathBuf,
    /// Its arguments before those that this worker adds, such as `-m chorus_engine`.
    pub args: Vec<OsString>,
    /// What it speaks. One that speaks lines is given no arguments, but has the limits.
    pub speaks: Speaks,
    /// Its whole environment.
    pub env: BTreeMap<OsString, OsString>,
    /// Threads of one inference; the engine's own choice when `None`.
    pub threads: Option<u32>,
    /// Segments spoken at the same time; the engine's own choice when `None`.
    pub lanes: Option<u32>,
    /// Memory that the engine may use, in bytes. One that speaks frames limits itself, any other is limited by its guard.
    pub max_memory_bytes: Option<u64>,
    /// Processors that the engine may use; who keeps it to them is as with memory.
    pub max_cpus: Option<u32>,
    /// Who ends the engine when this process dies.
    pub guard: GuardBinary,
    /// What starting and shaking hands may take.
    pub ready_within: Duration,
    /// How it is watched.
    pub liveness: Liveness,
    /// How it is started again.
    pub restart: RestartPolicy,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl EngineConfig {
    /// `program -m chorus_engine --kind KIND` with an empty environment and the usual limits.
    pub fn new(kind: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            kind: kind.into(),
            program: program.into(),
            args: vec!["-m".into(), "chorus_engine".into()],
            speaks: Speaks::Frames,
            env: BTreeMap::new(),
            threads: None,
            lanes: None,
            max_memory_bytes: None,
            max_cpus: None,
            guard: GuardBinary::OwnProgram,
            ready_within: Duration::from_secs(30),
            liveness: Liveness::default(),
            restart: RestartPolicy::default(),
            grace: Duration::from_secs(2),
        }
    }

    /// A command as a shell reads it, for a script that speaks 1.0 or 2.0 lines. It may load its model before it answers.
    pub fn command(kind: impl Into<String>, command: &str) -> Self {
        Self {
            args: vec!["-c".into(), format!("exec {command}").into()],
            speaks: Speaks::Lines,
            ready_within: Duration::from_secs(300),
            ..Self::new(kind, "/bin/sh")
        }
    }

    /// The process to start.
    pub(crate) fn process(&self) -> ProcessSpec {
        if self.speaks == Speaks::Lines {
            let mut spec = ProcessSpec::new(format!("engine-{}", self.kind), &self.program);
            // Limits have two places. An engine that speaks frames is told them and applies them itself (`limits.py`), which
            // works under any guard or none and lets it say what its platform lacks; a script knows nothing of them.
            spec.limits =
                Some(ProgramLimits { max_memory_bytes: self.max_memory_bytes, max_cpus: self.max_cpus });
            return self.finish(spec.args(self.args.clone()), Pipes::Stdio);
        }
        let mut args = self.args.clone();
        args.extend(["--kind", self.kind.as_str(), "--in-fd", "4", "--out-fd", "5"].map(OsString::from));
        let optional = [
            ("--threads", self.threads.map(u64::from)),
            ("--lanes", self.lanes.map(u64::from)),
            ("--max-memory-bytes", self.max_memory_bytes),
            ("--max-cpus", self.max_cpus.map(u64::from)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                args.extend([OsString::from(name), value.to_string().into()]);
            }
        }
        let spec = ProcessSpec::new(format!("engine-{}", self.kind), &self.program).args(args);
        self.finish(spec, Pipes::Fds)
    }

    fn finish(&self, mut spec: ProcessSpec, pipes: Pipes) -> ProcessSpec {
        spec.env = self.env.clone();
        spec.pipes = pipes;
        spec.grace = self.grace;
        spec.guard = self.guard.clone();
        spec
    }
}

/// Which models a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    /// Those named, as far as the catalogue has them.
    Listed(Vec<ModelName>),
    /// All of the catalogue that are for the worker's kind of engine.
    AllOfEngine,
}

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its stable name.
    pub id: WorkerId,
    /// The host's name, for people who look for the worker.
    pub host: String,
    /// The broker.
    pub bus: BusConfig,
    /// Sizes of streams and buckets, should they have to be made.
    pub layout: Layout,
    /// The engine.
    pub engine: EngineConfig,
    /// What it serves.
    pub assigned: Assigned,
    /// Models put into the catalogue at the start, where they are not there yet.
    pub definitions: Vec<ModelDefinition>,
    /// Where models are on this host, when the catalogue says otherwise.
    pub local_paths: BTreeMap<ModelName, PathBuf>,
    /// The most jobs pulled beyond the lanes, when jobs take under 10 ms: as many as 10 ms of work are, so that the way to the
    /// next hides behind it.
    pub prefetch: u32,
    /// Time between heartbeats.
    pub heartbeat_every: Duration,
    /// How often the queue hears that a job is still worked on; well under its `ack_wait`.
    pub in_progress_every: Duration,
    /// What finishing may take when the worker is told to leave.
    pub drain_within: Duration,
    /// How an engine with nothing to do is tried.
    pub canary: CanaryConfig,
    /// When the engine is renewed though it is well.
    pub recycle: RecycleConfig,
    /// Breakers, as managers have them; the gate lets `success_threshold` probes through.
    pub breaker: CircuitBreakerConfig,
    /// Whether the gate obeys the breaker's record in KV at all.
    pub breaker_enabled: bool,
    /// Figures of a run.
    pub run: Limits,
    /// Figures of the pull controller.
    pub pull: controller::Settings,
}

impl WorkerConfig {
    /// A worker called `id` that serves all models of its engine, with the usual figures.
    pub fn new(id: WorkerId, host: impl Into<String>, bus: BusConfig, engine: EngineConfig) -> Self {
        Self {
            id,
            host: host.into(),
            bus,
            layout: Layout::default(),
            engine,
            assigned: Assigned::AllOfEngine,
            definitions: Vec::new(),
            local_paths: BTreeMap::new(),
            prefetch: 16,
            heartbeat_every: Duration::from_millis(HEARTBEAT_INTERVAL_MS),
            in_progress_every: Duration::from_millis(300),
            drain_within: Duration::from_secs(10),
            canary: CanaryConfig::default(),
            recycle: RecycleConfig::default(),
            breaker: CircuitBreakerConfig::default(),
            breaker_enabled: true,
            run: Limits::default(),
            pull: controller::Settings::default(),
        }
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// With every fault found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        let mut require = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        require(!self.engine.kind.is_empty(), "engine.kind is empty");
        require(!self.engine.program.as_os_str().is_empty(), "engine.program is empty");
        require(self.engine.lanes != Some(0), "engine.lanes is 0; at least 1 is needed");
        require(self.engine.max_cpus != Some(0), "engine.max_cpus is 0; at least 1 is needed");
        require(self.engine.threads != Some(0), "engine.threads is 0; at least 1 is needed");
        require(!self.canary.text.trim().is_empty(), "canary.text is empty");
        require(self.recycle.requests != Some(0), "recycle.requests is 0; at least 1 is needed");
        require(self.recycle.rss_bytes != Some(0), "recycle.rssBytes is 0");
        require(self.breaker.success_threshold > 0, "breaker.successThreshold is 0");
        require(self.prefetch <= 64, "prefetch is over 64");
        require(self.assigned != Assigned::Listed(Vec::new()), "the list of models is empty");
        let durations = [
            ("engine.readyWithin", self.engine.ready_within),
            ("engine.liveness.pingEvery", self.engine.liveness.ping_every),
            ("engine.liveness.busySilence", self.engine.liveness.busy_silence),
            ("engine.liveness.idleSilence", self.engine.liveness.idle_silence),
            ("engine.liveness.loadSilence", self.engine.liveness.load_silence),
            ("heartbeatEvery", self.heartbeat_every),
            ("inProgressEvery", self.in_progress_every),
            ("canary.every", self.canary.every.unwrap_or(Duration::MAX)),
            ("canary.within", self.canary.within),
            ("recycle.age", self.recycle.age.unwrap_or(Duration::MAX)),
            ("recycle.leastAge", self.recycle.least_age),
            ("run.answerWithin", self.run.answer_within),
            ("run.silence", self.run.silence),
            ("run.askAgainEvery", self.run.ask_again_every),
            ("run.cancelWithin", self.run.cancel_within),
            ("pull.standing", self.pull.standing),
            ("pull.patience", self.pull.patience),
            ("pull.firstBackoff", self.pull.first_backoff),
        ];
        for (name, duration) in durations {
            require(!duration.is_zero(), &format!("{name} is zero"));
        }
        let foreign = self.definitions.iter().filter(|model| model.engine != self.engine.kind);
        for model in foreign {
            let (name, engine) = (&model.name, &model.engine);
            require(false, &format!("model {name} is for the engine {engine}, not for {}", self.engine.kind));
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigError { faults }) }
    }

    /// The definition as this host has it.
    pub(crate) fn localized(&self, mut model: ModelDefinition) -> ModelDefinition {
        if let Some(path) = self.local_paths.get(&model.name) {
            model.source = ModelSource::Path { path: path.display().to_string(), config_path: None };
        }
        model
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the worker's configuration cannot be used: {}", .faults.join("; "))]
pub struct ConfigError {
    /// One sentence each.
    pub faults: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> WorkerConfig {
        let engine = EngineConfig::new("null", "python3");
        WorkerConfig::new(
            WorkerId::new("w").unwrap(),
            "here",
            BusConfig::new("nats://127.0.0.1:4222"),
            engine,
        )
    }

    #[test]
    fn the_usual_figures_are_sound_and_every_fault_is_told_at_once() {
        usual().check().unwrap();
        let mut config = usual();
        config.engine.lanes = Some(0);
        config.assigned = Assigned::Listed(Vec::new());
        config.heartbeat_every = Duration::ZERO;
        assert_eq!(config.check().unwrap_err().faults.len(), 3);
    }

    #[test]
    fn the_engine_is_started_with_what_is_set() {
        let mut engine = EngineConfig::new("null", "python3");
        engine.lanes = Some(2);
        assert_eq!(engine.process().limits, None, "it limits itself");
        let args = engine.process().args;
        let args: Vec<_> = args.iter().filter_map(|arg| arg.to_str()).collect();
        assert_eq!(args.join(" "), "-m chorus_engine --kind null --in-fd 4 --out-fd 5 --lanes 2");
        let mut command = EngineConfig::command("command", "python 'my service.py'");
        command.max_cpus = Some(3);
        let command = command.process();
        assert_eq!(command.limits, Some(ProgramLimits { max_memory_bytes: None, max_cpus: Some(3) }));
        assert_eq!((command.pipes, &command.args[1]), (Pipes::Stdio, &"exec python 'my service.py'".into()));
    }
}
