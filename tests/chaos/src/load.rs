//! The clients: they ask, listen, and compare every sample with what they must hear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_bus::{Bus, RequestError};
use chorus_client::{SessionHost, SpeakAsk, Speaking, SpeechEvent};
use chorus_protocol::durable::{JobAsk, JobStatus};
use chorus_protocol::{
    AudioFormat, Envelope, MessageId, Priority, Reason, ServiceError, SynthesisRequest, SynthesisResult,
    names,
};
use chorus_runtime::clock::SharedClock;
use futures::future::{Either, pending};
use futures::{StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::checkable::{self, Damage};
use crate::scenario::{Amount, Client, Load};

/// What an answer may take beyond its deadline: the way to the client, on a machine that is busy with chaos.
const ALLOWANCE: Duration = Duration::from_secs(1);
/// After first audio: how long a session lets its listener wait before it gives up.
const STALLED: Duration = Duration::from_secs(30);
/// How long the answer to a question about a durable job is waited for, and the pause between two.
const JOB_ANSWER_WITHIN: Duration = Duration::from_secs(2);
const JOB_POLL: Duration = Duration::from_millis(50);
/// A native request without an end after this much more than its deadline is lost.
const GIVE_UP: Duration = Duration::from_secs(90);

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// Every sample, once, in order.
    Exact,
    /// Without audio, as its load wants it.
    Wanted,
    /// It was called a success, and is none.
    Damaged(Damage),
    /// One typed error.
    Refused { reason: String, retryable: bool, in_time: bool, damage: Damage },
    /// No end came.
    Lost,
}

/// What one client noticed.
#[derive(Debug, Clone)]
pub(crate) struct Noticed {
    pub(crate) priority: Priority,
    pub(crate) ending: Ending,
    /// From the asking to the end.
    pub(crate) took: Duration,
    /// The longest wait for the next audio; of a plain request nothing is known.
    pub(crate) pause: Option<Duration>,
    /// Attempts that were made again; of a request that failed nothing is known.
    pub(crate) retries: u32,
    /// When it ended, from the load's begin.
    pub(crate) at: Duration,
}

/// What all clients of a scenario share.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) scenario: &'static str,
    pub(crate) bus: Bus,
    pub(crate) sessions: SessionHost,
    pub(crate) clock: SharedClock,
    /// Cancelled when the last round of steps is over.
    pub(crate) steps_over: CancellationToken,
    /// Requests that have ended.
    pub(crate) ended: Arc<AtomicU32>,
    /// The load's begin.
    pub(crate) begun: Instant,
}

impl Clients {
    /// Runs a load to its end. Numbers begin at `first`, so that no two requests of a scenario have the same text.
    pub(crate) async fn run(&self, load: Load, first: u32) -> Vec<Noticed> {
        let pace = load.every.map(tokio::time::interval);
        let numbers = stream::unfold((first, pace), |(number, mut pace)| {
            let load = &load;
            async move {
                let more = match load.amount {
                    Amount::Requests(amount) => number - first < amount,
                    Amount::UntilStepsEnd => !self.steps_over.is_cancelled(),
                };
                if !more {
                    return None;
                }
                match (&mut pace, load.amount) {
                    (Some(pace), Amount::UntilStepsEnd) => {
                        self.steps_over.run_until_cancelled(pace.tick()).await?;
                    }
                    (Some(pace), Amount::Requests(_)) => {
                        pace.tick().await;
                    }
                    (None, _) => {}
                }
                Some((number, (number + 1, pace)))
            }
        });
        let asked = numbers.map(|number| self.ask(&load, number));
        asked.buffer_unordered(load.concurrency as usize).collect().await
    }

    async fn ask(&self, load: &Load, number: u32) -> Noticed {
        let begun = Instant::now();
        let request = SynthesisRequest {
            text: load.text(self.scenario, number),
            priority: Some(load.priority),
            deadline_ms: Some(load.deadline.as_millis() as u64),
            output_format: Some(AudioFormat::Pcm),
            ..SynthesisRequest::default()
        };
        let sentences = load.sentences(self.scenario, number);
        let (ending, pause, retries) = match load.client {
            Client::Native => self.native(request, load, &sentences).await,
            Client::Plain => {
                let (ending, retries) = self.plain(request, load, &sentences).await;
                (ending, None, retries)
            }
            Client::Durable => {
                let (ending, retries) = self.durable(request, load, &sentences).await;
                (ending, None, retries)
            }
        };
        let ending = as_wanted(ending, load);
        if !matches!(ending, Ending::Exact | Ending::Wanted) {
            tracing::warn!(number, ?ending, took = ?begun.elapsed(), "a request did not end with exact audio");
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
        let (priority, took, at) = (load.priority, begun.elapsed(), self.begun.elapsed());
        Noticed { priority, ending, took, pause, retries, at }
    }

    async fn native(
        &self,
        request: SynthesisRequest,
        load: &Load,
        sentences: &[String],
    ) -> (Ending, Option<Duration>, u32) {
        let begun = Instant::now();
        let request_id = MessageId::fresh();
        let ask = SpeakAsk { request_id, request, traceparent: None, whole_reply_deadline: false };
        let mut listener = Listener { pcm: Vec::new(), pieces: 0, moved: begun, pause: Duration::ZERO };
        let listening = listener.listen(self.sessions.speak(ask), load.leaves_after);
        let ended = tokio::time::timeout(load.deadline + GIVE_UP, listening).await;
        let waited = listener.moved.elapsed();
        let result = match ended {
            Ok(Heard::End(result)) => result,
            Ok(Heard::Left) => return (Ending::Wanted, None, 0),
            Ok(Heard::Nothing) | Err(_) => return (Ending::Lost, Some(listener.pause.max(waited)), 0),
        };
        let limit = if listener.pieces == 0 { load.deadline } else { STALLED } + ALLOWANCE;
        let heard = &sentences[..listener.pieces.min(sentences.len())];
        let retries = retries_of(&result);
        let ending = match result.error {
            None => judge(&listener.pcm, sentences),
            Some(error) => refused(&error, waited <= limit, damage(&listener.pcm, heard)),
        };
        (ending, Some(listener.pause), retries)
    }

    /// Handed in until a manager says that it is kept, asked after until it is over; managers may be away meanwhile.
    async fn durable(&self, request: SynthesisRequest, load: &Load, sentences: &[String]) -> (Ending, u32) {
        let submission = Envelope::request(request, self.clock.unix_ms());
        let job = JobAsk { job: submission.message_id.clone() };
        let until = Instant::now() + load.deadline;
        let mut kept = false;
        while Instant::now() < until {
            let asked = if kept {
                self.ask_job::<_, JobStatus>(names::JOBS_STATUS, job.clone()).await
            } else {
                self.bus.request(names::JOBS_SUBMIT, &submission, JOB_ANSWER_WITHIN).await
            };
            kept |= asked.is_ok();
            if asked.is_ok_and(|status| status.state.is_over())
                && let Ok(result) = self.ask_job::<_, SynthesisResult>(names::JOBS_FETCH, job.clone()).await
            {
                let retries = retries_of(&result);
                return (self.judge_result(result, sentences, true).await, retries);
            }
            tokio::time::sleep(JOB_POLL).await;
        }
        (Ending::Lost, 0)
    }

    async fn ask_job<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        question: Q,
    ) -> Result<A, RequestError> {
        let envelope = Envelope::request(question, self.clock.unix_ms());
        self.bus.request(subject, &envelope, JOB_ANSWER_WITHIN).await
    }

    async fn plain(&self, request: SynthesisRequest, load: &Load, sentences: &[String]) -> (Ending, u32) {
        let begun = Instant::now();
        let question = Envelope::request(request, self.clock.unix_ms());
        let limit = load.deadline + ALLOWANCE;
        let answer = self.bus.request::<_, SynthesisResult>(names::SYNTHESIZE, &question, limit).await;
        let answer = answer.map_err(|error| error.into_service_error());
        let in_time = begun.elapsed() <= limit + ALLOWANCE;
        let retries = answer.as_ref().map_or(0, retries_of);
        let ending = match answer {
            Err(error) => refused(&error, in_time, Damage::default()),
            Ok(result) => self.judge_result(result, sentences, in_time).await,
        };
        (ending, retries)
    }

    /// A result with its audio, by value or by reference.
    async fn judge_result(&self, result: SynthesisResult, sentences: &[String], in_time: bool) -> Ending {
        if let Some(error) = &result.error {
            return refused(error, in_time, Damage::default());
        }
        match self.audio_of(result).await {
            Ok(pcm) => judge(&pcm, sentences),
            Err(error) => refused(&error, in_time, Damage::default()),
        }
    }

    async fn audio_of(&self, result: SynthesisResult) -> Result<Bytes, ServiceError> {
        let nowhere = || ServiceError::new(Reason::BadAudio, "a success without audio");
        let audio = result.audio.ok_or_else(nowhere)?;
        match (audio.data, audio.key) {
            (Some(data), _) => Ok(data.0),
            (None, Some(key)) => {
                let got = self.bus.audio_store().get(&key).await;
                got.map_err(|error| ServiceError::new(Reason::NoBroker, error.to_string()))
            }
            (None, None) => Err(nowhere()),
        }
    }
}

/// One listener of a native session.
struct Listener {
    pcm: Vec<u8>,
    pieces: usize,
    moved: Instant,
    pause: Duration,
}

impl Listener {
    /// Listens to the end, or until it goes away.
    async fn listen(&mut self, mut speaking: Speaking, leaves_after: Option<Duration>) -> Heard {
        let leaving = leaves_after.map_or(Either::Left(pending()), |time| Either::Right(sleep(time)));
        tokio::pin!(leaving);
        loop {
            let event = tokio::select! {
                event = speaking.next() => event,
                () = &mut leaving => return Heard::Left,
            };
            let Some(event) = event else { return Heard::Nothing };
            match event {
                SpeechEvent::Accepted { .. } => {}
                SpeechEvent::Audio(piece) => {
                    self.pause = self.pause.max(self.moved.elapsed());
                    self.moved = Instant::now();
                    self.pieces += 1;
                    self.pcm.extend_from_slice(&piece.pcm);
                }
                SpeechEvent::Ended(result) => return Heard::End(result),
            }
        }
    }
}

/// What a listener heard last.
enum Heard {
    End(Box<SynthesisResult>),
    /// It went away.
    Left,
    /// No end, and nothing more to come.
    Nothing,
}

/// A refusal that the load asks for is no error, and anything else is none.
fn as_wanted(ending: Ending, load: &Load) -> Ending {
    let Some(due) = load.refused_as else { return ending };
    match ending {
        Ending::Refused { reason, retryable: false, in_time: true, damage }
            if reason == due.as_str() && damage.is_none() =>
        {
            Ending::Wanted
        }
        Ending::Exact => Ending::Lost,
        other => other,
    }
}

fn retries_of(result: &SynthesisResult) -> u32 {
    result.metadata.as_ref().map_or(0, |metadata| metadata.retries)
}

fn judge(pcm: &[u8], sentences: &[String]) -> Ending {
    let damage = damage(pcm, sentences);
    if damage.is_none() { Ending::Exact } else { Ending::Damaged(damage) }
}

fn damage(pcm: &[u8], sentences: &[String]) -> Damage {
    let samples: Vec<i16> = pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    checkable::compare(&samples, sentences)
}

fn refused(error: &ServiceError, in_time: bool, damage: Damage) -> Ending {
    let reason =
        error.reason().map_or_else(|| format!("{:?}", error.code), |reason| reason.as_str().to_owned());
    Ending::Refused { reason, retryable: error.retryable, in_time, damage }
}
