//! Judging runs: `started`, chunks, `result`, and the silence or death of a worker.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_protocol::breaker::DeadLetter;
use chorus_protocol::job::{
    Failed, OutcomeKind, ResultAnswer, RunChunk, RunFault, RunOutcome, RunRef, RunResult, Spoken, Started,
    StartedAnswer, StopReason,
};
use chorus_protocol::{Incarnation, Reason, RunId, ServiceError, Warning, WorkerId};

use super::pieces::Checked;
use super::segment::{Cause, Segment, State, is_unspeakable};
use super::{Action, Phase, Session, answer::retry_after};

/// How often a run may be asked to send missing chunks again before it is tried elsewhere.
const MAX_RESENDS: u32 = 3;

impl Session {
    /// A worker has begun: go, or stop?
    pub fn on_started(&mut self, started: &Started, now: Instant) -> StartedAnswer {
        let stop = |reason| StartedAnswer::Stop { reason };
        if started.run.session != self.id || matches!(self.phase, Phase::Ended | Phase::Finishing { .. }) {
            return stop(StopReason::Unknown);
        }
        let index = started.run.segment;
        if index >= self.next_segment {
            // The worker was faster than the manager's answer. Believed only as far as something was asked for.
            let asked = self.asking || matches!(self.phase, Phase::Opening { .. });
            if !asked || index - self.next_segment >= self.config.window {
                return stop(StopReason::Unknown);
            }
            let fresh = || Segment::queued(now, self.config.lookup_interval, &self.config.retry);
            self.segments.entry(index).or_insert_with(fresh);
        }
        let Some(segment) = self.segments.get_mut(&index) else { return stop(StopReason::Unknown) };
        let is_new = segment.running(started.run.attempt, started.run.run).is_none();
        let answer = segment.judge(started, now);
        if is_new && answer == StartedAnswer::Go {
            self.any_started = true;
            self.moved_at = now;
        }
        answer
    }

    /// A piece of audio. Those of runs that do not count are dropped; false for them.
    pub fn on_chunk(&mut self, chunk: RunChunk, now: Instant) -> bool {
        let max_bytes = self.config.max_segment_bytes;
        let Some(run) = self.running(&chunk.run) else { return false };
        run.pieces.put(chunk.seq, chunk.data.0, max_bytes);
        run.moved_at = now;
        self.moved_at = now;
        true
    }

    /// A worker has finished: does it count?
    pub fn on_result(&mut self, result: RunResult, now: Instant) -> ResultAnswer {
        let accepted_before = self.segments.get(&result.run.segment).is_some_and(|s| match &s.state {
            State::Spoken { run: Some(run), .. } | State::Released { run: Some(run) } => {
                *run == result.run.run
            }
            _ => false,
        });
        if accepted_before && result.run.session == self.id {
            return ResultAnswer::Accepted;
        }
        if self.running(&result.run).is_none() || matches!(self.phase, Phase::Ended) {
            return self.stale(&result.run);
        }
        self.moved_at = now;
        let answer = match result.outcome {
            RunOutcome::Spoken(spoken) => self.take_spoken(&result.run, &spoken, now),
            RunOutcome::Failed(failed) => {
                self.take_failure(&result.run, failed, now);
                ResultAnswer::Accepted
            }
        };
        self.pump(now);
        answer
    }

    /// A manager says that an incarnation of a worker is lost: its runs here are tried elsewhere at once.
    pub fn on_worker_lost(&mut self, worker: &WorkerId, incarnation: Incarnation, now: Instant) {
        let lost = |s: &Segment| matches!(&s.state, State::Running(r) if r.worker == *worker && r.incarnation == incarnation);
        let indices: Vec<u32> = self.segments.iter().filter(|(_, s)| lost(s)).map(|(&i, _)| i).collect();
        let hedges = self.config.max_hedges;
        for index in &indices {
            if let Some(segment) = self.segments.get_mut(index) {
                segment.lost(hedges);
            }
            self.retry_uncounted(*index, Cause::Loss, Duration::ZERO, now);
        }
        if !indices.is_empty() {
            self.pump(now);
        }
    }

    /// Retries after a loss that nobody begins are queued anew.
    pub(super) fn hedge_unclaimed(&mut self, now: Instant) {
        let unclaimed = self.segments.iter_mut().filter_map(|(&i, s)| s.hedge(now).then_some(i));
        for index in unclaimed.collect::<Vec<u32>>() {
            self.retry_uncounted(index, Cause::Nobody, Duration::ZERO, now);
        }
    }

    /// Runs that have said nothing for the attempt's time-out are tried again, and count as failures.
    pub(super) fn give_up_silent_runs(&mut self, attempt_timeout: Duration, now: Instant) {
        let silent =
            |s: &Segment| matches!(&s.state, State::Running(r) if now >= r.moved_at + attempt_timeout);
        let indices: Vec<u32> = self.segments.iter().filter(|(_, s)| silent(s)).map(|(&i, _)| i).collect();
        for index in indices {
            let ms = attempt_timeout.as_millis();
            let message = format!("the worker made no progress for {ms} ms");
            self.note_fault(index, RunFault::Silent);
            self.retry_counted(index, found(Reason::AttemptTimeout, message), now);
        }
    }

    /// The answer to a run that does not count; the same whenever it asks.
    fn stale(&self, run: &RunRef) -> ResultAnswer {
        let segment = self.segments.get(&run.segment).filter(|_| run.session == self.id);
        ResultAnswer::Stale { fault: segment.and_then(|segment| segment.fault_of(run.run)) }
    }

    fn note_fault(&mut self, index: u32, fault: RunFault) {
        if let Some(segment) = self.segments.get_mut(&index) {
            segment.note_fault(fault);
        }
    }

    fn running(&mut self, run: &RunRef) -> Option<&mut super::segment::Run> {
        if run.session != self.id {
            return None;
        }
        self.segments.get_mut(&run.segment)?.running(run.attempt, run.run)
    }

    fn take_spoken(&mut self, run: &RunRef, spoken: &Spoken, now: Instant) -> ResultAnswer {
        let (max_bytes, strict) = (self.config.max_segment_bytes, self.config.check_audio);
        let Some(current) = self.running(run) else { return self.stale(run) };
        current.moved_at = now;
        let worker = current.worker.clone();
        match current.pieces.check(spoken, max_bytes, strict) {
            Checked::Missing(from) if current.resends < MAX_RESENDS => {
                current.resends += 1;
                ResultAnswer::Resend { from }
            }
            // The words are not to blame for what is lost on the way.
            Checked::Missing(_) => {
                self.note_fault(run.segment, RunFault::Incomplete);
                self.retry_uncounted(run.segment, Cause::Loss, Duration::ZERO, now);
                self.stale(run)
            }
            Checked::Corrupt(why) => self.take_corrupt(run, why.to_owned(), now),
            Checked::Whole(_) if !self.rate_fits(spoken.sample_rate) => {
                let why =
                    format!("{} Hz, but the request began at {} Hz", spoken.sample_rate, self.engine_rate);
                self.take_corrupt(run, why, now)
            }
            Checked::Whole(audio) => {
                self.take_audio(run, spoken, audio, &worker);
                ResultAnswer::Accepted
            }
        }
    }

    fn take_corrupt(&mut self, run: &RunRef, why: String, now: Instant) -> ResultAnswer {
        self.note_fault(run.segment, RunFault::Corrupt);
        self.retry_counted(run.segment, found(Reason::BadAudio, why), now);
        self.stale(run)
    }

    /// All segments of a request share one rate: the listener gets one stream.
    pub(super) fn rate_fits(&mut self, sample_rate: u32) -> bool {
        if self.engine_rate == 0 {
            self.engine_rate = sample_rate;
        }
        self.engine_rate == sample_rate
    }

    fn take_audio(&mut self, run: &RunRef, spoken: &Spoken, audio: Bytes, worker: &WorkerId) {
        self.tally.engine_ms += spoken.engine_ms;
        self.tally.worker(worker);
        for warning in &spoken.warnings {
            self.tally.warn(Warning { segment: Some(run.segment), ..warning.clone() });
        }
        self.settle(run.segment, run.run, audio, spoken.sample_rate);
    }

    fn settle(&mut self, index: u32, run: RunId, audio: Bytes, sample_rate: u32) {
        if let Some(segment) = self.segments.get_mut(&index) {
            segment.state = State::Spoken { run: Some(run), audio, sample_rate };
            segment.text = None;
        }
    }

    fn take_failure(&mut self, run: &RunRef, failed: Failed, now: Instant) {
        let error = &failed.error;
        match OutcomeKind::of(error) {
            OutcomeKind::ClientFault if is_unspeakable(error) => {
                self.tally.warn(Warning {
                    reason: Reason::Unspeakable.as_str().into(),
                    message: error.message.clone(),
                    segment: Some(run.segment),
                });
                self.unspeakable.get_or_insert(failed.error);
                self.settle(run.segment, run.run, Bytes::new(), 0);
            }
            OutcomeKind::ClientFault if error.reason() != Some(Reason::Cancelled) => {
                self.fail(failed.error, now)
            }
            OutcomeKind::BackPressure => {
                let after = retry_after(error).unwrap_or(Duration::from_millis(250));
                self.retry_uncounted(run.segment, Cause::Nobody, after, now);
            }
            // A worker that cancels on its own account is draining or confused, and one that leaves before it has spoken is
            // lost: not this segment's fault.
            OutcomeKind::ClientFault | OutcomeKind::Success => {
                self.retry_uncounted(run.segment, Cause::Loss, Duration::ZERO, now)
            }
            OutcomeKind::WorkerFault if error.reason() == Some(Reason::WorkerLost) => {
                self.retry_uncounted(run.segment, Cause::Loss, Duration::ZERO, now)
            }
            OutcomeKind::WorkerFault => self.retry_counted(run.segment, failed, now),
        }
    }

    /// Tries a segment again without holding it against anybody.
    pub(super) fn retry_uncounted(&mut self, index: u32, cause: Cause, at_least: Duration, now: Instant) {
        let Some(segment) = self.segments.get_mut(&index) else { return };
        self.tally.retries += 1;
        if segment.schedule_retry(now, cause, at_least).is_none() {
            let attempts = segment.attempt;
            let message = format!(
                "segment {index} was lost {attempts} times; the fleet is not able to keep a worker alive"
            );
            self.fail(ServiceError::new(Reason::WorkerLost, message), now);
        }
    }

    /// Tries a segment again after a worker's fault; ends the request when it is poison or has failed too often.
    fn retry_counted(&mut self, index: u32, failed: Failed, now: Instant) {
        let enough = self.config.poison_failures;
        let Some(segment) = self.segments.get_mut(&index) else { return };
        segment.count_failure(&failed);
        let (error, failures, poisoned) = (failed.error, segment.failures, segment.poisoned(enough));
        if !poisoned.is_empty() {
            let message =
                format!("segment {index} failed {failures} times on several workers; last: {error}");
            let workers: Vec<String> = poisoned.iter().map(ToString::to_string).collect();
            self.bury(index);
            self.fail(ServiceError::new(Reason::Poison, message).with("workers", workers), now);
            return;
        }
        let too_often = self.config.retry.max_attempts.is_some_and(|most| failures >= most);
        if too_often || segment.schedule_retry(now, Cause::Failure, Duration::ZERO).is_none() {
            self.fail(error.with("failures", failures), now);
        } else {
            self.tally.retries += 1;
        }
    }

    /// Sends a segment with its whole history to the dead letters.
    fn bury(&mut self, index: u32) {
        let Phase::Speaking(terms) = &self.phase else { return };
        let Some(segment) = self.segments.get_mut(&index) else { return };
        let letter = DeadLetter {
            request_id: self.request_id.clone(),
            session: self.id,
            segment: index,
            text: segment.text.clone().unwrap_or_default(),
            speech: terms.speech.with(segment.manner.as_ref()),
            at_ms: 0,
            history: std::mem::take(&mut segment.history),
        };
        self.actions.push(Action::Bury(Box::new(letter)));
    }
}

/// A failure that this side has found.
fn found(reason: Reason, why: impl Into<String>) -> Failed {
    Failed { error: ServiceError::new(reason, why), stderr: Vec::new() }
}
