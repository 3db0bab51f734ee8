//! One run of a job, as a pure state machine: what the session said, what the engine made, what is to be done.
//!
//! The session is the arbiter. A job that came fresh, through a standing pull and for the first time, is spoken while
//! `started` is still being asked; any other is spoken only after `go`. Pieces of audio go to the session as the engine
//! makes them, within a window that the session's grants extend, and stay here until the session has judged the
//! `result`. Only then does the delivery end:
//! - `accepted`: acknowledged. `stale`, or `stop` to `started`: terminated, for another run counts, or none. With `stale`
//!   the session may name a fault that it found; that is then the run's outcome.
//! - no answer to `started`: handed back for a moment ([`Limits::retry_after`]), and terminated only after
//!   [`Limits::max_deliveries`]: a session that reconnects must not lose its work.
//! - after `go`, no answer to `result` (or to a grant) for [`Limits::patience`]: terminated. Not acknowledged,
//!   for nobody accepted it; not handed back either, because a second run would speak to the same silence. A session that
//!   does live misses the result, sees it in its own timer, and asks for a new attempt.
//!
//! A run ends for its worker when the delivery is over *and* the engine is free of it. Its credit, which is room in the
//! engine, goes back as soon as the engine has spoken: the session's verdict takes a way over the broker and back, and no
//! lane stands idle meanwhile. A cancelled engine request holds its credit until the engine answers, so that no job waits
//! behind one that nobody wants; an engine that does not answer in [`Limits::cancel_within`] hangs and is restarted.

mod audio;
pub mod limits;
pub mod task;
pub(crate) mod turns;
mod window;

use std::time::Instant;

use bytes::Bytes;
use chorus_protocol::job::{ChunkGrant, Failed, ResultAnswer, RunOutcome, StartedAnswer};
use chorus_protocol::pipe::SpokenAnswer;
use chorus_protocol::{Reason, ServiceError};

use audio::Audio;
pub use limits::Limits;
use window::Window;

/// A question to the session that got no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

/// What happens to a run.
#[derive(Debug, Clone)]
pub enum Event {
    /// `started` was answered, or not.
    Started(Result<StartedAnswer, Unanswered>),
    /// The chunk `seq`, sent as a request, was answered, or not.
    Granted {
        /// The chunk's place.
        seq: u32,
        /// The answer.
        answer: Result<ChunkGrant, Unanswered>,
    },
    /// `result` was answered, or not.
    Judged(Result<ResultAnswer, Unanswered>),
    /// The engine made a piece.
    Piece {
        /// Its place, as the engine counts.
        seq: u32,
        /// s16le mono samples.
        data: Bytes,
    },
    /// The engine has moved on.
    Progress,
    /// The engine has spoken to the end.
    Spoken {
        /// The last piece, and what the whole is.
        answer: Box<SpokenAnswer>,
        /// What an inspection of the audio found wrong.
        ill: Option<ServiceError>,
        /// The samples as they were asked for, where the engine could not do all of it.
        changed: Option<Bytes>,
    },
    /// The engine's request ended without audio.
    EngineFailed(Box<Failed>),
    /// The session is given up.
    Stop,
    /// The worker leaves now.
    HandBack,
    /// Time has passed; see [`Run::deadline`].
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask `started`.
    AskStarted {
        /// Whether inference begins at the same time.
        overlapped: bool,
    },
    /// Send the text to the engine.
    Speak,
    /// Cancel the engine's request.
    CancelEngine,
    /// Send a piece.
    SendChunk {
        /// Its place.
        seq: u32,
        /// As a request whose reply widens the window.
        ask: bool,
    },
    /// Ask `result`, with [`Run::outcome`].
    AskResult,
    /// End the delivery.
    End(Ending),
    /// The engine hangs.
    RestartEngine,
}

/// How a delivery ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It counts.
    Ack,
    /// It does not, and shall not come again.
    Terminate,
    /// It was not begun; somebody shall have it, after this delay.
    Nak(std::time::Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    /// `started` is asked.
    AskedStarted { until: Instant },
    /// It said go; nothing is asked.
    Go,
    /// `result` is asked; first asked at `first`.
    AskedResult { first: Instant, at: Instant },
    /// `result` was not answered and is asked again at `at`.
    ResultDue { first: Instant, at: Instant },
    /// The delivery has ended.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// Not asked yet.
    Idle,
    /// Works; last heard of at `heard`.
    Busy { heard: Instant },
    /// Told to stop; must answer by `until`.
    Cancelled { until: Instant },
    /// Has ended the request.
    Free,
}

/// See the module.
#[derive(Debug)]
pub struct Run {
    limits: Limits,
    deliveries: u64,
    session: Session,
    engine: Engine,
    audio: Audio,
    window: Window,
    outcome: Option<RunOutcome>,
    /// The session found a fault in what was sent.
    faulted: bool,
    resends: u32,
    went_at: Option<Instant>,
    /// When the session last heard of this run.
    told_at: Instant,
    /// Pieces wait until the whole is known: it will be changed.
    whole: bool,
}

impl Run {
    /// A run of a job that was just pulled, and what to do first. `fresh`: it came through a standing pull.
    pub fn start(limits: Limits, fresh: bool, deliveries: u64, now: Instant) -> (Self, Vec<Action>) {
        let overlapped = fresh && deliveries == 1;
        let mut run = Self {
            session: Session::AskedStarted { until: now + limits.answer_within * 2 },
            engine: Engine::Idle,
            audio: Audio::new(limits.max_audio_bytes, limits.check_audio),
            window: Window::new(limits.answer_within),
            outcome: None,
            faulted: false,
            resends: 0,
            went_at: None,
            told_at: now,
            whole: false,
            deliveries,
            limits,
        };
        let mut actions = vec![Action::AskStarted { overlapped }];
        if overlapped {
            run.speak(now, &mut actions);
        }
        (run, actions)
    }

    /// Nothing is sent before the engine has spoken to the end: the audio will be changed then.
    pub fn keep_whole(&mut self) {
        self.whole = true;
    }

    /// What an event asks for. An event that comes too late, or twice, asks for nothing.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Started(answer) => self.started(answer, now, &mut actions),
            Event::Granted { seq, answer } => self.window.answered(seq, answer.ok(), now),
            Event::Judged(answer) => self.judged(answer, now, &mut actions),
            Event::Piece { seq, data } => self.piece(seq, data, now, &mut actions),
            Event::Progress => self.progress(now, &mut actions),
            Event::Spoken { answer, ill, changed } => self.spoken(*answer, ill, changed),
            Event::EngineFailed(failed) => self.engine_failed(*failed),
            Event::Stop => self.end(Ending::Terminate, now, &mut actions),
            Event::HandBack => self.hand_back(now, &mut actions),
            Event::Tick => {}
        }
        self.watch_time(now, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let session = match self.session {
            Session::AskedStarted { until } => Some(until),
            Session::ResultDue { at, .. } => Some(at),
            Session::AskedResult { at, .. } => Some(at + self.limits.answer_within * 2),
            Session::Go => [self.window.deadline(), self.grant_limit()].into_iter().flatten().min(),
            Session::Over => None,
        };
        let engine = match self.engine {
            Engine::Busy { heard } => Some(heard + self.limits.silence),
            Engine::Cancelled { until } => Some(until),
            Engine::Idle | Engine::Free => None,
        };
        [session, engine].into_iter().flatten().min()
    }

    /// Whether the delivery is over and the engine free of this run.
    pub fn is_done(&self) -> bool {
        self.is_over() && !matches!(self.engine, Engine::Busy { .. } | Engine::Cancelled { .. })
    }

    /// Whether the engine has ended the request: what is left is between the session and this run.
    pub fn is_spoken(&self) -> bool {
        self.engine == Engine::Free
    }

    /// Whether the delivery is over.
    pub fn is_over(&self) -> bool {
        self.session == Session::Over
    }

    /// How the run ended, once that is known.
    pub fn outcome(&self) -> Option<&RunOutcome> {
        self.outcome.as_ref()
    }

    /// The outcome to be told, once the delivery is over: what the session accepted, or the fault that it found. A run that
    /// was only overtaken has none.
    pub fn verdict(&self, ending: Ending) -> Option<&RunOutcome> {
        self.outcome().filter(|_| ending == Ending::Ack || self.faulted)
    }

    /// The piece at `seq`, as it was made.
    pub fn chunk(&self, seq: u32) -> Option<&Bytes> {
        self.audio.pieces().get(seq as usize)
    }

    /// The pieces so far, without the last, which travels in the result.
    pub fn pieces(&self) -> &[Bytes] {
        self.audio.pieces()
    }

    fn started(
        &mut self,
        answer: Result<StartedAnswer, Unanswered>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        match (self.session, &answer) {
            (Session::AskedStarted { .. }, _) => {}
            // Asked once more, and overtaken meanwhile.
            (Session::Go, Ok(StartedAnswer::Stop { .. })) => {
                return self.end(Ending::Terminate, now, actions);
            }
            _ => return,
        }
        match answer {
            Ok(StartedAnswer::Go) => {
                self.session = Session::Go;
                self.went_at = Some(now);
                if self.engine == Engine::Idle {
                    self.speak(now, actions);
                }
            }
            Ok(StartedAnswer::Stop { .. }) => self.end(Ending::Terminate, now, actions),
            Err(Unanswered) => self.unheard(now, actions),
        }
    }

    fn judged(&mut self, answer: Result<ResultAnswer, Unanswered>, now: Instant, actions: &mut Vec<Action>) {
        let Session::AskedResult { first, at } = self.session else { return };
        match answer {
            Ok(ResultAnswer::Accepted) => self.end(Ending::Ack, now, actions),
            Ok(ResultAnswer::Stale { fault }) => {
                if let Some(fault) = fault {
                    self.fail(fault.error());
                    self.faulted = true;
                }
                self.end(Ending::Terminate, now, actions);
            }
            Ok(ResultAnswer::Resend { from }) => {
                self.resends += 1;
                if self.resends > self.limits.max_resends {
                    self.end(Ending::Terminate, now, actions);
                } else {
                    self.window.rewind(from);
                    self.session = Session::Go;
                }
            }
            Err(Unanswered) => self.ask_result_later(first, at, now, actions),
        }
    }

    /// The engine works on: the session hears of it where no audio tells it, and says whether the run still counts.
    fn progress(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.heard(now);
        let works = self.session == Session::Go && matches!(self.engine, Engine::Busy { .. });
        if works && now >= self.told_at + self.limits.ask_again_every {
            self.told_at = now;
            actions.push(Action::AskStarted { overlapped: false });
        }
    }

    fn ask_result_later(&mut self, first: Instant, at: Instant, now: Instant, actions: &mut Vec<Action>) {
        if now >= first + self.limits.patience {
            self.end(Ending::Terminate, now, actions);
        } else {
            let at = now.max(at + self.limits.answer_within);
            self.session = Session::ResultDue { first, at };
        }
    }

    fn piece(&mut self, seq: u32, data: Bytes, now: Instant, actions: &mut Vec<Action>) {
        self.heard(now);
        if self.outcome.is_some() || self.is_over() || !matches!(self.engine, Engine::Busy { .. }) {
            return;
        }
        if let Err(broken) = self.audio.push(seq, data) {
            self.fail(ServiceError::new(Reason::EngineProtocol, broken.to_string()));
            self.cancel(now, actions);
        }
    }

    fn spoken(&mut self, answer: SpokenAnswer, ill: Option<ServiceError>, changed: Option<Bytes>) {
        let working = matches!(self.engine, Engine::Busy { .. });
        self.engine = Engine::Free;
        if !working || self.outcome.is_some() {
            return;
        }
        match (self.audio.finish(answer), ill) {
            (Err(broken), _) => self.fail(ServiceError::new(Reason::EngineProtocol, broken.to_string())),
            (Ok(_), Some(error)) => self.fail(error),
            (Ok(spoken), None) => {
                let spoken = match changed {
                    Some(pcm) => self.audio.replace(&pcm, spoken),
                    None => spoken,
                };
                self.outcome = Some(RunOutcome::Spoken(spoken));
            }
        }
    }

    fn engine_failed(&mut self, failed: Failed) {
        self.engine = Engine::Free;
        if self.outcome.is_none() {
            self.outcome = Some(RunOutcome::Failed(failed));
        }
    }

    fn hand_back(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.session {
            Session::AskedStarted { .. } => {
                self.end(Ending::Nak(std::time::Duration::ZERO), now, actions);
            }
            Session::Over => {}
            Session::Go | Session::AskedResult { .. } | Session::ResultDue { .. } => {
                if self.outcome.is_none() {
                    self.fail(ServiceError::new(
                        Reason::WorkerLost,
                        "the worker was told to leave before it had spoken the segment",
                    ));
                }
                self.cancel(now, actions);
            }
        }
    }

    /// No session answered `started`.
    fn unheard(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let ending = if self.deliveries >= self.limits.max_deliveries {
            Ending::Terminate
        } else {
            Ending::Nak(self.limits.retry_after)
        };
        self.end(ending, now, actions);
    }

    fn watch_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.session {
            Session::AskedStarted { until } if until <= now => self.unheard(now, actions),
            Session::AskedResult { first, at } if at + self.limits.answer_within * 2 <= now => {
                self.ask_result_later(first, at, now, actions);
            }
            Session::Go if self.grant_limit().is_some_and(|limit| limit <= now) => {
                self.end(Ending::Terminate, now, actions);
            }
            _ => {}
        }
        match self.engine {
            Engine::Busy { heard } if heard + self.limits.silence <= now => {
                self.fail(ServiceError::new(
                    Reason::AttemptTimeout,
                    format!("the engine was silent for {} s", self.limits.silence.as_secs()),
                ));
                self.cancel(now, actions);
            }
            Engine::Cancelled { until } if until <= now => {
                self.engine = Engine::Free;
                actions.push(Action::RestartEngine);
            }
            _ => {}
        }
    }

    /// What follows from the state, whatever led to it.
    fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.session, Session::ResultDue { at, .. } if at <= now) {
            let Session::ResultDue { first, .. } = self.session else { return };
            self.session = Session::AskedResult { first, at: now };
            actions.push(Action::AskResult);
            return;
        }
        if !matches!(self.session, Session::AskedStarted { .. } | Session::Go) {
            return;
        }
        if self.whole && self.outcome.is_none() {
            return;
        }
        let failed = matches!(self.outcome, Some(RunOutcome::Failed(_)));
        let before = actions.len();
        let all_sent = failed || self.window.send(self.audio.count(), now, actions);
        if actions.len() > before {
            self.told_at = now;
        }
        if self.session == Session::Go && self.outcome.is_some() && all_sent {
            self.window.forget_asks();
            self.session = Session::AskedResult { first: now, at: now };
            actions.push(Action::AskResult);
        }
    }

    /// When a grant that does not come ends the run: never before `go`, for until then `started` decides.
    fn grant_limit(&self) -> Option<Instant> {
        let asked = self.window.waiting_since()?;
        Some(asked.max(self.went_at?) + self.limits.patience)
    }

    fn speak(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.engine = Engine::Busy { heard: now };
        actions.push(Action::Speak);
    }

    fn heard(&mut self, now: Instant) {
        if let Engine::Busy { heard } = &mut self.engine {
            *heard = now;
        }
    }

    fn fail(&mut self, error: ServiceError) {
        self.outcome = Some(RunOutcome::Failed(Failed { error, stderr: Vec::new() }));
    }

    fn cancel(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.engine, Engine::Busy { .. }) {
            self.engine = Engine::Cancelled { until: now + self.limits.cancel_within };
            actions.push(Action::CancelEngine);
        }
    }

    fn end(&mut self, ending: Ending, now: Instant, actions: &mut Vec<Action>) {
        if !self.is_over() {
            self.session = Session::Over;
            self.cancel(now, actions);
            actions.push(Action::End(ending));
        }
    }
}

#[cfg(test)]
mod tests;
