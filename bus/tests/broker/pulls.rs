//! Pulling jobs, and ending deliveries.

use std::time::{Duration, Instant};

use chorus_bus::{Bus, PullEnd, PullEvent, PullWait, Puller};
use chorus_protocol::JobClass;

use crate::support::*;

const WAIT: PullWait = PullWait::For(PATIENCE);

async fn ready() -> (Server, Bus, Puller) {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    bus.ensure_consumers(&model()).await.unwrap();
    let puller = bus.puller().await.unwrap();
    (server, bus, puller)
}

async fn expect_end(puller: &mut Puller, expected: u64) -> PullEnd {
    match next(puller).await {
        PullEvent::Ended { id, why } => {
            assert_eq!(id, expected);
            why
        }
        job => panic!("expected an end: {job:?}"),
    }
}

#[tokio::test]
async fn an_empty_queue_ends_a_pull_that_does_not_wait() {
    let (_server, _bus, mut puller) = ready().await;
    pull(&puller, 1, JobClass::High, 3, PullWait::NoWait).await;
    pull(&puller, 2, JobClass::Low, 1, PullWait::NoWait).await;
    let mut ended = Vec::new();
    for _ in 0..2 {
        // Two consumers answer in either order.
        let PullEvent::Ended { id, why: PullEnd::Empty } = next(&mut puller).await else {
            panic!("expected an empty queue")
        };
        ended.push(id);
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2]);
}

#[tokio::test]
async fn a_waiting_pull_gets_the_job_or_expires() {
    let (_server, bus, mut puller) = ready().await;
    pull(&puller, 1, JobClass::Normal, 1, WAIT).await;
    pull(&puller, 2, JobClass::Low, 1, PullWait::For(Duration::from_millis(50))).await;
    assert_eq!(expect_end(&mut puller, 2).await, PullEnd::Expired);
    let seq = publish(&bus, JobClass::Normal, 1).await;
    let (id, delivery) = next_job(&mut puller).await;
    assert_eq!((id, delivery.seq), (1, seq));
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn a_batch_takes_what_is_there() {
    let (_server, bus, mut puller) = ready().await;
    for segment in 0..3 {
        publish(&bus, JobClass::Normal, segment).await;
    }
    counted(&bus, JobClass::Normal, 3).await;
    pull(&puller, 1, JobClass::Normal, 2, PullWait::NoWait).await;
    for segment in 0..2 {
        let (id, delivery) = next_job(&mut puller).await;
        assert_eq!((id, delivery.job().unwrap().payload.segment), (1, segment));
        delivery.ack().await.unwrap();
    }
    pull(&puller, 2, JobClass::Normal, 5, PullWait::NoWait).await;
    let (id, delivery) = next_job(&mut puller).await;
    assert_eq!(id, 2);
    delivery.ack().await.unwrap();
    assert_eq!(expect_end(&mut puller, 2).await, PullEnd::Empty);
}

#[tokio::test]
async fn a_nak_brings_the_job_again_after_its_delay() {
    let (_server, bus, mut puller) = ready().await;
    publish(&bus, JobClass::Normal, 1).await;
    pull(&puller, 1, JobClass::Normal, 1, WAIT).await;
    let (_, delivery) = next_job(&mut puller).await;
    let begun = Instant::now();
    let delay = Duration::from_millis(200);
    delivery.nak(delay).await.unwrap();
    pull(&puller, 2, JobClass::Normal, 1, WAIT).await;
    let (id, again) = next_job(&mut puller).await;
    assert_eq!((id, again.deliveries), (2, 2));
    assert!(begun.elapsed() >= delay);
    again.nak(Duration::ZERO).await.unwrap();
    pull(&puller, 3, JobClass::Normal, 1, WAIT).await;
    let (_, third) = next_job(&mut puller).await;
    assert_eq!(third.deliveries, 3);
    third.ack().await.unwrap();
}

#[tokio::test]
async fn a_forgotten_delivery_goes_back_before_its_time_is_over() {
    let (_server, bus, mut puller) = ready().await;
    publish(&bus, JobClass::Normal, 1).await;
    pull(&puller, 1, JobClass::Normal, 1, WAIT).await;
    let (_, delivery) = next_job(&mut puller).await;
    drop(delivery);
    pull(&puller, 2, JobClass::Normal, 1, WAIT).await;
    let begun = Instant::now();
    let (_, again) = next_job(&mut puller).await;
    assert_eq!(again.deliveries, 2);
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    again.ack().await.unwrap();
}

#[tokio::test]
async fn a_terminated_job_is_gone() {
    let (_server, bus, mut puller) = ready().await;
    let seq = publish(&bus, JobClass::Normal, 1).await;
    pull(&puller, 1, JobClass::Normal, 1, WAIT).await;
    let (_, delivery) = next_job(&mut puller).await;
    delivery.terminate().await.unwrap();
    eventually("the job is gone", async || (!bus.job_exists(seq).await.unwrap()).then_some(())).await;
    pull(&puller, 2, JobClass::Normal, 1, PullWait::NoWait).await;
    assert_eq!(expect_end(&mut puller, 2).await, PullEnd::Empty);
}

#[tokio::test]
async fn progress_keeps_a_job_and_silence_loses_it() {
    let (_server, bus, mut puller) = ready().await;
    publish(&bus, JobClass::Normal, 1).await;
    pull(&puller, 1, JobClass::Normal, 1, WAIT).await;
    let (_, delivery) = next_job(&mut puller).await;
    let progress = delivery.progress_handle();
    pull(&puller, 2, JobClass::Normal, 1, WAIT).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let held = Instant::now();
    while held.elapsed() < Duration::from_millis(1_700) {
        tokio::select! {
            event = puller.next() => panic!("redelivered in spite of progress: {event:?}"),
            _ = ticks.tick() => progress.send().await.unwrap(),
        }
    }
    let (_, again) = next_job(&mut puller).await;
    assert_eq!(again.deliveries, 2);
    again.ack().await.unwrap();
    delivery.ack().await.unwrap();
}

#[tokio::test]
async fn a_missing_or_deleted_consumer_ends_the_pull_quickly() {
    let (_server, bus, mut puller) = ready().await;
    pull(&puller, 1, JobClass::Normal, 1, WAIT).await;
    bus.flush().await.unwrap();
    let begun = Instant::now();
    bus.remove_model_queue(&model()).await.unwrap();
    let why = expect_end(&mut puller, 1).await;
    assert!(matches!(why, PullEnd::ConsumerGone | PullEnd::Unavailable), "{why:?}");
    pull(&puller, 2, JobClass::Normal, 1, WAIT).await;
    let why = expect_end(&mut puller, 2).await;
    assert!(matches!(why, PullEnd::ConsumerGone | PullEnd::Unavailable), "{why:?}");
    assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());

    // What was remembered of the consumers is forgotten with them.
    bus.ensure_consumers(&model()).await.unwrap();
    publish(&bus, JobClass::Normal, 1).await;
    pull(&puller, 3, JobClass::Normal, 1, WAIT).await;
    let (id, delivery) = next_job(&mut puller).await;
    assert_eq!(id, 3);
    delivery.ack().await.unwrap();
}

/// Two processes: one takes the queue away, the other remembers it.
#[tokio::test]
async fn a_consumer_that_another_process_deleted_is_made_again() {
    let (server, bus, mut puller) = ready().await;
    server.bus().await.remove_model_queue(&model()).await.unwrap();
    pull(&puller, 1, JobClass::High, 1, WAIT).await;
    expect_end(&mut puller, 1).await;
    bus.ensure_consumers(&model()).await.unwrap();
    publish(&bus, JobClass::High, 1).await;
    pull(&puller, 2, JobClass::High, 1, WAIT).await;
    next_job(&mut puller).await.1.ack().await.unwrap();
}
