//! The broker goes and comes back, or loses a node, while everything is in flight.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::support::*;
use crate::traffic::{Traffic, under_traffic};

/// How long the broker is away; the long chaos run says more.
fn outage() -> Duration {
    let seconds = std::env::var("CHORUS_TEST_OUTAGE_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

#[tokio::test]
async fn a_restart_in_mid_traffic_loses_nothing() {
    let mut server = Server::start().await;
    let sender = server.laid_out().await;
    let worker = server.bus().await;
    let traffic = under_traffic(&sender, &worker, Duration::from_secs(2), async |_| {
        server.kill().await;
        server.restart().await;
    })
    .await;
    println!("{traffic}");
}

/// Longer than a publish waits: it gives up, is asked again, and the same job is queued once.
#[tokio::test]
async fn an_outage_ends_every_call_in_its_time_and_loses_nothing() {
    let mut server = Server::start().await;
    server.laid_out().await;
    let timeout = Duration::from_millis(500);
    let (sender, worker) = (server.impatient_bus(timeout).await, server.impatient_bus(timeout).await);
    let traffic = under_traffic(&sender, &worker, timeout, async |_| {
        server.kill().await;
        tokio::time::sleep(outage()).await;
        server.restart().await;
    })
    .await;
    println!("{traffic}");
    assert!(traffic.publishes.pause() >= outage());
}

#[tokio::test]
async fn a_leader_that_is_killed_takes_nothing_with_it() {
    let cluster = Cluster::start().await;
    let bus = cluster.bus(0).await;
    cluster.lay_out(&bus).await;
    let leader = cluster.leader(&bus).await;
    // Neither connection is broken: what stops is the stream alone.
    let (sender, worker) = (cluster.bus((leader + 1) % 3).await, cluster.bus((leader + 2) % 3).await);
    let killing = async |_: &Traffic| cluster.kill(leader).await;
    println!("{}", under_traffic(&sender, &worker, Duration::from_secs(1), killing).await);
}

#[tokio::test]
async fn a_follower_killed_and_a_leader_told_to_stop_take_nothing_with_them() {
    let mut cluster = Cluster::start().await;
    let bus = cluster.bus(0).await;
    cluster.lay_out(&bus).await;
    let leader = cluster.leader(&bus).await;
    let follower = (leader + 1) % 3;
    // Each connection is broken once.
    let (sender, worker) = (cluster.bus(leader).await, cluster.bus(follower).await);
    let traffic = under_traffic(&sender, &worker, Duration::from_secs(1), async |traffic| {
        cluster.kill(follower).await;
        traffic.goes_on().await;
        println!("without a follower: {traffic}");
        cluster.restart(follower);
        let leader = cluster.leader(&bus).await;
        cluster.terminate(leader).await;
    })
    .await;
    println!("in all: {traffic}");
}
