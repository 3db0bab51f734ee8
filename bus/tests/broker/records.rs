//! Records under compare-and-set, and their watches.

use std::time::{Duration, Instant};

use chorus_bus::{Bucket, Bus, BusErrorKind, CasError, RecordChange, RecordWatch, Records};
use serde::{Deserialize, Serialize};

use crate::support::*;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Breaker {
    failures: u32,
}

fn put(key: &str, failures: u32, revision: u64) -> RecordChange<Breaker> {
    RecordChange::Put { key: key.into(), value: Breaker { failures }, revision }
}

fn removed(key: &str) -> RecordChange<Breaker> {
    RecordChange::Removed { key: key.into() }
}

async fn ready() -> (Server, Bus, Records<Breaker>) {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let records = bus.records(Bucket::BREAKERS);
    (server, bus, records)
}

async fn change(watch: &mut RecordWatch<Breaker>) -> RecordChange<Breaker> {
    soon("a change", watch.next()).await.unwrap()
}

#[tokio::test]
async fn who_comes_second_is_told() {
    let (_server, _bus, records) = ready().await;
    let (key, zero, one) = ("w-host.1/ä", Breaker { failures: 0 }, Breaker { failures: 1 });
    assert_eq!(records.get(key).await.unwrap(), None);
    assert!(matches!(records.update(key, &one, 7).await, Err(CasError::Conflict)));
    assert!(matches!(records.delete(key, Some(7)).await, Err(CasError::Conflict)));

    let first = records.create(key, &zero).await.unwrap();
    assert!(matches!(records.create(key, &one).await, Err(CasError::Exists)));
    let second = records.update(key, &one, first).await.unwrap();
    assert!(second > first);
    assert!(matches!(records.update(key, &zero, first).await, Err(CasError::Conflict)));
    assert!(matches!(records.delete(key, Some(first)).await, Err(CasError::Conflict)));
    let read = records.get(key).await.unwrap().unwrap();
    assert_eq!((read.value, read.revision), (one, second));

    records.delete(key, Some(second)).await.unwrap();
    assert_eq!(records.get(key).await.unwrap(), None);
    records.delete(key, None).await.unwrap();
    records.delete("never there", None).await.unwrap();
    assert_eq!(records.list().await.unwrap(), []);
    let third = records.create(key, &zero).await.unwrap();
    let put = records.put(key, &zero).await.unwrap();
    assert!(put > third && third > second);
}

/// Sixteen writers count up one record, each trying again when it comes second: none of the counts is lost.
#[tokio::test]
async fn writers_in_a_race_lose_nothing() {
    const EACH: u32 = 8;
    let (_server, _bus, records) = ready().await;
    records.create("w", &Breaker { failures: 0 }).await.unwrap();
    let count_up = async || {
        for _ in 0..EACH {
            loop {
                let read = records.get("w").await.unwrap().unwrap();
                let next = Breaker { failures: read.value.failures + 1 };
                match records.update("w", &next, read.revision).await {
                    Ok(_) => break,
                    Err(CasError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    soon("all counts", futures::future::join_all((0..16).map(|_| count_up()))).await;
    assert_eq!(records.get("w").await.unwrap().unwrap().value.failures, 16 * EACH);
}

#[tokio::test]
async fn changes_are_told_with_revisions_and_kinds_do_not_meet() {
    let (_server, bus, records) = ready().await;
    let leases: Records<Breaker> = bus.records(Bucket::BREAKERS.kind("lease"));
    let a = records.put("a", &Breaker { failures: 1 }).await.unwrap();
    leases.put("a", &Breaker { failures: 9 }).await.unwrap();
    let mut only_b = records.watch_key("b").await.unwrap();
    assert_eq!(change(&mut only_b).await, RecordChange::Ready);
    let mut watch = records.watch().await.unwrap();
    assert_eq!(change(&mut watch).await, put("a", 1, a));
    assert_eq!(change(&mut watch).await, RecordChange::Ready);
    let b = records.create("b", &Breaker { failures: 2 }).await.unwrap();
    leases.delete("a", None).await.unwrap();
    records.delete("a", Some(a)).await.unwrap();
    assert_eq!(change(&mut watch).await, put("b", 2, b));
    assert_eq!(change(&mut only_b).await, put("b", 2, b));
    assert_eq!(change(&mut watch).await, removed("a"));
    assert_eq!(records.list().await.unwrap().len(), 1);
    assert_eq!(leases.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_reported_and_can_be_replaced() {
    let (_server, bus, records) = ready().await;
    let good = records.put("good", &Breaker { failures: 1 }).await.unwrap();
    for (key, value) in [("bad", "{\"failures\":-1}"), ("no=key", "{}")] {
        bus.request_raw(&format!("$KV.tts-breakers.{key}"), value.into(), PATIENCE).await.unwrap();
    }
    assert_eq!(records.get("bad").await.unwrap_err().kind, BusErrorKind::Malformed);
    assert_eq!(records.list().await.unwrap().len(), 1);
    let mut watch = records.watch().await.unwrap();
    assert_eq!(change(&mut watch).await, put("good", 1, good));
    let RecordChange::Malformed { key, revision } = change(&mut watch).await else {
        panic!("the bad one must be told")
    };
    assert_eq!(key, "bad");
    assert_eq!(change(&mut watch).await, RecordChange::Ready);
    let mended = records.update("bad", &Breaker { failures: 0 }, revision).await.unwrap();
    assert_eq!(change(&mut watch).await, put("bad", 0, mended));
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_runs_out_and_can_be_taken() {
    let (_server, _bus, leases) = ready().await;
    let second = Duration::from_secs(1);
    let mut watch = leases.watch().await.unwrap();
    assert_eq!(change(&mut watch).await, RecordChange::Ready);
    let begun = Instant::now();
    let taken = leases.create_with_ttl("job", &Breaker { failures: 1 }, second).await.unwrap();
    assert!(matches!(
        leases.create_with_ttl("job", &Breaker { failures: 2 }, second).await,
        Err(CasError::Exists)
    ));
    let renewed = leases.update_with_ttl("job", &Breaker { failures: 1 }, taken, second).await.unwrap();
    assert_eq!(change(&mut watch).await, put("job", 1, taken));
    assert_eq!(change(&mut watch).await, put("job", 1, renewed));
    assert_eq!(change(&mut watch).await, removed("job"));
    assert!(begun.elapsed() >= second, "{:?}", begun.elapsed());
    assert_eq!(leases.get("job").await.unwrap(), None);
    assert!(matches!(leases.update("job", &Breaker { failures: 1 }, renewed).await, Err(CasError::Conflict)));
    // Renewed without a lifetime it stays; the next owner comes through the sign of the one before.
    let next = leases.create_with_ttl("job", &Breaker { failures: 2 }, second).await.unwrap();
    leases.update("job", &Breaker { failures: 3 }, next).await.unwrap();
    assert_eq!(leases.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    let server = Server::start().await;
    let records: Records<Breaker> = server.bus().await.records(Bucket::PLACEMENT);
    let value = Breaker { failures: 0 };
    assert_eq!(records.get("a").await.unwrap_err().kind, BusErrorKind::NotFound);
    assert_eq!(records.put("a", &value).await.unwrap_err().kind, BusErrorKind::NotFound);
    assert_eq!(records.list().await.unwrap_err().kind, BusErrorKind::NotFound);
    let Err(CasError::Bus(error)) = records.create("a", &value).await else {
        panic!("nothing can be created")
    };
    assert_eq!(error.kind, BusErrorKind::NotFound);
}

/// A server that stands still takes the write, confirms it too late, and then finds its repetition in conflict with it.
#[tokio::test]
async fn a_write_that_was_repeated_does_not_conflict_with_itself() {
    let server = Server::start().await;
    server.laid_out().await;
    let bus = server.impatient_bus(Duration::from_secs(1)).await;
    let records: Records<Breaker> = bus.records(Bucket::BREAKERS);
    let first = records.create("w", &Breaker { failures: 0 }).await.unwrap();
    server.pause();
    let waking = async {
        // Past the first attempt's time, well within the third's.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        server.resume();
    };
    let one = Breaker { failures: 1 };
    let writing = records.update("w", &one, first);
    let (written, ()) = soon("the write", async { tokio::join!(writing, waking) }).await;
    let read = records.get("w").await.unwrap().unwrap();
    assert_eq!((read.value.failures, read.revision), (1, written.unwrap()));
    assert_eq!(read.revision, first + 1, "written once");
}
