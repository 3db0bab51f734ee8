//! Durable jobs, with a worker of a few lines at the other end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chorus_bus::{Bus, Delivery, PullEvent, PullRequest, PullWait};
use chorus_manager::{JobsConfig, ManagerConfig, ManagerHandle};
use chorus_protocol::audio::AudioData;
use chorus_protocol::durable::{DurableState, JobAsk, JobStatus};
use chorus_protocol::job::{
    Job, ResultAnswer, RunOutcome, RunRef, RunResult, Spoken, Started, StartedAnswer,
};
use chorus_protocol::names::{self, SessionSubject};
use chorus_protocol::{
    AudioFormat, Envelope, Incarnation, JobClass, MessageId, Reason, RunId, ServiceError, SynthesisRequest,
    SynthesisResult, WorkerId,
};
use chorus_runtime::task::{self, FailureMeans};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::*;

const TEXT: &str = "First of all. Second to none. Third time lucky. Fourth and last.";
const SAMPLES: usize = 1_600;

/// A worker that speaks a segment for each permit: [`SAMPLES`] times its index plus one. Ends when it is dropped.
struct Worker {
    permits: Arc<Semaphore>,
    spoken: Arc<Mutex<Vec<String>>>,
    _ends: DropGuard,
}

impl Worker {
    fn start(bus: Bus, permits: usize) -> Self {
        let (permits, spoken) = (Arc::new(Semaphore::new(permits)), Arc::new(Mutex::default()));
        let cancel = CancellationToken::new();
        let working = work(bus, Arc::clone(&permits), Arc::clone(&spoken));
        drop(task::spawn("worker", cancel.clone(), FailureMeans::Log, working));
        Self { permits, spoken, _ends: cancel.drop_guard() }
    }

    fn spoken(&self) -> Vec<String> {
        self.spoken.lock().unwrap().clone()
    }
}

async fn work(bus: Bus, permits: Arc<Semaphore>, spoken: Arc<Mutex<Vec<String>>>) {
    let mut puller = bus.puller().await.unwrap();
    let mut id = 0;
    loop {
        permits.acquire().await.unwrap().forget();
        let delivery = 'found: loop {
            for class in JobClass::BY_URGENCY {
                id += 1;
                let wait = PullWait::NoWait;
                puller.pull(PullRequest { id, model: &joe(), class, batch: 1, wait }).await.unwrap();
                // The end of a pull that found something comes after it, and counts as the next one's.
                if let Some(PullEvent::Job { delivery, .. }) = puller.next().await {
                    break 'found delivery;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        match speak(&bus, delivery).await {
            Some(text) => spoken.lock().unwrap().push(text),
            None => permits.add_permits(1),
        }
    }
}

/// What was said, when the session accepted it.
async fn speak(bus: &Bus, delivery: Delivery) -> Option<String> {
    let job: Job = delivery.job().unwrap().payload;
    let inbox = delivery.inbox.clone().unwrap();
    let run = RunRef { session: job.session, segment: job.segment, attempt: job.attempt, run: RunId::new() };
    let worker = WorkerId::new("w1").unwrap();
    let incarnation = Incarnation::from_u128(1);
    let started =
        Started { run: run.clone(), worker: worker.clone(), incarnation, deliveries: 1, overlapped: true };
    let subject = names::session_subject(&inbox, SessionSubject::Started);
    if !matches!(ask::<_, StartedAnswer>(bus, &subject, started).await, Ok(StartedAnswer::Go)) {
        delivery.terminate().await.unwrap();
        return None;
    }
    let pcm = (job.segment as i16 + 1).to_le_bytes().repeat(SAMPLES);
    let spoken = Spoken {
        crc32: crc32fast::hash(&pcm),
        data: AudioData::from(pcm),
        chunks: 1,
        samples: SAMPLES as u64,
        sample_rate: 16_000,
        engine_ms: 1.0,
        warnings: Vec::new(),
    };
    let result = RunResult { run, worker, outcome: RunOutcome::Spoken(spoken) };
    let subject = names::session_subject(&inbox, SessionSubject::Result);
    let answer = ask::<_, ResultAnswer>(bus, &subject, result).await;
    delivery.ack().await.unwrap();
    matches!(answer, Ok(ResultAnswer::Accepted)).then_some(job.text)
}

fn request(text: &str) -> SynthesisRequest {
    SynthesisRequest {
        text: text.into(),
        output_format: Some(AudioFormat::Pcm),
        ..SynthesisRequest::default()
    }
}

async fn submit(bus: &Bus, id: &str, text: &str) -> Result<JobStatus, ServiceError> {
    let message_id = MessageId::new(id).unwrap();
    let envelope = Envelope { message_id, ..Envelope::request(request(text), 1) };
    bus.request(names::JOBS_SUBMIT, &envelope, PATIENCE).await.map_err(|error| error.into_service_error())
}

fn named(id: &str) -> JobAsk {
    JobAsk { job: MessageId::new(id).unwrap() }
}

async fn status(bus: &Bus, id: &str) -> JobStatus {
    ask(bus, names::JOBS_STATUS, named(id)).await.unwrap()
}

async fn when(bus: &Bus, id: &str, what: &str, holds: impl Fn(&JobStatus) -> bool) -> JobStatus {
    eventually(what, async || Some(status(bus, id).await).filter(|status| holds(status))).await
}

/// The samples of a finished job without the silence between its segments, and how many there are of each.
async fn heard(bus: &Bus, id: &str) -> Vec<(i16, usize)> {
    let result: SynthesisResult = ask(bus, names::JOBS_FETCH, named(id)).await.unwrap();
    assert!(result.success, "{result:?}");
    let pcm = bus.audio_store().get(&result.audio.unwrap().key.unwrap()).await.unwrap();
    let mut heard: Vec<(i16, usize)> = Vec::new();
    for sample in pcm.chunks(2).map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]])).filter(|s| *s != 0) {
        match heard.last_mut() {
            Some((last, count)) if *last == sample => *count += 1,
            _ => heard.push((sample, 1)),
        }
    }
    heard
}

fn whole() -> Vec<(i16, usize)> {
    (1..=4).map(|value| (value, SAMPLES)).collect()
}

async fn manager(broker: &Broker, id: &str) -> ManagerHandle {
    let jobs = JobsConfig {
        lease: Duration::from_millis(600),
        renew_every: Duration::from_millis(100),
        ..JobsConfig::default()
    };
    start(ManagerConfig { jobs, ..broker.config(id) }, Vec::new()).await
}

#[tokio::test]
async fn a_job_is_spoken_once_whoever_asks_how_often() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    let _other = broker.manager("m2").await;
    let worker = Worker::start(broker.bus().await, 0);
    let submitted = submit(&bus, "my job", TEXT).await.unwrap();
    assert_eq!((submitted.job.as_str(), submitted.state), ("my job", DurableState::Queued));
    let early = ask::<_, SynthesisResult>(&bus, names::JOBS_FETCH, named("my job")).await.unwrap_err();
    assert_eq!((early.reason(), early.retryable), (Some(Reason::NotDone), true));
    let again = submit(&bus, "my job", TEXT).await.unwrap();
    assert_eq!(again.created_ms, submitted.created_ms);
    let other = submit(&bus, "my job", "Something else.").await.unwrap_err();
    assert_eq!((other.reason(), other.retryable), (Some(Reason::IdReused), false));
    let unknown = ask::<_, JobStatus>(&bus, names::JOBS_STATUS, named("yours")).await.unwrap_err();
    assert_eq!(unknown.reason(), Some(Reason::UnknownJob));

    worker.permits.add_permits(100);
    let done = when(&bus, "my job", "the job is done", |s| s.state.is_over()).await;
    assert_eq!((done.state, done.segments), (DurableState::Done, 4), "{done:?}");
    assert_eq!(heard(&bus, "my job").await, whole());
    assert_eq!(submit(&bus, "my job", TEXT).await.unwrap().state, DurableState::Done);
    assert_eq!(worker.spoken().len(), 4);
}

#[tokio::test]
async fn a_job_goes_on_with_another_manager_after_its_last_stored_segment() {
    let broker = Broker::start().await;
    let first = manager(&broker, "m1").await;
    let bus = broker.bus().await;
    load(&bus, definition("joe")).await.unwrap();
    let worker = Worker::start(broker.bus().await, 2);
    submit(&bus, "book", TEXT).await.unwrap();
    when(&bus, "book", "two segments are stored", |s| s.segments == 2).await;
    let second = manager(&broker, "m2").await;
    soon("the manager stops", first.stop()).await;
    when(&bus, "book", "it is taken over", |s| s.manager.as_ref() == Some(second.id())).await;
    worker.permits.add_permits(100);
    when(&bus, "book", "the job is done", |s| s.state == DurableState::Done).await;
    assert_eq!(heard(&bus, "book").await, whole());
    let all = ["First of all.", "Second to none.", "Third time lucky.", "Fourth and last."];
    assert_eq!(worker.spoken(), all, "nothing was spoken twice");
}

#[tokio::test]
async fn a_cancelled_job_leaves_nothing_on_the_queue() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    submit(&bus, "never", TEXT).await.unwrap();
    when(&bus, "never", "it is being spoken", |s| s.state == DurableState::Speaking).await;
    eventually("its first window is queued", async || {
        (bus.queue_depth(&joe()).await.unwrap().total() == 2).then_some(())
    })
    .await;
    let cancelled: JobStatus = ask(&bus, names::JOBS_CANCEL, named("never")).await.unwrap();
    assert_eq!(cancelled.state, DurableState::Cancelled);
    eventually("its queue is empty", async || {
        (bus.queue_depth(&joe()).await.unwrap().total() == 0).then_some(())
    })
    .await;
    let result: SynthesisResult = ask(&bus, names::JOBS_FETCH, named("never")).await.unwrap();
    assert_eq!(result.error.unwrap().reason(), Some(Reason::Cancelled));
    assert_eq!(status(&bus, "never").await.state, DurableState::Cancelled);
}

#[tokio::test]
async fn what_cannot_be_spoken_is_refused_before_it_is_kept() {
    let broker = Broker::start().await;
    let (_manager, bus) = broker.with_joe().await;
    assert_eq!(submit(&bus, "a", " ").await.unwrap_err().reason(), Some(Reason::Unspeakable));
    let stranger = SynthesisRequest { model: Some("nobody".into()), ..request("hello") };
    let refused = ask::<_, JobStatus>(&bus, names::JOBS_SUBMIT, stranger).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::UnknownModel));
    submit(&bus, "dots", "… !").await.unwrap();
    let failed = when(&bus, "dots", "it has failed", |s| s.state == DurableState::Failed).await;
    assert_eq!(failed.error.unwrap().reason(), Some(Reason::Unspeakable));
}
