//! Managers' answers.

use std::time::{Duration, Instant};

use chorus_protocol::plan::{Advanced, Disposition, Finished, Opened, PlanPage, PlannedSegment};
use chorus_protocol::request::ResultMetadata;
use chorus_protocol::{Reason, ServiceError, Warning};

use super::question::Rest;
use super::segment::{Cause, Segment, State};
use super::{Action, Phase, Session, Terms};

/// How long to leave a full queue alone when the manager does not say.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_millis(250);

impl Session {
    /// The answer to an opening, or why there is none.
    pub fn on_opened(&mut self, answer: Result<Opened, ServiceError>, now: Instant) {
        if !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        match answer {
            Ok(opened) => self.accept(opened, now),
            Err(error) if is_unanswered(&error) => self.open_later(error, now),
            Err(error) => self.fail(error, now),
        }
    }

    fn accept(&mut self, opened: Opened, now: Instant) {
        self.ready_workers = opened.ready_workers;
        self.first_audio_within = Duration::from_millis(opened.deadline_ms);
        self.deadline = self.words_at + self.first_audio_within;
        let all_given = self.asked_whole_rest;
        let changed = opened.text.filter(|_| all_given);
        self.actions.push(Action::Accepted(opened.speech.model.clone(), changed.clone()));
        if let Some(text) = changed {
            self.rest = if self.request.is_ssml() { Rest::document(text, 0) } else { Rest::new(text) };
        }
        let all_planned = self.rest.next_part_is_last();
        self.phase = Phase::Speaking(Box::new(Terms {
            speech: opened.speech,
            attempt_timeout: Duration::from_millis(opened.attempt_timeout_ms.max(1)),
            finish: opened.finish,
        }));
        self.ask_again.reset();
        self.moved_at = now;
        self.take_page(opened.page, all_given && all_planned, now);
        self.pump(now);
    }

    fn open_later(&mut self, error: ServiceError, now: Instant) {
        let waited = now - self.opened_at;
        match self.ask_again.next_delay(waited) {
            Some(delay) if waited + delay < self.config.open_patience => {
                self.phase = Phase::Opening { ask_at: Some(now + delay) };
            }
            _ => self.fail(error, now),
        }
    }

    /// The answer to an advance, or why there is none.
    pub fn on_advanced(&mut self, answer: Result<Advanced, ServiceError>, now: Instant) {
        if !std::mem::take(&mut self.asking) || !matches!(self.phase, Phase::Speaking(_)) {
            return;
        }
        match answer {
            Ok(advanced) => {
                self.ask_again.reset();
                self.ready_workers = advanced.ready_workers;
                for retry in advanced.retries {
                    self.take_disposition(retry.segment, &retry.disposition, now);
                }
                for lookup in advanced.lookups.iter().filter(|l| !l.present) {
                    self.job_is_gone(lookup.segment, lookup.attempt, now);
                }
                let asked_whole_rest = self.asked_whole_rest;
                self.take_page(advanced.page, asked_whole_rest, now);
            }
            Err(error) if error.retryable => {
                let delay = self.ask_again.next_delay(Duration::ZERO).unwrap_or(DEFAULT_RETRY_AFTER);
                self.ask_not_before = now + delay.max(retry_after(&error).unwrap_or_default());
            }
            Err(error) => {
                self.fail(error, now);
                return;
            }
        }
        self.pump(now);
    }

    /// The answer to a finish, or why there is none.
    pub fn on_finished(&mut self, answer: Result<Finished, ServiceError>) {
        if !matches!(self.phase, Phase::Finishing { .. }) {
            return;
        }
        match answer {
            Ok(finished) => self.end(finished.result),
            Err(error) => self.finish_unanswered(&error.message),
        }
    }

    /// Ends with the result as it was before hooks saw it, and says so in it.
    pub(super) fn finish_unanswered(&mut self, why: &str) {
        let Phase::Finishing { result, .. } = std::mem::replace(&mut self.phase, Phase::Ended) else {
            return;
        };
        let mut result = *result;
        let metadata = result.metadata.get_or_insert_with(ResultMetadata::default);
        metadata.warnings.push(Warning {
            reason: "after_synthesis".into(),
            message: format!("the result is as it was before afterSynthesis: {why}"),
            segment: None,
        });
        self.end(result);
    }

    fn take_page(&mut self, page: PlanPage, asked_whole_rest: bool, now: Instant) {
        for warning in page.warnings {
            self.tally.warn(warning);
        }
        let (before, planned_bytes) = (self.next_segment, self.rest.planned_bytes());
        for planned in page.segments {
            if planned.index != self.next_segment {
                continue;
            }
            if let Disposition::Refused { error } = &planned.disposition {
                self.plan_not_before = now + retry_after(error).unwrap_or(DEFAULT_RETRY_AFTER);
                break;
            }
            self.take_segment(planned, planned_bytes, now);
        }
        if !self.rest.plan(page.consumed_bytes) {
            let message =
                "a manager planned text that it was not given; are its version and this one the same?";
            self.fail(ServiceError::new(Reason::Malformed, message), now);
            return;
        }
        self.plan_complete |= page.complete && asked_whole_rest;
        let nothing_new = self.next_segment == before && page.consumed_bytes == 0 && !self.plan_complete;
        let stuck = self.asked_for_more && nothing_new;
        let is_same_text = self.asked_revision == self.text_revision;
        if stuck && self.rest.is_open() {
            self.waits_for_text = is_same_text;
        } else if stuck && is_same_text {
            self.plan_not_before = self.plan_not_before.max(now + DEFAULT_RETRY_AFTER);
        }
    }

    fn take_segment(&mut self, planned: PlannedSegment, page_starts_bytes: usize, now: Instant) {
        let fresh = || Segment::queued(now, self.config.lookup_interval, &self.config.retry);
        let segment = self.segments.entry(planned.index).or_insert_with(fresh);
        segment.text = Some(planned.text);
        segment.pause_after_ms = planned.pause_after_ms;
        segment.manner = planned.manner;
        segment.end_bytes = page_starts_bytes + planned.end_bytes;
        segment.class = planned.class;
        self.next_segment = planned.index + 1;
        self.take_disposition(planned.index, &planned.disposition, now);
    }

    fn take_disposition(&mut self, index: u32, disposition: &Disposition, now: Instant) {
        let interval = self.config.lookup_interval;
        let Some(segment) = self.segments.get_mut(&index) else { return };
        match disposition {
            Disposition::Queued { attempt, seq } if *attempt == segment.attempt => {
                segment.seq = Some(*seq);
                if let State::Retry { .. } = segment.state {
                    segment.is_queued(now, interval);
                }
            }
            Disposition::Refused { error } => {
                if let State::Retry { at, .. } = &mut segment.state {
                    *at = now + retry_after(error).unwrap_or(DEFAULT_RETRY_AFTER);
                }
            }
            // An answer about an attempt that is not the current one any more.
            Disposition::Queued { .. } => {}
            Disposition::Stored { .. } | Disposition::Awaited { .. } => self.fetch(index, disposition, now),
        }
    }

    fn job_is_gone(&mut self, index: u32, attempt: u32, now: Instant) {
        let Some(segment) = self.segments.get(&index) else { return };
        if segment.attempt == attempt && matches!(segment.state, State::Queued { .. }) {
            tracing::debug!(session = %self.id, segment = index, attempt, "job is gone from the queue; asking again");
            self.retry_uncounted(index, Cause::Nobody, Duration::ZERO, now);
        }
    }
}

/// Whether nobody answered, as opposed to a manager that said no.
fn is_unanswered(error: &ServiceError) -> bool {
    matches!(error.reason(), Some(Reason::NoManager | Reason::NoBroker))
}

pub(super) fn retry_after(error: &ServiceError) -> Option<Duration> {
    let ms = error.details.as_ref()?.get("retryAfterMs")?.as_u64()?;
    Some(Duration::from_millis(ms.min(60_000)))
}
