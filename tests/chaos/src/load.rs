//! The clients: they ask, listen, and compare every sample with what they must hear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_bus::Bus;
use chorus_client::{SessionHost, SpeakAsk, Speaking, SpeechEvent};
use chorus_protocol::{
    AudioFormat, Envelope, MessageId, Priority, Reason, ServiceError, SynthesisRequest, SynthesisResult,
    names,
};
use chorus_runtime::clock::SharedClock;
use futures::StreamExt;
use futures::stream;
use tokio_util::sync::CancellationToken;

use crate::checkable::{self, Damage};
use crate::scenario::{Amount, Client, Load};

/// What an answer may take beyond its deadline: the way to the client, on a machine that is busy with chaos.
const ALLOWANCE: Duration = Duration::from_secs(1);
/// After first audio: how long a session lets its listener wait before it gives up.
const STALLED: Duration = Duration::from_secs(30);
/// A native request without an end after this much more than its deadline is lost.
const GIVE_UP: Duration = Duration::from_secs(90);

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// Every sample, once, in order.
    Exact,
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
                if let Some(pace) = &mut pace {
                    pace.tick().await;
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
        };
        if !matches!(ending, Ending::Exact) {
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
        let listening = listener.listen(self.sessions.speak(ask));
        let ended = tokio::time::timeout(load.deadline + GIVE_UP, listening).await;
        let waited = listener.moved.elapsed();
        let Ok(Some(result)) = ended else { return (Ending::Lost, Some(listener.pause.max(waited)), 0) };
        let limit = if listener.pieces == 0 { load.deadline } else { STALLED } + ALLOWANCE;
        let heard = &sentences[..listener.pieces.min(sentences.len())];
        let retries = retries_of(&result);
        let ending = match result.error {
            None => judge(&listener.pcm, sentences),
            Some(error) => refused(&error, waited <= limit, damage(&listener.pcm, heard)),
        };
        (ending, Some(listener.pause), retries)
    }

    async fn plain(&self, request: SynthesisRequest, load: &Load, sentences: &[String]) -> (Ending, u32) {
        let begun = Instant::now();
        let question = Envelope::request(request, self.clock.unix_ms());
        let limit = load.deadline + ALLOWANCE;
        let answer = self.bus.request::<_, SynthesisResult>(names::SYNTHESIZE, &question, limit).await;
        let answer = answer.map_err(|error| error.into_service_error());
        let refuse =
            |error: &ServiceError| refused(error, begun.elapsed() <= limit + ALLOWANCE, Damage::default());
        let retries = answer.as_ref().map_or(0, retries_of);
        let ending = match answer {
            Err(error) => refuse(&error),
            Ok(SynthesisResult { error: Some(error), .. }) => refuse(&error),
            Ok(result) => match self.audio_of(result).await {
                Ok(pcm) => judge(&pcm, sentences),
                Err(error) => refuse(&error),
            },
        };
        (ending, retries)
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
    async fn listen(&mut self, mut speaking: Speaking) -> Option<SynthesisResult> {
        loop {
            match speaking.next().await? {
                SpeechEvent::Accepted { .. } => {}
                SpeechEvent::Audio(piece) => {
                    self.pause = self.pause.max(self.moved.elapsed());
                    self.moved = Instant::now();
                    self.pieces += 1;
                    self.pcm.extend_from_slice(&piece.pcm);
                }
                SpeechEvent::Ended(result) => return Some(*result),
            }
        }
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
