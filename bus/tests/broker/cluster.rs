//! Three nats-servers on loopback that know each other: what is kept three times there outlives any one of them.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chorus_bus::{Bus, BusConfig, Layout};
use chorus_protocol::names;
use chorus_runtime::process::Child;
use tempfile::TempDir;

use crate::support::{api, eventually, launch};

const NODES: usize = 3;
/// Below the ports that systems give to outgoing connections, so that a free one stays free.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A running cluster; dropping it kills its servers.
pub struct Cluster {
    nodes: Vec<Child>,
    /// For clients, then for routes.
    ports: Vec<u16>,
    folder: TempDir,
}

impl Cluster {
    /// With JetStream.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * NODES);
        let mut cluster = Self { nodes: Vec::new(), ports, folder };
        cluster.nodes = (0..NODES).map(|node| cluster.launch(node)).collect();
        cluster
    }

    /// A connection to this node; when it is lost, to another.
    pub async fn bus(&self, node: usize) -> Bus {
        let config = BusConfig {
            request_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(30),
            ..BusConfig::new(format!("nats://127.0.0.1:{}", self.ports[node]))
        };
        Bus::connect(config).await.unwrap()
    }

    /// With everything kept three times.
    pub async fn lay_out(&self, bus: &Bus) {
        let layout = Layout { replicas: NODES, ..Layout::default() };
        eventually("the layout", async || bus.ensure_layout(&layout).await.ok()).await;
    }

    /// Which node leads the stream of jobs, once it leads and the others are up to date.
    pub async fn leader(&self, bus: &Bus) -> usize {
        eventually("a leader with followers", async || {
            let info = api(bus, &format!("$JS.API.STREAM.INFO.{}", names::JOBS_STREAM)).await?;
            let cluster = &info["cluster"];
            let current = cluster["replicas"].as_array()?.iter().filter(|r| r["current"] == true).count();
            let leader = cluster["leader"].as_str()?.strip_prefix("node-")?.parse().ok()?;
            (current == NODES - 1).then_some(leader)
        })
        .await
    }

    /// SIGKILL.
    pub async fn kill(&self, node: usize) {
        self.nodes[node].kill().await;
    }

    /// SIGTERM: it hands over what it leads, and ends.
    pub async fn terminate(&self, node: usize) {
        self.nodes[node].terminate(Duration::from_secs(20)).await;
    }

    /// Starts a node again, on its ports and store.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node] = self.launch(node);
    }

    fn launch(&self, node: usize) -> Child {
        let routes: Vec<_> = self.ports[NODES..].iter().map(|p| format!("nats://127.0.0.1:{p}")).collect();
        let folder = self.folder.path().join(node.to_string());
        launch(
            Path::new(&folder),
            self.ports[node].into(),
            &[
                "--jetstream",
                "--server_name",
                &format!("node-{node}"),
                "--cluster_name",
                "test",
                "--cluster",
                &routes[node],
                "--routes",
                &routes.join(","),
            ],
        )
    }
}

fn free_ports(wanted: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let step = NEXT.fetch_add(1, Ordering::Relaxed) * 64;
    let begin = std::process::id().wrapping_mul(64).wrapping_add(step) % PORTS.len() as u32;
    let ports = PORTS.skip(begin as usize).chain(PORTS).filter_map(|port| u16::try_from(port).ok());
    ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(wanted).collect()
}
