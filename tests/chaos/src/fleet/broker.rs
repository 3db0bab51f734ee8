//! The broker of a fleet: one nats-server, or a cluster on loopback that keeps everything as often as it has nodes.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use chorus_bus::{Bus, BusConfig, BusErrorKind, Layout};
use chorus_protocol::{ModelDefinition, ModelName, ModelSource, names};
use chorus_runtime::process::{GuardBinary, ProcessSpec, spec::USUAL_ENV};
use serde_json::Value;

use super::{POLL, PartProcess, Programs, READY_WITHIN};
use crate::error::ChaosError;
use crate::scenario;

/// Below the ports that systems give to outgoing connections, so that one stays free while its server is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// The servers and their ports.
pub(crate) struct Broker {
    pub(crate) nodes: Vec<PartProcess>,
    ports: Vec<u16>,
}

impl Broker {
    /// Starts them; they greet.
    pub(crate) async fn start(programs: &Programs, folder: &Path, nodes: u32) -> Result<Self, ChaosError> {
        let count = nodes as usize;
        let ports = free_ports(2 * count);
        let routes: Vec<_> = ports[count..].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let node = |number: usize| {
            let name = format!("node-{number}");
            let mut spec = server(programs, &folder.join(&name), &name, ports[number]);
            if count > 1 {
                spec = spec.args(["--cluster_name", "chaos", "--cluster", &routes[number]]);
                spec = spec.args(["--routes", &routes.join(",")]);
            }
            PartProcess::new(&name, spec)
        };
        let nodes = (0..count).map(node).collect();
        let mut broker = Self { nodes, ports: ports[..count].to_vec() };
        for number in 0..count {
            broker.start_node(number).await?;
        }
        Ok(broker)
    }

    /// Starts a node, on its port and its store, and waits until it greets.
    pub(crate) async fn start_node(&mut self, number: usize) -> Result<(), ChaosError> {
        self.nodes[number].start().await?;
        let deadline = Instant::now() + READY_WITHIN;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.ports[number])).await.is_err() {
            if Instant::now() > deadline {
                return Err(self.nodes[number].not_ready());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The port of the first node.
    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }

    /// Where clients find it: all nodes.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<_> = self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        urls.join(",")
    }

    /// The node that leads the stream of jobs while all others are up to date.
    pub(crate) async fn leader(&self) -> Result<usize, ChaosError> {
        let bus = Bus::connect(BusConfig::new(self.url())).await?;
        let deadline = Instant::now() + READY_WITHIN;
        let subject = format!("$JS.API.STREAM.INFO.{}", names::JOBS_STREAM);
        loop {
            let asked = bus.request_raw(&subject, "".into(), READY_WITHIN / 10).await.ok();
            if let Some(leader) = asked.and_then(|info| leader_in(&info, self.nodes.len())) {
                bus.close().await;
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(ChaosError::Step("the stream of jobs has no leader with followers".to_owned()));
            }
            tokio::time::sleep(POLL * 20).await;
        }
    }
}

fn leader_in(info: &[u8], nodes: usize) -> Option<usize> {
    let info: Value = serde_json::from_slice(info).ok()?;
    let cluster = &info["cluster"];
    let current = cluster["replicas"].as_array()?.iter().filter(|replica| replica["current"] == true);
    let leader = cluster["leader"].as_str()?.strip_prefix("node-")?.parse().ok()?;
    (current.count() == nodes - 1).then_some(leader)
}

fn server(programs: &Programs, store: &Path, name: &str, port: u16) -> ProcessSpec {
    let mut spec = ProcessSpec::new("nats-server", &programs.nats_server)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-n", name, "-js", "-sd"])
        .args([OsString::from(store)])
        .allow_env(programs.environment.iter().cloned(), USUAL_ENV);
    spec.guard = GuardBinary::Program(programs.chorus.clone());
    spec
}

fn free_ports(wanted: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let step = NEXT.fetch_add(1, Ordering::Relaxed) * 64;
    let begin = std::process::id().wrapping_mul(64).wrapping_add(step) % PORTS.len() as u32;
    PORTS
        .skip(begin as usize)
        .chain(PORTS)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(wanted)
        .collect()
}

/// Streams, buckets, and the model in the catalogue.
pub(crate) async fn prepare(url: &str, plan: &scenario::Fleet) -> Result<(), ChaosError> {
    let bus = Bus::connect(BusConfig { connect_timeout: READY_WITHIN, ..BusConfig::new(url) }).await?;
    let layout = Layout { replicas: plan.nodes as usize, ..Layout::default() };
    let deadline = Instant::now() + READY_WITHIN;
    // A cluster that has just been started elects its leaders first.
    while let Err(error) = bus.ensure_layout(&layout).await {
        if Instant::now() > deadline || plan.nodes == 1 && error.kind != BusErrorKind::Timeout {
            return Err(error.into());
        }
        tokio::time::sleep(POLL * 20).await;
    }
    let name = ModelName::new("checkable").map_err(|error| ChaosError::Step(error.to_string()))?;
    let options = [("computeMs".to_owned(), serde_json::json!(plan.compute.as_millis() as u64))];
    let source = ModelSource::Builtin { builtin: "checkable".to_owned() };
    let model = ModelDefinition {
        default: true,
        options: options.into_iter().collect(),
        ..ModelDefinition::new(name, "checkable", source)
    };
    bus.catalogue().put(&model).await?;
    bus.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_counts_once_the_others_follow() {
        let info = |current: [bool; 2]| {
            let replicas = current.map(|current| serde_json::json!({"name": "x", "current": current}));
            serde_json::json!({"cluster": {"leader": "node-2", "replicas": replicas}}).to_string()
        };
        assert_eq!(leader_in(info([true, true]).as_bytes(), 3), Some(2));
        assert_eq!(leader_in(info([true, false]).as_bytes(), 3), None);
        assert_eq!(leader_in(b"{}", 3), None);
    }
}
