//! A clock of the time in which this manager could have heard a sign of life.
//!
//! It stands still while the connection is down and shortly after (workers must find the broker again too), while the
//! broker says nothing to anybody though it was asked, and while this manager itself did not run: a tick that comes late
//! counts for two at most.

use std::time::{Duration, Instant};

use super::LivenessConfig;

/// Ticks without a word from the broker, while somebody is suspected, after which the clock stands still.
const BROKER_QUIET_TICKS: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Attention {
    clock: Duration,
    ticked_at: Instant,
    broker_spoke_at: Instant,
    connected: bool,
    deaf_until: Instant,
    ping_interval: Duration,
    grace: Duration,
}

impl Attention {
    pub(super) fn new(config: &LivenessConfig, now: Instant) -> Self {
        Self {
            clock: Duration::ZERO,
            ticked_at: now,
            broker_spoke_at: now,
            connected: true,
            deaf_until: now,
            ping_interval: config.ping_interval,
            grace: config.reconnect_grace,
        }
    }

    /// Attentive time so far.
    pub(super) fn clock(&self) -> Duration {
        self.clock
    }

    /// Lets the time since the last tick pass, as far as it counts.
    pub(super) fn pass(&mut self, suspects: bool, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.ticked_at);
        self.ticked_at = now;
        let quiet = now.saturating_duration_since(self.broker_spoke_at);
        let broker_is_quiet = suspects && quiet > self.ping_interval * BROKER_QUIET_TICKS;
        if !self.is_deaf(now) && !broker_is_quiet {
            self.clock += passed.min(self.ping_interval * 2);
        }
        self.clock
    }

    /// Whether the broker's word on who is there cannot be believed yet.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        !self.connected || now < self.deaf_until
    }

    pub(super) fn broker_speaks(&mut self, now: Instant) {
        self.broker_spoke_at = now;
    }

    pub(super) fn on_link(&mut self, connected: bool, now: Instant) {
        self.connected = connected;
        self.deaf_until = now + self.grace;
    }
}
