//! One durable job under its lease: a session speaks what is left of it, each segment is stored before it is counted, and
//! at the end the whole is encoded.
//!
//! A session that ends with an error gives the lease back; the job is due again after its rest. Whoever loses the lease
//! drops everything: the session's drop cancels what is queued and being spoken.

use std::time::Duration;

use chorus_client::{AudioPiece, SessionHost, SpeakAsk, Speaking, SpeechEvent};
use chorus_protocol::durable::{DurableJob, DurableText};
use chorus_protocol::{MessageId, Reason, ServiceError, SynthesisResult};
use chorus_runtime::clock::SharedClock;
use tokio::sync::Semaphore;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::store::{Held, LeaseLost};
use super::{JobsConfig, judge, whole};

/// How long the last write of a job that is let go may take: the manager is stopping.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// What a job is spoken with.
pub(super) struct Tools<'a> {
    pub(super) sessions: &'a SessionHost,
    pub(super) clock: &'a SharedClock,
    pub(super) config: &'a JobsConfig,
    /// One whole is encoded at a time: each may be large.
    pub(super) encoding: &'a Semaphore,
}

/// Why a job is not spoken to its end here.
enum Halt {
    /// Somebody else has it, or it was cancelled.
    Lost,
    /// This manager is stopping, or the job was cancelled.
    Stopped,
    /// It went wrong.
    Failed(ServiceError),
}

impl From<LeaseLost> for Halt {
    fn from(_: LeaseLost) -> Self {
        Self::Lost
    }
}

impl From<ServiceError> for Halt {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error)
    }
}

impl From<chorus_bus::BusError> for Halt {
    fn from(error: chorus_bus::BusError) -> Self {
        Self::Failed(error.into_service_error())
    }
}

/// Speaks a job and writes down what came of it.
pub(super) async fn work(tools: &Tools<'_>, held: Held, stop: CancellationToken) {
    let mut beats = interval(tools.config.renew_every);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = Work { tools, held, stop, beats };
    let halt = match work.speak_and_finish().await {
        Ok(()) => return,
        Err(halt) => halt,
    };
    let (job, now_ms) = (&work.held.job, tools.clock.unix_ms());
    let (after, limit) = match halt {
        Halt::Lost => {
            tracing::info!(job = work.held.key, "a durable job was cancelled or taken over");
            return;
        }
        Halt::Stopped => (judge::released(job, now_ms), RELEASE_LIMIT),
        Halt::Failed(error) => {
            tracing::info!(job = work.held.key, %error, "a session of a durable job has failed");
            (judge::after_error(job, error, tools.config, now_ms), tools.config.lease)
        }
    };
    let is_over = after.state.is_over();
    match work.held.write(after, limit).await {
        Ok(()) if is_over => work.held.store.clear(&work.held.key, &work.held.job).await,
        Ok(()) => {}
        Err(LeaseLost) => tracing::debug!(job = work.held.key, "somebody else has the job by now"),
    }
}

struct Work<'a> {
    tools: &'a Tools<'a>,
    held: Held,
    stop: CancellationToken,
    beats: Interval,
}

impl Work<'_> {
    async fn speak_and_finish(&mut self) -> Result<(), Halt> {
        let retention = self.held.store.retention();
        if let Some(error) = judge::too_old(&self.held.job, retention, self.tools.clock.unix_ms()) {
            // Said of a job, and not of a session: trying again does not make it younger.
            return Err(Halt::Failed(ServiceError { retryable: false, ..error }));
        }
        let Some(text) = self.held.store.texts.get(&self.held.key).await? else {
            return Err(Halt::Failed(ServiceError::new(Reason::Output, "the job's text is gone")));
        };
        let spoken = self.speak(text.value).await?;
        self.finish(spoken).await
    }

    /// Speaks what is left; `None` when everything was stored before.
    async fn speak(&mut self, mut text: DurableText) -> Result<Option<SynthesisResult>, Halt> {
        let Some((request, from)) = judge::remaining(&self.held.job, &text) else { return Ok(None) };
        let base_bytes = self.held.job.progress.consumed_bytes;
        let ask = SpeakAsk {
            request_id: MessageId::fresh(),
            request,
            traceparent: None,
            whole_reply_deadline: false,
        };
        let mut speaking = self.tools.sessions.resume(ask, from);
        loop {
            match self.next(&mut speaking).await? {
                Some(SpeechEvent::Accepted { model, text: changed }) => {
                    if let Some(prepared) = changed {
                        text.prepared = Some(prepared);
                        self.keep(&text).await?;
                    }
                    let job = DurableJob { model: Some(model), ..self.held.job.clone() };
                    self.write(job).await?;
                }
                Some(SpeechEvent::Audio(piece)) => self.store(piece, base_bytes).await?,
                Some(SpeechEvent::Ended(result)) => {
                    return match result.error.clone().filter(|_| !result.success) {
                        Some(error) => Err(Halt::Failed(error)),
                        None => Ok(Some(*result)),
                    };
                }
                None => {
                    return Err(Halt::Failed(ServiceError::new(Reason::NoManager, "the session is gone")));
                }
            }
        }
    }

    /// The next event; meanwhile the lease is renewed.
    async fn next(&mut self, speaking: &mut Speaking) -> Result<Option<SpeechEvent>, Halt> {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Halt::Stopped),
                _ = self.beats.tick() => {}
                event = speaking.next() => return Ok(event),
            }
            self.renew().await?;
        }
    }

    async fn renew(&mut self) -> Result<(), LeaseLost> {
        self.write(self.held.job.clone()).await
    }

    async fn write(&mut self, job: DurableJob) -> Result<(), LeaseLost> {
        let updated_ms = self.tools.clock.unix_ms();
        self.held.write(DurableJob { updated_ms, ..job }, self.tools.config.lease).await
    }

    /// What positions in the text mean from now on. Written before anything is counted by it.
    async fn keep(&self, text: &DurableText) -> Result<(), Halt> {
        let (store, ttl) = (&self.held.store, self.held.store.retention() * 2);
        let Some(kept) = store.texts.get(&self.held.key).await? else { return Err(Halt::Lost) };
        match store.texts.update_with_ttl(&self.held.key, text, kept.revision, ttl).await {
            Ok(_) => Ok(()),
            Err(chorus_bus::CasError::Bus(error)) => Err(error.into()),
            Err(_) => Err(Halt::Lost),
        }
    }

    async fn store(&mut self, piece: AudioPiece, base_bytes: u64) -> Result<(), Halt> {
        let max_bytes = self.tools.config.max_pcm_bytes;
        let bytes = self.held.job.progress.samples * 2 + piece.pcm.len() as u64;
        if bytes > max_bytes {
            let message =
                format!("the audio is larger than that of one job may be ({max_bytes} bytes of samples)");
            return Err(Halt::Failed(ServiceError::field(Reason::TooLarge, "text", message)));
        }
        self.held.put_piece(piece.pcm.clone()).await?;
        let now_ms = self.tools.clock.unix_ms();
        let counted = judge::stored(&self.held.job, &piece, base_bytes, now_ms);
        Ok(self.write(counted).await?)
    }

    async fn finish(&mut self, spoken: Option<SynthesisResult>) -> Result<(), Halt> {
        let (store, key, job) = (self.held.store.clone(), self.held.key.clone(), self.held.job.clone());
        let encoding = self.tools.encoding;
        let making = async {
            let _permit = encoding.acquire().await;
            whole::store_whole(&store, &key, &job).await
        };
        let mut making = std::pin::pin!(making);
        let audio = loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Halt::Stopped),
                _ = self.beats.tick() => {}
                audio = &mut making => break audio?,
            }
            self.renew().await?;
        };
        let done = judge::done(&self.held.job, spoken, audio, self.tools.clock.unix_ms());
        self.held.write(done, self.tools.config.lease).await?;
        tracing::info!(job = key, segments = job.progress.next_segment, "a durable job is done");
        store.clear(&key, &job).await;
        Ok(())
    }
}
