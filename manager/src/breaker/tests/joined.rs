//! A breaker's record and the worker's gate, joined by a watch that may lag and skip, with probes and outcomes that may be
//! lost: nothing is begun while the worker knows that it is open, and it closes once the worker is well.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// The rule of the worker's gate (`worker/src/gate.rs`, which this crate may not import): what it was told last, and how many
/// probes are left of it.
#[derive(Debug, Clone, Copy)]
struct Gate {
    state: BreakerState,
    revision: u64,
    probes_left: u32,
}

impl Gate {
    fn told(&mut self, state: BreakerState, revision: u64) {
        if (state, revision) != (self.state, self.revision) {
            *self = Self { state, revision, probes_left: config().success_threshold };
        }
    }

    fn lets_begin(&self, under_way: usize) -> bool {
        match self.state {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => self.probes_left > 0 && under_way == 0,
            BreakerState::Open => false,
        }
    }

    fn begun(&mut self) {
        if self.state == BreakerState::HalfOpen {
            self.probes_left -= 1;
        }
    }

    fn failed(&mut self) {
        if self.state == BreakerState::HalfOpen {
            self.probes_left = 0;
        }
    }
}

/// A run that was begun.
#[derive(Debug, Clone, Copy)]
struct Begun {
    number: u128,
    at_ms: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Begin,
    /// A run ends: which, and whether it succeeded.
    End(usize, bool),
    /// A run is lost without an outcome.
    LoseRun(usize),
    /// A canary that is told where it counts as a probe.
    Canary(bool),
    /// An outcome arrives: which, and whether it will arrive once more.
    Hear(usize, bool),
    LoseOutcome(usize),
    /// What the worker does not know yet arrives.
    Tell,
    /// The watch is begun anew: only the last of it arrives.
    TellLast,
}

fn worlds_steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0usize..8;
    let step = prop_oneof![
        3 => prop_oneof![0u64..2_000, 0u64..90_000].prop_map(Step::Pass),
        6 => Just(Step::Begin),
        // Ill more often than not: else it would hardly ever open.
        5 => (which.clone(), proptest::bool::weighted(0.3)).prop_map(|(which, ok)| Step::End(which, ok)),
        1 => which.clone().prop_map(Step::LoseRun),
        1 => any::<bool>().prop_map(Step::Canary),
        6 => (which.clone(), proptest::bool::weighted(0.1)).prop_map(|(which, again)| Step::Hear(which, again)),
        1 => which.prop_map(Step::LoseOutcome),
        4 => Just(Step::Tell),
        1 => Just(Step::TellLast),
    ];
    proptest::collection::vec(step, 0..200)
}

struct World {
    now_ms: u64,
    record: BreakerRecord,
    revision: u64,
    /// Written, and not yet known to the worker.
    watch: VecDeque<(BreakerState, u64)>,
    gate: Gate,
    /// What the watch delivered last, kept apart from the gate.
    known: (BreakerState, u64),
    next_run: u128,
    under_way: Vec<Begun>,
    outcomes: Vec<Heard>,
    /// Jobs begun by what was known of each revision.
    begun: BTreeMap<u64, u32>,
}

impl World {
    fn new() -> Self {
        let state = BreakerState::Closed;
        Self {
            now_ms: 100_000,
            record: BreakerRecord::default(),
            revision: 0,
            watch: VecDeque::new(),
            gate: Gate { state, revision: 0, probes_left: 0 },
            known: (state, 0),
            next_run: 0,
            under_way: Vec::new(),
            outcomes: Vec::new(),
            begun: BTreeMap::new(),
        }
    }

    /// The judge acts, and writes what has changed.
    fn judge(&mut self, act: impl FnOnce(&mut BreakerRecord, u64)) {
        let before = self.record.clone();
        act(&mut self.record, self.now_ms);
        if self.record != before {
            self.revision += 1;
            self.watch.push_back((self.record.state, self.revision));
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.judge(|record, now_ms| tick(record, &config(), now_ms));
    }

    fn tell(&mut self) {
        if let Some((state, revision)) = self.watch.pop_front() {
            self.known = (state, revision);
            self.gate.told(state, revision);
        }
    }

    fn tell_last(&mut self) {
        self.watch.drain(..self.watch.len().saturating_sub(1));
        self.tell();
    }

    fn fresh(&mut self) -> u128 {
        self.next_run += 1;
        self.next_run
    }

    fn begin(&mut self) -> Result<(), TestCaseError> {
        if !self.gate.lets_begin(self.under_way.len()) {
            return Ok(());
        }
        let (state, revision) = self.known;
        prop_assert_ne!(state, BreakerState::Open, "begun while it is known to be open");
        let begun = self.begun.entry(revision).or_default();
        *begun += 1;
        if state == BreakerState::HalfOpen {
            prop_assert!(*begun <= config().success_threshold, "more probes than were allowed");
            prop_assert!(self.under_way.is_empty(), "a probe is not alone");
        }
        self.gate.begun();
        let run = Begun { number: self.fresh(), at_ms: self.now_ms };
        self.under_way.push(run);
        Ok(())
    }

    fn end(&mut self, which: usize, success: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let run = self.under_way.remove(which % self.under_way.len());
        if !success {
            self.gate.failed();
        }
        self.outcomes.push(ended(run.number, success, run.at_ms));
    }

    fn canary(&mut self, success: bool) {
        if self.gate.state == BreakerState::HalfOpen {
            let number = self.fresh();
            self.outcomes.push(ended(number, success, self.now_ms));
        }
    }

    fn hear(&mut self, which: usize, again: bool) {
        if self.outcomes.is_empty() {
            return;
        }
        let at = which % self.outcomes.len();
        let heard = if again { self.outcomes[at].clone() } else { self.outcomes.remove(at) };
        self.judge(|record, now_ms| hear(record, &config(), &heard, now_ms));
    }

    fn carry_out(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Pass(ms) => self.pass(ms),
            Step::Begin => self.begin()?,
            Step::End(which, success) => self.end(which, success),
            Step::LoseRun(which) => {
                if !self.under_way.is_empty() {
                    self.under_way.remove(which % self.under_way.len());
                }
            }
            Step::Canary(success) => self.canary(success),
            Step::Hear(which, again) => self.hear(which, again),
            Step::LoseOutcome(which) => {
                if !self.outcomes.is_empty() {
                    self.outcomes.remove(which % self.outcomes.len());
                }
            }
            Step::Tell => self.tell(),
            Step::TellLast => self.tell_last(),
        }
        Ok(())
    }

    /// The worker is well: whatever it begins succeeds, and everything that is told arrives. With `traffic` it is asked for
    /// something at every step; without, only its canaries are heard, one in five seconds.
    fn turn_fair(&mut self, traffic: bool) -> Result<(), TestCaseError> {
        // What was under way when it was ill is lost with its engine.
        self.under_way.clear();
        while !self.outcomes.is_empty() {
            self.hear(0, false);
        }
        // Half a second each: the longest that it stays open, then the longest until fresh probes are allowed.
        let steps = (config().max_reset_timeout_ms + trial_ms(&config())) / 500 + 40;
        for step in 0..steps {
            if self.record.state == BreakerState::Closed && self.gate.state == BreakerState::Closed {
                return Ok(());
            }
            self.pass(500);
            while !self.watch.is_empty() {
                self.tell();
            }
            if traffic {
                self.begin()?;
                self.end(0, true);
            } else if step % 10 == 0 {
                self.canary(true);
            }
            while !self.outcomes.is_empty() {
                self.hear(0, false);
            }
        }
        Err(TestCaseError::fail(format!("stuck: {:?} {:?}", self.record, self.gate)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..Default::default() })]

    #[test]
    fn nothing_is_begun_that_is_known_to_be_open_and_a_worker_that_is_well_is_closed(
        steps in worlds_steps(), traffic in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.carry_out(step)?;
        }
        world.turn_fair(traffic)?;
    }
}

/// All three probes are begun, and nothing is ever heard of them.
#[test]
fn lost_probes_are_followed_by_fresh_ones() {
    let mut world = World::new();
    world.record = opened_at(world.now_ms);
    let wait_ms = world.record.reset_after_ms;
    world.pass(wait_ms);
    assert_eq!(world.record.state, BreakerState::HalfOpen);
    world.tell_last();
    for _ in 0..config().success_threshold {
        world.begin().unwrap();
        assert_eq!(world.under_way.len(), 1);
        world.under_way.clear();
    }
    world.begin().unwrap();
    assert!(world.under_way.is_empty(), "no probe is left");
    world.turn_fair(true).unwrap();
}
