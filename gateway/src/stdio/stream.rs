//! One request to speak as a stream: audio events as the segments are spoken, then the result.

use chorus_audio::encode::{Encoder, EncoderConfig, carried_rate};
use chorus_client::{AudioPiece, Speaking, SpeechEvent};
use chorus_protocol::audio::AudioChunk;
use chorus_protocol::gateway::{GatewayEvent, MAX_EVENT_AUDIO_BYTES};
use chorus_protocol::{AudioData, AudioFormat, Reason, ServiceError, SynthesisResult};

use super::Shared;
use super::flights::InFlight;
use super::outbox::Speaker;
use super::speech::{Listening, Speech, built, cancelled};
use crate::recording;

/// Audio on its way to the parent.
struct Sender<'a> {
    speech: &'a Speech,
    flight: &'a InFlight,
    speaker: &'a Speaker,
    format: AudioFormat,
    encoder: Option<(Box<dyn Encoder>, u32)>,
    sequence: u64,
}

/// Speaks; the result, whose audio has been sent.
pub(super) async fn speak(
    shared: &Shared,
    speech: &Speech,
    flight: &InFlight,
    speaker: &Speaker,
) -> SynthesisResult {
    let asked_at = shared.access.clock().now();
    let mut spoken = send_all(shared, speech, flight, speaker).await;
    if let Some(text) = &flight.text {
        text.close(speaker).await;
        if let Some(fault) = text.fault() {
            spoken = Err(fault);
        }
    }
    let mut result = spoken.unwrap_or_else(|error| SynthesisResult::failed(speech.id.clone(), 0.0, error));
    result.latency_ms = (shared.access.clock().now() - asked_at).as_secs_f64() * 1000.0;
    result
}

async fn send_all(
    shared: &Shared,
    speech: &Speech,
    flight: &InFlight,
    speaker: &Speaker,
) -> Result<SynthesisResult, ServiceError> {
    if speech.request.output_path.is_some() {
        let message = "outputPath is for whole results: ask for synthesize";
        return Err(ServiceError::field(Reason::UnsupportedOption, "outputPath", message));
    }
    let format = built(speech.request.output_format.unwrap_or(AudioFormat::Pcm))?;
    let mut sender = Sender { speech, flight, speaker, format, encoder: None, sequence: 0 };
    let Some(text) = &flight.text else { return sender.all(speech.begin(shared).await?).await };
    let (speaking, input) = speech.begin_coming(shared).await?;
    let listening = sender.all(speaking);
    tokio::pin!(listening);
    tokio::select! {
        result = &mut listening => result,
        () = text.feed(input, speaker) => listening.await,
    }
}

impl Sender<'_> {
    /// Sends all audio of a session, to its result.
    async fn all(&mut self, mut speaking: Speaking) -> Result<SynthesisResult, ServiceError> {
        let mut listening = Listening::new(&self.speech.cancel);
        while let Some(event) = listening.next(&mut speaking).await {
            match event {
                SpeechEvent::Accepted { .. } => {}
                SpeechEvent::Audio(piece) => self.piece(piece).await?,
                SpeechEvent::Ended(result) => {
                    if result.success {
                        self.last().await?;
                    }
                    return Ok(*result);
                }
            }
        }
        Err(ServiceError::new(Reason::NoManager, "the session ended without a result; ask again"))
    }

    async fn piece(&mut self, piece: AudioPiece) -> Result<(), ServiceError> {
        let (mut encoder, rate) = match self.encoder.take() {
            Some(encoder) => encoder,
            None => {
                let config = EncoderConfig { sample_rate: piece.sample_rate, total_samples: None };
                let rate = carried_rate(self.format, piece.sample_rate);
                (recording::new_encoder(self.format, config)?, rate)
            }
        };
        let encoded = tokio::task::block_in_place(|| recording::push(&mut *encoder, &piece.pcm))?;
        self.encoder = Some((encoder, rate));
        for data in encoded.chunks(MAX_EVENT_AUDIO_BYTES) {
            self.send(data, rate, false).await?;
        }
        Ok(())
    }

    async fn last(&mut self) -> Result<(), ServiceError> {
        let Some((mut encoder, rate)) = self.encoder.take() else {
            return Err(ServiceError::new(Reason::Output, "no audio came"));
        };
        let rest = tokio::task::block_in_place(|| recording::finish(&mut *encoder))?;
        let (whole, last) = match rest.len() % MAX_EVENT_AUDIO_BYTES {
            0 if !rest.is_empty() => rest.split_at(rest.len() - MAX_EVENT_AUDIO_BYTES),
            over => rest.split_at(rest.len() - over),
        };
        for data in whole.chunks(MAX_EVENT_AUDIO_BYTES) {
            self.send(data, rate, false).await?;
        }
        self.send(last, rate, true).await
    }

    async fn send(&mut self, data: &[u8], sample_rate: u32, last: bool) -> Result<(), ServiceError> {
        if let Some(window) = &self.flight.window {
            tokio::select! {
                room = window.acquire() => room.map_err(|_closed| cancelled())?.forget(),
                () = self.speech.cancel.cancelled() => return Err(cancelled()),
            }
        }
        let chunk = AudioChunk {
            request_id: self.speech.id.clone(),
            sequence: self.sequence,
            data: AudioData::from(data.to_vec()),
            format: self.format,
            sample_rate,
            last,
        };
        self.sequence += 1;
        tokio::select! {
            sent = self.speaker.event(&self.speech.id, GatewayEvent::Audio(chunk)) => sent.map_err(|_gone| cancelled()),
            () = self.speech.cancel.cancelled() => Err(cancelled()),
        }
    }
}
