//! The breakers' effects: hears what becomes of runs, writes the records of those workers that this manager owns, and
//! tells of changes.
//!
//! ```text
//!   tts.events.{outcome,canary,workerLost}, tts.dead.* ──▶ Book ◀── tts-breakers (watch)
//!                                                          │ due
//!                                                          ▼
//!             tts-breakers (compare-and-set), tts.events.breaker, tts.events.workerFailed
//! ```
//!
//! A run has one outcome: its worker tells it, or, where the worker is lost, the manager that found it so. Of these losses
//! only hangs are judged: a process that has ended is answered by its next start, which has a backoff of its own, and a
//! breaker that punishes the next start for the last one's end would refuse work that it could do (ADR 0009).
//!
//! A write that comes second reads what came first and is decided anew; each such round means that somebody got on, and a
//! write that fails is left alone for a while. What was heard stays in the book until it is seen in a record.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chorus_bus::{Bucket, BusError, CasError, Incoming, RecordChange, RecordWatch, Records, Subscription};
use chorus_protocol::breaker::{BreakerRecord, BreakerState, DeadLetter, counted_as};
use chorus_protocol::fleet::FleetEvent;
use chorus_protocol::job::{Outcome, OutcomeKind};
use chorus_protocol::{ManagerId, ModelName, Reason, RunId, ServiceError, WorkerId, names};
use chorus_runtime::task::{FailureMeans, TaskGroup};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::book::{Book, Write};
use super::{Heard, failure_rate};
use crate::admit;
use crate::core::Core;
use crate::events::WORKER_LOST;
use crate::fleet::LossCause;
use crate::rendezvous::owner;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often it is looked at who lives, in ticks.
const ROLL_CALL_TICKS: u32 = 100;
/// Writes that are under way at once.
const WRITES_AT_ONCE: usize = 16;
/// Runs of one lost worker that are counted.
const MAX_LOST_RUNS: usize = 64;
/// The longest description of a fault that is kept, in characters.
const MAX_FAULT_CHARS: usize = 500;

/// The book, and who is to be told that something was written into it.
pub(crate) struct Breakers {
    book: Mutex<Book>,
    news: Notify,
}

impl Breakers {
    pub(crate) fn new(book: Book) -> Self {
        Self { book: Mutex::new(book), news: Notify::new() }
    }

    /// The book. Not to be held across an await.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts to listen and to judge. The records that are there are known when this returns.
pub(crate) async fn start(core: &Arc<Core>, background: &TaskGroup) -> Result<(), BusError> {
    let means = FailureMeans::CancelScope;
    let watch = records(core).watch().await?;
    let outcomes = core.bus.subscribe(&names::event_subject("outcome"), None).await?;
    let canaries = core.bus.subscribe(&names::event_subject("canary"), None).await?;
    let lost = core.bus.subscribe(&names::event_subject(WORKER_LOST), None).await?;
    let dead = core.bus.dead_letters::<DeadLetter>().subscribe().await?;
    let (ready, known) = oneshot::channel();
    background.spawn("breaker-records", means, follow(Arc::clone(core), watch, ready));
    background.spawn(
        "breaker-hearing",
        means,
        hear(Arc::clone(core), Heards { outcomes, canaries, lost, dead }),
    );
    // The sender is dropped only when the connection has ended, which every other part notices too.
    let _ended = known.await.is_err();
    background.spawn("breaker-judge", means, judge(Arc::clone(core)));
    Ok(())
}

fn records(core: &Core) -> Records<BreakerRecord> {
    core.bus.records(Bucket::BREAKERS)
}

async fn follow(core: Arc<Core>, mut watch: RecordWatch<BreakerRecord>, ready: oneshot::Sender<()>) {
    let mut ready = Some(ready);
    while let Some(change) = watch.next().await {
        let now = core.clock.now();
        match change {
            RecordChange::Put { key, value, revision } => {
                if let Some(worker) = worker_of(&key) {
                    core.breakers.book().told(&worker, value, revision, now);
                }
            }
            // Nobody can act on it: it is replaced when the worker is next judged.
            RecordChange::Malformed { key, revision } => {
                if let Some(worker) = worker_of(&key) {
                    core.breakers.book().told(&worker, BreakerRecord::default(), revision, now);
                }
            }
            RecordChange::Removed { key } => {
                if let Some(worker) = worker_of(&key) {
                    core.breakers.book().told_gone(&worker);
                }
            }
            RecordChange::Ready => {
                if let Some(ready) = ready.take() {
                    // Nobody waits: the manager is being stopped.
                    let _stopping = ready.send(()).is_err();
                }
            }
        }
    }
}

fn worker_of(key: &str) -> Option<WorkerId> {
    WorkerId::new(key).map_err(|error| tracing::debug!(key, %error, "a breaker of nobody")).ok()
}

/// What is listened to.
struct Heards {
    outcomes: Subscription,
    canaries: Subscription,
    lost: Subscription,
    dead: Subscription,
}

async fn hear(core: Arc<Core>, mut heards: Heards) {
    loop {
        let (message, take): (_, fn(&Core, &Incoming)) = tokio::select! {
            message = heards.outcomes.next() => (message, hear_outcome),
            message = heards.canaries.next() => (message, hear_canary),
            message = heards.lost.next() => (message, hear_of_loss),
            message = heards.dead.next() => (message, hear_of_poison),
        };
        let Some(message) = message else { return };
        take(&core, &message);
    }
}

fn hear_outcome(core: &Core, message: &Incoming) {
    let Some(outcome) = read::<Outcome>(message) else { return };
    let success = match outcome.outcome {
        OutcomeKind::Success => true,
        OutcomeKind::WorkerFault => false,
        OutcomeKind::ClientFault | OutcomeKind::BackPressure => return,
    };
    let lasted_ms = if outcome.run_ms.is_finite() { outcome.run_ms.max(0.0) as u64 } else { 0 };
    let began_ms = core.clock.unix_ms().saturating_sub(lasted_ms);
    let error = outcome.error.filter(|_| !success);
    let run = error.as_ref().map_or(outcome.run.run, |error| counted_as(outcome.run.run, error));
    let fault = error.map(|error| shortened(&error.message));
    let heard = Heard::Ended { run, success, began_ms };
    core.breakers.book().hear(&outcome.worker, heard, fault, core.clock.now());
    if !success {
        core.breakers.news.notify_one();
    }
}

/// A canary: `details.run` and `details.success`, as the worker's gate tells them.
fn hear_canary(core: &Core, message: &Incoming) {
    let Some(event) = read::<FleetEvent>(message) else { return };
    let run = event.details.get("run").and_then(Value::as_str).and_then(|run| run.parse::<RunId>().ok());
    let success = event.details.get("success").and_then(Value::as_bool);
    let (Some(worker), Some(run), Some(success)) = (event.worker_id, run, success) else {
        tracing::debug!("a canary that cannot be read");
        return;
    };
    let fault = (!success).then(|| shortened(&event.message));
    let heard = Heard::Ended { run, success, began_ms: core.clock.unix_ms() };
    core.breakers.book().hear_canary(&worker, heard, fault, core.clock.now());
    core.breakers.news.notify_one();
}

/// A worker hangs, or its engine does: its runs have failed. Where nobody knows them, its start stands for one of them, so
/// that every manager counts the same.
fn hear_of_loss(core: &Core, message: &Incoming) {
    let Some(event) = read::<FleetEvent>(message) else { return };
    let (Some(worker), Some(incarnation)) = (event.worker_id, event.incarnation) else {
        tracing::debug!("a loss of nobody");
        return;
    };
    let cause = event.details.get("cause").and_then(Value::as_str).and_then(LossCause::parse);
    if !cause.is_some_and(LossCause::is_fault) {
        return;
    }
    let told = event.details.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut runs: Vec<RunId> =
        told.iter().take(MAX_LOST_RUNS).filter_map(|run| run.as_str()?.parse().ok()).collect();
    if runs.is_empty() {
        runs.extend(incarnation.to_string().parse::<RunId>());
    }
    let fault = shortened(&event.message);
    let (now, began_ms) = (core.clock.now(), core.clock.unix_ms());
    let mut book = core.breakers.book();
    for run in runs {
        book.hear(&worker, Heard::Ended { run, success: false, began_ms }, Some(fault.clone()), now);
    }
    drop(book);
    core.breakers.news.notify_one();
}

fn hear_of_poison(core: &Core, message: &Incoming) {
    let Some(letter) = read::<DeadLetter>(message) else { return };
    let now = core.clock.now();
    let mut book = core.breakers.book();
    for failed in letter.history {
        let run = counted_as(failed.run, &failed.error);
        book.hear(&failed.worker, Heard::TakenBack { run }, None, now);
    }
    drop(book);
    core.breakers.news.notify_one();
}

fn read<T: DeserializeOwned>(message: &Incoming) -> Option<T> {
    match message.decode::<T>() {
        Ok(envelope) => Some(envelope.payload),
        Err(error) => {
            tracing::debug!(subject = message.subject(), %error, "a message cannot be read");
            None
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_FAULT_CHARS).collect()
}

/// Writes what is due.
async fn judge(core: Arc<Core>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0u32.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = core.breakers.news.notified() => {}
        }
        if tick.is_multiple_of(ROLL_CALL_TICKS) {
            call_the_roll(&core);
        }
        let writes = due(&core);
        futures::stream::iter(writes)
            .for_each_concurrent(WRITES_AT_ONCE, |write| carry_out(&core, write))
            .await;
    }
}

fn call_the_roll(core: &Core) {
    let now = core.clock.now();
    let living: Vec<WorkerId> = core.fleet().live().map(|worker| worker.worker.clone()).collect();
    let mut book = core.breakers.book();
    living.iter().for_each(|worker| book.alive(worker, now));
}

fn due(core: &Core) -> Vec<Write> {
    let now = core.clock.now();
    let heard_of = core.fleet().managers(now).into_iter().map(|manager| manager.heartbeat.manager);
    let managers: BTreeSet<ManagerId> = heard_of.chain([core.id.clone()]).collect();
    let mine = |worker: &WorkerId| owner(worker, &managers) == Some(&core.id);
    core.breakers.book().due(now, core.clock.unix_ms(), mine)
}

async fn carry_out(core: &Core, write: Write) {
    let records = records(core);
    let worker = write.worker().clone();
    let key = worker.as_str();
    let failure = match write {
        Write::Remove { revision, .. } => match records.delete(key, Some(revision)).await {
            Ok(()) => {
                tracing::info!(%worker, "breaker of a worker that is long gone removed");
                return core.breakers.book().removed(&worker);
            }
            Err(error) => error,
        },
        Write::Put { revision, record, before, fault, .. } => {
            let written = match revision {
                0 => records.create(key, &record).await,
                revision => records.update(key, &record, revision).await,
            };
            match written {
                Ok(revision) => {
                    core.breakers.book().written(&worker, record.clone(), revision, core.clock.now());
                    return core.tell_breaker(&worker, before, &record, fault).await;
                }
                Err(error) => error,
            }
        }
    };
    let failed = match failure {
        CasError::Conflict | CasError::Exists => read_again(core, &records, &worker).await.err(),
        CasError::Bus(error) => Some(error),
    };
    if let Some(error) = &failed {
        tracing::warn!(%worker, %error, "a breaker was not written; it will be tried again");
    }
    core.breakers.book().not_written(&worker, failed.is_some(), core.clock.now());
}

/// Somebody else has written: what is there now is what is decided on.
async fn read_again(
    core: &Core,
    records: &Records<BreakerRecord>,
    worker: &WorkerId,
) -> Result<(), BusError> {
    let found = records.get(worker.as_str()).await?;
    let mut book = core.breakers.book();
    match found {
        Some(found) => book.told(worker, found.value, found.revision, core.clock.now()),
        None => book.told_gone(worker),
    }
    Ok(())
}

impl Core {
    /// Refuses what nobody would pull: the breakers of all workers of the model are open.
    pub(crate) fn refuse_when_all_open(&self, model: &ModelName) -> Result<(), ServiceError> {
        let workers: Vec<WorkerId> = self.fleet().ready_for(model).map(|w| w.worker.clone()).collect();
        let (book, now_ms) = (self.breakers.book(), self.clock.unix_ms());
        let open_for_ms = workers.iter().map(|worker| book.open_for_ms(worker, now_ms));
        match admit::all_open(open_for_ms) {
            Some(after) => {
                let message = format!("the breakers of all workers of {model} are open");
                let error = ServiceError::new(Reason::BreakerOpen, message);
                Err(error.retry_after_ms(after.as_millis() as u64))
            }
            None => Ok(()),
        }
    }

    /// Tells of a change of state: `breaker`, and, when it opened, `workerFailed` with the fields of plan.md §3.2.
    async fn tell_breaker(
        &self,
        worker: &WorkerId,
        before: BreakerState,
        record: &BreakerRecord,
        fault: Option<String>,
    ) {
        if before == record.state {
            return;
        }
        let (rate, runs) = failure_rate(record, &self.config.breaker);
        let (from, to) = (word(before), word(record.state));
        tracing::warn!(%worker, from, to, rate, runs, openings = record.openings, "breaker");
        let mut details = Map::new();
        details.insert("from".into(), from.into());
        details.insert("to".into(), to.into());
        details.insert("failureRate".into(), rate.into());
        details.insert("runs".into(), runs.into());
        details.insert("openings".into(), record.openings.into());
        details.insert("resetAfterMs".into(), record.reset_after_ms.into());
        let message = format!("the breaker of worker {worker} was {from} and is {to}");
        self.tell(event("breaker", worker, message, details)).await;
        if record.state == BreakerState::Open {
            let fault = fault.unwrap_or_else(|| "its runs fail".to_owned());
            let mut details = Map::new();
            details.insert("error".into(), fault.as_str().into());
            details.insert("timestamp".into(), record.since_ms.into());
            self.tell(event("workerFailed", worker, fault, details)).await;
        }
    }
}

fn event(kind: &str, worker: &WorkerId, message: String, details: Map<String, Value>) -> FleetEvent {
    FleetEvent { kind: kind.to_owned(), worker_id: Some(worker.clone()), incarnation: None, message, details }
}

/// As it stands on the wire.
fn word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    }
}
