//! A fleet of real processes that can be hurt one by one.
//!
//! Each part is a process of the `chorus` binary (or nats-server) under the usual guard, so that nothing outlives us. Nothing
//! starts a part again but a step of the scenario: what the fleet does about a loss is not mixed with what a supervisor does.
//! The model is put into the catalogue with the pace that the scenario asks for; workers serve what the catalogue has.

mod broker;
mod far;
mod part;

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chorus_bus::{BusConfig, Wire};
use chorus_protocol::WorkerId;
use chorus_runtime::process::{GuardBinary, ProcessSpec, descendants, spec::USUAL_ENV};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::error::ChaosError;
use crate::link::Link;
use crate::scenario::{self, Proxied};
use crate::switches::{self, Switches};
use crate::wiretap::Wiretap;
use broker::{Broker, prepare};
pub(crate) use far::Far;
pub(crate) use part::PartProcess;

/// What a start of a part may take on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// No scenario lasts as long as engines usually are kept at least.
const RECYCLE_LEAST_AGE_MS: u64 = 500;
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
    pub(crate) broker: Broker,
    pub(crate) managers: Vec<PartProcess>,
    pub(crate) workers: Vec<PartProcess>,
    pub(crate) link: Option<Link>,
    pub(crate) far: Option<Far>,
    pub(crate) url: String,
    burners: Vec<PartProcess>,
    folder: TempDir,
}

impl Fleet {
    /// Starts all parts; [`Fleet::recovered`] says when they are ready.
    pub(crate) async fn start(programs: &Programs, plan: &scenario::Fleet) -> Result<Self, ChaosError> {
        let folder = tempfile::Builder::new().prefix("chorus-chaos-").tempdir_in(&programs.temporary);
        let folder = folder.map_err(ChaosError::io(&programs.temporary))?;
        let marker = folder.path().join(switches::MARKER);
        std::fs::write(&marker, "").map_err(ChaosError::io(&marker))?;
        let broker = Broker::start(programs, folder.path(), plan.nodes).await?;
        let url = broker.url();
        prepare(&url, plan).await?;
        let link = match plan.proxied {
            Proxied::Nobody => None,
            Proxied::Workers | Proxied::Managers => Some(Link::start("127.0.0.1", broker.port()).await?),
        };
        let far = if plan.far_worker { Some(Far::start(programs, broker.port()).await?) } else { None };
        let mut fleet = Self {
            broker,
            managers: Vec::new(),
            workers: Vec::new(),
            link,
            far,
            url,
            burners: Vec::new(),
            folder,
        };
        fleet.add_workers(programs, plan)?;
        for number in 0..plan.managers {
            let name = format!("m-{number}");
            let url = fleet.url_for(Proxied::Managers, plan);
            let spec = fleet.role(programs, plan, "manager", &name, &url);
            fleet.managers.push(PartProcess::new(&name, spec));
        }
        if plan.burning {
            fleet.burners = burners(programs);
        }
        for part in fleet.workers.iter_mut().chain(&mut fleet.managers).chain(&mut fleet.burners) {
            part.start().await?;
        }
        if let (Some(far), Some(pid)) = (&fleet.far, fleet.workers.first().and_then(PartProcess::pid)) {
            far.plug(pid).await?;
        }
        Ok(fleet)
    }

    fn add_workers(&mut self, programs: &Programs, plan: &scenario::Fleet) -> Result<(), ChaosError> {
        let sick = if plan.sick_worker { Some(self.sick_python(programs)?) } else { None };
        let near = self.url_for(Proxied::Workers, plan);
        for number in 0..plan.workers {
            let name = format!("w-{number}");
            let far = self.far.as_ref().filter(|_| number == 0);
            let url = far.map_or_else(|| near.clone(), Far::url);
            let mut spec = self
                .role(programs, plan, "worker", &name, &url)
                .args(["--engine", "checkable"])
                .set_env("CHORUS_ENGINE_LANES", plan.lanes.to_string())
                .set_env("CHORUS_ENGINE_RECYCLE_REQUESTS", plan.recycle_after.to_string())
                .set_env("CHORUS_ENGINE_RECYCLE_LEAST_AGE_MS", RECYCLE_LEAST_AGE_MS.to_string())
                .set_env("CHORUS_ENGINE_PYTHON", &programs.python)
                .set_env("CHORUS_ENGINE_PATH", &programs.engine);
            if let Some(sick) = sick.as_ref().filter(|_| number == 0) {
                spec = spec.set_env("CHORUS_ENGINE_PYTHON", sick);
            }
            if let Some(bytes) = plan.recycle_rss_bytes {
                spec = spec.set_env("CHORUS_ENGINE_RECYCLE_RSS_BYTES", bytes.to_string());
            }
            if let Some(bytes) = plan.max_memory_bytes {
                spec = spec.set_env("CHORUS_ENGINE_MAX_MEMORY_BYTES", bytes.to_string());
            }
            let spec = far.map_or_else(|| spec.clone(), |far| far.wrap(spec.clone()));
            self.workers.push(PartProcess::new(&name, spec));
        }
        Ok(())
    }

    /// Where these reach the broker.
    fn url_for(&self, whom: Proxied, plan: &scenario::Fleet) -> String {
        let link = self.link.as_ref().filter(|_| plan.proxied == whom);
        link.map_or_else(|| self.url.clone(), Link::url)
    }

    /// The interpreter, with a word to the checkable engine that everything shall fail.
    fn sick_python(&self, programs: &Programs) -> Result<PathBuf, ChaosError> {
        let path = self.folder.path().join("sick-python");
        let python = programs.python.display();
        let script = format!("#!/bin/sh\nCHORUS_CHECKABLE_ALWAYS=error exec '{python}' \"$@\"\n");
        std::fs::write(&path, script).map_err(ChaosError::io(&path))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(ChaosError::io(&path))?;
        Ok(path)
    }

    fn role(
        &self,
        programs: &Programs,
        plan: &scenario::Fleet,
        role: &str,
        name: &str,
        url: &str,
    ) -> ProcessSpec {
        let offset = plan.clocks_off.as_millis() as i64;
        let ahead = (self.workers.len() + self.managers.len()).is_multiple_of(2);
        let clock_ms = if ahead { offset } else { -offset };
        let wire = match (self.workers.len() + self.managers.len()) % 3 {
            0 if plan.mixed_versions => Wire::Earlier,
            1 if plan.mixed_versions => Wire::Later,
            _ => Wire::Current,
        };
        let told = Switches { off: plan.off.into_iter().collect(), clock_ms, wire }.to_text();
        let mut spec = ProcessSpec::new(name, &programs.chorus)
            .args([role, "--id", name, "--nats", url])
            .set_env("CHORUS_HOME", self.folder.path())
            .set_env("CHORUS_LOG", "warn,async_nats=off")
            .set_env("CHORUS_NATS_REPLICAS", plan.nodes.to_string())
            // No text comes twice: a cache would only take part of the machine.
            .set_env("CHORUS_CACHE_ENABLED", "false")
            .set_env(switches::VARIABLE, told)
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
        let parts = self.workers.iter_mut().chain(&mut self.managers).chain(&mut self.burners);
        for part in parts.chain(&mut self.broker.nodes) {
            if let Err(error) = part.signal(Signal::CONT) {
                tracing::debug!(%error, "a part was not told to go on");
            }
            part.kill().await;
        }
        if let Some(far) = self.far {
            far.end().await;
        }
    }
}

/// A process for each core that does nothing but compute.
fn burners(programs: &Programs) -> Vec<PartProcess> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let burner = |number| {
        let mut spec = ProcessSpec::new("burner", &programs.python).args(["-c", "while True: pass"]);
        spec.guard = GuardBinary::Program(programs.chorus.clone());
        PartProcess::new(&format!("burner-{number}"), spec)
    };
    (0..cores).map(burner).collect()
}

/// The engine of a worker: the program below the guard below the worker.
pub(crate) fn engine_of(worker: u32) -> Option<u32> {
    descendants(worker).into_iter().next_back()
}
