//! A fleet of our own: a broker, a manager, workers; begun in order, ended in order.
//!
//! ```text
//!   start:  broker ─► manager, workers ─► ready (a model can speak)       stop:  workers ─► manager ─► broker
//! ```
//! [`Fleet`] keeps whatever was started, so that a signal in the middle of the start still ends all of it: each phase of the
//! end is bounded, and after a second signal nothing waits. For one command the workers run in this process; for
//! `chorus up` each is a process of its own, supervised, so that one that dies is begun again. What happens on the way is
//! told as [`Notice`]s.

pub mod broker;
pub mod models;
pub mod parts;
pub mod ready;
pub mod scratch;
pub mod worker;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chorus_bus::BusConfig;
use chorus_manager::{Manager, ManagerConfig, ManagerHandle};
use chorus_runtime::clock::SystemClock;
use chorus_runtime::shutdown::Shutdown;
use chorus_worker::WorkerConfig;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::CliError;
use broker::{Broker, BrokerConfig};
use worker::{InsideWorker, WorkerProcess, WorkerProcessConfig};

/// Notices that may wait to be read; a reader that is gone or slow loses some, and nothing else.
const NOTICES: usize = 256;
/// What a phase of the end may take beyond the grace that its own processes have.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// Something that a person who watches the fleet wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It went well, or is only news.
    News(String),
    /// Something ended that should not have, and is begun again.
    Trouble(String),
    /// A part is gone for good: the fleet cannot go on.
    Fatal {
        /// Which.
        part: &'static str,
        /// What happened.
        why: String,
    },
}

/// Tells notices; never waits.
#[derive(Debug, Clone)]
pub struct Notices(mpsc::Sender<Notice>);

impl Notices {
    /// Tells one.
    pub fn tell(&self, notice: Notice) {
        if let Err(unread) = self.0.try_send(notice) {
            tracing::debug!(%unread, "a notice was not read");
        }
    }
}

/// Where the fleet's broker comes from.
#[derive(Debug, Clone)]
pub enum BrokerSource {
    /// It is there.
    External(BusConfig),
    /// It is started, and `BusConfig` is how it is reached, but for its address.
    Own(Box<BrokerConfig>, BusConfig),
}

/// How the workers run.
#[derive(Debug, Clone)]
pub enum Workers {
    /// In this process.
    Inside(Vec<WorkerConfig>),
    /// Each a process of its own.
    Processes(Vec<WorkerProcessConfig>),
}

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The broker.
    pub broker: BrokerSource,
    /// The manager; its broker is filled in.
    pub manager: ManagerConfig,
    /// The workers; their broker is filled in.
    pub workers: Workers,
    /// What each phase of the end may take.
    pub stop_timeout: Duration,
}

/// The fleet, as far as it was started.
pub struct Fleet {
    config: FleetConfig,
    notices: Notices,
    root: CancellationToken,
    broker: Option<Broker>,
    bus: Option<BusConfig>,
    manager: Option<ManagerHandle>,
    inside: Vec<InsideWorker>,
    processes: Mutex<Vec<WorkerProcess>>,
}

impl Fleet {
    /// A fleet that was not started yet, and what it will tell.
    pub fn new(config: FleetConfig) -> (Self, mpsc::Receiver<Notice>) {
        let (send, notices) = mpsc::channel(NOTICES);
        let fleet = Self {
            config,
            notices: Notices(send),
            root: CancellationToken::new(),
            broker: None,
            bus: None,
            manager: None,
            inside: Vec::new(),
            processes: Mutex::new(Vec::new()),
        };
        (fleet, notices)
    }

    /// Starts the broker, if it is ours, and says how it is reached.
    pub async fn start_broker(&mut self) -> Result<BusConfig, CliError> {
        let bus = match &self.config.broker {
            BrokerSource::External(bus) => bus.clone(),
            BrokerSource::Own(broker, bus) => {
                broker::previous_ended(&broker.work).await;
                let broker =
                    self.broker.insert(Broker::launch((**broker).clone(), self.notices.clone(), &self.root)?);
                BusConfig { url: broker.ready().await?, ..bus.clone() }
            }
        };
        self.bus = Some(bus.clone());
        Ok(bus)
    }

    /// Starts the manager and the workers; the broker is up.
    pub async fn start_services(&mut self) -> Result<(), CliError> {
        let Some(bus) = self.bus.clone() else {
            return Err(CliError::Fleet { part: "broker", why: "it was not started".into() });
        };
        let named = |name: &str| BusConfig { name: name.to_owned(), ..bus.clone() };
        // The engine's own start is what takes long: the workers begin first.
        match &self.config.workers {
            Workers::Inside(configs) => {
                for config in configs {
                    let config = WorkerConfig { bus: named("chorus-worker"), ..config.clone() };
                    self.inside.push(InsideWorker::start(config, &self.root)?);
                }
            }
            Workers::Processes(configs) => {
                for config in configs {
                    self.launch(config, &bus);
                }
            }
        }
        let manager = ManagerConfig { bus: named("chorus-manager"), ..self.config.manager.clone() };
        self.manager = Some(Manager::new(manager, SystemClock::shared()).start(&self.root).await?);
        Ok(())
    }

    /// Begins the first worker once more: all of them were given up.
    pub fn start_alone(&self) -> Result<(), CliError> {
        let Workers::Processes(configs) = &self.config.workers else { return Ok(()) };
        let (Some(config), Some(bus)) = (configs.first(), &self.bus) else {
            return Err(CliError::Fleet { part: "worker", why: "there is none to begin".into() });
        };
        self.launch(config, bus);
        Ok(())
    }

    fn launch(&self, config: &WorkerProcessConfig, bus: &BusConfig) {
        let process = WorkerProcess::launch(config, bus, self.notices.clone(), &self.root);
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push(process);
    }

    /// Waits until a part in this process ends by itself, which none should.
    pub async fn failed(&self) -> CliError {
        let manager = ended(self.manager.as_ref().map(ManagerHandle::ended));
        let worker = any_ended(self.inside.iter().map(InsideWorker::ended));
        tokio::select! {
            () = manager => CliError::Fleet { part: "manager", why: "it ended by itself".into() },
            why = worker => CliError::Fleet { part: "worker", why },
        }
    }

    /// Ends all that was started, in order, each phase within its bound.
    pub async fn stop(mut self, shutdown: &Shutdown) {
        let limit = self.config.stop_timeout + STOP_MARGIN;
        let processes = std::mem::take(self.processes.get_mut().unwrap_or_else(PoisonError::into_inner));
        let inside = std::mem::take(&mut self.inside);
        let workers = async {
            // All at once: each takes its own time to finish what it speaks.
            for process in &processes {
                process.ask_to_stop();
            }
            join_all(inside.into_iter().map(InsideWorker::stop)).await;
            for process in processes {
                process.stopped().await;
            }
        };
        let _in_time = shutdown.drain("workers", limit, workers).await;
        if let Some(manager) = self.manager.take() {
            let _in_time = shutdown.drain("manager", limit, manager.stop()).await;
        }
        if let Some(broker) = self.broker.take() {
            let _in_time = shutdown.drain("broker", limit, broker.stop()).await;
        }
    }
}

impl Drop for Fleet {
    /// What was not stopped in order ends now.
    fn drop(&mut self) {
        self.root.cancel();
    }
}

/// The first of them that ends; never, of none.
async fn any_ended<T>(parts: impl Iterator<Item = impl Future<Output = T>>) -> T {
    let mut parts: FuturesUnordered<_> = parts.collect();
    ended(parts.next().await.map(std::future::ready)).await
}

async fn ended<T>(part: Option<impl Future<Output = T>>) -> T {
    match part {
        Some(ended) => ended.await,
        None => std::future::pending().await,
    }
}
