//! Who is there: workers and managers by their heartbeats, with ages by the injected clock.
//!
//! Pure: heartbeats and the time go in, changes come out ([`FleetChange`]), which the service turns into events and hook
//! calls. A worker whose last heartbeat is older than the time-out is out; if it was busy, it is lost, and the sessions
//! whose runs it had are told. A heartbeat of an older start, or one that was overtaken on its way, changes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chorus_protocol::fleet::{Heartbeat, ManagerHeartbeat, ModelState, WorkerHeartbeat};
use chorus_protocol::service::{ManagerStatus, WorkerStatus};
use chorus_protocol::{Incarnation, ManagerId, ModelName, WorkerId};

/// The most workers, and the most managers, that are kept in view: heartbeats are open to anyone on the broker.
const MAX_MEMBERS: usize = 4096;

/// How a busy worker came to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossCause {
    /// Its heartbeats have ceased.
    Silent,
    /// Nobody listens where it should.
    Crashed,
    /// A later start of the same name is there.
    Replaced,
    /// It is there and shows no sign of life.
    Hung,
    /// It lives, but its engine makes nothing.
    EngineHung,
}

impl LossCause {
    /// As it stands in the event's details.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Crashed => "crashed",
            Self::Replaced => "replaced",
            Self::Hung => "hung",
            Self::EngineHung => "engineHung",
        }
    }

    /// What [`LossCause::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Silent, Self::Crashed, Self::Replaced, Self::Hung, Self::EngineHung];
        all.into_iter().find(|cause| cause.as_str() == text)
    }

    /// Whether it says something about the start that goes on, so that its breaker counts it.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Hung | Self::EngineHung)
    }
}

/// What a heartbeat, or its absence, tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetChange {
    /// A worker's start was heard of for the first time.
    WorkerStarted {
        /// Its name.
        worker: WorkerId,
        /// Its start.
        incarnation: Incarnation,
    },
    /// A worker is out: it said so, or it is silent and had nothing to do.
    WorkerStopped {
        /// Its name.
        worker: WorkerId,
        /// Its start.
        incarnation: Incarnation,
    },
    /// A worker is out, and it was busy.
    WorkerLost {
        /// Its name.
        worker: WorkerId,
        /// Its start.
        incarnation: Incarnation,
        /// Jobs that it had.
        in_flight: u32,
        /// How it was lost.
        cause: LossCause,
        /// How long it had been silent.
        silent: Duration,
    },
    /// No room to keep this member in view.
    TooMany,
}

#[derive(Debug, Clone)]
struct Heard<T> {
    at: Instant,
    beat: T,
}

/// The members of the fleet, as far as they are heard.
#[derive(Debug)]
pub struct FleetView {
    timeout: Duration,
    workers: BTreeMap<WorkerId, Heard<WorkerHeartbeat>>,
    managers: BTreeMap<ManagerId, Heard<ManagerHeartbeat>>,
}

impl FleetView {
    /// An empty view in which members are out after `timeout` of silence.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, workers: BTreeMap::new(), managers: BTreeMap::new() }
    }

    /// Takes a heartbeat.
    pub fn hear(&mut self, beat: Heartbeat, now: Instant) -> Vec<FleetChange> {
        match beat {
            Heartbeat::Worker(beat) => self.hear_worker(*beat, now),
            Heartbeat::Manager(beat) => self.hear_manager(beat, now),
        }
    }

    /// A worker says that it leaves.
    pub fn leave(&mut self, worker: &WorkerId, incarnation: Incarnation) -> Option<FleetChange> {
        let known = self.workers.get(worker)?;
        if known.beat.incarnation != incarnation {
            return None;
        }
        self.workers.remove(worker);
        Some(FleetChange::WorkerStopped { worker: worker.clone(), incarnation })
    }

    /// A worker was found dead, by this manager or another: it is out until its next heartbeat. The jobs that it had;
    /// `None` where this start of it is not in view.
    pub fn lose(&mut self, worker: &WorkerId, incarnation: Incarnation) -> Option<u32> {
        let known = self.workers.get(worker)?;
        if known.beat.incarnation != incarnation {
            return None;
        }
        self.workers.remove(worker).map(|heard| heard.beat.in_flight)
    }

    /// Takes `time` off everybody's silence: it passed while this manager heard nobody.
    pub fn excuse(&mut self, time: Duration) {
        self.workers.values_mut().for_each(|heard| heard.at += time);
        self.managers.values_mut().for_each(|heard| heard.at += time);
    }

    /// The managers heard of within `limit`.
    pub fn managers_within(&self, limit: Duration, now: Instant) -> impl Iterator<Item = &ManagerId> {
        let is_young = move |heard: &Heard<_>| now.saturating_duration_since(heard.at) < limit;
        self.managers.iter().filter(move |(_, heard)| is_young(heard)).map(|(manager, _)| manager)
    }

    /// Whether this start of a manager was heard of within `limit`.
    pub fn hears(
        &self,
        manager: &ManagerId,
        incarnation: Incarnation,
        limit: Duration,
        now: Instant,
    ) -> bool {
        let known = self.managers.get(manager).filter(|heard| heard.beat.incarnation == incarnation);
        known.is_some_and(|heard| now.saturating_duration_since(heard.at) < limit)
    }

    /// Workers that had jobs at their last heartbeat, the leaving ones too.
    pub fn busy(&self) -> impl Iterator<Item = &WorkerHeartbeat> {
        self.workers.values().map(|heard| &heard.beat).filter(|beat| beat.in_flight > 0)
    }

    /// Jobs that a worker had at its last heartbeat; `None` where it is not in view.
    pub fn in_flight(&self, worker: &WorkerId) -> Option<u32> {
        self.workers.get(worker).map(|heard| heard.beat.in_flight)
    }

    /// Whether a worker is in view.
    pub fn knows(&self, worker: &WorkerId) -> bool {
        self.workers.contains_key(worker)
    }

    /// Lets go of members that have been silent for too long.
    pub fn expire(&mut self, now: Instant) -> Vec<FleetChange> {
        let timeout = self.timeout;
        self.managers.retain(|_, heard| now.saturating_duration_since(heard.at) < timeout);
        let silent: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, heard)| now.saturating_duration_since(heard.at) >= timeout)
            .map(|(worker, _)| worker.clone())
            .collect();
        silent
            .iter()
            .filter_map(|worker| Some(gone(self.workers.remove(worker)?, LossCause::Silent, now)))
            .collect()
    }

    /// Workers that can speak `model` now, in the order of their names.
    pub fn ready_for<'a>(&'a self, model: &'a ModelName) -> impl Iterator<Item = &'a WorkerHeartbeat> {
        self.live().filter(move |worker| has(worker, model, ModelState::Ready))
    }

    /// Workers on which `model` is being loaded.
    pub fn loading<'a>(&'a self, model: &'a ModelName) -> impl Iterator<Item = &'a WorkerHeartbeat> {
        self.live().filter(move |worker| has(worker, model, ModelState::Loading))
    }

    /// Workers that are there and not leaving.
    pub fn live(&self) -> impl Iterator<Item = &WorkerHeartbeat> {
        self.workers.values().map(|heard| &heard.beat).filter(|worker| !worker.draining)
    }

    /// Workers as `tts.status` shows them, the leaving ones too.
    pub fn workers(&self, now: Instant) -> Vec<WorkerStatus> {
        let status = |heard: &Heard<WorkerHeartbeat>| WorkerStatus {
            id: heard.beat.worker.to_string(),
            last_heartbeat_ms: age_ms(now, heard.at),
            heartbeat: heard.beat.clone(),
            breaker: None,
        };
        self.workers.values().map(status).collect()
    }

    /// Managers as `tts.status` shows them.
    pub fn managers(&self, now: Instant) -> Vec<ManagerStatus> {
        let status = |heard: &Heard<ManagerHeartbeat>| ManagerStatus {
            id: heard.beat.manager.to_string(),
            last_heartbeat_ms: age_ms(now, heard.at),
            heartbeat: heard.beat.clone(),
        };
        self.managers.values().map(status).collect()
    }

    fn hear_worker(&mut self, beat: WorkerHeartbeat, now: Instant) -> Vec<FleetChange> {
        let started =
            FleetChange::WorkerStarted { worker: beat.worker.clone(), incarnation: beat.incarnation };
        let Some(known) = self.workers.get_mut(&beat.worker) else {
            if self.workers.len() >= MAX_MEMBERS {
                return vec![FleetChange::TooMany];
            }
            self.workers.insert(beat.worker.clone(), Heard { at: now, beat });
            return vec![started];
        };
        // Incarnations sort by the time of their start.
        if (beat.incarnation, beat.sequence) <= (known.beat.incarnation, known.beat.sequence) {
            return Vec::new();
        }
        let restarted = beat.incarnation != known.beat.incarnation;
        let before = std::mem::replace(known, Heard { at: now, beat });
        if restarted { vec![gone(before, LossCause::Replaced, now), started] } else { Vec::new() }
    }

    fn hear_manager(&mut self, beat: ManagerHeartbeat, now: Instant) -> Vec<FleetChange> {
        let full = self.managers.len() >= MAX_MEMBERS;
        match self.managers.get_mut(&beat.manager) {
            Some(known)
                if (beat.incarnation, beat.sequence) <= (known.beat.incarnation, known.beat.sequence) => {}
            Some(known) => *known = Heard { at: now, beat },
            None if full => return vec![FleetChange::TooMany],
            None => {
                self.managers.insert(beat.manager.clone(), Heard { at: now, beat });
            }
        }
        Vec::new()
    }
}

fn has(worker: &WorkerHeartbeat, model: &ModelName, state: ModelState) -> bool {
    worker.models.iter().any(|loaded| loaded.name == *model && loaded.state == state)
}

fn age_ms(now: Instant, at: Instant) -> u64 {
    now.saturating_duration_since(at).as_millis() as u64
}

fn gone(heard: Heard<WorkerHeartbeat>, cause: LossCause, now: Instant) -> FleetChange {
    let Heard { at, beat: WorkerHeartbeat { worker, incarnation, in_flight, .. } } = heard;
    if in_flight == 0 {
        FleetChange::WorkerStopped { worker, incarnation }
    } else {
        let silent = now.saturating_duration_since(at);
        FleetChange::WorkerLost { worker, incarnation, in_flight, cause, silent }
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::fleet::{Credits, Device, LatencyFigures, LoadedModel};
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(5_000);

    fn worker_beat(name: &str, incarnation: u128, sequence: u64, in_flight: u32) -> WorkerHeartbeat {
        WorkerHeartbeat {
            worker: WorkerId::new(name).unwrap(),
            incarnation: Incarnation::from_u128(incarnation),
            sequence,
            pid: 1,
            engine_pid: None,
            host: "h".into(),
            version: "0".into(),
            engine: "null".into(),
            device: Device::default(),
            models: Vec::new(),
            credits: Credits::default(),
            in_flight,
            jobs_done: 0,
            jobs_failed: 0,
            engine_restarts: 0,
            rss_bytes: 0,
            cpu_percent: 0.0,
            gpu_memory_bytes: None,
            latency: LatencyFigures::default(),
            uptime_ms: 0,
            draining: false,
        }
    }

    fn hear(view: &mut FleetView, beat: WorkerHeartbeat, now: Instant) -> Vec<FleetChange> {
        view.hear(Heartbeat::Worker(Box::new(beat)), now)
    }

    fn started(name: &str, incarnation: u128) -> FleetChange {
        let incarnation = Incarnation::from_u128(incarnation);
        FleetChange::WorkerStarted { worker: WorkerId::new(name).unwrap(), incarnation }
    }

    #[test]
    fn a_silent_worker_is_stopped_when_idle_and_lost_when_busy() {
        let (mut view, t0) = (FleetView::new(TIMEOUT), Instant::now());
        assert_eq!(hear(&mut view, worker_beat("idle", 1, 1, 0), t0), [started("idle", 1)]);
        assert_eq!(hear(&mut view, worker_beat("busy", 1, 1, 2), t0), [started("busy", 1)]);
        assert!(view.expire(t0 + TIMEOUT - Duration::from_millis(1)).is_empty());
        let changes = view.expire(t0 + TIMEOUT);
        let worker = |name: &str| WorkerId::new(name).unwrap();
        let incarnation = Incarnation::from_u128(1);
        let lost = FleetChange::WorkerLost {
            worker: worker("busy"),
            incarnation,
            in_flight: 2,
            cause: LossCause::Silent,
            silent: TIMEOUT,
        };
        assert_eq!(changes, [lost, FleetChange::WorkerStopped { worker: worker("idle"), incarnation }]);
        assert!(view.expire(t0 + TIMEOUT * 2).is_empty());
        assert!(view.workers(t0).is_empty());
    }

    #[test]
    fn a_restart_loses_what_the_old_start_had() {
        let (mut view, t0) = (FleetView::new(TIMEOUT), Instant::now());
        hear(&mut view, worker_beat("w", 1, 9, 1), t0);
        let changes = hear(&mut view, worker_beat("w", 2, 1, 0), t0);
        assert!(matches!(changes[0], FleetChange::WorkerLost { in_flight: 1, .. }), "{changes:?}");
        assert_eq!(changes[1], started("w", 2));
        assert!(hear(&mut view, worker_beat("w", 1, 10, 1), t0).is_empty(), "a zombie changes nothing");
        assert_eq!(view.workers(t0)[0].heartbeat.incarnation, Incarnation::from_u128(2));
    }

    #[test]
    fn a_lost_worker_is_out_until_its_next_heartbeat() {
        let (mut view, t0) = (FleetView::new(TIMEOUT), Instant::now());
        hear(&mut view, worker_beat("w", 2, 1, 3), t0);
        let w = WorkerId::new("w").unwrap();
        assert_eq!(view.lose(&w, Incarnation::from_u128(1)), None);
        assert_eq!(view.busy().count(), 1);
        assert_eq!(view.lose(&w, Incarnation::from_u128(2)), Some(3));
        assert_eq!((view.lose(&w, Incarnation::from_u128(2)), view.knows(&w)), (None, false));
        assert_eq!(hear(&mut view, worker_beat("w", 2, 2, 0), t0), [started("w", 2)]);
        assert_eq!((view.busy().count(), view.knows(&w)), (0, true));
    }

    #[test]
    fn time_in_which_nobody_could_be_heard_is_nobodys_silence() {
        let (mut view, t0) = (FleetView::new(TIMEOUT), Instant::now());
        hear(&mut view, worker_beat("w", 1, 1, 1), t0);
        view.excuse(TIMEOUT);
        assert!(view.expire(t0 + TIMEOUT + TIMEOUT / 2).is_empty());
        assert_eq!(view.expire(t0 + TIMEOUT * 2).len(), 1);
    }

    #[test]
    fn only_the_start_that_is_meant_leaves() {
        let (mut view, t0) = (FleetView::new(TIMEOUT), Instant::now());
        hear(&mut view, worker_beat("w", 2, 1, 1), t0);
        let w = WorkerId::new("w").unwrap();
        assert_eq!(view.leave(&w, Incarnation::from_u128(1)), None);
        assert!(matches!(view.leave(&w, Incarnation::from_u128(2)), Some(FleetChange::WorkerStopped { .. })));
        assert_eq!(view.leave(&w, Incarnation::from_u128(2)), None);
    }

    #[test]
    fn ready_means_loaded_and_not_leaving() {
        let (mut view, t0) = (FleetView::new(TIMEOUT), Instant::now());
        let joe = ModelName::new("joe").unwrap();
        let with = |state| LoadedModel {
            name: joe.clone(),
            state,
            sample_rate: None,
            load_ms: None,
            tuning: None,
            error: None,
            identity: None,
        };
        let mut beat = worker_beat("a", 1, 1, 0);
        beat.models = vec![with(ModelState::Loading)];
        hear(&mut view, beat.clone(), t0);
        assert_eq!((view.ready_for(&joe).count(), view.loading(&joe).count()), (0, 1));
        beat.models = vec![with(ModelState::Ready)];
        beat.sequence = 2;
        hear(&mut view, beat.clone(), t0);
        assert_eq!((view.ready_for(&joe).count(), view.loading(&joe).count()), (1, 0));
        beat.draining = true;
        beat.sequence = 3;
        hear(&mut view, beat, t0);
        assert_eq!(view.ready_for(&joe).count(), 0);
    }

    proptest! {
        /// Whatever is heard in whatever order: starts and ends of each start alternate, and nobody stays unheard of.
        #[test]
        fn every_start_begins_once_and_ends_at_most_once(
            steps in proptest::collection::vec((0u8..3, 1u128..4, 1u64..6, 0u32..2, 0u64..4_000), 0..60)
        ) {
            let mut view = FleetView::new(TIMEOUT);
            let mut now = Instant::now();
            let mut open = std::collections::BTreeSet::new();
            for (worker, incarnation, sequence, in_flight, wait_ms) in steps {
                now += Duration::from_millis(wait_ms);
                let mut changes = view.expire(now);
                let beat = worker_beat(&format!("w{worker}"), incarnation, sequence, in_flight);
                changes.extend(hear(&mut view, beat, now));
                for change in changes {
                    match change {
                        FleetChange::WorkerStarted { worker, incarnation } => {
                            prop_assert!(open.insert((worker, incarnation)));
                        }
                        FleetChange::WorkerStopped { worker, incarnation }
                        | FleetChange::WorkerLost { worker, incarnation, .. } => {
                            prop_assert!(open.remove(&(worker, incarnation)));
                        }
                        FleetChange::TooMany => prop_assert!(false),
                    }
                }
                prop_assert_eq!(open.len(), view.workers(now).len());
            }
            view.expire(now + TIMEOUT);
            prop_assert!(view.workers(now).is_empty());
        }
    }
}
