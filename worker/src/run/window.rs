//! The transport window of a run: how many pieces may go out before the session grants more.
//!
//! It begins with two rounds of [`CHUNKS_PER_GRANT`]. The last piece of each round is sent as a request; its reply grants
//! further ones, so a session that keeps up never makes its worker wait.

use std::time::{Duration, Instant};

use chorus_protocol::job::{CHUNKS_PER_GRANT, ChunkGrant};

use super::Action;

/// The most a session may grant ahead, so that a wrong grant cannot undo the window.
const MAX_ALLOWED: u32 = 64 * CHUNKS_PER_GRANT;

#[derive(Debug, Clone, Copy)]
struct Ask {
    seq: u32,
    first: Instant,
    last: Instant,
    /// Not answered: asked again at this time.
    again: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Window {
    /// The next piece to be sent.
    next: u32,
    /// Pieces that may be sent before the next grant.
    allowed: u32,
    asks: Vec<Ask>,
    pace: Duration,
}

impl Window {
    pub(super) fn new(pace: Duration) -> Self {
        Self { next: 0, allowed: 2 * CHUNKS_PER_GRANT, asks: Vec::new(), pace }
    }

    /// Sends what is made and allowed, and asks again what is due; whether all `made` pieces are sent.
    pub(super) fn send(&mut self, made: u32, now: Instant, actions: &mut Vec<Action>) -> bool {
        for ask in &mut self.asks {
            if ask.again.is_some_and(|at| at <= now) {
                (ask.again, ask.last) = (None, now);
                actions.push(Action::SendChunk { seq: ask.seq, ask: true });
            }
        }
        while self.next < made && self.allowed > 0 {
            let seq = self.next;
            // The last piece that is allowed asks too when nothing else does, or a small grant would be the last.
            let last = self.allowed == 1 && self.asks.is_empty();
            let ask = last || (seq + 1).is_multiple_of(CHUNKS_PER_GRANT);
            if ask {
                self.asks.push(Ask { seq, first: now, last: now, again: None });
            }
            actions.push(Action::SendChunk { seq, ask });
            self.next += 1;
            self.allowed -= 1;
        }
        self.next >= made
    }

    /// The piece `seq` was answered with a grant, or not at all. A grant for what is not asked is not counted.
    pub(super) fn answered(&mut self, seq: u32, grant: Option<ChunkGrant>, now: Instant) {
        let Some(index) = self.asks.iter().position(|ask| ask.seq == seq && ask.again.is_none()) else {
            return;
        };
        match grant {
            Some(grant) if grant.chunks > 0 => {
                self.asks.remove(index);
                self.allowed = self.allowed.saturating_add(grant.chunks).min(MAX_ALLOWED);
            }
            Some(_) | None => {
                let ask = &mut self.asks[index];
                ask.again = Some(now.max(ask.last + self.pace));
            }
        }
    }

    /// The session misses pieces from `from` on.
    pub(super) fn rewind(&mut self, from: u32) {
        self.next = self.next.min(from);
        self.allowed = 2 * CHUNKS_PER_GRANT;
        self.asks.clear();
    }

    /// Everything is sent: grants matter no more.
    pub(super) fn forget_asks(&mut self) {
        self.asks.clear();
    }

    /// When a question is to be asked again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asks.iter().filter_map(|ask| ask.again).min()
    }

    /// Since when the oldest question waits for its answer.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.asks.iter().map(|ask| ask.first).min()
    }
}
