//! A worker behind a network link of its own, which can be taken down: a host whose cable is pulled.
//!
//! ```text
//!   broker ◄── proxy on 198.18.x.1 ── veth │ veth ── 198.18.x.2 in the worker's own network namespace
//! ```
//! The worker is started in a fresh namespace (`unshare --net`) and one end of a pair of virtual cards is moved into it. Both
//! vanish with the worker, so nothing is left behind. Needs root and `ip` (Debian: iproute2); where that is missing the scenario
//! fails and says so: one that did not run must not look like one that passed. The addresses are of the range that RFC 2544
//! keeps for experiments.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chorus_runtime::process::{GuardBinary, ProcessSpec, RunLimits, run_to_end};
use rustix::process::geteuid;
use tokio_util::sync::CancellationToken;

use super::Programs;
use crate::error::ChaosError;
use crate::link::Link;

/// What a call of `ip` may take on a busy machine.
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// Where Debian keeps `ip`, `unshare` and `nsenter`, whatever PATH we have.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The link.
pub(crate) struct Far {
    chorus: std::path::PathBuf,
    near_card: String,
    far_card: String,
    far_address: String,
    proxy: Link,
}

impl Far {
    /// A pair of cards, and the broker's port on the near one.
    pub(crate) async fn start(programs: &Programs, broker: u16) -> Result<Self, ChaosError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() + NEXT.fetch_add(1, Ordering::Relaxed)) % 0x4000;
        let address = |host: u32| format!("198.18.{}.{}", number >> 6, ((number & 0x3f) << 2) + host);
        if !geteuid().is_root() {
            return Err(cannot("this process is not root"));
        }
        let (near_card, far_card) = (format!("chN{number}"), format!("chF{number}"));
        let chorus = programs.chorus.clone();
        ip(&chorus, &format!("link add {near_card} type veth peer name {far_card}")).await?;
        ip(&chorus, &format!("addr add {}/30 dev {near_card}", address(1))).await?;
        ip(&chorus, &format!("link set {near_card} up")).await?;
        let proxy = Link::start(&address(1), broker).await?;
        Ok(Self { chorus, near_card, far_card, far_address: address(2), proxy })
    }

    /// Where the worker finds the broker.
    pub(crate) fn url(&self) -> String {
        self.proxy.url()
    }

    /// The same process, in a namespace of its own.
    pub(crate) fn wrap(&self, spec: ProcessSpec) -> ProcessSpec {
        let program = spec.program.clone();
        let args = ["--net".into(), program.into_os_string()].into_iter().chain(spec.args.clone()).collect();
        ProcessSpec { program: "unshare".into(), args, ..spec }.set_env("PATH", PATH)
    }

    /// Plugs the cable into the namespace of this process.
    pub(crate) async fn plug(&self, pid: u32) -> Result<(), ChaosError> {
        let Self { chorus, far_card, far_address, .. } = self;
        ip(chorus, &format!("link set {far_card} netns {pid}")).await?;
        let inside = |order: String| async move {
            let words = format!("-t {pid} -n ip {order}");
            call(chorus, "nsenter", &words).await
        };
        inside("link set lo up".to_owned()).await?;
        inside(format!("addr add {far_address}/30 dev {far_card}")).await?;
        inside(format!("link set {far_card} up")).await
    }

    /// Takes the link down or up.
    pub(crate) async fn set(&self, up: bool) -> Result<(), ChaosError> {
        let state = if up { "up" } else { "down" };
        ip(&self.chorus, &format!("link set {} {state}", self.near_card)).await
    }

    /// Takes the cards away, should their namespace not have done so.
    pub(crate) async fn end(self) {
        if let Err(error) = ip(&self.chorus, &format!("link delete {}", self.near_card)).await {
            tracing::debug!(%error, "the cards have gone with the worker");
        }
    }
}

async fn ip(chorus: &Path, order: &str) -> Result<(), ChaosError> {
    call(chorus, "ip", order).await
}

async fn call(chorus: &Path, program: &str, words: &str) -> Result<(), ChaosError> {
    let mut spec = ProcessSpec::new(program, program).args(words.split(' ')).set_env("PATH", PATH);
    spec.guard = GuardBinary::Program(chorus.to_owned());
    let limits = RunLimits { timeout: CALL_WITHIN, token: CancellationToken::new() };
    let ended = run_to_end(spec, limits, std::sync::Arc::new(|_stream, _line| {})).await;
    ended.map(|_output| ()).map_err(|error| cannot(&format!("`{program} {words}`: {error}")))
}

fn cannot(why: &str) -> ChaosError {
    ChaosError::NoNamespace { why: why.to_owned() }
}
