//! The layout, and jobs on the queue.

use chorus_bus::{BusErrorKind, Layout, PublishErrorKind, PullWait};
use chorus_protocol::{JobClass, Reason, WorkerId, names};

use crate::support::*;

#[tokio::test]
async fn starters_race_and_settings_are_updated() {
    let server = Server::start().await;
    let (one, two) = (server.bus().await, server.bus().await);
    let layout = Layout::default();
    let (a, b) = tokio::join!(one.ensure_layout(&layout), two.ensure_layout(&layout));
    a.unwrap();
    b.unwrap();
    one.ensure_layout(&layout).await.unwrap();

    publish(&one, JobClass::Low, 1).await;
    publish(&one, JobClass::Low, 2).await;
    let smaller = Layout { max_jobs_per_queue: 2, ..layout };
    one.ensure_layout(&smaller).await.unwrap();
    let error = one.publish_job(&outgoing(&job(JobClass::Low, 3))).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::QueueFull, "{error}");
    let error = error.into_service_error();
    assert_eq!((error.reason(), error.retryable), (Some(Reason::QueueFull), true));
    // The bound is per queue.
    publish(&one, JobClass::High, 4).await;
}

/// An earlier layout listened on all of `tts.jobs.*.*`, and would keep questions about durable jobs as if they were jobs.
#[tokio::test]
async fn questions_about_durable_jobs_are_no_jobs_also_on_a_stream_of_an_earlier_layout() {
    let server = Server::start().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let earlier = async_nats::jetstream::stream::Config {
        name: names::JOBS_STREAM.to_owned(),
        subjects: vec![names::ALL_JOBS.to_owned()],
        retention: async_nats::jetstream::stream::RetentionPolicy::WorkQueue,
        num_replicas: 1,
        ..Default::default()
    };
    jetstream.create_stream(earlier).await.unwrap();
    let bus = server.bus().await;
    publish(&bus, JobClass::Low, 1).await;
    bus.ensure_layout(&Layout::default()).await.unwrap();
    let question = chorus_protocol::Envelope::request(chorus_protocol::service::Ask {}, 1);
    for subject in [names::JOBS_SUBMIT, names::JOBS_STATUS, names::JOBS_FETCH, names::JOBS_CANCEL] {
        bus.publish(subject, &question).await.unwrap();
    }
    publish(&bus, JobClass::Urgent, 2).await;
    let depths = bus.queue_depths().await.unwrap();
    assert_eq!(depths.values().map(|depth| depth.total()).collect::<Vec<_>>(), [2], "{depths:?}");
}

#[tokio::test]
async fn without_a_layout_the_stream_is_missed() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let error = bus.publish_job(&outgoing(&job(JobClass::Low, 1))).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::NoStream, "{error}");
    assert_eq!(bus.job_exists(1).await.unwrap_err().kind, BusErrorKind::NotFound);
    assert_eq!(bus.ensure_consumers(&model()).await.unwrap_err().kind, BusErrorKind::NotFound);
    assert_eq!(bus.catalogue().list().await.unwrap_err().kind, BusErrorKind::NotFound);
}

#[tokio::test]
async fn a_doubled_publish_is_one_job() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let first = publish(&bus, JobClass::Normal, 7).await;
    assert_eq!(publish(&bus, JobClass::Normal, 7).await, first);
    assert_ne!(publish(&bus, JobClass::Normal, 8).await, first);
    assert_eq!(bus.queue_depth(&model()).await.unwrap().by_class, [0, 0, 2, 0]);
}

#[tokio::test]
async fn a_job_too_large_is_not_sent() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let mut large = job(JobClass::Normal, 1);
    large.text = "x".repeat(bus.server().max_payload);
    let error = bus.publish_job(&outgoing(&large)).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::TooLarge);
    assert_eq!(bus.queue_depths().await.unwrap().len(), 0);
}

#[tokio::test]
async fn jobs_are_looked_up_counted_and_deleted() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let seq = publish(&bus, JobClass::Urgent, 1).await;
    publish(&bus, JobClass::Low, 2).await;
    assert!(bus.job_exists(seq).await.unwrap());
    let depths = bus.queue_depths().await.unwrap();
    let token = names::encode_token(model().as_str());
    assert_eq!((depths.len(), depths[&token].by_class), (1, [1, 0, 0, 1]));

    assert!(bus.delete_job(seq).await.unwrap());
    assert!(!bus.delete_job(seq).await.unwrap());
    assert!(!bus.delete_job(999).await.unwrap());
    assert!(!bus.job_exists(seq).await.unwrap());
    assert!(!bus.job_exists(999).await.unwrap());
    assert_eq!(bus.queue_depth(&model()).await.unwrap().total(), 1);
}

#[tokio::test]
async fn removing_a_model_empties_its_queue() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    bus.ensure_consumers(&model()).await.unwrap();
    bus.ensure_consumers(&model()).await.unwrap();
    publish(&bus, JobClass::Low, 2).await;
    bus.remove_model_queue(&model()).await.unwrap();
    assert_eq!(bus.queue_depth(&model()).await.unwrap().total(), 0);
    bus.remove_model_queue(&model()).await.unwrap();
}

#[tokio::test]
async fn a_job_arrives_with_all_that_was_said_of_it() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    bus.ensure_consumers(&model()).await.unwrap();
    let job = chorus_protocol::job::Job { attempt: 3, ..job(JobClass::High, 5) };
    let tried = [WorkerId::new("w-1").unwrap(), WorkerId::new("w-2").unwrap()];
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let sent =
        chorus_bus::OutgoingJob { failures: 2, tried: &tried, traceparent: Some(trace), ..outgoing(&job) };
    let seq = bus.publish_job(&sent).await.unwrap();
    let mut puller = bus.puller().await.unwrap();
    pull(&puller, 9, JobClass::High, 1, PullWait::For(PATIENCE)).await;
    let (id, delivery) = next_job(&mut puller).await;
    assert_eq!((id, delivery.seq, delivery.deliveries, delivery.failures), (9, seq, 1, 2));
    assert_eq!(delivery.tried, tried);
    assert_eq!(delivery.inbox.as_deref(), Some("_INBOX.session"));
    assert_eq!(delivery.version.as_deref(), Some("2.1.0"));
    assert_eq!(delivery.traceparent.as_deref(), Some(trace));
    assert_eq!(delivery.subject, names::job_subject(&model(), JobClass::High));
    let envelope = delivery.job().unwrap();
    assert_eq!(envelope.payload, job);
    assert_eq!(envelope.metadata.unwrap().retry_count, Some(2));
    delivery.ack().await.unwrap();
    eventually("the job is gone", async || (!bus.job_exists(seq).await.unwrap()).then_some(())).await;
}
