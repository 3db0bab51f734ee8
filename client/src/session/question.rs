//! The questions that a session asks managers, built from what it knows.
//!
//! Each carries all that any manager needs; asking one twice under the same ids is harmless.

use std::time::Instant;

use chorus_protocol::plan::{Advance, Lookup, Open, Retry};
use chorus_protocol::{MAX_UNPLANNED_BYTES, SynthesisRequest};

use super::segment::State;
use super::{Session, Terms};

/// The text that no manager has planned yet.
#[derive(Debug)]
pub(super) struct Rest {
    text: String,
    planned_bytes: usize,
}

impl Rest {
    pub fn new(text: String) -> Self {
        Self { text, planned_bytes: 0 }
    }

    /// What is handed over next, and whether it is all that is left.
    pub fn next_part(&self) -> (&str, bool) {
        let rest = &self.text[self.planned_bytes..];
        let mut end = rest.len().min(MAX_UNPLANNED_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        (&rest[..end], end == rest.len())
    }

    /// Counts `bytes` as planned; false when a manager claims what it was not given.
    pub fn plan(&mut self, bytes: usize) -> bool {
        let (part, _) = self.next_part();
        let honest = part.is_char_boundary(bytes);
        if honest {
            self.planned_bytes += bytes;
        }
        honest
    }

    /// Bytes that are planned.
    pub fn planned_bytes(&self) -> usize {
        self.planned_bytes
    }

    pub fn restart(&mut self) {
        self.planned_bytes = 0;
    }
}

impl Session {
    pub(super) fn open_question(&self) -> Open {
        let (text, text_complete) = self.rest.next_part();
        Open {
            session: self.id,
            inbox: self.inbox(),
            request_id: self.request_id.clone(),
            request: SynthesisRequest { text: text.to_owned(), ..self.request.clone() },
            text_complete,
            window: self.config.window,
            first_segment: self.first_segment,
            takes: self.config.takes.enabled,
        }
    }

    /// What is to be asked now; `None` when nothing is.
    pub(super) fn advance_question(&mut self, terms: &Terms, now: Instant) -> Option<Advance> {
        let retries = self.due_retries(now);
        let lookups = self.due_lookups(now);
        let window = if self.plan_complete || now < self.plan_not_before { 0 } else { self.room() };
        if retries.is_empty() && lookups.is_empty() && window == 0 {
            return None;
        }
        let (text, text_complete) = if window > 0 { self.rest.next_part() } else { ("", false) };
        self.asked_whole_rest = text_complete;
        Some(Advance {
            session: self.id,
            inbox: self.inbox(),
            request_id: self.request_id.clone(),
            speech: terms.speech.clone(),
            next_segment: self.next_segment,
            text: text.to_owned(),
            text_complete,
            window,
            urgent: false,
            retries,
            lookups,
            takes: self.config.takes.enabled,
        })
    }

    /// Segments that may still be asked for: what is queued, spoken or not yet read holds a place.
    fn room(&self) -> u32 {
        let open = self.segments.values().filter(|s| s.is_open()).count() as u32;
        self.config.window.saturating_sub(open + self.unread)
    }

    fn due_retries(&self, now: Instant) -> Vec<Retry> {
        let due =
            self.segments.iter().filter_map(|(&index, segment)| match (&segment.state, &segment.text) {
                (State::Retry { at, class, supersedes }, Some(text)) if *at <= now => Some(Retry {
                    segment: index,
                    text: text.clone(),
                    attempt: segment.attempt,
                    class: *class,
                    failures: segment.failures,
                    tried: segment.tried.clone(),
                    supersedes: *supersedes,
                }),
                _ => None,
            });
        due.collect()
    }

    fn due_lookups(&mut self, now: Instant) -> Vec<Lookup> {
        let interval = self.config.lookup_interval;
        let mut lookups = Vec::new();
        for (&index, segment) in &mut self.segments {
            if let State::Queued { lookup_at, .. } = &mut segment.state
                && *lookup_at <= now
            {
                *lookup_at = now + interval;
                if let Some(seq) = segment.seq {
                    lookups.push(Lookup { segment: index, attempt: segment.attempt, seq });
                }
            }
        }
        lookups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_handed_over_in_bounded_parts_at_character_boundaries() {
        let mut rest = Rest::new("é".repeat(40_000));
        let (part, complete) = rest.next_part();
        assert_eq!((part.len(), complete), (65_536, false));
        assert!(!rest.plan(65_537));
        assert!(!rest.plan(1), "not at a character boundary");
        assert!(rest.plan(65_536));
        let (part, complete) = rest.next_part();
        assert_eq!((part.len(), complete), (80_000 - 65_536, true));
        assert!(rest.plan(80_000 - 65_536));
        assert_eq!(rest.next_part(), ("", true));
    }
}
