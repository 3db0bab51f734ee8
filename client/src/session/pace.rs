//! How far ahead segments are asked for, and which of them have to hurry.
//!
//! The window starts small and grows with every piece that the listener was waiting for (a slow start): who writes a file
//! soon has all workers busy, who plays what is heard never has more than a little in the queue, and a hundred listeners
//! that begin together do not bury each other's next sentence. Enough audio that is not yet taken stops the asking. When a
//! listener who plays is about to have nothing left, its next segment goes to the front.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Segments that may be open before the listener has shown how it takes them.
const SLOW_START: u32 = 2;

/// A piece that was taken so soon was waited for.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Audio that is not yet taken, beyond which nothing more is asked for.
const ENOUGH: Duration = Duration::from_secs(10);

/// A listener with less than this left to play is about to run dry.
const SLACK: Duration = Duration::from_secs(1);

/// Workers have this long after a piece to begin the next by themselves.
const GRACE: Duration = Duration::from_millis(150);

/// What the listener has and how it takes it.
#[derive(Debug)]
pub(super) struct Pace {
    window: u32,
    most: u32,
    /// Pieces that are not yet taken: since when, and how long they sound.
    in_hand: VecDeque<(Instant, Duration)>,
    /// When all that was given has been played, by a listener who plays it as it comes; and when the last of it was given.
    plays: Option<(Instant, Instant)>,
}

impl Pace {
    /// A window of `most` segments at most.
    pub fn new(most: u32) -> Self {
        Self { window: SLOW_START.min(most), most, in_hand: VecDeque::new(), plays: None }
    }

    /// Segments that may be open now.
    pub fn window(&self) -> u32 {
        let sounds: Duration = self.in_hand.iter().map(|(_, sounds)| *sounds).sum();
        if sounds >= ENOUGH { 0 } else { self.window.saturating_sub(self.in_hand.len() as u32) }
    }

    /// The listener was given a piece.
    pub fn gave(&mut self, sounds: Duration, now: Instant) {
        let from = self.plays.map_or(now, |(until, _)| until.max(now));
        self.plays = Some((from + sounds, now));
        self.in_hand.push_back((now, sounds));
    }

    /// The listener took so many pieces.
    pub fn took(&mut self, pieces: u32, now: Instant) {
        for _ in 0..pieces {
            let Some((since, _)) = self.in_hand.pop_front() else { return };
            if now.saturating_duration_since(since) < AT_ONCE {
                self.window = (self.window + 1).min(self.most);
            }
        }
    }

    /// Whether the listener has taken all that there is.
    pub fn is_empty(&self) -> bool {
        self.in_hand.is_empty()
    }

    /// From when on the next segment must not wait in the queue; `None` while there is audio in hand, or before the first.
    pub fn runs_dry_at(&self) -> Option<Instant> {
        let (until, since) = self.plays.filter(|_| self.is_empty())?;
        Some(until.checked_sub(SLACK).map_or(since, |at| at.max(since)) + GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Duration = Duration::from_secs(3);

    #[test]
    fn a_reader_soon_has_the_whole_window_and_a_player_has_little_ahead() {
        let now = Instant::now();
        let (mut reader, mut player) = (Pace::new(8), Pace::new(8));
        for number in 0..20 {
            let at = now + PIECE * number;
            reader.gave(PIECE, at);
            reader.took(1, at);
            player.gave(PIECE, at);
            player.took(1, at + Duration::from_secs(1));
        }
        assert_eq!((reader.window(), player.window()), (8, 2));
    }

    #[test]
    fn enough_in_hand_stops_the_asking() {
        let now = Instant::now();
        let mut pace = Pace::new(8);
        for _ in 0..8 {
            pace.gave(PIECE, now);
            pace.took(1, now);
        }
        for (given, window) in [(1, 7), (2, 6), (3, 5), (4, 0)] {
            pace.gave(PIECE, now);
            assert_eq!(pace.window(), window, "with {given} in hand");
        }
        pace.took(1, now + ENOUGH);
        assert_eq!(pace.window(), 5);
    }

    #[test]
    fn a_listener_runs_dry_when_all_it_was_given_is_played() {
        let now = Instant::now();
        let mut pace = Pace::new(8);
        assert_eq!(pace.runs_dry_at(), None);
        pace.gave(PIECE, now);
        assert_eq!(pace.runs_dry_at(), None, "it has not even been taken");
        pace.took(1, now);
        assert_eq!(pace.runs_dry_at(), Some(now + PIECE - SLACK + GRACE));
        let later = now + PIECE + SLACK;
        pace.gave(Duration::from_millis(10), later);
        pace.took(1, later);
        assert_eq!(pace.runs_dry_at(), Some(later + GRACE), "workers get their chance");
    }
}
