//! A fleet for the time of one command: everything of it inside this process but the broker and the engine.

use std::path::PathBuf;
use std::time::Duration;

use chorus_bus::{Bus, BusConfig};
use chorus_manager::ManagerConfig;
use chorus_protocol::{Incarnation, WorkerId, names};
use chorus_worker::WorkerConfig;
use rand::distr::{Alphanumeric, SampleString};
use tokio::sync::mpsc;

use crate::app::Context;
use crate::error::CliError;
use crate::fleet::broker::{BrokerConfig, Port};
use crate::fleet::parts::{self, EngineProgram, Need};
use crate::fleet::scratch::Scratch;
use crate::fleet::{BrokerSource, Fleet, FleetConfig, Notice, Workers, ready};

/// Characters of a broker's token: nobody else on the machine shall speak through it.
const TOKEN_CHARS: usize = 32;
/// A command's own fleet has nothing to finish when it ends.
const DRAIN: Duration = Duration::from_millis(200);

/// A fleet of our own, made ready; to be stopped by who holds it.
pub struct Embedded {
    fleet: Option<Fleet>,
    notices: Option<mpsc::Receiver<Notice>>,
    engine: Option<EngineProgram>,
    /// Removed when the broker has ended.
    scratch: Option<Scratch>,
    /// Whether takes are stored: for nobody, where the store goes with the command.
    cache: bool,
    workers: usize,
    /// How its broker is reached, once it is up.
    bus: Option<BusConfig>,
}

impl Embedded {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { fleet: None, notices: None, engine: None, scratch: None, cache: false, workers: 1, bus: None }
    }

    /// The same, with so many workers.
    #[must_use]
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// The same, with a cache.
    #[must_use]
    pub fn with_cache(self) -> Self {
        Self { cache: true, ..self }
    }

    /// Installs what is missing, starts all, and waits until a model can speak. What was started stays in `self` when this
    /// is dropped half-way.
    pub async fn start(&mut self, context: &Context, models: &[String]) -> Result<Bus, CliError> {
        let config = self.prepare(context, models).await?;
        let (fleet, notices) = Fleet::new(config);
        let fleet = self.fleet.insert(fleet);
        let notices = self.notices.insert(notices);
        let spinner = context.ui.spinner("starting the fleet …");
        let starting = async {
            let bus = self.bus.insert(fleet.start_broker().await?);
            fleet.start_services().await?;
            let bus = Bus::connect(BusConfig { name: "chorus".into(), ..bus.clone() }).await?;
            let ready = ready::wait(&bus, self.workers, context.config.fleet.ready_timeout, &spinner);
            tokio::select! {
                ready = ready => ready.map(|_status| bus),
                failed = fleet.failed() => Err(failed),
            }
        };
        tokio::select! {
            started = starting => started,
            failed = fatal(notices) => Err(failed),
        }
    }

    /// Waits until a part of it ends by itself, which none should.
    pub async fn failed(&mut self) -> CliError {
        match (&self.fleet, &mut self.notices) {
            (Some(fleet), Some(notices)) => tokio::select! {
                failed = fleet.failed() => failed,
                failed = fatal(notices) => failed,
            },
            _ => std::future::pending().await,
        }
    }

    /// One more connection to its broker.
    pub async fn connect(&self, name: &str) -> Result<Bus, CliError> {
        let bus = self.bus.clone().ok_or(CliError::NoFleet)?;
        Ok(Bus::connect(BusConfig { name: name.into(), ..bus }).await?)
    }

    /// How its engine is started, for a second one beside it.
    pub fn engine(&self) -> Option<&EngineProgram> {
        self.engine.as_ref()
    }

    /// Ends it in order; the folder goes last.
    pub async fn stop(mut self, context: &Context) {
        if let Some(fleet) = self.fleet.take() {
            Box::pin(fleet.stop(&context.shutdown)).await;
        }
        drop(self.scratch.take());
    }

    async fn prepare(&mut self, context: &Context, models: &[String]) -> Result<FleetConfig, CliError> {
        let mut config = context.config.clone();
        config.cache.enabled = self.cache;
        let (config, environment) = (&config, &context.environment);
        let need = Need { nats_server: true, engine: true, voice: parts::needs_demo_voice(config, models) };
        let parts = parts::provide(config, environment, context.ui, need).await?;
        let known = parts::known_models(config, environment)?;
        let definitions = parts::definitions(config, &known, models, parts.voice.as_ref())?;
        let (engine, program) = both(parts.engine, parts.nats_server)?;
        let scratch = Scratch::new(&environment.temporary()).await?;
        let token = Alphanumeric.sample_string(&mut rand::rng(), TOKEN_CHARS);
        let broker = BrokerConfig {
            program,
            store: scratch.path().join("store"),
            work: scratch.path().join("work"),
            port: Port::Any,
            token: Some(token.clone()),
            environment: environment.pairs(),
        };
        let bus = BusConfig { token: Some(token), ..BusConfig::default() };
        let mut workers = Vec::new();
        for _ in 0..self.workers {
            let id = names::default_worker_id(&parts::host(), Incarnation::new());
            let id = WorkerId::new(id).map_err(|error| CliError::Usage(error.to_string()))?;
            let worker = parts::worker_config(config, environment, &engine, id, definitions.clone());
            workers.push(WorkerConfig { drain_within: DRAIN, ..worker });
        }
        let manager = ManagerConfig { drain_timeout: DRAIN, ..parts::manager_config(config, bus.clone()) };
        (self.engine, self.scratch) = (Some(engine), Some(scratch));
        Ok(FleetConfig {
            broker: BrokerSource::Own(Box::new(broker), bus),
            manager,
            workers: Workers::Inside(workers),
            stop_timeout: config.fleet.stop_timeout,
        })
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits for the news that the fleet cannot go on.
async fn fatal(notices: &mut mpsc::Receiver<Notice>) -> CliError {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::News(text) | Notice::Trouble(text) => tracing::warn!("{text}"),
            Notice::Fatal { part, why } => return CliError::Fleet { part, why },
        }
    }
    std::future::pending().await
}

/// Both were needed, so both were provided.
pub(crate) fn both(
    engine: Option<EngineProgram>,
    nats_server: Option<PathBuf>,
) -> Result<(EngineProgram, PathBuf), CliError> {
    let missing = |part, what: &str| CliError::Fleet { part, why: format!("{what} was not provided") };
    let engine = engine.ok_or_else(|| missing("engine", "an engine"))?;
    Ok((engine, nats_server.ok_or_else(|| missing("nats-server", "a server"))?))
}
