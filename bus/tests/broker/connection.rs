//! Connecting, being refused, and coming back.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use chorus_bus::{
    Bus, BusConfig, BusErrorKind, ConnectionState, PublishErrorKind, PullEnd, PullEvent, PullWait,
};
use chorus_protocol::JobClass;
use tokio_util::sync::CancellationToken;

use crate::support::*;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_in_time() {
    let url = format!("nats://127.0.0.1:{}", free_port());
    let begun = Instant::now();
    let config = BusConfig { connect_timeout: Duration::from_millis(300), ..BusConfig::new(&url) };
    let error = Bus::connect(config).await.err().unwrap();
    assert_eq!(error.kind, BusErrorKind::Unreachable);
    assert!(error.to_string().contains(&url), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused_at_once() {
    let server = Server::start_with(&[]).await;
    let error = Bus::connect(server.config()).await.err().unwrap();
    assert_eq!(error.kind, BusErrorKind::NoJetStream);
    assert!(error.to_string().contains("jetstream"), "{error}");
}

#[tokio::test]
async fn credentials_are_checked_and_used() {
    let server = Server::start_with(&["--jetstream", "--user", "me", "--pass", "secret"]).await;
    let error = Bus::connect_when_up(server.config(), &CancellationToken::new()).await.err().unwrap();
    assert_eq!(error.kind, BusErrorKind::Unauthorized);
    let config = BusConfig { user: Some("me".into()), password: Some("secret".into()), ..server.config() };
    assert!(Bus::connect(config).await.is_ok());
}

#[tokio::test]
async fn services_wait_for_the_server_until_they_are_cancelled() {
    let server = Server::start().await;
    let cancel = CancellationToken::new();
    assert!(Bus::connect_when_up(server.config(), &cancel).await.is_ok());

    let nowhere = BusConfig {
        connect_timeout: Duration::from_millis(50),
        ..BusConfig::new(format!("nats://127.0.0.1:{}", free_port()))
    };
    let waiting = Bus::connect_when_up(nowhere, &cancel);
    let cancelling = async {
        tokio::task::yield_now().await;
        cancel.cancel();
    };
    let (result, ()) = soon("the end of waiting", async { tokio::join!(waiting, cancelling) }).await;
    assert_eq!(result.err().unwrap().kind, BusErrorKind::Cancelled);
}

#[tokio::test]
async fn what_the_server_says_of_itself() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let info = bus.server();
    assert_eq!((info.url, info.max_payload), (server.url(), 1024 * 1024));
    assert!(info.version.starts_with("2."), "{}", info.version);
    assert_ne!(bus.new_inbox(), bus.new_inbox());
    assert_eq!(*bus.connection_events().borrow(), ConnectionState::Connected);
}

#[tokio::test]
async fn a_closed_connection_says_so() {
    let server = Server::start().await;
    let bus = server.bus().await;
    let mut heard = bus.subscribe("a", None).await.unwrap();
    bus.clone().respond_raw("a", "last".into()).await.unwrap();
    soon("the close", bus.clone().close()).await;
    assert_eq!(&heard.next().await.unwrap().payload[..], b"last");
    assert!(soon("the end", heard.next()).await.is_none());
    assert_eq!(bus.respond_raw("a", "x".into()).await.unwrap_err().kind, BusErrorKind::Disconnected);
    let begun = Instant::now();
    let error = bus.publish_job(&outgoing(&job(JobClass::Low, 1))).await.unwrap_err();
    assert_eq!(error.kind, PublishErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(2), "a closed connection is not waited for");
}

#[tokio::test]
async fn an_answer_that_must_not_wait_does_not_wait_for_a_broker_that_is_gone() {
    let server = Server::start().await;
    let bus = server.laid_out().await;
    let mut requests = bus.subscribe("echo", None).await.unwrap();
    let mut events = bus.connection_events();
    let asker = server.bus().await;
    let asking = asker.request_raw("echo", "hello".into(), PATIENCE);
    let answer = chorus_protocol::Envelope::event(7u32, 1);
    let respond =
        |to: &chorus_bus::Incoming| bus.respond_now(to, &answer, chorus_protocol::codec::Encoding::Json);
    let (question, answered) = soon("the answer", async {
        tokio::join!(
            async {
                let question = requests.next().await.unwrap();
                respond(&question).unwrap();
                question
            },
            asking
        )
    })
    .await;
    assert!(!answered.unwrap().is_empty());

    server.kill().await;
    soon("the loss", events.wait_for(|state| *state != ConnectionState::Connected)).await.unwrap();
    let begun = Instant::now();
    assert_eq!(respond(&question).unwrap_err().kind, BusErrorKind::Disconnected);
    assert!(begun.elapsed() < Duration::from_millis(500), "it waited for {:?}", begun.elapsed());
}

#[tokio::test]
async fn everything_works_again_after_a_restart() {
    let mut server = Server::start().await;
    let bus = server.laid_out().await;
    bus.ensure_consumers(&model()).await.unwrap();
    let mut requests = bus.subscribe("echo", None).await.unwrap();
    let mut puller = bus.puller().await.unwrap();
    let mut events = bus.connection_events();
    let seq = publish(&bus, JobClass::High, 1).await;
    pull(&puller, 1, JobClass::Low, 1, PullWait::For(Duration::from_secs(60))).await;
    bus.flush().await.unwrap();

    server.kill().await;
    let gone = |state: &ConnectionState| *state != ConnectionState::Connected;
    soon("the loss", events.wait_for(gone)).await.unwrap();
    let PullEvent::Ended { id: 1, why: PullEnd::Unavailable } = next(&mut puller).await else {
        panic!("the pull must end with the connection")
    };
    server.restart().await;
    soon("the return", events.wait_for(|state| *state == ConnectionState::Connected)).await.unwrap();

    let answering = async {
        let question = requests.next().await.unwrap();
        bus.respond_raw(question.reply().unwrap(), question.payload.clone()).await.unwrap();
    };
    let asking = bus.request_raw("echo", "again".into(), PATIENCE);
    let (answer, ()) = soon("an answer", async { tokio::join!(asking, answering) }).await;
    assert_eq!(&answer.unwrap()[..], b"again");

    assert_eq!(publish(&bus, JobClass::High, 1).await, seq, "the job and its id have outlived the server");
    bus.ensure_consumers(&model()).await.unwrap();
    pull(&puller, 2, JobClass::High, 1, PullWait::For(PATIENCE)).await;
    let (id, delivery) = next_job(&mut puller).await;
    assert_eq!((id, delivery.seq), (2, seq));
    delivery.ack().await.unwrap();
}
