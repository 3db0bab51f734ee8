//! The gate: how much the worker's breaker lets it pull.
//!
//! A manager judges and writes the breaker's record into KV; the gate watches the worker's own key and enforces. Closed:
//! all credits. Open: the pull controller is closed. Half-open: one job at a time, and at most `successThreshold` of these
//! probes until the record changes; the gate counts them itself, so that a manager that is slow or away costs a pause and
//! not a flood. A probe that fails ends the trial here at once.
//!
//! When KV or the broker is away, the last known state stays. At its start the worker asks before it pulls, because it may
//! have left with its breaker open; after [`START_PATIENCE`] without an answer it pulls all the same.
//!
//! Without traffic, recovery is found by the engine's canary: [`Gate::tell_canary`].

use std::sync::Arc;
use std::time::Duration;

use chorus_bus::{Bucket, Bus, RecordChange};
use chorus_protocol::breaker::{BreakerRecord, BreakerState};
use chorus_protocol::{RunId, ServiceError, WorkerId};
use serde_json::Map;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::events::Events;

/// How long a starting worker waits to be told its breaker's state.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits before it watches again.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// How much may be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// Nothing.
    Nothing,
    /// One job at a time.
    OneAtATime,
    /// As much as there is room for.
    All,
}

/// What the gate knows; pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    /// `None` until it is known.
    state: Option<BreakerState>,
    /// The record's revision; 0 without one.
    revision: u64,
    /// Probes that half-open still allows.
    probes_left: u32,
}

impl Passage {
    const UNKNOWN: Self = Self { state: None, revision: 0, probes_left: 0 };

    /// The record is this; if it is news, there may be so many probes.
    fn told(&mut self, state: BreakerState, revision: u64, probes: u32) {
        if (Some(state), revision) != (self.state, self.revision) {
            *self = Self { state: Some(state), revision, probes_left: probes };
        }
    }

    /// Nobody says anything else: it is closed, as long as it is not known.
    fn assumed(&mut self) {
        self.state.get_or_insert(BreakerState::Closed);
    }

    /// A job was taken to be run.
    fn begun(&mut self) {
        if self.state == Some(BreakerState::HalfOpen) {
            self.probes_left = self.probes_left.saturating_sub(1);
        }
    }

    /// A run ended by this worker's fault.
    fn failed(&mut self) {
        if self.state == Some(BreakerState::HalfOpen) {
            self.probes_left = 0;
        }
    }

    /// How much may be pulled now.
    pub(crate) fn allowance(&self) -> Allowance {
        match self.state {
            Some(BreakerState::Closed) => Allowance::All,
            Some(BreakerState::HalfOpen) if self.probes_left > 0 => Allowance::OneAtATime,
            Some(BreakerState::HalfOpen | BreakerState::Open) | None => Allowance::Nothing,
        }
    }
}

/// The gate of a worker. Clones share it.
#[derive(Clone)]
pub(crate) struct Gate {
    passage: Arc<watch::Sender<Passage>>,
    /// `successThreshold` of the breaker's configuration.
    probes: u32,
}

impl Gate {
    /// A gate that does not know its breaker yet.
    pub(crate) fn new(probes: u32) -> Self {
        Self { passage: Arc::new(watch::Sender::new(Passage::UNKNOWN)), probes }
    }

    /// A gate that no breaker closes.
    pub(crate) fn always_open() -> Self {
        let gate = Self::new(1);
        gate.change(Passage::assumed);
        gate
    }

    /// What it lets through, as it changes.
    pub(crate) fn passage(&self) -> watch::Receiver<Passage> {
        self.passage.subscribe()
    }

    /// Whether it is closed, as breakers say: nothing is held back.
    pub(crate) fn lets_all_through(&self) -> bool {
        self.passage.borrow().allowance() == Allowance::All
    }

    /// A job was taken to be run.
    pub(crate) fn begun(&self) {
        self.change(Passage::begun);
    }

    /// A run ended by this worker's fault.
    pub(crate) fn failed(&self) {
        self.change(Passage::failed);
    }

    /// Tells the judge what became of a canary: in half-open it counts as a probe, else nobody asked.
    pub(crate) async fn tell_canary(&self, events: &Events, result: Result<(), &ServiceError>) {
        if self.passage.borrow().state != Some(BreakerState::HalfOpen) {
            return;
        }
        let mut details = Map::new();
        details.insert("run".into(), RunId::new().to_string().into());
        details.insert("success".into(), result.is_ok().into());
        let message =
            result.map_or_else(|error| error.message.clone(), |()| "the canary was spoken".to_owned());
        events.fleet("canary", message, details).await;
    }

    /// Watches the worker's record until it is dropped.
    pub(crate) async fn run(self, bus: Bus, worker: WorkerId) {
        tokio::join!(self.follow(&bus, &worker), self.lose_patience());
    }

    async fn follow(&self, bus: &Bus, worker: &WorkerId) {
        loop {
            match bus.records::<BreakerRecord>(Bucket::BREAKERS).watch_key(worker.as_str()).await {
                Ok(mut watch) => {
                    while let Some(change) = watch.next().await {
                        self.hear(worker, change);
                    }
                }
                Err(error) => tracing::debug!(%error, "the breaker cannot be watched yet"),
            }
            sleep(WATCH_PAUSE).await;
        }
    }

    async fn lose_patience(&self) {
        sleep(START_PATIENCE).await;
        if self.passage.borrow().state.is_none() {
            tracing::warn!("the breaker's state is not known; pulling all the same");
            self.change(Passage::assumed);
        }
    }

    fn hear(&self, worker: &WorkerId, change: RecordChange<BreakerRecord>) {
        let before = self.passage.borrow().state;
        match change {
            RecordChange::Put { key, value, revision } if key == worker.as_str() => {
                self.change(|passage| passage.told(value.state, revision, self.probes));
            }
            RecordChange::Removed { key } if key == worker.as_str() => {
                self.change(|passage| passage.told(BreakerState::Closed, 0, self.probes));
            }
            // There is no record of a worker that never failed.
            RecordChange::Ready => self.change(Passage::assumed),
            // What cannot be read changes nothing.
            RecordChange::Malformed { .. } | RecordChange::Put { .. } | RecordChange::Removed { .. } => {}
        }
        let state = self.passage.borrow().state;
        if before.is_some() && before != state {
            tracing::warn!(?before, ?state, "breaker");
        }
    }

    fn change(&self, change: impl FnOnce(&mut Passage)) {
        self.passage.send_if_modified(|passage| {
            let before = *passage;
            change(passage);
            *passage != before
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(key: &str, state: BreakerState, revision: u64) -> RecordChange<BreakerRecord> {
        let value = BreakerRecord { state, ..BreakerRecord::default() };
        RecordChange::Put { key: key.to_owned(), value, revision }
    }

    fn gate() -> (Gate, WorkerId) {
        (Gate::new(3), WorkerId::new("w").unwrap())
    }

    fn allowance(gate: &Gate) -> Allowance {
        gate.passage().borrow().allowance()
    }

    #[test]
    fn it_asks_before_it_pulls_and_enforces_its_own_record_only() {
        let (gate, worker) = gate();
        assert_eq!(allowance(&gate), Allowance::Nothing, "not known yet");
        gate.hear(&worker, put("other", BreakerState::Open, 1));
        gate.hear(&worker, RecordChange::Ready);
        assert_eq!(allowance(&gate), Allowance::All);
        gate.hear(&worker, put("w", BreakerState::Open, 2));
        gate.hear(&worker, RecordChange::Ready);
        gate.hear(&worker, RecordChange::Malformed { key: "w".into(), revision: 3 });
        assert_eq!(allowance(&gate), Allowance::Nothing, "the last known state stays");
        gate.hear(&worker, RecordChange::Removed { key: "w".into() });
        assert_eq!(allowance(&gate), Allowance::All);
    }

    #[test]
    fn half_open_lets_three_probes_through_until_the_record_changes() {
        let (gate, worker) = gate();
        gate.hear(&worker, put("w", BreakerState::HalfOpen, 2));
        for _ in 0..3 {
            assert_eq!(allowance(&gate), Allowance::OneAtATime);
            gate.begun();
        }
        assert_eq!(allowance(&gate), Allowance::Nothing);
        gate.hear(&worker, put("w", BreakerState::HalfOpen, 2));
        assert_eq!(allowance(&gate), Allowance::Nothing, "told again, as after a reconnect");
        gate.hear(&worker, put("w", BreakerState::HalfOpen, 3));
        assert_eq!(allowance(&gate), Allowance::OneAtATime);
        gate.failed();
        assert_eq!(allowance(&gate), Allowance::Nothing, "its own failure needs no judge");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hears_nothing_pulls_in_the_end() {
        let (gate, worker) = gate();
        gate.lose_patience().await;
        assert_eq!(allowance(&gate), Allowance::All);
        gate.hear(&worker, put("w", BreakerState::Open, 2));
        gate.lose_patience().await;
        assert_eq!(allowance(&gate), Allowance::Nothing);
    }

    proptest! {
        /// Whatever happens: nothing while open, all while closed, at most the threshold per record while half-open.
        #[test]
        fn it_never_lets_more_through(steps in proptest::collection::vec((0u8..6, 1u64..9), 0..80)) {
            let (gate, worker) = gate();
            let (mut known, mut begun) = (None, 0);
            for (step, revision) in steps {
                let state = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen][revision as usize % 3];
                match step {
                    0 | 1 => {
                        gate.hear(&worker, put("w", state, revision));
                        if known != Some((state, revision)) {
                            (known, begun) = (Some((state, revision)), 0);
                        }
                    }
                    2 => gate.failed(),
                    _ => if allowance(&gate) != Allowance::Nothing {
                        gate.begun();
                        begun += 1;
                    }
                }
                match known.map(|(state, _)| state) {
                    None | Some(BreakerState::Open) => prop_assert_eq!(allowance(&gate), Allowance::Nothing),
                    Some(BreakerState::Closed) => prop_assert_eq!(allowance(&gate), Allowance::All),
                    Some(BreakerState::HalfOpen) => {
                        prop_assert_ne!(allowance(&gate), Allowance::All);
                        prop_assert!(begun <= 3);
                    }
                }
            }
        }
    }
}
