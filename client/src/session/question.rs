//! The questions that a session asks managers, built from what it knows.
//!
//! Each carries all that any manager needs; asking one twice under the same ids is harmless.

use std::time::Instant;

use chorus_protocol::plan::{Advance, Lookup, Open, Retry};
use chorus_protocol::{MAX_UNPLANNED_BYTES, Priority, SynthesisRequest};

use super::segment::State;
use super::{Session, Terms};

/// The text that no manager has planned yet.
#[derive(Debug)]
pub(super) struct Rest {
    text: String,
    planned_bytes: usize,
    /// Where planning began.
    began_bytes: usize,
    /// An SSML document is handed over as a whole; what is planned of it counts in bytes of what is said.
    is_document: bool,
    /// More text may come.
    open: bool,
    /// What ends here is to be spoken though more may come: sentences do not go on beyond it.
    flushed_bytes: usize,
}

impl Rest {
    pub fn new(text: String) -> Self {
        Self { text, planned_bytes: 0, began_bytes: 0, is_document: false, open: false, flushed_bytes: 0 }
    }

    /// An SSML document of which so much was planned before.
    pub fn document(text: String, planned_bytes: usize) -> Self {
        Self {
            text,
            planned_bytes,
            began_bytes: planned_bytes,
            is_document: true,
            open: false,
            flushed_bytes: 0,
        }
    }

    /// Text whose rest is still to come.
    pub fn coming(text: String) -> Self {
        Self { open: true, ..Self::new(text) }
    }

    pub fn is_open(&self) -> bool {
        self.open
    }

    /// How much text is there, planned or not.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Bytes that no manager has planned yet.
    pub fn unplanned_bytes(&self) -> usize {
        self.text.len() - self.planned_bytes.min(self.text.len())
    }

    /// More text has come.
    pub fn add(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// What has come is to be spoken now.
    pub fn flush(&mut self) {
        self.flushed_bytes = self.text.len();
    }

    /// No more text will come.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Whether there never was a word.
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// How much of a document was planned before; 0 for plain text, which is handed over without it.
    pub fn document_planned_bytes(&self) -> usize {
        if self.is_document { self.planned_bytes } else { 0 }
    }

    /// What is handed over next, and whether it ends a text: all that is left, or all that was flushed.
    pub fn next_part(&self) -> (&str, bool) {
        if self.is_document {
            return (&self.text, true);
        }
        let flushed = self.flushed_bytes > self.planned_bytes;
        let until = if flushed { self.flushed_bytes } else { self.text.len() };
        let rest = &self.text[self.planned_bytes..until];
        let mut end = rest.len().min(MAX_UNPLANNED_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        (&rest[..end], end == rest.len() && (flushed || !self.open))
    }

    /// Whether what [`Rest::next_part`] gives is the last there will be.
    pub fn next_part_is_last(&self) -> bool {
        let (part, ends) = self.next_part();
        self.is_document || (ends && !self.open && self.planned_bytes + part.len() == self.text.len())
    }

    /// Counts `bytes` as planned; false when a manager claims what it was not given.
    pub fn plan(&mut self, bytes: usize) -> bool {
        let (part, _) = self.next_part();
        let honest = if self.is_document { bytes <= part.len() } else { part.is_char_boundary(bytes) };
        if honest {
            self.planned_bytes += bytes;
        }
        honest
    }

    /// Bytes that this session has planned.
    pub fn planned_bytes(&self) -> usize {
        self.planned_bytes - self.began_bytes
    }

    pub fn restart(&mut self) {
        self.planned_bytes = self.began_bytes;
    }
}

impl Session {
    pub(super) fn open_question(&mut self) -> Open {
        self.asked_whole_rest = self.rest.next_part_is_last();
        self.asked_for_more = true;
        self.asked_revision = self.text_revision;
        let (text, text_complete) = self.rest.next_part();
        Open {
            session: self.id,
            inbox: self.inbox(),
            request_id: self.request_id.clone(),
            request: SynthesisRequest { text: text.to_owned(), ..self.request.clone() },
            text_complete,
            window: self.pace.window(),
            first_segment: self.first_segment,
            takes: self.config.takes.enabled,
            planned_bytes: self.rest.document_planned_bytes(),
        }
    }

    /// What is to be asked now; `None` when nothing is.
    pub(super) fn advance_question(&mut self, terms: &Terms, now: Instant) -> Option<Advance> {
        let retries = self.due_retries(now);
        let lookups = self.due_lookups(now);
        let waits = self.plan_complete || self.waits_for_text || now < self.plan_not_before;
        let urgent = self.has_run_dry(terms, now);
        let window = match self.room() {
            _ if waits => 0,
            room if urgent => room.min(1),
            room => room,
        };
        if retries.is_empty() && lookups.is_empty() && window == 0 {
            return None;
        }
        let (text, text_complete) = if window > 0 { self.rest.next_part() } else { ("", false) };
        let text = text.to_owned();
        self.asked_for_more = window > 0;
        self.asked_whole_rest = window > 0 && self.rest.next_part_is_last();
        self.asked_revision = self.text_revision;
        Some(Advance {
            session: self.id,
            inbox: self.inbox(),
            request_id: self.request_id.clone(),
            speech: terms.speech.clone(),
            next_segment: self.next_segment,
            text,
            planned_bytes: if window > 0 { self.rest.document_planned_bytes() } else { 0 },
            text_complete,
            window,
            urgent,
            retries,
            lookups,
            takes: self.config.takes.enabled,
        })
    }

    /// Segments that may still be asked for: what is queued, spoken or not yet read holds a place.
    fn room(&self) -> u32 {
        let open = self.segments.values().filter(|s| s.is_open()).count() as u32;
        self.pace.window().saturating_sub(open)
    }

    /// Whether a listener who plays what it gets has nothing left, and nothing is queued for it either.
    fn has_run_dry(&self, terms: &Terms, now: Instant) -> bool {
        self.next_release == self.next_segment
            && self.is_played(terms)
            && self.pace.runs_dry_at().is_some_and(|at| at <= now)
    }

    /// Whether somebody may be listening while it is spoken: not to a whole reply, nor to what is said to have time.
    pub(super) fn is_played(&self, terms: &Terms) -> bool {
        !self.whole_reply_deadline && terms.speech.priority != Priority::Low
    }

    fn due_retries(&self, now: Instant) -> Vec<Retry> {
        let due =
            self.segments.iter().filter_map(|(&index, segment)| match (&segment.state, &segment.text) {
                (State::Retry { at, class, supersedes }, Some(text)) if *at <= now => Some(Retry {
                    segment: index,
                    text: text.clone(),
                    manner: segment.manner.clone(),
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
    fn text_that_is_coming_ends_where_it_is_flushed_or_closed() {
        let mut rest = Rest::coming("One. Two".into());
        assert_eq!((rest.next_part(), rest.next_part_is_last()), (("One. Two", false), false));
        assert!(rest.plan(5));
        rest.add(" and");
        rest.flush();
        rest.add(" three.");
        assert_eq!((rest.next_part(), rest.next_part_is_last()), (("Two and", true), false));
        assert!(rest.plan(7));
        assert_eq!((rest.next_part(), rest.unplanned_bytes()), ((" three.", false), 7));
        rest.close();
        assert_eq!((rest.next_part(), rest.next_part_is_last()), ((" three.", true), true));
        assert!(rest.plan(7) && rest.unplanned_bytes() == 0);
    }

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
