//! What a worker does when all goes well, and when the session decides otherwise.

use std::time::Duration;

use chorus_protocol::fleet::{OrderTaken, WorkerOrder};
use chorus_protocol::job::{
    CHUNKS_PER_GRANT, ChunkGrant, Outcome, OutcomeKind, ResultAnswer, RunFault, RunOutcome, StartedAnswer,
    StopReason,
};
use chorus_protocol::names::{self, WorkerControl, worker_control};
use chorus_protocol::{Envelope, Reason};
use serde_json::json;
use tokio::time::timeout;

use crate::support::*;

#[tokio::test]
async fn a_segment_is_heard_to_the_sample() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", plain())).await;
    let mut outcomes = bus.subscribe(&names::event_subject("outcome"), None).await.unwrap();
    let mut session = Session::open(&bus).await;
    let text = "a sentence that is long enough for more than one piece";
    for segment in 0..3 {
        let seq = session.say(segment, text).await;
        let (pcm, spoken) = session.hear().await.unwrap();
        assert!(pcm == checkable(text, segment), "segment {segment} differs");
        assert_eq!((spoken.sample_rate, spoken.samples as usize), (16_000, pcm.len() / 2));
        session.gone(seq).await;
        let event = timeout(PATIENCE, outcomes.next()).await.unwrap().unwrap();
        let outcome = event.decode::<Outcome>().unwrap().payload;
        assert_eq!((outcome.outcome, outcome.run.segment), (OutcomeKind::Success, segment));
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_long_segment_goes_in_order_through_the_window() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", plain())).await;
    let mut session = Session::open(&bus).await;
    let text = "thirty seconds of audio, which is the most that this engine makes; ".repeat(10);
    session.say(0, text.trim()).await;
    let (pcm, spoken) = session.hear().await.unwrap();
    assert!(pcm == checkable(text.trim(), 0));
    assert!(spoken.chunks > 48, "more than the window at once");
    worker.stop().await;
}

#[tokio::test]
async fn an_idle_worker_starts_a_fresh_job_at_once_and_a_queued_one_after_go() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "null", plain())).await;
    let mut session = Session::open(&bus).await;
    // The first may come before the pulls stand; after it, they do.
    session.say(0, "hello").await;
    session.hear().await.unwrap();
    let standing = async {
        for segment in 1.. {
            tokio::time::sleep(Duration::from_millis(20)).await;
            session.say(segment, "hello").await;
            let (started, question) = session.started().await;
            assert_eq!(started.deliveries, 1);
            session.answer(&question, StartedAnswer::Go).await;
            session.hear().await.unwrap();
            if started.overlapped {
                return;
            }
        }
    };
    timeout(PATIENCE, standing).await.expect("no job came through a standing pull");
    worker.stop().await;
}

#[tokio::test]
async fn stop_before_go_ends_the_job_and_frees_the_engine() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", json!({"computeMs": 60_000}))).await;
    let mut session = Session::open(&bus).await;
    let mut seqs = Vec::new();
    // The engine takes a minute for each: that the second is asked about shows that the first was cancelled.
    for segment in 0..2 {
        seqs.push(session.say(segment, "hello").await);
        let (started, question) = session.started().await;
        assert_eq!(started.run.segment, segment);
        session.answer(&question, StartedAnswer::Stop { reason: StopReason::Cancelled }).await;
    }
    for seq in seqs {
        session.gone(seq).await;
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_stop_order_ends_a_run_that_is_spoken() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "checkable", json!({"computeMs": 60_000}))).await;
    let mut session = Session::open(&bus).await;
    let seq = session.say(0, "hello").await;
    let (started, question) = session.started().await;
    session.answer(&question, StartedAnswer::Go).await;
    let progress = worker.progress(&bus).await;
    assert_eq!(progress.run, started.run.run);
    assert!(progress.idle_ms < 10_000);
    let order = Envelope::request(WorkerOrder::Stop { session: session.id }, 1);
    let subject = worker_control(worker.handle.id(), WorkerControl::Stop);
    let _taken: OrderTaken = bus.request(&subject, &order, PATIENCE).await.unwrap();
    session.gone(seq).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_stale_result_ends_the_job() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "null", plain())).await;
    let mut session = Session::open(&bus).await;
    let seq = session.say(0, "hello").await;
    let (_, question, _) = session.listen().await;
    session.answer(&question, ResultAnswer::STALE).await;
    session.gone(seq).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_fault_that_the_session_found_is_told_as_the_outcome() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "null", plain())).await;
    let mut outcomes = bus.subscribe(&names::event_subject("outcome"), None).await.unwrap();
    let mut session = Session::open(&bus).await;
    let seq = session.say(0, "hello").await;
    let (result, question, _) = session.listen().await;
    session.answer(&question, ResultAnswer::Stale { fault: Some(RunFault::Corrupt) }).await;
    session.gone(seq).await;
    let event = timeout(PATIENCE, outcomes.next()).await.unwrap().unwrap();
    let outcome = event.decode::<Outcome>().unwrap().payload;
    assert_eq!((outcome.run, outcome.outcome), (result.run, OutcomeKind::WorkerFault));
    assert_eq!(outcome.error.unwrap().reason(), Some(Reason::BadAudio));
    worker.stop().await;
}

#[tokio::test]
async fn missing_pieces_are_sent_again() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "null", plain())).await;
    let mut session = Session::open(&bus).await;
    session.say(0, "hello").await;
    let (_, question, pieces) = session.listen().await;
    assert_eq!(pieces.len(), 2);
    session.answer(&question, ResultAnswer::Resend { from: 1 }).await;
    let Heard::Chunk(chunk, _) = session.next().await else { panic!("no piece came again") };
    assert_eq!((chunk.seq, &chunk.data.0), (1, &pieces[1]));
    assert!(session.hear_end().await);
    worker.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let worker = Running::start(worker_config(&broker, "null", plain())).await;
    let mut session = Session::open(&bus).await;
    let seq = session.say(0, "hello").await;
    let (first, _unanswered, _) = session.listen().await;
    let (again, question, _) = session.listen().await;
    assert_eq!(first.run, again.run);
    assert!(matches!(again.outcome, RunOutcome::Spoken(_)));
    session.answer(&question, ResultAnswer::Accepted).await;
    session.gone(seq).await;
    worker.stop().await;
}

#[tokio::test]
async fn many_segments_of_many_sessions_do_not_mix() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", json!({"streaming": true, "computeMs": 20}));
    config.engine.lanes = Some(4);
    let worker = Running::start(config).await;
    let sessions = (0..6).map(|number| {
        let bus = bus.clone();
        async move {
            let mut session = Session::open(&bus).await;
            for segment in 0..5 {
                let text = format!("session {number} says its sentence {segment}");
                session.say(segment, &text).await;
                let (pcm, _) = session.hear().await.unwrap();
                assert!(pcm == checkable(&text, segment), "{text}");
            }
        }
    });
    timeout(PATIENCE, futures::future::join_all(sessions)).await.unwrap();
    worker.stop().await;
}

/// With a lane to spare: what an engine has failed before waits for what runs, and what comes after waits for it.
#[tokio::test]
async fn a_job_that_an_engine_has_failed_before_runs_alone() {
    let broker = Broker::start().await;
    let bus = broker.connect().await;
    let mut config = worker_config(&broker, "checkable", json!({"computeMs": 700}));
    config.engine.lanes = Some(2);
    let worker = Running::start(config).await;
    let mut session = Session::open(&bus).await;
    let mut order = Vec::new();
    session.say(0, "first of all").await;
    while order.iter().filter(|step: &&String| step.ends_with("ended")).count() < 5 {
        match session.next().await {
            Heard::Started(started, question) => {
                session.answer(&question, StartedAnswer::Go).await;
                let began = format!("{} began", started.run.segment);
                if order.contains(&began) {
                    // A run that goes on asks once more whether it counts.
                    continue;
                }
                order.push(began);
                if started.run.segment == 0 {
                    session.say_after(1, 1, "it failed before").await;
                    session.say(2, "beside another").await;
                    session.say(3, "beside another").await;
                    session.say(4, "the last of them").await;
                }
            }
            Heard::Chunk(_, question) => {
                session.answer(&question, ChunkGrant { chunks: CHUNKS_PER_GRANT }).await;
            }
            Heard::Result(result, question) => {
                assert!(matches!(result.outcome, RunOutcome::Spoken(_)));
                order.push(format!("{} ended", result.run.segment));
                session.answer(&question, ResultAnswer::Accepted).await;
            }
        }
    }
    assert_eq!(order[..4], ["0 began", "0 ended", "1 began", "1 ended"], "{order:?}");
    // The others show that there was a second lane.
    let at = |step: &str| order.iter().position(|found| found == step).unwrap();
    assert!(at("3 began") < at("2 ended"), "{order:?}");
    worker.stop().await;
}
