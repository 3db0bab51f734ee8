//! `tts.synthesize`: one question, one answer; a session inside this manager speaks it.
//!
//! The reply is always a SynthesisResult. Its audio is inside when it fits under the broker's max_payload; otherwise it is
//! stored as an object that any NATS client can get, and the reply says where. How much audio is held at once is bounded,
//! for each reply and for all of them together.
//!
//! A request in an envelope has a messageId: asked again under it, it is answered again and not spoken again (`replies`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use chorus_audio::encode;
use chorus_audio::pcm;
use chorus_bus::Incoming;
use chorus_client::{SpeakAsk, Speaking, SpeechEvent};
use chorus_protocol::audio::AudioRef;
use chorus_protocol::codec::MAX_MESSAGE_BYTES;
use chorus_protocol::{
    AudioData, AudioFormat, MessageId, Reason, ServiceError, SessionId, SynthesisResult, names,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::plain::{self, Dress, PlainAsk};
use super::serve::Server;
use crate::jobs::store::digest;
use crate::replies::{Claim, Claimed};

/// The unit in which audio memory is counted, in bytes.
const BUDGET_UNIT_BYTES: usize = 1024;

/// Audio up to this size is written in place; larger audio, and every compressed format, off the async threads. In bytes.
const WRITTEN_IN_PLACE_BYTES: usize = 256 * 1024;

/// The memory that the audio of plain replies may take.
pub(crate) struct PcmBudget {
    units: Arc<Semaphore>,
    per_reply_bytes: usize,
}

impl PcmBudget {
    pub(crate) fn new(per_reply_bytes: usize, total_bytes: usize) -> Self {
        let units = (total_bytes / BUDGET_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), per_reply_bytes }
    }

    fn take(&self, held_bytes: usize, more_bytes: usize) -> Result<OwnedSemaphorePermit, ServiceError> {
        if held_bytes + more_bytes > self.per_reply_bytes {
            let message = format!(
                "the audio is larger than a plain reply may be ({} bytes of samples): open a session for it",
                self.per_reply_bytes
            );
            return Err(ServiceError::field(Reason::TooLarge, "text", message));
        }
        let units = more_bytes.div_ceil(BUDGET_UNIT_BYTES) as u32;
        Arc::clone(&self.units).try_acquire_many_owned(units).map_err(|_none_left| {
            let message = "the plain replies of this manager hold all the audio they may";
            ServiceError::new(Reason::QueueFull, message).retry_after_ms(1_000)
        })
    }
}

/// The audio of one reply, with the room it takes.
#[derive(Default)]
struct Held {
    pcm: Vec<u8>,
    sample_rate: u32,
    room: Vec<OwnedSemaphorePermit>,
}

impl Server {
    /// Answers a plain request.
    pub(crate) async fn answer_synthesize(&self, incoming: &Incoming) {
        let asked_at = self.core.clock.now();
        let (dress, ask) = plain::read(&incoming.payload, MAX_MESSAGE_BYTES);
        let claim = match &ask {
            Ok(ask) => self.claim(&dress, ask, asked_at).await,
            Err(error) => Err(error.clone()),
        };
        let (result, claimed) = match (ask, claim) {
            (Ok(ask), Ok(Claim::Ours(claimed))) => (self.spoken(&dress, ask, asked_at).await, claimed),
            (_, Ok(Claim::Answered(result))) => (self.refit(&dress, *result, asked_at).await, None),
            (_, Err(error)) | (Err(error), _) => {
                let id = dress.request_id().unwrap_or_else(MessageId::fresh);
                (self.failed(id, asked_at, error), None)
            }
        };
        self.send(incoming, dress.write(&result, self.core.clock.unix_ms())).await;
        if let Some(claimed) = claimed {
            // After the reply: nobody waits for it but who asks again.
            self.keep(claimed, result).await;
        }
    }

    /// Who names a request may ask it again under that name. A bare request has none.
    async fn claim(&self, dress: &Dress, ask: &PlainAsk, asked_at: Instant) -> Result<Claim, ServiceError> {
        let Some(id) = dress.request_id() else { return Ok(Claim::Ours(None)) };
        ask.request.validate()?;
        let until = asked_at + Duration::from_millis(ask.request.deadline_or_default_ms());
        let claiming = self.core.claim_reply(&id, digest(&ask.request)?, until);
        self.hurry.run_until_cancelled(claiming).await.unwrap_or_else(|| Err(stopping()))
    }

    async fn keep(&self, claimed: Box<Claimed>, mut result: SynthesisResult) {
        if let Some(audio) = result.audio.take() {
            // As a record, which is JSON, it may be larger than the reply was.
            match self.fitted(&Dress::Bare, &result, audio).await {
                Ok(audio) => result.audio = Some(audio),
                Err(error) => {
                    tracing::debug!(%error, "the audio of a reply is not kept");
                    result.success = false;
                }
            }
        }
        self.core.keep_reply(claimed, &result).await;
    }

    /// Answers a plain request for which there is no room.
    pub(crate) async fn refuse_plain(&self, incoming: &Incoming, error: ServiceError) {
        let asked_at = self.core.clock.now();
        let (dress, ask) = plain::read(&incoming.payload, MAX_MESSAGE_BYTES);
        let id = ask.map(|ask| ask.request_id).ok().or_else(|| dress.request_id());
        let result = self.failed(id.unwrap_or_else(MessageId::fresh), asked_at, error);
        self.send(incoming, dress.write(&result, self.core.clock.unix_ms())).await;
    }

    async fn speak(&self, ask: PlainAsk, asked_at: Instant) -> (SynthesisResult, Held) {
        let PlainAsk { request_id, request, traceparent, .. } = ask;
        let entered = self.under_way.enter(&request_id);
        let speaking = self.sessions.speak(SpeakAsk {
            request_id: request_id.clone(),
            request,
            traceparent,
            whole_reply_deadline: true,
        });
        let listening = self.hurry.run_until_cancelled(self.listen(speaking));
        let error = match entered.unless_cancelled(listening).await {
            Some(Some(Ok(heard))) => return heard,
            Some(Some(Err(error))) => error,
            Some(None) => stopping(),
            None => ServiceError::new(Reason::Cancelled, "the client gave the request up"),
        };
        (self.failed(request_id, asked_at, error), Held::default())
    }

    async fn listen(&self, mut speaking: Speaking) -> Result<(SynthesisResult, Held), ServiceError> {
        let mut held = Held::default();
        while let Some(event) = speaking.next().await {
            match event {
                SpeechEvent::Accepted { .. } => {}
                SpeechEvent::Audio(piece) => {
                    held.room.push(self.pcm.take(held.pcm.len(), piece.pcm.len())?);
                    held.pcm.extend_from_slice(&piece.pcm);
                    held.sample_rate = piece.sample_rate;
                }
                SpeechEvent::Ended(result) => return Ok((*result, held)),
            }
        }
        Err(ServiceError::new(Reason::NoManager, "the session ended without a result; ask again"))
    }

    /// Speaks a request: its result, with the audio inside or stored.
    async fn spoken(&self, dress: &Dress, ask: PlainAsk, asked_at: Instant) -> SynthesisResult {
        let format = ask.format;
        let (mut result, held) = self.speak(ask, asked_at).await;
        if result.success {
            match self.audio_of(dress, &result, held, format).await {
                Ok(audio) => result.audio = Some(audio),
                Err(error) => result = self.failed(result.request_id, asked_at, error),
            }
        }
        result
    }

    /// An answer of before, as it fits into this reply.
    async fn refit(&self, dress: &Dress, mut result: SynthesisResult, asked_at: Instant) -> SynthesisResult {
        let Some(audio) = result.audio.take() else { return result };
        match self.fitted(dress, &result, audio).await {
            Ok(audio) => SynthesisResult { audio: Some(audio), ..result },
            Err(error) => self.failed(result.request_id, asked_at, error),
        }
    }

    async fn audio_of(
        &self,
        dress: &Dress,
        result: &SynthesisResult,
        held: Held,
        format: AudioFormat,
    ) -> Result<AudioRef, ServiceError> {
        let sample_rate = held.sample_rate;
        let audio = encoded(held.pcm, sample_rate, format).await?;
        let whole = AudioRef { format, sample_rate, data: Some(audio.into()), bucket: None, key: None };
        self.fitted(dress, result, whole).await
    }

    /// Audio that is inside stays there where it fits, and is stored otherwise.
    async fn fitted(
        &self,
        dress: &Dress,
        result: &SynthesisResult,
        audio: AudioRef,
    ) -> Result<AudioRef, ServiceError> {
        let AudioRef { data: Some(AudioData(data)), .. } = audio.clone() else { return Ok(audio) };
        let frame = AudioRef { data: None, ..audio };
        let framed = SynthesisResult { audio: Some(frame.clone()), ..result.clone() };
        let frame_bytes = dress.write(&framed, self.core.clock.unix_ms())?.len();
        if dress.fits(frame_bytes, data.len(), self.core.bus.server().max_payload) {
            return Ok(AudioRef { data: Some(AudioData(data)), ..frame });
        }
        let key = names::reply_audio_key(SessionId::new(), frame.format.name());
        self.core.bus.audio_store().put(&key, data).await.map_err(|error| error.into_service_error())?;
        Ok(AudioRef { bucket: Some(names::AUDIO_BUCKET.to_owned()), key: Some(key), ..frame })
    }

    async fn send(&self, to: &Incoming, reply: Result<Vec<u8>, ServiceError>) {
        let Some(subject) = to.reply() else { return };
        match reply {
            Ok(bytes) => {
                if let Err(error) = self.core.bus.respond_raw(subject, bytes.into()).await {
                    tracing::warn!(%error, "a plain reply was not sent");
                }
            }
            Err(error) => tracing::error!(%error, "a plain reply could not be written"),
        }
    }

    fn failed(&self, request_id: MessageId, asked_at: Instant, error: ServiceError) -> SynthesisResult {
        let latency = self.core.clock.now().saturating_duration_since(asked_at);
        SynthesisResult::failed(request_id, latency.as_secs_f64() * 1000.0, error)
    }
}

fn stopping() -> ServiceError {
    ServiceError::new(Reason::NoManager, "this manager is stopping; ask again")
}

/// The audio as the client wants it.
async fn encoded(pcm: Vec<u8>, sample_rate: u32, format: AudioFormat) -> Result<Vec<u8>, ServiceError> {
    let is_copy = matches!(format, AudioFormat::Wav | AudioFormat::Pcm);
    if is_copy && pcm.len() <= WRITTEN_IN_PLACE_BYTES {
        return encode_samples(&pcm, sample_rate, format);
    }
    tokio::task::spawn_blocking(move || encode_samples(&pcm, sample_rate, format))
        .await
        .unwrap_or_else(|_panic| Err(ServiceError::new(Reason::Output, "the encoder failed")))
}

fn encode_samples(pcm: &[u8], sample_rate: u32, format: AudioFormat) -> Result<Vec<u8>, ServiceError> {
    let output = |why: String| ServiceError::new(Reason::Output, why);
    let samples = pcm::from_bytes(pcm).ok_or_else(|| output("the audio ends in mid-sample".into()))?;
    encode::encode_file(format, &samples, sample_rate)
        .map_err(|error| output(format!("the audio cannot be encoded: {error}")))
}
