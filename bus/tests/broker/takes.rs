//! The cache on the broker.

use std::time::Duration;

use bytes::Bytes;
use chorus_bus::{Bus, BusErrorKind, Layout, TakesSize};
use chorus_protocol::takes::{StoredTake, TakeRecord};
use chorus_protocol::{RunId, WorkerId};

use crate::support::*;

const LIMIT: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(60);

fn worker() -> WorkerId {
    WorkerId::new("w").unwrap()
}

fn take(pcm: &[u8]) -> StoredTake {
    let (samples, crc32) = (pcm.len() as u64 / 2, crc32fast::hash(pcm));
    StoredTake { samples, crc32, sample_rate: 22_050, warnings: Vec::new() }
}

async fn store(bus: &Bus, key: &str, pcm: Vec<u8>) {
    let what = take(&pcm);
    bus.takes().store(key, pcm.into(), what).await.unwrap();
}

#[tokio::test]
async fn a_take_is_claimed_once_then_stored_then_found() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let takes = bus.takes();
    assert_eq!(takes.look_up("key", LIMIT).await.unwrap(), None);
    let claim = takes.claim("key", RunId::from_u128(1), worker(), TTL).await.unwrap();
    assert!(claim.is_some());
    assert_eq!(takes.claim("key", RunId::from_u128(2), worker(), TTL).await.unwrap(), None);
    let claimed = TakeRecord::Claimed { run: RunId::from_u128(1), worker: worker() };
    assert_eq!(takes.look_up("key", LIMIT).await.unwrap(), Some(claimed));

    let waiting = takes.wait("key", LIMIT);
    let storing = store(&bus, "key", vec![1, 2, 3, 4]);
    let (waited, ()) = tokio::join!(waiting, storing);
    assert_eq!(waited.unwrap(), Some(take(&[1, 2, 3, 4])));
    assert_eq!(takes.look_up("key", LIMIT).await.unwrap(), Some(TakeRecord::Stored(take(&[1, 2, 3, 4]))));
    assert_eq!(takes.fetch("key", LIMIT).await.unwrap(), Bytes::from_static(&[1, 2, 3, 4]));
    // The claim is history: giving it back takes nothing away.
    takes.release("key", claim.unwrap()).await.unwrap();
    assert!(takes.look_up("key", LIMIT).await.unwrap().is_some());
    // A newer take replaces it.
    store(&bus, "key", vec![5, 6]).await;
    assert_eq!(takes.look_up("key", LIMIT).await.unwrap(), Some(TakeRecord::Stored(take(&[5, 6]))));
    assert_eq!(takes.fetch("key", LIMIT).await.unwrap(), Bytes::from_static(&[5, 6]));
}

#[tokio::test]
async fn who_waits_is_told_that_it_was_given_up_and_does_not_wait_for_ever() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let takes = bus.takes();
    assert_eq!(takes.wait("nobody speaks it", LIMIT).await.unwrap(), None);
    let claim = takes.claim("key", RunId::from_u128(1), worker(), TTL).await.unwrap().unwrap();
    assert_eq!(takes.wait("key", Duration::from_millis(50)).await.unwrap(), None, "its time is up");
    let (waited, released) = tokio::join!(takes.wait("key", LIMIT), takes.release("key", claim));
    released.unwrap();
    assert_eq!(waited.unwrap(), None);
    // A worker that dies leaves nothing behind.
    takes.claim("key", RunId::from_u128(2), worker(), Duration::from_secs(1)).await.unwrap().unwrap();
    assert_eq!(takes.wait("key", LIMIT).await.unwrap(), None);
    assert_eq!(takes.look_up("key", LIMIT).await.unwrap(), None);
}

#[tokio::test]
async fn when_it_is_full_the_oldest_go() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let layout = Layout { cache_max_bytes: 256 * 1024, ..Layout::default() };
    bus.ensure_layout(&layout).await.unwrap();
    for number in 0..12u8 {
        store(&bus, &format!("key{number}"), vec![number; 50_000]).await;
    }
    let takes = bus.takes();
    let size = takes.size().await.unwrap();
    assert!(size.bytes <= 256 * 1024 && size.max_bytes == 256 * 1024, "{size:?}");
    assert_eq!(takes.fetch("key11", LIMIT).await.unwrap()[..], [11; 50_000]);
    let gone = takes.fetch("key0", LIMIT).await.unwrap_err();
    assert_eq!(gone.kind, BusErrorKind::NotFound, "{gone}");
}

#[tokio::test]
async fn it_is_cleared_as_a_whole() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let takes = bus.takes();
    assert_eq!(takes.clear().await.unwrap().takes, 0);
    store(&bus, "a", vec![1; 10]).await;
    store(&bus, "b", vec![2; 10]).await;
    let cleared = takes.clear().await.unwrap();
    assert_eq!(cleared.takes, 2);
    assert!(cleared.bytes > 20);
    assert_eq!(takes.look_up("a", LIMIT).await.unwrap(), None);
    assert_eq!(takes.fetch("b", LIMIT).await.unwrap_err().kind, BusErrorKind::NotFound);
    assert!(matches!(takes.size().await.unwrap(), TakesSize { takes: 0, bytes: 0, .. }));
}

#[tokio::test]
async fn without_its_buckets_everything_is_an_error_that_says_so() {
    let server = Server::start().await;
    let takes = server.bus().await.takes();
    let pcm = Bytes::from_static(&[0, 0]);
    let kinds = [
        takes.look_up("key", LIMIT).await.unwrap_err().kind,
        takes.fetch("key", LIMIT).await.unwrap_err().kind,
        takes.claim("key", RunId::from_u128(1), worker(), TTL).await.unwrap_err().kind,
        takes.store("key", pcm.clone(), take(&pcm)).await.unwrap_err().kind,
        takes.clear().await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [BusErrorKind::NotFound; 5]);
}
