//! Ears on the broker: what runs begin and end, and which processes say that they are ready.
//!
//! A broker that we started ourselves carries nothing but our own test, so the inboxes of all sessions may be listened to.
//! What is heard goes into [`Runs`] and a table of heartbeats; whoever drives a scenario asks both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chorus_bus::{Bus, Incoming, Subscription};
use chorus_protocol::fleet::{Heartbeat, ModelState};
use chorus_protocol::job::{RunOutcome, RunResult, Started};
use chorus_protocol::{WorkerId, names};
use chorus_runtime::task::{self, FailureMeans};
use tokio_util::sync::CancellationToken;

use crate::error::ChaosError;
use crate::runs::Runs;

/// Sessions' inboxes below anybody's: `_INBOX.<process>.<session>.<kind>`.
const ALL_STARTED: &str = "_INBOX.*.*.started";
const ALL_RESULTS: &str = "_INBOX.*.*.result";

#[derive(Debug, Default)]
struct Heard {
    runs: Runs,
    /// By process: the last heartbeat, and whether its models are ready (a manager always is).
    alive: HashMap<u32, (Instant, bool)>,
    /// Workers that managers declared lost.
    losses: u64,
    /// Engines that were renewed though they were well.
    recycled: u64,
}

/// How a message is taken in.
type Take = fn(&mut Heard, &Incoming);

/// What is heard. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Wiretap {
    heard: Arc<Mutex<Heard>>,
}

impl Wiretap {
    /// Begins to listen, until `cancel` is cancelled.
    pub(crate) async fn start(bus: &Bus, cancel: &CancellationToken) -> Result<Self, ChaosError> {
        let tap = Self { heard: Arc::default() };
        let lost = names::event_subject("workerLost");
        let recycled = names::event_subject("workerRecycled");
        let subjects: [(&str, Take); 5] = [
            (ALL_STARTED, on_started),
            (ALL_RESULTS, on_result),
            (names::ALL_HEARTBEATS, on_heartbeat),
            (&lost, |heard, _| heard.losses += 1),
            (&recycled, |heard, _| heard.recycled += 1),
        ];
        for (subject, take) in subjects {
            let subscription = bus.subscribe(subject, None).await?;
            let listening = listen(tap.clone(), subscription, take);
            // Ends with the token.
            drop(task::spawn("wiretap", cancel.clone(), FailureMeans::CancelScope, listening));
        }
        bus.flush().await?;
        Ok(tap)
    }

    /// The worker is struck now.
    pub(crate) fn struck(&self, worker: &WorkerId) {
        self.lock().runs.struck(worker, Instant::now());
    }

    /// The worker that has been in the middle of a segment for the longest time, and at least for `least`.
    pub(crate) fn speaking(&self, least: Duration) -> Option<WorkerId> {
        self.lock().runs.speaking(least, Instant::now()).cloned()
    }

    /// Whether this process has said since then that it is ready.
    pub(crate) fn ready_since(&self, pid: u32, since: Instant) -> bool {
        self.lock().alive.get(&pid).is_some_and(|(at, ready)| *ready && *at >= since)
    }

    /// How soon interrupted segments were begun elsewhere, and how many were not.
    pub(crate) fn resumed(&self) -> (Vec<Duration>, usize) {
        self.lock().runs.resumed()
    }

    /// How many runs were one too many of their segment though nothing had happened to its worker.
    pub(crate) fn superseded(&self) -> u64 {
        self.lock().runs.superseded()
    }

    /// How many workers were declared lost.
    pub(crate) fn losses(&self) -> u64 {
        self.lock().losses
    }

    /// How many engines were renewed though they were well.
    pub(crate) fn recycled(&self) -> u64 {
        self.lock().recycled
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(tap: Wiretap, mut subscription: Subscription, take: Take) {
    while let Some(message) = subscription.next().await {
        take(&mut tap.lock(), &message);
    }
}

// A message that cannot be read is no business of a wiretap: whoever it is for complains.

fn on_started(heard: &mut Heard, message: &Incoming) {
    if let Ok(envelope) = message.decode::<Started>() {
        heard.runs.started(&envelope.payload, Instant::now());
    }
}

fn on_result(heard: &mut Heard, message: &Incoming) {
    if let Ok(envelope) = message.decode::<RunResult>() {
        let spoken = matches!(envelope.payload.outcome, RunOutcome::Spoken(_));
        heard.runs.ended(&envelope.payload.run, spoken);
    }
}

fn on_heartbeat(heard: &mut Heard, message: &Incoming) {
    let Ok(envelope) = message.decode::<Heartbeat>() else { return };
    let (pid, ready) = match envelope.payload {
        Heartbeat::Worker(worker) => {
            let ready = worker.models.iter().any(|model| model.state == ModelState::Ready);
            (worker.pid, ready && worker.engine_pid.is_some() && !worker.draining)
        }
        Heartbeat::Manager(manager) => (manager.pid, true),
    };
    heard.alive.insert(pid, (Instant::now(), ready));
}
