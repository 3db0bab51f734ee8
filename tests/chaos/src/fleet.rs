//! A fleet of real processes that can be hurt one by one.
//!
//! Each part is a process of the `chorus` binary (or nats-server) under the usual guard, so that nothing outlives us. Nothing
//! starts a part again but a step of the scenario: what the fleet does about a loss is not mixed with what a supervisor does.
//! The model is put into the catalogue with the pace that the scenario asks for; workers serve what the catalogue has.

mod part;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chorus_bus::{Bus, BusConfig, Layout};
use chorus_protocol::{ModelDefinition, ModelName, ModelSource, WorkerId};
use chorus_runtime::process::{GuardBinary, ProcessSpec, spec::USUAL_ENV};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::error::ChaosError;
use crate::link::Link;
use crate::proc;
use crate::scenario;
use crate::wiretap::Wiretap;
pub(crate) use part::PartProcess;

/// What a start of a part may take on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// What a part may take to end after SIGTERM: workers drain for 10 s at most.
const GRACE: Duration = Duration::from_secs(15);

/// The programs that a fleet is made of.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The `chorus` binary.
    pub chorus: PathBuf,
    /// The server.
    pub nats_server: PathBuf,
    /// The interpreter of the engine.
    pub python: PathBuf,
    /// The folder that holds its package.
    pub engine: PathBuf,
    /// Our environment, of which the parts get the usual part.
    pub environment: Vec<(OsString, OsString)>,
    /// Where folders for the time of a scenario are made.
    pub temporary: PathBuf,
}

/// A running fleet.
pub(crate) struct Fleet {
    pub(crate) broker: PartProcess,
    pub(crate) managers: Vec<PartProcess>,
    pub(crate) workers: Vec<PartProcess>,
    pub(crate) link: Option<Link>,
    pub(crate) url: String,
    port: u16,
    folder: TempDir,
}

impl Fleet {
    /// Starts all parts; [`Fleet::recovered`] says when they are ready.
    pub(crate) async fn start(programs: &Programs, plan: &scenario::Fleet) -> Result<Self, ChaosError> {
        let folder = tempfile::Builder::new().prefix("chorus-chaos-").tempdir_in(&programs.temporary);
        let folder = folder.map_err(ChaosError::io(&programs.temporary))?;
        let mut broker = PartProcess::new("nats-server", server(programs, folder.path(), None));
        broker.start().await?;
        let port = told_port(&broker, folder.path()).await?;
        // Started again, it keeps its port: every client finds it back.
        broker.spec = server(programs, folder.path(), Some(port));
        let url = format!("nats://127.0.0.1:{port}");
        prepare(&url, plan).await?;
        let link = if plan.proxied { Some(Link::start(port).await?) } else { None };
        let workers_url = link.as_ref().map_or_else(|| url.clone(), Link::url);
        let mut fleet = Self { broker, managers: Vec::new(), workers: Vec::new(), link, url, port, folder };
        for number in 0..plan.workers {
            let name = format!("w-{number}");
            let spec = fleet.role(programs, "worker", &name, &workers_url);
            let spec = spec
                .args(["--engine", "checkable"])
                .set_env("CHORUS_ENGINE_LANES", plan.lanes.to_string())
                .set_env("CHORUS_ENGINE_RECYCLE_REQUESTS", plan.recycle_after.to_string())
                .set_env("CHORUS_ENGINE_PYTHON", &programs.python)
                .set_env("CHORUS_ENGINE_PATH", &programs.engine);
            fleet.workers.push(PartProcess::new(&name, spec));
        }
        for number in 0..plan.managers {
            let name = format!("m-{number}");
            let spec = fleet.role(programs, "manager", &name, &fleet.url);
            fleet.managers.push(PartProcess::new(&name, spec));
        }
        for part in fleet.workers.iter_mut().chain(&mut fleet.managers) {
            part.start().await?;
        }
        Ok(fleet)
    }

    fn role(&self, programs: &Programs, role: &str, name: &str, url: &str) -> ProcessSpec {
        let mut spec = ProcessSpec::new(name, &programs.chorus)
            .args([role, "--id", name, "--nats", url])
            .set_env("CHORUS_HOME", self.folder.path())
            .set_env("CHORUS_LOG", "warn,async_nats=off")
            .allow_env(programs.environment.iter().cloned(), USUAL_ENV);
        spec.grace = GRACE;
        spec.guard = GuardBinary::Program(programs.chorus.clone());
        spec
    }

    /// How clients reach it.
    pub(crate) fn bus(&self, name: &str) -> BusConfig {
        BusConfig { name: name.to_owned(), ..BusConfig::new(&self.url) }
    }

    /// Waits until every part that runs has said, after this call, that it is ready.
    pub(crate) async fn recovered(&self, wiretap: &Wiretap) -> Result<(), ChaosError> {
        let since = Instant::now();
        let silent = || {
            let parts = self.workers.iter().chain(&self.managers);
            let mut running = parts.filter_map(|part| Some((part, part.pid()?)));
            running.find(|(_, pid)| !wiretap.ready_since(*pid, since)).map(|(part, _)| part)
        };
        while let Some(part) = silent() {
            if since.elapsed() > READY_WITHIN {
                return Err(part.not_ready());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts the broker again and waits until it greets.
    pub(crate) async fn start_broker(&mut self) -> Result<(), ChaosError> {
        self.broker.start().await?;
        greets(&self.broker, self.port).await
    }

    /// The worker of this name.
    pub(crate) fn worker(&self, id: &WorkerId) -> Option<usize> {
        self.workers.iter().position(|worker| worker.name == id.as_str())
    }

    /// Workers and managers that run: their processes, without their engines.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.workers.iter().chain(&self.managers).filter_map(PartProcess::pid).collect()
    }

    /// Ends all of it at once. A process that was stopped goes on first, so that its engine's guard sees its end.
    pub(crate) async fn end(mut self) {
        for part in self.workers.iter_mut().chain(&mut self.managers).chain([&mut self.broker]) {
            if let Err(error) = part.signal(Signal::CONT) {
                tracing::debug!(%error, "a part was not told to go on");
            }
            part.kill().await;
        }
    }
}

fn server(programs: &Programs, folder: &Path, port: Option<u16>) -> ProcessSpec {
    let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let mut spec = ProcessSpec::new("nats-server", &programs.nats_server)
        .args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"])
        .args([folder.join("store")])
        .args(["--ports_file_dir".into(), OsString::from(folder)])
        .allow_env(programs.environment.iter().cloned(), USUAL_ENV);
    spec.guard = GuardBinary::Program(programs.chorus.clone());
    spec
}

/// The port that the server has chosen, as it tells in its file.
async fn told_port(server: &PartProcess, folder: &Path) -> Result<u16, ChaosError> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        let entries = std::fs::read_dir(folder).map_err(ChaosError::io(folder))?;
        let files = entries.flatten().map(|entry| entry.path());
        let told = files.filter(|file| file.extension().is_some_and(|extension| extension == "ports"));
        let port = told.filter_map(|file| std::fs::read_to_string(file).ok()).find_map(|text| port_in(&text));
        if let Some(port) = port {
            greets(server, port).await?;
            return Ok(port);
        }
        tokio::time::sleep(POLL).await;
    }
    Err(server.not_ready())
}

fn port_in(file: &str) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(file).ok()?;
    ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok()
}

async fn greets(server: &PartProcess, port: u16) -> Result<(), ChaosError> {
    let deadline = Instant::now() + READY_WITHIN;
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if Instant::now() > deadline {
            return Err(server.not_ready());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Streams, buckets, and the model in the catalogue.
async fn prepare(url: &str, plan: &scenario::Fleet) -> Result<(), ChaosError> {
    let bus = Bus::connect(BusConfig::new(url)).await?;
    bus.ensure_layout(&Layout::default()).await?;
    let name = ModelName::new("checkable").map_err(|error| ChaosError::Step(error.to_string()))?;
    let options = [("computeMs".to_owned(), serde_json::json!(plan.compute.as_millis() as u64))];
    let model = ModelDefinition {
        name,
        engine: "checkable".to_owned(),
        source: ModelSource::Builtin { builtin: "checkable".to_owned() },
        aliases: Vec::new(),
        default: true,
        voices: Vec::new(),
        languages: Vec::new(),
        max_text_chars: None,
        sha256: None,
        options: options.into_iter().collect(),
    };
    bus.catalogue().put(&model).await?;
    bus.close().await;
    Ok(())
}

/// The engine of a worker: the program below the guard below the worker.
pub(crate) fn engine_of(worker: u32) -> Option<u32> {
    proc::descendants(worker).into_iter().next_back()
}
