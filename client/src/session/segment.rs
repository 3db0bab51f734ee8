//! One segment and the run of it that counts.
//!
//! ```text
//!              started            result, whole
//!   Queued ───────────▶ Running ───────────────▶ Spoken ──▶ Released
//!     ▲  │ gone            │ failed, lost, late     ▲
//!     │  ▼                 ▼                        │ the take is what it should be
//!     └── Retry (attempt + 1) ◀──────────────── Fetching
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_protocol::breaker::FailedRun;
use chorus_protocol::job::{Failed, RunFault, Started, StartedAnswer, StopReason};
use chorus_protocol::plan::Manner;
use chorus_protocol::{Attempt, Incarnation, JobClass, Reason, RunId, ServiceError, WorkerId};
use chorus_runtime::retry::{Retries, RetryPolicy};

use super::pieces::Pieces;

/// Runs of one segment whose verdict is remembered, so that a repeated question gets the same answer.
const MAX_JUDGED: usize = 64;

/// Attempts at one segment, whatever the reasons, after which the request fails.
pub(super) const MAX_ATTEMPTS: Attempt = 64;

/// Failed runs of one segment that are kept; the retry policy ends a request long before.
const MAX_HISTORY: usize = 16;

/// Lines of an engine's stderr that are kept per failed run, and how long they may be.
const MAX_STDERR_LINES: usize = 20;
const MAX_STDERR_CHARS: usize = 400;

/// After how long a retry after a loss is queued anew when nobody begins it, at first; then after twice as long.
const FIRST_HEDGE: Duration = Duration::from_millis(150);

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// What it says; unknown while a worker was faster than the manager's answer.
    pub text: Option<String>,
    pub pause_after_ms: u32,
    /// What it has of its own.
    pub manner: Option<Manner>,
    /// Where it ends in the session's text, in bytes.
    pub end_bytes: usize,
    pub class: JobClass,
    pub attempt: Attempt,
    /// Sequence of the current attempt's job, once known.
    pub seq: Option<u64>,
    /// Runs that failed by a worker's fault or fell silent, so far.
    pub failures: u32,
    /// The latest of them.
    pub history: Vec<FailedRun>,
    pub tried: Vec<WorkerId>,
    retries: Retries,
    first_failure: Option<Instant>,
    /// How retries after losses grow slower; nothing but [`MAX_ATTEMPTS`] ends them.
    after_losses: Retries,
    /// Losses and failures so far.
    setbacks: u32,
    /// Whether the current attempt is in front of its class, for nobody has been kept waiting by it before.
    urgent: bool,
    stopped: Vec<RunId>,
    /// Runs that were given up for a fault of their worker's, which is told whenever they ask.
    faults: Vec<(RunId, RunFault)>,
    /// How often the job may still be queued anew because nobody begins it; see [`Segment::hedge`].
    hedges: u32,
    /// After how long the next time.
    hedge_after: Duration,
    pub state: State,
}

/// Why a segment is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its worker is gone, or its audio was on the way.
    Loss,
    /// A worker failed it.
    Failure,
    /// Nothing was tried: there was no room, or its job is not in the queue any more.
    Nobody,
}

#[derive(Debug)]
pub(super) enum State {
    /// In the queue, as far as is known.
    Queued { lookup_at: Instant, hedge_at: Option<Instant> },
    /// A worker has it.
    Running(Run),
    /// To be asked of a manager again, as `attempt`.
    Retry { at: Instant, class: JobClass, supersedes: Option<u64> },
    /// Its take is stored, or being spoken for somebody else: fetched, until then.
    Fetching { until: Instant },
    /// Whole and checked; by a run, or from the cache.
    Spoken { run: Option<RunId>, audio: Bytes, sample_rate: u32 },
    /// Handed to the listener.
    Released { run: Option<RunId> },
}

/// The run that counts.
#[derive(Debug)]
pub(super) struct Run {
    pub id: RunId,
    pub worker: WorkerId,
    pub incarnation: Incarnation,
    pub deliveries: u64,
    pub pieces: Pieces,
    pub moved_at: Instant,
    pub resends: u32,
}

impl Segment {
    pub fn queued(now: Instant, lookup_interval: Duration, retry: &RetryPolicy) -> Self {
        Self {
            text: None,
            pause_after_ms: 0,
            manner: None,
            end_bytes: 0,
            class: JobClass::Normal,
            attempt: 1,
            seq: None,
            failures: 0,
            history: Vec::new(),
            tried: Vec::new(),
            retries: retry.start(),
            first_failure: None,
            after_losses: RetryPolicy { max_attempts: None, ..retry.clone() }.start(),
            setbacks: 0,
            urgent: false,
            stopped: Vec::new(),
            faults: Vec::new(),
            hedges: 0,
            hedge_after: FIRST_HEDGE,
            state: State::Queued { lookup_at: now + lookup_interval, hedge_at: None },
        }
    }

    /// Judges a run that says it has begun, or that it is still at it. The newest run of the current attempt goes; a repeated
    /// question gets the answer it got before, unless the run was overtaken.
    pub fn judge(&mut self, started: &Started, now: Instant) -> StartedAnswer {
        let run = started.run.run;
        let stop = |reason| StartedAnswer::Stop { reason };
        match &mut self.state {
            State::Spoken { run: Some(accepted), .. } | State::Released { run: Some(accepted) }
                if *accepted == run =>
            {
                return StartedAnswer::Go;
            }
            State::Spoken { .. } | State::Released { .. } => return stop(StopReason::Accepted),
            State::Running(current) if current.id == run => {
                // Its engine works on, or the answer was lost.
                current.moved_at = now;
                return StartedAnswer::Go;
            }
            State::Running(current)
                if started.run.attempt == self.attempt && current.deliveries > started.deliveries =>
            {
                return stop(StopReason::Superseded);
            }
            State::Running(_) | State::Queued { .. } | State::Retry { .. } | State::Fetching { .. } => {}
        }
        if started.run.attempt != self.attempt || self.stopped.contains(&run) {
            return stop(StopReason::Superseded);
        }
        self.supersede_run();
        self.hedges = 0;
        if !self.tried.contains(&started.worker) {
            self.tried.push(started.worker.clone());
        }
        self.state = State::Running(Run {
            id: run,
            worker: started.worker.clone(),
            incarnation: started.incarnation,
            deliveries: started.deliveries,
            pieces: Pieces::default(),
            moved_at: now,
            resends: 0,
        });
        StartedAnswer::Go
    }

    /// The run that counts, if `run` is it.
    pub fn running(&mut self, attempt: Attempt, run: RunId) -> Option<&mut Run> {
        match &mut self.state {
            State::Running(current) if current.id == run && self.attempt == attempt => Some(current),
            _ => None,
        }
    }

    /// The run that counts was given up for this fault.
    pub fn note_fault(&mut self, fault: RunFault) {
        let State::Running(run) = &self.state else { return };
        if self.faults.len() == MAX_JUDGED {
            self.faults.remove(0);
        }
        self.faults.push((run.id, fault));
    }

    /// What was wrong with a run that does not count any more.
    pub fn fault_of(&self, run: RunId) -> Option<RunFault> {
        self.faults.iter().find(|(id, _)| *id == run).map(|(_, fault)| *fault)
    }

    /// Counts a failure on the worker that has it.
    pub fn count_failure(&mut self, failed: &Failed) {
        self.failures += 1;
        let State::Running(run) = &self.state else { return };
        if self.history.len() == MAX_HISTORY {
            self.history.remove(0);
        }
        let last_lines = failed.stderr.iter().rev().take(MAX_STDERR_LINES).rev();
        self.history.push(FailedRun {
            attempt: self.attempt,
            run: run.id,
            worker: run.worker.clone(),
            error: failed.error.clone(),
            stderr: last_lines.map(|line| line.chars().take(MAX_STDERR_CHARS).collect()).collect(),
        });
    }

    /// The workers on which it is poison; empty when it is not. Engines failed it `enough` times on two or more workers. The
    /// last of these runs was alone: whoever speaks a job that an engine has failed before speaks nothing beside it. A run
    /// that fell silent says nothing about the words: its worker may be stopped, or gone.
    pub fn poisoned(&self, enough: usize) -> Vec<WorkerId> {
        let by_engine = |failed: &&FailedRun| {
            !matches!(failed.error.reason(), Some(Reason::AttemptTimeout | Reason::WorkerLost))
        };
        let mut workers: Vec<WorkerId> =
            self.history.iter().filter(by_engine).map(|failed| failed.worker.clone()).collect();
        let failures = workers.len();
        workers.sort();
        workers.dedup();
        if failures >= enough && workers.len() >= 2 { workers } else { Vec::new() }
    }

    /// Makes the next attempt due, in `at_least` at the soonest. The first after a loss or a failure is immediate and
    /// urgent; from the second on they wait longer and longer, and in their own class. `None` when the policy allows no
    /// more.
    pub fn schedule_retry(&mut self, now: Instant, cause: Cause, at_least: Duration) -> Option<()> {
        let delay = match cause {
            Cause::Nobody => at_least,
            Cause::Loss | Cause::Failure => {
                let first = self.setbacks == 0;
                (self.setbacks, self.urgent) = (self.setbacks + 1, first);
                let elapsed = now - *self.first_failure.get_or_insert(now);
                match cause {
                    _ if first => at_least,
                    Cause::Loss => self.after_losses.next_delay_at_least(elapsed, at_least)?,
                    _ => self.retries.next_delay_at_least(elapsed, at_least)?,
                }
            }
        };
        if self.attempt >= MAX_ATTEMPTS {
            return None;
        }
        self.supersede_run();
        let class = if self.urgent { JobClass::Urgent } else { self.class };
        self.state = State::Retry { at: now + delay, class, supersedes: self.seq.take() };
        self.attempt += 1;
        Some(())
    }

    /// It is to be spoken, in its own class, now. No attempt was lost, so none is counted.
    pub fn ask_anew(&mut self, now: Instant) {
        self.attempt += 1;
        self.state = State::Retry { at: now, class: self.class, supersedes: self.seq.take() };
    }

    /// Whether it waits in the queue behind others, and may be moved to the front: once.
    pub fn may_hurry(&self) -> bool {
        let waits = matches!(self.state, State::Queued { .. }) && self.seq.is_some() && self.text.is_some();
        waits && self.class != JobClass::Urgent && self.attempt < MAX_ATTEMPTS
    }

    /// Its listener is about to have nothing left to play: queued anew, at the front. Nobody is to blame.
    pub fn hurry(&mut self, now: Instant) {
        self.class = JobClass::Urgent;
        self.ask_anew(now);
    }

    /// The worker that had it is lost. One that was stopped rather than killed still has its standing pulls, and a retry may
    /// fall into one of them; so a retry that nobody begins soon is queued once more, so many times.
    pub fn lost(&mut self, hedges: u32) {
        (self.hedges, self.hedge_after) = (hedges, FIRST_HEDGE);
    }

    /// The current attempt is in the queue.
    pub fn is_queued(&mut self, now: Instant, lookup_interval: Duration) {
        let hedge_at = (self.hedges > 0).then(|| now + self.hedge_after);
        self.state = State::Queued { lookup_at: now + lookup_interval, hedge_at };
    }

    /// Whether it waits in the queue for longer than its hedge allows; counts one off.
    pub fn hedge(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Queued { hedge_at: Some(at), .. } if at <= now);
        if due {
            self.hedges -= 1;
            self.hedge_after *= 2;
        }
        due
    }

    fn supersede_run(&mut self) {
        if let State::Running(old) = &self.state {
            if self.stopped.len() == MAX_JUDGED {
                self.stopped.remove(0);
            }
            self.stopped.push(old.id);
        }
    }

    /// Whether it still holds a place in the window.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Released { .. })
    }

    /// When something must be done about it if nothing happens.
    pub fn timer(&self, attempt_timeout: Duration) -> Option<Instant> {
        match &self.state {
            State::Queued { lookup_at, hedge_at } => {
                Some(hedge_at.map_or(*lookup_at, |at| at.min(*lookup_at)))
            }
            State::Running(run) => Some(run.moved_at + attempt_timeout),
            State::Fetching { until } => Some(*until),
            State::Retry { at, .. } if self.text.is_some() => Some(*at),
            State::Retry { .. } | State::Spoken { .. } | State::Released { .. } => None,
        }
    }
}

/// Whether an error means that this segment's words, and not the request, are at fault.
pub(super) fn is_unspeakable(error: &ServiceError) -> bool {
    error.reason() == Some(Reason::Unspeakable)
}
