//! The gate in a running worker: the breaker's record in KV is what it pulls by.

use std::time::Duration;

use chorus_bus::{Bucket, Bus, Records};
use chorus_protocol::breaker::{BreakerRecord, BreakerState};
use chorus_protocol::fleet::WorkerHeartbeat;
use tokio::time::timeout;

use crate::support::*;

fn records(bus: &Bus) -> Records<BreakerRecord> {
    bus.records(Bucket::BREAKERS)
}

async fn write(bus: &Bus, state: BreakerState) {
    let record = BreakerRecord { state, ..BreakerRecord::default() };
    records(bus).put("tested", &record).await.unwrap();
}

/// Waits until the worker tells this many credits.
async fn credits(worker: &Running, total: u32) {
    let told = |beat: &WorkerHeartbeat| beat.credits.total == total;
    let heartbeats = worker.handle.heartbeats();
    poll("these credits", || heartbeats.borrow().as_deref().filter(|beat| told(beat)).map(|_| ())).await;
}

#[tokio::test]
async fn a_worker_without_breakers_obeys_no_record() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", plain());
    config.breaker_enabled = false;
    let worker = Running::start(config).await;
    write(&bus, BreakerState::Open).await;
    let mut session = Session::open(&bus).await;
    for segment in 0..3 {
        session.say(segment, "all the same").await;
        session.hear().await.unwrap();
    }
    worker.stop().await;
}

#[tokio::test]
async fn open_pulls_nothing_half_open_pulls_probes_and_closed_pulls_on() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", plain());
    config.heartbeat_every = Duration::from_millis(50);
    config.breaker.success_threshold = 2;
    let worker = Running::start(config).await;
    let mut session = Session::open(&bus).await;
    session.say(0, "closed").await;
    session.hear().await.unwrap();

    write(&bus, BreakerState::Open).await;
    credits(&worker, 0).await;
    for segment in 1..=3 {
        session.say(segment, "one more").await;
    }
    let nothing = timeout(Duration::from_millis(700), session.next()).await;
    assert!(nothing.is_err(), "an open breaker lets nothing through");

    write(&bus, BreakerState::HalfOpen).await;
    for _probe in 0..2 {
        session.hear().await.unwrap();
    }
    credits(&worker, 0).await;
    let nothing = timeout(Duration::from_millis(300), session.next()).await;
    assert!(nothing.is_err(), "two probes, and not one more");

    write(&bus, BreakerState::Closed).await;
    session.hear().await.unwrap();
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_left_with_its_breaker_open_comes_back_with_it_open() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    bus.ensure_layout(&chorus_bus::Layout::default()).await.unwrap();
    write(&bus, BreakerState::Open).await;
    let worker = Running::start(worker_config(&broker, "checkable", plain())).await;
    let mut session = Session::open(&bus).await;
    session.say(0, "hello").await;
    let nothing = timeout(Duration::from_millis(700), session.next()).await;
    assert!(nothing.is_err(), "it does not pull before it knows");
    // The record is removed when a worker was long gone: it is as good as new.
    records(&bus).delete("tested", None).await.unwrap();
    session.hear().await.unwrap();
    worker.stop().await;
}
