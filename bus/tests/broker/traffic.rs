//! Everything at once, while something happens to the broker: jobs published and pulled, questions asked, a record counted
//! up and watched. Every call must end in its time; what was acknowledged must arrive; how long each kind stood still is measured.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use chorus_bus::{
    Bucket, Bus, CasError, PublishErrorKind, PullEvent, PullRequest, PullWait, Puller, Records,
    RequestErrorKind,
};
use chorus_protocol::JobClass;
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, job, model, outgoing};

/// Between two of a kind.
const PACE: Duration = Duration::from_millis(5);
/// Before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(50);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// What a busy machine adds to any time-out.
const SLACK: Duration = Duration::from_secs(3);
/// How often who waits for a job looks whether there are more to come.
const LOOK_UP: Duration = Duration::from_millis(200);
const CLASS: JobClass = JobClass::Normal;

/// When something last went on, and the longest time it did not.
#[derive(Default)]
pub struct Pulse {
    beats: Cell<u32>,
    last: Cell<Option<Instant>>,
    pause: Cell<Duration>,
}

impl Pulse {
    fn beat(&self) {
        let now = Instant::now();
        let pause = self.last.replace(Some(now)).map_or(Duration::ZERO, |last| now - last);
        self.pause.set(self.pause.get().max(pause));
        self.beats.set(self.beats.get() + 1);
    }

    /// The longest time between two.
    pub fn pause(&self) -> Duration {
        self.pause.get()
    }
}

#[derive(Default)]
pub struct Traffic {
    pub publishes: Pulse,
    pub jobs: Pulse,
    pub answers: Pulse,
    pub writes: Pulse,
    pub told: Pulse,
    acknowledged: RefCell<HashSet<u32>>,
    worked: RefCell<HashSet<u32>>,
    trouble_over: CancellationToken,
    all_sent: CancellationToken,
}

impl Traffic {
    /// Waits until some more of every kind has happened since now.
    pub async fn goes_on(&self) {
        let pulses = [&self.publishes, &self.jobs, &self.answers, &self.writes, &self.told];
        let before = pulses.map(|pulse| pulse.beats.get());
        eventually("the traffic goes on", async || {
            let on = pulses.iter().zip(before).all(|(pulse, before)| pulse.beats.get() >= before + 10);
            on.then_some(())
        })
        .await;
    }

    async fn publish(&self, bus: &Bus, limit: Duration) {
        let mut last_ones = 10;
        for segment in 0.. {
            let job = job(CLASS, segment);
            while let Err(error) = within(limit, bus.publish_job(&outgoing(&job))).await {
                assert_eq!(error.kind, PublishErrorKind::Unavailable, "{error}");
                tokio::time::sleep(RETRY).await;
            }
            self.acknowledged.borrow_mut().insert(segment);
            self.publishes.beat();
            last_ones -= u32::from(self.trouble_over.is_cancelled());
            if last_ones == 0 {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        self.all_sent.cancel();
    }

    async fn work(&self, bus: &Bus) {
        let mut puller = bus.puller().await.unwrap();
        let (mut id, mut waiting) = (0, false);
        while !(self.all_sent.is_cancelled() && self.acknowledged.borrow().is_subset(&self.worked.borrow())) {
            if !waiting {
                id += 1;
                waiting = pull(bus, &puller, id).await;
                if !waiting {
                    tokio::time::sleep(RETRY).await;
                }
                continue;
            }
            let Ok(event) = tokio::time::timeout(LOOK_UP, puller.next()).await else { continue };
            waiting = false;
            match event.unwrap() {
                PullEvent::Job { delivery, .. } => {
                    let segment = delivery.job().unwrap().payload.segment;
                    // Whether or not the ack arrives: doubled work is found out above the queue.
                    let _ = delivery.ack().await;
                    self.worked.borrow_mut().insert(segment);
                    self.jobs.beat();
                }
                PullEvent::Ended { .. } => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn ask(&self, bus: &Bus) {
        while !self.all_sent.is_cancelled() {
            let asked = bus.request_raw("echo", "?".into(), ASK_TIMEOUT);
            match within(ASK_TIMEOUT + SLACK, asked).await {
                Ok(_) => self.answers.beat(),
                Err(error) => {
                    use RequestErrorKind::{Disconnected, NoResponders, Timeout};
                    assert!(matches!(error.kind, Disconnected | NoResponders | Timeout), "{error}");
                    tokio::time::sleep(RETRY).await;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn answer(&self, bus: &Bus) {
        let mut questions = bus.subscribe("echo", None).await.unwrap();
        while let Some(Some(question)) = self.all_sent.run_until_cancelled(questions.next()).await {
            let _ = bus.respond_raw(question.reply().unwrap(), question.payload.clone()).await;
        }
    }

    async fn watch(&self, bus: &Bus) {
        let mut watch = bus.records::<u64>(Bucket::PLACEMENT).watch().await.unwrap();
        while let Some(Some(_)) = self.all_sent.run_until_cancelled(watch.next()).await {
            self.told.beat();
        }
    }

    /// The only writer of a record never conflicts with itself, and loses no count that was confirmed.
    async fn count(&self, bus: &Bus, limit: Duration) {
        let records: Records<u64> = bus.records(Bucket::PLACEMENT);
        let mut confirmed = records.put("count", &0).await.unwrap();
        let (mut count, mut unknown) = (0, false);
        // A write that was given up may still come, until another one has taken its place.
        let mut late = false;
        while !self.all_sent.is_cancelled() {
            if unknown {
                let Ok(Some(read)) = within(limit, records.get("count")).await else {
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                assert!(read.value == count || read.value == count + 1, "{} after {count}", read.value);
                (count, confirmed, unknown) = (read.value, read.revision, false);
            }
            match within(limit, records.update("count", &(count + 1), confirmed)).await {
                Ok(revision) => {
                    (count, confirmed, late) = (count + 1, revision, false);
                    self.writes.beat();
                }
                Err(CasError::Bus(_)) => (unknown, late) = (true, true),
                Err(CasError::Conflict) if late => unknown = true,
                Err(error) => panic!("{error}: nobody else writes"),
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

async fn pull(bus: &Bus, puller: &Puller, id: u64) -> bool {
    if bus.ensure_consumers(&model()).await.is_err() {
        return false;
    }
    let wait = PullWait::For(Duration::from_secs(10));
    puller.pull(PullRequest { id, model: &model(), class: CLASS, batch: 1, wait }).await.is_ok()
}

async fn within<T>(limit: Duration, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, Box::pin(call)).await.expect("every call ends in its time")
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} jobs; longest pauses: publishing {:?}, pulling {:?}, asking {:?}, writing {:?}, watching {:?}",
            self.acknowledged.borrow().len(),
            self.publishes.pause(),
            self.jobs.pause(),
            self.answers.pause(),
            self.writes.pause(),
            self.told.pause(),
        )
    }
}

/// Runs all of it over two connections while `trouble` happens, until everything acknowledged has arrived.
pub async fn under_traffic(
    sender: &Bus,
    worker: &Bus,
    request_timeout: Duration,
    trouble: impl AsyncFnOnce(&Traffic),
) -> Traffic {
    let traffic = Traffic::default();
    let limit = 3 * request_timeout + SLACK;
    let all = async {
        let trouble = async {
            traffic.goes_on().await;
            trouble(&traffic).await;
            traffic.goes_on().await;
            traffic.trouble_over.cancel();
        };
        tokio::join!(
            trouble,
            traffic.publish(sender, limit),
            traffic.work(worker),
            traffic.ask(sender),
            traffic.answer(worker),
            traffic.count(sender, limit),
            traffic.watch(worker),
        )
    };
    Box::pin(all).await;
    traffic
}
