//! The pull controller: which pull to make next, and whether an arrival has room. Pure; time and events come in.
//!
//! One controller owns all credits of a worker. With free slots it *sweeps*: pulls that do not wait, urgent first, one
//! at a time, each for as many jobs as there are slots left. Only when a sweep found every queue empty does it hold one
//! *standing* pull (a long poll for one job) per queue. A queue with a standing pull is covered: whatever was published
//! since would have come through it, so a sweep skips it, and an idle worker gets its job in one delivery.
//!
//! Races it must live with: a standing pull may deliver at any time, also when the last slot has just gone or during a
//! sweep. Such an arrival is handed back at once ([`Arrival::NoRoom`]), and its queue counts as uncovered again. An
//! answer may never come (the broker restarted): every pull has a time after which it is taken as lost.
//! Every [`Settings::age_every`]th sweep begins with another class than urgent, so that none starves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use chorus_protocol::{JobClass, ModelName};

/// Figures of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a standing pull stands before it is renewed.
    pub standing: Duration,
    /// How much later than due an answer may come before a pull counts as lost.
    pub patience: Duration,
    /// Every so many sweeps, one begins with a lower class.
    pub age_every: u64,
    /// First wait after a queue could not be pulled from; doubles up to [`Settings::longest_backoff`].
    pub first_backoff: Duration,
    /// Longest such wait.
    pub longest_backoff: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            standing: Duration::from_secs(5),
            patience: Duration::from_secs(2),
            age_every: 8,
            first_backoff: Duration::from_millis(250),
            longest_backoff: Duration::from_secs(10),
        }
    }
}

/// One queue: the jobs of a model in a class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    /// The model.
    pub model: ModelName,
    /// The class.
    pub class: JobClass,
}

/// A pull to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Its number; what comes of it names it. Never used twice.
    pub id: u64,
    /// From where.
    pub queue: Queue,
    /// For how many jobs at most.
    pub batch: u32,
    /// How long it stands; `None`: it takes what is there and ends.
    pub wait: Option<Duration>,
}

/// What to do with a job that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Run it; a credit is taken until [`Controller::released`].
    Accept {
        /// It came through a standing pull, so it was published just now.
        fresh: bool,
    },
    /// Hand it back at once: no slot is free, or nothing is pulled now.
    NoRoom,
    /// Hand it back: its model does not speak here (any more).
    NotServed,
}

/// How a pull ended without its whole batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The queue held no (more) jobs.
    Empty,
    /// It stood its time.
    Expired,
    /// It could not be served: the queue is gone, the broker is busy or away.
    Refused,
}

#[derive(Debug)]
struct Open {
    queue: Queue,
    left: u32,
    standing: bool,
    lost_at: Instant,
}

#[derive(Debug, Default)]
struct QueueState {
    refusals: u32,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct Sweep {
    todo: VecDeque<Queue>,
    empty: Vec<Queue>,
    /// Of the first queue only one job is taken when the sweep is for ageing.
    aged: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    models: Vec<ModelName>,
    queues: BTreeMap<Queue, QueueState>,
    pulls: BTreeMap<u64, Open>,
    sweep: Option<Sweep>,
    /// The pull of the sweep that is under way.
    probe: Option<u64>,
    credits: u32,
    busy: u32,
    open: bool,
    next_id: u64,
    sweeps: u64,
}

/// Which class an ageing sweep begins with, in turn: low most often, but every class comes first some time.
const AGEING: [JobClass; 4] = [JobClass::Low, JobClass::Normal, JobClass::Low, JobClass::High];

impl Controller {
    /// A controller without credits and models, whose gate is closed.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            models: Vec::new(),
            queues: BTreeMap::new(),
            pulls: BTreeMap::new(),
            sweep: None,
            probe: None,
            credits: 0,
            busy: 0,
            open: false,
            next_id: 0,
            sweeps: 0,
        }
    }

    /// The models that can speak now. Pulls of others are forgotten; what still comes of them is handed back.
    pub fn set_models(&mut self, models: impl IntoIterator<Item = ModelName>) {
        self.models = models.into_iter().collect();
        self.models.sort();
        self.models.dedup();
        let wanted = |queue: &Queue| self.models.binary_search(&queue.model).is_ok();
        self.queues.retain(|queue, _| wanted(queue));
        for model in &self.models {
            for class in JobClass::BY_URGENCY {
                self.queues.entry(Queue { model: model.clone(), class }).or_default();
            }
        }
        self.sweep = None;
    }

    /// How many jobs may run at a time. Fewer than run now is allowed: none is taken until enough have ended.
    pub fn set_credits(&mut self, credits: u32) {
        self.credits = credits;
    }

    /// Opens or closes: while closed nothing is pulled and arrivals are handed back.
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
        self.sweep = None;
    }

    /// Whether anything is pulled.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Slots not taken.
    pub fn free(&self) -> u32 {
        self.credits.saturating_sub(self.busy)
    }

    /// Credits in all.
    pub fn credits(&self) -> u32 {
        self.credits
    }

    /// A job came of pull `id`.
    pub fn job(&mut self, id: u64) -> Arrival {
        let pull = self.take_one(id);
        if !self.open || self.free() == 0 {
            return Arrival::NoRoom;
        }
        match pull {
            Some((queue, _)) if !self.queues.contains_key(&queue) => Arrival::NotServed,
            Some((queue, standing)) => {
                self.served(&queue);
                self.busy += 1;
                Arrival::Accept { fresh: standing }
            }
            None => {
                // Of a pull given up as lost: the job is as good as any, but how long it lay is not known.
                self.busy += 1;
                Arrival::Accept { fresh: false }
            }
        }
    }

    /// Pull `id` ended with less than its batch.
    pub fn ended(&mut self, id: u64, end: End, now: Instant) {
        let Some(pull) = self.pulls.remove(&id) else { return };
        let was_probe = self.probe.take_if(|probe| *probe == id).is_some();
        match end {
            End::Refused => self.refused(&pull.queue, now),
            End::Empty | End::Expired => {
                self.served(&pull.queue);
                if was_probe && let Some(sweep) = &mut self.sweep {
                    sweep.empty.push(pull.queue);
                } else if pull.standing && self.queues.contains_key(&pull.queue) {
                    // Empty until this moment: it may be covered again without another look.
                    self.sweep.get_or_insert_default().empty.push(pull.queue);
                }
            }
        }
    }

    /// A job that had been accepted is over.
    pub fn released(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    /// The connection was lost and is back: no pull can be trusted to stand.
    pub fn reconnected(&mut self) {
        self.pulls.clear();
        self.probe = None;
        self.sweep = None;
        for state in self.queues.values_mut() {
            *state = QueueState::default();
        }
    }

    /// The pulls to make now. To be asked after every event and at [`Controller::deadline`].
    pub fn next_pulls(&mut self, now: Instant) -> Vec<Pull> {
        self.give_up_lost(now);
        self.end_rests(now);
        if !self.open || self.free() == 0 {
            self.sweep = None;
            return Vec::new();
        }
        if self.probe.is_some() {
            return Vec::new();
        }
        if self.sweep.is_none() {
            self.sweep = self.plan_sweep();
        }
        let Some(sweep) = &mut self.sweep else { return Vec::new() };
        let aged = std::mem::take(&mut sweep.aged);
        if let Some(queue) = sweep.todo.pop_front() {
            let batch = if aged { 1 } else { self.free() };
            let pull = self.open_pull(queue, batch, None, now);
            self.probe = Some(pull.id);
            return vec![pull];
        }
        self.stand(now)
    }

    /// When to ask again though nothing has happened.
    pub fn deadline(&self) -> Option<Instant> {
        let lost = self.pulls.values().map(|pull| pull.lost_at).min();
        if !self.open || self.free() == 0 {
            return lost;
        }
        let backoff = self.queues.values().filter_map(|state| state.not_before).min();
        [lost, backoff].into_iter().flatten().min()
    }

    /// Counts one job off its pull; the queue, and whether the pull was a standing one.
    fn take_one(&mut self, id: u64) -> Option<(Queue, bool)> {
        let pull = self.pulls.get_mut(&id)?;
        pull.left = pull.left.saturating_sub(1);
        let found = (pull.queue.clone(), pull.standing);
        if pull.left == 0 {
            self.pulls.remove(&id);
            if self.probe.take_if(|probe| *probe == id).is_some() {
                // A full batch: there may be more. Slots that are free by now must be offered from the top again.
                self.sweep = None;
            }
        }
        Some(found)
    }

    fn plan_sweep(&mut self) -> Option<Sweep> {
        let covered: BTreeSet<&Queue> = self.pulls.values().map(|pull| &pull.queue).collect();
        let mut todo: Vec<Queue> = self
            .queues
            .iter()
            .filter(|(queue, state)| state.not_before.is_none() && !covered.contains(queue))
            .map(|(queue, _)| queue.clone())
            .collect();
        if todo.is_empty() {
            return None;
        }
        self.sweeps += 1;
        let ageing = self.sweeps.is_multiple_of(self.settings.age_every);
        let turn = if ageing { self.sweeps / self.settings.age_every - 1 } else { self.sweeps };
        let rounds = if ageing { turn / AGEING.len() as u64 } else { turn };
        let first_class = ageing.then(|| AGEING[(turn % AGEING.len() as u64) as usize]);
        let count = self.models.len().max(1);
        let first_model = (rounds % count as u64) as usize;
        let place = |queue: &Queue| {
            let model = self.models.binary_search(&queue.model).unwrap_or(0);
            let turned = (model + count - first_model) % count;
            (Some(queue.class) != first_class, std::cmp::Reverse(queue.class), turned)
        };
        todo.sort_by_key(place);
        let aged = first_class.is_some_and(|class| todo[0].class == class);
        Some(Sweep { todo: todo.into(), empty: Vec::new(), aged })
    }

    /// The sweep is through and slots are left: cover what it found empty.
    fn stand(&mut self, now: Instant) -> Vec<Pull> {
        let empty = self.sweep.take().map(|sweep| sweep.empty).unwrap_or_default();
        let wait = self.settings.standing;
        empty.into_iter().map(|queue| self.open_pull(queue, 1, Some(wait), now)).collect()
    }

    fn open_pull(&mut self, queue: Queue, batch: u32, wait: Option<Duration>, now: Instant) -> Pull {
        self.next_id += 1;
        let id = self.next_id;
        let lost_at = now + wait.unwrap_or_default() + self.settings.patience;
        let open = Open { queue: queue.clone(), left: batch, standing: wait.is_some(), lost_at };
        self.pulls.insert(id, open);
        Pull { id, queue, batch, wait }
    }

    fn give_up_lost(&mut self, now: Instant) {
        let lost: Vec<u64> =
            self.pulls.iter().filter(|(_, pull)| pull.lost_at <= now).map(|(id, _)| *id).collect();
        for id in lost {
            self.ended(id, End::Refused, now);
        }
    }

    /// A rest that is over must not be a deadline any more.
    fn end_rests(&mut self, now: Instant) {
        for state in self.queues.values_mut() {
            state.not_before.take_if(|at| *at <= now);
        }
    }

    fn served(&mut self, queue: &Queue) {
        if let Some(state) = self.queues.get_mut(queue) {
            *state = QueueState::default();
        }
    }

    fn refused(&mut self, queue: &Queue, now: Instant) {
        let Some(state) = self.queues.get_mut(queue) else { return };
        let doubled = self.settings.first_backoff * 2u32.pow(state.refusals.min(16));
        state.refusals = state.refusals.saturating_add(1);
        state.not_before = Some(now + doubled.min(self.settings.longest_backoff));
    }
}

#[cfg(test)]
mod tests;
