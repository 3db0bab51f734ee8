//! Which busy workers are dead: the decisions behind "Finding the dead" of DESIGN.md.
//!
//! ```text
//!   the fleet's busy workers that are ours ─► Ward::tick ─► pings to send, losses, whether to try the broker
//!   answers to pings, or their absence ─────► Ward::heard ─► losses
//! ```
//!
//! Pure: the service in `ping` sends and listens, and brings the time. A [`Ward`] keeps a `Pulse` for each busy
//! incarnation. Nobody listening on a worker's subject is a crash, at once. Silence is a hang only when it has lasted for
//! [`LivenessConfig::hang_after`] of *attentive* time, and when pings were sent into it: time in which this manager was
//! stopped itself, or the broker said nothing to anybody, is nobody's silence. Only these incarnations are pinged, a few
//! pings each at most.

mod attention;
mod pulse;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chorus_protocol::fleet::Pong;
use chorus_protocol::{Incarnation, RunId, WorkerId};

use attention::Attention;
use pulse::{Pulse, Reading};

/// How much longer than the time-out of an attempt all runs of a worker may go without an engine frame: the worker's own
/// eyes, and the sessions', come first.
const ENGINE_MARGIN: Duration = Duration::from_secs(1);

/// Figures that deaths are judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivenessConfig {
    /// How often a busy worker is pinged.
    pub ping_interval: Duration,
    /// Pings without an answer after which a worker is suspected, and the broker is tried.
    pub suspect_after: u32,
    /// How long a suspected worker may show no sign of life: ten pings. Short enough that a segment, with its way to
    /// another worker, starts there within a second.
    pub hang_after: Duration,
    /// The heartbeat age at which a manager's workers are looked after by the others.
    pub manager_timeout: Duration,
    /// After a lost connection: how long workers may take to find the broker again too.
    pub reconnect_grace: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_millis(50),
            suspect_after: 2,
            hang_after: Duration::from_millis(500),
            manager_timeout: Duration::from_millis(1_500),
            reconnect_grace: Duration::from_millis(1_500),
        }
    }
}

impl LivenessConfig {
    /// What cannot be honoured, each fault naming its field.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        let checks = [
            (!self.ping_interval.is_zero(), "liveness.ping_interval is zero"),
            (self.suspect_after > 0, "liveness.suspect_after is zero"),
            (
                self.hang_after >= self.ping_interval * (self.suspect_after + 1),
                "liveness.hang_after leaves no time for the pings that it is judged by",
            ),
            (!self.manager_timeout.is_zero(), "liveness.manager_timeout is zero"),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
    }
}

/// How a busy worker came to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Nobody listens where it should.
    Crashed,
    /// A later start of the same name answers.
    Replaced,
    /// It is there and shows no sign of life.
    Hung {
        /// For how long, as far as this manager listened.
        silent: Duration,
    },
    /// It answers, but its engine has made nothing for any of its runs. The worker itself is kept in view.
    EngineHung {
        /// For how long.
        idle: Duration,
    },
}

/// A busy worker, by its last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// Its name.
    pub worker: WorkerId,
    /// Its start.
    pub incarnation: Incarnation,
    /// The number of that heartbeat: a higher one than before is a sign of life.
    pub sequence: u64,
}

/// What became of a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An answer.
    Pong(Pong),
    /// Nobody listens there, says the broker.
    NoResponders,
    /// No answer in time; or it could not be sent or read. Tells nothing by itself.
    Nothing,
}

/// A worker that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its name.
    pub worker: WorkerId,
    /// Its start.
    pub incarnation: Incarnation,
    /// How.
    pub death: Death,
    /// What it worked on when it was last asked.
    pub runs: Vec<RunId>,
}

/// What is to be done at a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Incarnations to ping.
    pub pings: Vec<(WorkerId, Incarnation)>,
    /// Workers to mourn.
    pub losses: Vec<Loss>,
    /// Whether somebody is suspected, so that the broker must prove that it speaks at all.
    pub try_broker: bool,
}

/// The busy workers that this manager looks after.
#[derive(Debug)]
pub struct Ward {
    config: LivenessConfig,
    engine_timeout: Duration,
    attention: Attention,
    pulses: BTreeMap<WorkerId, Pulse>,
}

impl Ward {
    /// Nobody yet. `attempt_timeout` is how long an attempt may go without progress.
    pub fn new(config: LivenessConfig, attempt_timeout: Duration, now: Instant) -> Self {
        let attention = Attention::new(&config, now);
        let engine_timeout = attempt_timeout.saturating_add(ENGINE_MARGIN);
        Self { config, engine_timeout, attention, pulses: BTreeMap::new() }
    }

    /// A round: `busy` are all workers to look after now; those not among them are forgotten.
    pub fn tick(&mut self, busy: &[Busy], now: Instant) -> Round {
        let suspects = self.pulses.values().any(|pulse| pulse.is_suspected(&self.config));
        let clock = self.attention.pass(suspects, now);
        self.admit(busy, clock);
        let mut round = Round::default();
        let mut dead = Vec::new();
        for (worker, pulse) in &mut self.pulses {
            let incarnation = pulse.incarnation();
            if let Some(death) = pulse.check(&self.config, clock) {
                let runs = pulse.runs().to_vec();
                round.losses.push(Loss { worker: worker.clone(), incarnation, death, runs });
                dead.push(worker.clone());
                continue;
            }
            round.try_broker |= pulse.is_suspected(&self.config);
            if pulse.ping() {
                round.pings.push((worker.clone(), incarnation));
            }
        }
        for worker in dead {
            self.pulses.remove(&worker);
        }
        round
    }

    /// A ping to an incarnation has come to its end.
    pub fn heard(
        &mut self,
        worker: &WorkerId,
        incarnation: Incarnation,
        answer: &Answer,
        now: Instant,
    ) -> Option<Loss> {
        if *answer != Answer::Nothing {
            self.attention.broker_speaks(now);
        }
        let pulse = self.pulses.get_mut(worker).filter(|pulse| pulse.incarnation() == incarnation)?;
        pulse.ping_ended();
        let reading = match answer {
            Answer::Pong(pong) => pulse.pong(pong, self.engine_timeout, self.attention.clock()),
            Answer::NoResponders if self.attention.is_deaf(now) => Reading::Fine,
            Answer::NoResponders => Reading::Dead(Death::Crashed),
            Answer::Nothing => Reading::Fine,
        };
        let runs = pulse.runs().to_vec();
        let death = match reading {
            Reading::Fine => return None,
            Reading::EngineHung(idle) => Death::EngineHung { idle },
            Reading::Dead(death) => {
                self.pulses.remove(worker);
                death
            }
        };
        Some(Loss { worker: worker.clone(), incarnation, death, runs })
    }

    /// The broker has answered something.
    pub fn broker_speaks(&mut self, now: Instant) {
        self.attention.broker_speaks(now);
    }

    /// The connection to the broker broke or came back.
    pub fn on_link(&mut self, connected: bool, now: Instant) {
        self.attention.on_link(connected, now);
    }

    fn admit(&mut self, busy: &[Busy], clock: Duration) {
        let now_busy: BTreeMap<&WorkerId, Incarnation> =
            busy.iter().map(|busy| (&busy.worker, busy.incarnation)).collect();
        self.pulses.retain(|worker, pulse| now_busy.get(worker) == Some(&pulse.incarnation()));
        for Busy { worker, incarnation, sequence } in busy {
            match self.pulses.get_mut(worker) {
                Some(pulse) => pulse.heartbeat(*sequence, clock),
                None => {
                    self.pulses.insert(worker.clone(), Pulse::new(*incarnation, *sequence, clock));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
