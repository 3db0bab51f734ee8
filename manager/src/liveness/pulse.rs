//! One busy incarnation: when it was last heard, and how many pings it owes an answer.

use std::time::Duration;

use chorus_protocol::fleet::Pong;
use chorus_protocol::{Incarnation, RunId};

use super::{Death, LivenessConfig};

/// Pings to one incarnation that may be under way at once.
pub(super) const MAX_UNDER_WAY: u32 = 4;

/// Runs of one incarnation that are kept in mind.
const MAX_RUNS: usize = 64;

/// What a pong tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Fine,
    EngineHung(Duration),
    Dead(Death),
}

/// See the module. Times are of the attentive clock.
#[derive(Debug)]
pub(super) struct Pulse {
    incarnation: Incarnation,
    /// Of the newest heartbeat.
    sequence: u64,
    heard_at: Duration,
    /// Pings sent since then.
    unanswered: u32,
    under_way: u32,
    /// Its engine was found hung, and has made nothing since.
    engine_hung: bool,
    /// What it worked on, by its last pong.
    runs: Vec<RunId>,
}

impl Pulse {
    pub(super) fn new(incarnation: Incarnation, sequence: u64, clock: Duration) -> Self {
        Self {
            incarnation,
            sequence,
            heard_at: clock,
            unanswered: 0,
            under_way: 0,
            engine_hung: false,
            runs: Vec::new(),
        }
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn runs(&self) -> &[RunId] {
        &self.runs
    }

    pub(super) fn is_suspected(&self, config: &LivenessConfig) -> bool {
        self.unanswered >= config.suspect_after
    }

    /// Whether it may be pinged now; if so, it is.
    pub(super) fn ping(&mut self) -> bool {
        if self.under_way >= MAX_UNDER_WAY {
            return false;
        }
        self.under_way += 1;
        self.unanswered = self.unanswered.saturating_add(1);
        true
    }

    pub(super) fn ping_ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(super) fn heartbeat(&mut self, sequence: u64, clock: Duration) {
        if sequence > self.sequence {
            self.sequence = sequence;
            self.is_heard(clock);
        }
    }

    pub(super) fn pong(&mut self, pong: &Pong, engine_timeout: Duration, clock: Duration) -> Reading {
        // Incarnations sort by the time of their start: an earlier one is a zombie, and answers for nobody.
        if pong.incarnation > self.incarnation {
            return Reading::Dead(Death::Replaced);
        }
        if pong.incarnation < self.incarnation {
            return Reading::Fine;
        }
        self.is_heard(clock);
        self.runs.clear();
        self.runs.extend(pong.runs.iter().take(MAX_RUNS).map(|run| run.run));
        // A run may wait behind others in its batch or lane: the engine hangs only when none of them moves.
        let idle = pong.runs.iter().map(|run| Duration::from_millis(run.idle_ms)).min().unwrap_or_default();
        let hung = idle >= engine_timeout;
        let newly = hung && !self.engine_hung;
        self.engine_hung = hung;
        if newly { Reading::EngineHung(idle) } else { Reading::Fine }
    }

    pub(super) fn check(&self, config: &LivenessConfig, clock: Duration) -> Option<Death> {
        let silent = clock.saturating_sub(self.heard_at);
        let is_hung = self.is_suspected(config) && silent >= config.hang_after;
        is_hung.then_some(Death::Hung { silent })
    }

    fn is_heard(&mut self, clock: Duration) {
        self.heard_at = clock;
        self.unanswered = 0;
    }
}
