//! Takes out of the cache. One that is gone, damaged or late is no fault of anybody: the segment is spoken.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_protocol::plan::Disposition;
use chorus_protocol::takes::StoredTake;
use chorus_protocol::{Attempt, SegmentIndex, Warning, names};

use super::segment::State;
use super::{Action, Phase, Session};

/// The longest that a session waits for a take that somebody else has spoken, whatever a manager says.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A take to be fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetch {
    /// For which segment.
    pub segment: SegmentIndex,
    /// In place of which attempt.
    pub attempt: Attempt,
    /// Its name.
    pub key: String,
    /// What it is; unknown while it is being spoken.
    pub take: Option<StoredTake>,
    /// How long to wait for it to be stored.
    pub wait: Duration,
}

impl Session {
    /// Asks for the take that a manager has found.
    pub(super) fn fetch(&mut self, index: SegmentIndex, found: &Disposition, now: Instant) {
        let Some(segment) = self.segments.get_mut(&index) else { return };
        // A worker that has it already (the question was asked twice) goes on.
        if !matches!(segment.state, State::Queued { .. } | State::Retry { .. }) {
            return;
        }
        let attempt = segment.attempt;
        let fetch = match found.clone() {
            Disposition::Stored { bucket, key, samples, crc32, sample_rate, warnings }
                if bucket == names::CACHE_BUCKET =>
            {
                let take = StoredTake { samples, crc32, sample_rate, warnings };
                Fetch { segment: index, attempt, key, take: Some(take), wait: Duration::ZERO }
            }
            Disposition::Awaited { key, wait_ms } => {
                let wait = Duration::from_millis(wait_ms).min(LONGEST_WAIT);
                Fetch { segment: index, attempt, key, take: None, wait }
            }
            _ => return segment.ask_anew(now),
        };
        // Whoever fetches keeps its own time; this is for the case that it does not.
        segment.state = State::Fetching { until: now + fetch.wait + self.config.takes.fetch_within * 2 };
        self.actions.push(Action::Fetch(fetch));
    }

    /// A take has come, or none.
    pub fn on_fetched(&mut self, fetch: &Fetch, got: Option<(StoredTake, Bytes)>, now: Instant) {
        if !matches!(self.phase, Phase::Speaking(_)) {
            return;
        }
        let awaited = self.segments.get(&fetch.segment).is_some_and(|segment| {
            segment.attempt == fetch.attempt && matches!(segment.state, State::Fetching { .. })
        });
        if !awaited {
            return;
        }
        let most = self.config.max_segment_bytes;
        let whole = got.filter(|(take, pcm)| take.is(pcm) && pcm.len() <= most);
        let fits = whole.filter(|(take, _)| self.rate_fits(take.sample_rate));
        let Some(segment) = self.segments.get_mut(&fetch.segment) else { return };
        self.moved_at = now;
        match fits {
            Some((take, audio)) => {
                segment.state = State::Spoken { run: None, audio, sample_rate: take.sample_rate };
                segment.text = None;
                self.any_started = true;
                self.tally.cached += 1;
                for warning in take.warnings {
                    self.tally.warn(Warning { segment: Some(fetch.segment), ..warning });
                }
            }
            None => segment.ask_anew(now),
        }
        self.pump(now);
    }

    /// Fetches that nobody ended are given up.
    pub(super) fn give_up_fetches(&mut self, now: Instant) {
        for segment in self.segments.values_mut() {
            if matches!(segment.state, State::Fetching { until } if until <= now) {
                segment.ask_anew(now);
            }
        }
    }
}
