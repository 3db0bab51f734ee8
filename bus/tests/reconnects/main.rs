//! A connection that breaks again and again leaves nothing behind. In a binary of its own, since it counts what the
//! process holds.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]
#![allow(dead_code, reason = "this test needs a part of the support only")]

mod proxy;
#[path = "../broker/support.rs"]
mod support;

use std::time::Duration;

use chorus_bus::{
    Bucket, Bus, ConnectionState, Incoming, PullEnd, PullEvent, PullWait, Puller, RecordChange, RecordWatch,
    Records, Subscription,
};
use chorus_protocol::JobClass;

use proxy::Proxy;
use support::*;

/// Until everything that grows once has grown.
const WARM_UP: u64 = 5;
const RECONNECTS: u64 = 20;
/// Far below what one connection with its buffers holds, times the reconnects.
const MAX_GROWTH_BYTES: usize = 4 * 1024 * 1024;
const LONG: PullWait = PullWait::For(Duration::from_secs(60));

/// What a service holds open all its life.
struct Service {
    bus: Bus,
    heard: Subscription,
    puller: Puller,
    records: Records<u64>,
    watch: RecordWatch<u64>,
}

impl Service {
    async fn start(bus: Bus) -> Self {
        bus.ensure_layout(&chorus_bus::Layout::default()).await.unwrap();
        let records: Records<u64> = bus.records(Bucket::PLACEMENT);
        Self {
            heard: bus.subscribe("told", None).await.unwrap(),
            puller: bus.puller().await.unwrap(),
            watch: records.watch().await.unwrap(),
            records,
            bus,
        }
    }

    /// Everything works, the connection breaks, and comes back.
    async fn round(&mut self, round: u64, proxy: &Proxy) {
        eventually("consumers", async || self.bus.ensure_consumers(&model()).await.ok()).await;
        self.bus.respond_raw("told", "hello".into()).await.unwrap();
        let heard: Option<Incoming> = soon("a message", self.heard.next()).await;
        assert_eq!(&heard.unwrap().payload[..], b"hello");
        self.records.put("round", &round).await.unwrap();
        soon("the round", async {
            while !matches!(self.watch.next().await.unwrap(), RecordChange::Put { value, .. } if value == round) {}
        })
        .await;
        pull(&self.puller, round, JobClass::Low, 1, LONG).await;
        self.bus.flush().await.unwrap();

        let mut events = self.bus.connection_events();
        proxy.cut();
        let ended = next(&mut self.puller).await;
        assert!(
            matches!(ended, PullEvent::Ended { id, why: PullEnd::Unavailable } if id == round),
            "{ended:?}"
        );
        soon("the return", events.wait_for(|state| *state == ConnectionState::Connected)).await.unwrap();
    }
}

#[tokio::test]
async fn many_reconnects_leave_nothing_behind() {
    let server = Server::start().await;
    let proxy = Proxy::start(server.port).await;
    let bus = Bus::connect(chorus_bus::BusConfig::new(proxy.url())).await.unwrap();
    let mut service = Service::start(bus).await;
    for round in 1..=WARM_UP {
        service.round(round, &proxy).await;
    }
    let (files, bytes) = (open_files(), resident_bytes());
    for round in WARM_UP + 1..=WARM_UP + RECONNECTS {
        service.round(round, &proxy).await;
    }
    eventually("as few open files as before", async || (open_files() <= files).then_some(())).await;
    let grown = resident_bytes().saturating_sub(bytes);
    println!("{files} open files; {} KiB more after {RECONNECTS} reconnects", grown / 1024);
    assert!(grown <= MAX_GROWTH_BYTES, "{grown} bytes more");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
}
