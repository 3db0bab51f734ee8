//! The arbiter: a pure state machine that decides which run of a segment counts (DESIGN.md, "the session is the arbiter").
//!
//! Time and messages go in through the `on_…` methods; what is to be done comes out of [`Session::take_actions`]; the next
//! moment at which [`Session::on_tick`] wants to be called is [`Session::timer`]. Nothing here waits, sends or knows of
//! NATS, so every order of events can be tried in a test.
//!
//! A segment is heard whole or not at all: its audio leaves only after it was complete and checked, and in order.
//!
//! Files: [`segment`](self) keeps one segment's state, `pieces` a run's audio, `question` builds what is asked of
//! managers, `answer` takes their answers, `coming` takes text that comes in pieces, `fetch` has stored takes fetched,
//! `pace` decides how far ahead is asked, `sound` joins segments, `verdict` judges runs, `tally` notes figures for the result.

mod answer;
mod coming;
mod fetch;
mod pace;
mod pieces;
mod question;
mod segment;
mod sound;
mod tally;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_protocol::breaker::DeadLetter;
use chorus_protocol::plan::{Advance, Cancel, Finish, Open, Speech};
use chorus_protocol::{
    MessageId, ModelName, Reason, ServiceError, SessionId, SynthesisRequest, SynthesisResult, names,
};
use chorus_runtime::retry::Retries;

use crate::config::SessionHostConfig;
use crate::speaking::{AudioPiece, Resume};
pub use fetch::Fetch;
use pace::Pace;
use question::Rest;
use segment::{Segment, State};
use tally::Tally;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask a manager to open; the session's id may be a new one.
    Open(Box<Open>),
    /// Ask a manager.
    Advance(Box<Advance>),
    /// Let hooks see the result.
    Finish(Box<Finish>),
    /// Tell all managers that these jobs are not wanted any more.
    Cancel(Cancel),
    /// Tell the listener that the request was taken, and its text where a hook changed it.
    Accepted(ModelName, Option<String>),
    /// Keep a segment that failed wherever it was tried, for people to look at. The wall clock is not known here: `at_ms` is
    /// for who carries it out.
    Bury(Box<DeadLetter>),
    /// Get the take of a segment out of the cache.
    Fetch(Fetch),
    /// Give the listener audio.
    Audio(AudioPiece),
    /// Tell the listener that it is over. Nothing follows.
    End(Box<SynthesisResult>),
}

/// What is asked of a session, and where it listens.
#[derive(Debug, Clone)]
pub struct SessionStart {
    /// The inbox of the process; the session's own lies below it.
    pub process_inbox: String,
    /// What the client calls the request.
    pub request_id: MessageId,
    /// What is asked for; validated by the caller.
    pub request: SynthesisRequest,
    /// Whether the deadline covers the whole reply.
    pub whole_reply_deadline: bool,
    /// Whether more text will come ([`Session::on_text`]) than the request has.
    pub more_to_come: bool,
}

/// What a manager granted.
#[derive(Debug, Clone)]
struct Terms {
    speech: Speech,
    attempt_timeout: Duration,
    finish: bool,
}

#[derive(Debug)]
enum Phase {
    /// No manager has answered; asked again at the given time.
    Opening { ask_at: Option<Instant> },
    /// Segments are being spoken.
    Speaking(Box<Terms>),
    /// Hooks see the result until then.
    Finishing { result: Box<SynthesisResult>, until: Instant },
    /// Over.
    Ended,
}

/// One opening of a request.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    process_inbox: String,
    request_id: MessageId,
    request: SynthesisRequest,
    whole_reply_deadline: bool,
    config: SessionHostConfig,
    opened_at: Instant,
    deadline: Instant,
    phase: Phase,
    rest: Rest,
    segments: BTreeMap<u32, Segment>,
    /// The index of its first segment.
    first_segment: u32,
    /// The index that the next planned segment gets.
    next_segment: u32,
    /// The index that the listener hears next.
    next_release: u32,
    plan_complete: bool,
    plan_not_before: Instant,
    /// Nothing more can be planned of the text that is there: a sentence may go on.
    waits_for_text: bool,
    /// How often the text has changed, and how often it had when a manager was last given some.
    text_revision: u64,
    asked_revision: u64,
    /// From when, and for how long, first audio is waited for.
    words_at: Instant,
    first_audio_within: Duration,
    /// What the listener has in hand.
    pace: Pace,
    /// Silence owed before the next audio, in milliseconds.
    pending_pause_ms: u32,
    /// Rate of what workers send, which all segments share; 0 before the first.
    engine_rate: u32,
    /// A question is with a manager, and whether it carried all the text that is left.
    asking: bool,
    asked_whole_rest: bool,
    /// Whether it asked for further segments at all.
    asked_for_more: bool,
    ask_not_before: Instant,
    ask_again: Retries,
    ready_workers: u32,
    any_started: bool,
    moved_at: Instant,
    tally: Tally,
    unspeakable: Option<ServiceError>,
    actions: Vec<Action>,
}

impl Session {
    /// Begins: the first action is to open.
    pub fn start(start: SessionStart, config: SessionHostConfig, now: Instant) -> Self {
        Self::resume(start, Resume::default(), config, now)
    }

    /// Begins where an earlier session ended.
    pub fn resume(start: SessionStart, from: Resume, config: SessionHostConfig, now: Instant) -> Self {
        let mut request = start.request;
        let text = std::mem::take(&mut request.text);
        let rest = match (request.is_ssml(), start.more_to_come) {
            (true, _) => Rest::document(text, from.planned_bytes),
            (false, true) => Rest::coming(text),
            (false, false) => Rest::new(text),
        };
        let engine_rate = if request.sample_rate.is_none() { from.sample_rate } else { 0 };
        let first_audio_within = Duration::from_millis(request.deadline_or_default_ms());
        let pace = Pace::new(config.window);
        let mut session = Self {
            id: SessionId::new(),
            process_inbox: start.process_inbox,
            request_id: start.request_id,
            request,
            whole_reply_deadline: start.whole_reply_deadline,
            ask_again: config.ask_again.start(),
            config,
            opened_at: now,
            deadline: now + first_audio_within,
            phase: Phase::Opening { ask_at: None },
            rest,
            segments: BTreeMap::new(),
            first_segment: from.first_segment,
            next_segment: from.first_segment,
            next_release: from.first_segment,
            plan_complete: false,
            plan_not_before: now,
            waits_for_text: false,
            text_revision: 0,
            asked_revision: 0,
            words_at: now,
            first_audio_within,
            pace,
            pending_pause_ms: from.pause_ms,
            engine_rate,
            asking: false,
            asked_whole_rest: false,
            asked_for_more: false,
            ask_not_before: now,
            ready_workers: 0,
            any_started: false,
            moved_at: now,
            tally: Tally::resumed(from.samples, from.sample_rate),
            unspeakable: None,
            actions: Vec::new(),
        };
        let open = session.open_question();
        session.actions.push(Action::Open(Box::new(open)));
        session
    }

    /// Its id: a new one after every opening that went unanswered.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// What is to be done, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn inbox(&self) -> String {
        names::session_inbox(&self.process_inbox, self.id)
    }

    /// The listener took audio of that many segments.
    pub fn on_taken(&mut self, segments: u32, now: Instant) {
        self.pace.took(segments, now);
        if self.pace.is_empty() {
            self.moved_at = self.moved_at.max(now);
        }
        self.pump(now);
    }

    /// The listener gives up.
    pub fn on_cancel(&mut self, now: Instant) {
        self.fail(ServiceError::new(Reason::Cancelled, "the request was cancelled"), now);
    }

    /// When [`Session::on_tick`] is wanted if nothing happens before. Every state has one.
    pub fn timer(&self) -> Option<Instant> {
        let terms = match &self.phase {
            Phase::Ended => return None,
            Phase::Finishing { until, .. } => return Some(*until),
            Phase::Opening { ask_at } => {
                return Some(ask_at.map_or(self.deadline, |at| at.min(self.deadline)));
            }
            Phase::Speaking(terms) => terms,
        };
        let mut next = self.patience_ends();
        for segment in self.segments.values() {
            if let Some(at) = segment.timer(terms.attempt_timeout) {
                let is_question = !matches!(segment.state, State::Running(_) | State::Fetching { .. });
                if is_question && self.asking {
                    continue;
                }
                next = next.min(if is_question { at.max(self.ask_not_before) } else { at });
            }
        }
        if !self.asking
            && let Some(at) = self.next_hurries_at()
        {
            next = next.min(at.max(self.ask_not_before));
        }
        if !self.asking && !self.plan_complete {
            let paused_until = self.plan_not_before.max(self.ask_not_before);
            if paused_until > self.moved_at {
                next = next.min(paused_until);
            }
        }
        Some(next)
    }

    /// When the request fails if nothing moves: at its deadline before first audio, after the stall time-out later.
    fn patience_ends(&self) -> Instant {
        if self.idle() {
            self.moved_at + self.config.text_timeout
        } else if self.whole_reply_deadline || self.tally.first_audio.is_none() {
            self.deadline
        } else if self.pace.is_empty() {
            self.moved_at + self.config.stall_timeout
        } else {
            // The listener has audio in hand: nobody waits. Looked at again in a while.
            self.moved_at.max(self.opened_at) + self.config.stall_timeout * 120
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Instant) {
        match &self.phase {
            Phase::Ended => {}
            Phase::Finishing { until, .. } if now >= *until => {
                self.finish_unanswered("afterSynthesis took too long")
            }
            Phase::Opening { ask_at } => {
                let due = ask_at.is_some_and(|at| now >= at);
                if now >= self.deadline {
                    self.fail(self.late(), now);
                } else if due {
                    self.reopen();
                }
            }
            Phase::Speaking(terms) => {
                let attempt_timeout = terms.attempt_timeout;
                if now >= self.patience_ends() {
                    self.fail(self.late(), now);
                    return;
                }
                self.give_up_silent_runs(attempt_timeout, now);
                self.give_up_fetches(now);
                self.hedge_unclaimed(now);
                self.hurry_the_next(now);
                self.pump(now);
            }
            Phase::Finishing { .. } => {}
        }
    }

    /// When the segment that is heard next has waited in the queue for too long, for a listener who plays what it gets.
    fn next_hurries_at(&self) -> Option<Instant> {
        let Phase::Speaking(terms) = &self.phase else { return None };
        let next = self.segments.get(&self.next_release).filter(|_| self.is_played(terms))?;
        if next.may_hurry() { self.pace.runs_dry_at() } else { None }
    }

    fn hurry_the_next(&mut self, now: Instant) {
        if self.next_hurries_at().is_some_and(|at| at <= now)
            && let Some(segment) = self.segments.get_mut(&self.next_release)
        {
            segment.hurry(now);
        }
    }

    /// The error of a request whose time is up.
    fn late(&self) -> ServiceError {
        let waited = self.request.deadline_or_default_ms();
        if self.idle() {
            let ms = self.config.text_timeout.as_millis() as u64;
            return ServiceError::new(
                Reason::Stalled,
                format!("no more text came for {ms} ms, and no end of it"),
            );
        }
        if self.tally.first_audio.is_some() && !self.whole_reply_deadline {
            let ms = self.config.stall_timeout.as_millis() as u64;
            ServiceError::new(Reason::Stalled, format!("nothing moved for {ms} ms while the listener waited"))
        } else if !self.any_started && self.ready_workers == 0 {
            ServiceError::new(Reason::NoWorker, format!("no worker could speak it within {waited} ms"))
                .retry_after_ms(1_000)
        } else {
            ServiceError::new(Reason::FirstAudio, format!("the audio did not come within {waited} ms"))
        }
    }

    /// A new opening under a new id: what the old one may have queued is stopped when it starts.
    fn reopen(&mut self) {
        self.id = SessionId::new();
        self.segments.clear();
        self.rest.restart();
        self.phase = Phase::Opening { ask_at: None };
        let open = self.open_question();
        self.actions.push(Action::Open(Box::new(open)));
    }

    /// After every event: releases what is ready, ends what is complete, asks what is due.
    fn pump(&mut self, now: Instant) {
        let Phase::Speaking(terms) = &self.phase else { return };
        let terms = terms.clone();
        self.release(now);
        if self.is_ended() {
            return;
        }
        if self.plan_complete && self.next_release == self.next_segment {
            self.complete(&terms, now);
        } else if !self.asking
            && now >= self.ask_not_before
            && let Some(advance) = self.advance_question(&terms, now)
        {
            self.asking = true;
            self.actions.push(Action::Advance(Box::new(advance)));
        }
    }

    fn release(&mut self, now: Instant) {
        // A worker may be done before the manager's answer tells what comes after the segment.
        while self.next_release < self.next_segment
            && let Some(segment) = self.segments.get_mut(&self.next_release)
        {
            let State::Spoken { run, .. } = &segment.state else { return };
            let (run, pause_ms, end_bytes) = (*run, segment.pause_after_ms, segment.end_bytes);
            let before_ms = segment.manner.as_ref().and_then(|m| m.pause_before_ms);
            let spoken = std::mem::replace(&mut segment.state, State::Released { run });
            let State::Spoken { audio, sample_rate, .. } = spoken else { return };
            if !audio.is_empty() {
                let pcm = match self.heard(audio, sample_rate, before_ms, now) {
                    Ok(pcm) => pcm,
                    Err(error) => return self.fail(error, now),
                };
                self.actions.push(Action::Audio(AudioPiece {
                    pcm,
                    sample_rate: self.tally.sample_rate,
                    segment: self.next_release,
                    pause_after_ms: pause_ms,
                    consumed_bytes: end_bytes,
                }));
            }
            self.pending_pause_ms = self.pending_pause_ms.max(pause_ms);
            self.next_release += 1;
        }
    }

    /// The audio as the listener gets it, with the silence owed before it; counted as given. `before_ms` is silence that the
    /// text itself wants, even before the first segment.
    fn heard(
        &mut self,
        audio: Bytes,
        sample_rate: u32,
        before_ms: Option<u32>,
        now: Instant,
    ) -> Result<Bytes, ServiceError> {
        let owed_ms = if self.tally.samples == 0 { 0 } else { self.pending_pause_ms };
        self.pending_pause_ms = 0;
        let to_rate = self.request.sample_rate.unwrap_or(sample_rate);
        let pcm = sound::heard(audio, sample_rate, to_rate, owed_ms.max(before_ms.unwrap_or(0)))?;
        self.tally.samples += pcm.len() as u64 / 2;
        self.tally.sample_rate = to_rate;
        self.tally.first_audio.get_or_insert(now);
        self.moved_at = now;
        self.pace.gave(sound::duration(&pcm, to_rate), now);
        Ok(pcm)
    }

    fn complete(&mut self, terms: &Terms, now: Instant) {
        if self.tally.samples == 0 {
            let nothing = || {
                ServiceError::field(
                    Reason::Unspeakable,
                    "text",
                    "the text holds nothing that this voice can say",
                )
            };
            let error = self.unspeakable.take().unwrap_or_else(nothing);
            self.fail(error, now);
            return;
        }
        let model = terms.speech.model.as_str();
        let result = self.tally.success(&self.request_id, model, self.opened_at, now, self.next_segment);
        if terms.finish {
            let finish = Finish { session: self.id, result: result.clone() };
            self.phase =
                Phase::Finishing { result: Box::new(result), until: now + self.config.finish_timeout };
            self.actions.push(Action::Finish(Box::new(finish)));
        } else {
            self.end(result);
        }
    }

    fn end(&mut self, result: SynthesisResult) {
        self.phase = Phase::Ended;
        self.actions.push(Action::End(Box::new(result)));
    }

    /// Ends with an error, and gives back what is still in the queue or being spoken.
    fn fail(&mut self, error: ServiceError, now: Instant) {
        if self.is_ended() {
            return;
        }
        let mut cancel = Cancel { session: self.id, seqs: Vec::new(), workers: Vec::new() };
        for segment in self.segments.values() {
            match &segment.state {
                State::Running(run) => cancel.workers.push(run.worker.clone()),
                State::Queued { .. } | State::Retry { .. } | State::Fetching { .. } => {}
                State::Spoken { .. } | State::Released { .. } => continue,
            }
            cancel.seqs.extend(segment.seq);
        }
        let some = !cancel.seqs.is_empty() || !cancel.workers.is_empty() || self.asking;
        if some && self.config.gives_back {
            self.actions.push(Action::Cancel(cancel));
        }
        let latency_ms = (now - self.opened_at).as_secs_f64() * 1e3;
        self.end(SynthesisResult::failed(self.request_id.clone(), latency_ms, error));
    }
}
