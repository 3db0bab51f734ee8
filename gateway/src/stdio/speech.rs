//! One request to speak, from the parent's words to a recording.

use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use chorus_audio::encode::is_built;
use chorus_client::{SpeakAsk, Speaking, SpeechEvent, TextInput, clips};
use chorus_protocol::audio::AudioRef;
use chorus_protocol::gateway::MAX_INLINE_AUDIO_BYTES;
use chorus_protocol::{
    AudioFormat, ClipId, MessageId, Reason, ServiceError, SynthesisRequest, SynthesisResult,
};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::fleet::Fleet;
use crate::place;
use crate::recording::Recording;

/// What is to be spoken.
pub(super) struct Speech {
    /// What the parent calls it.
    pub(super) id: MessageId,
    /// What it asks for.
    pub(super) request: SynthesisRequest,
    /// Its trace.
    pub(super) traceparent: Option<String>,
    /// Cancelled when it is given up.
    pub(super) cancel: CancellationToken,
}

/// Where the audio goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Into {
    /// Into this file.
    File(PathBuf),
    /// Into a new temporary file.
    Temporary,
    /// Into the result.
    Result,
}

/// A request that was spoken, or not; its audio is not delivered yet.
pub(super) struct Recorded {
    id: MessageId,
    result: SynthesisResult,
    recording: Recording,
    format: AudioFormat,
    into: Into,
    asked_at: Instant,
}

/// Why a request can have no session, or its session.
pub(super) type Begun = Result<Speaking, ServiceError>;

impl Speech {
    /// Waits for the fleet and asks it to speak.
    pub(super) async fn begin(&self, shared: &Shared) -> Begun {
        let (fleet, ask) = self.ask(shared, false).await?;
        Ok(fleet.sessions.speak(ask))
    }

    /// The same of a request whose text is still to come.
    pub(super) async fn begin_coming(&self, shared: &Shared) -> Result<(Speaking, TextInput), ServiceError> {
        let (fleet, ask) = self.ask(shared, true).await?;
        Ok(fleet.sessions.speak_coming(ask))
    }

    /// The fleet, and what is left for it to do: no path, no format, and the clip where workers find it.
    async fn ask(&self, shared: &Shared, text_comes: bool) -> Result<(Fleet, SpeakAsk), ServiceError> {
        let mut request = SynthesisRequest { output_path: None, output_format: None, ..self.request.clone() };
        let given = request.speaker_clip.take();
        if text_comes && request.text.trim().is_empty() {
            request.validate_options()?;
        } else {
            request.validate()?;
        }
        let clip = match given {
            Some(path) if !ClipId::is_meant(&path) => Some(read_clip(shared, &path).await?),
            reference => {
                request.speaker_clip = reference;
                request.clip()?;
                None
            }
        };
        let fleet = tokio::select! {
            fleet = shared.access.ready() => fleet?,
            () = self.cancel.cancelled() => return Err(cancelled()),
        };
        if let Some(clip) = clip {
            request.speaker_clip = Some(fleet.sessions.keep_clip(clip).await?.to_string());
        }
        let ask = SpeakAsk {
            request_id: self.id.clone(),
            request,
            traceparent: self.traceparent.clone(),
            whole_reply_deadline: false,
        };
        Ok((fleet, ask))
    }

    /// Speaks into a recording. `unnamed` is where the audio of a request without a path goes.
    pub(super) async fn record(self, shared: &Shared, unnamed: Into) -> Recorded {
        let asked_at = shared.access.clock().now();
        let target = self.target(shared, unnamed);
        let mut recorded = Recorded {
            id: self.id.clone(),
            result: SynthesisResult::failed(self.id.clone(), 0.0, cancelled()),
            recording: Recording::default(),
            format: AudioFormat::Wav,
            into: Into::Result,
            asked_at,
        };
        let spoken = match target {
            Ok((into, format)) => {
                (recorded.into, recorded.format) = (into, format);
                self.listen(shared, &mut recorded.recording).await
            }
            Err(error) => Err(error),
        };
        match spoken {
            Ok(result) => recorded.result = result,
            Err(error) => recorded.result.error = Some(error),
        }
        recorded
    }

    fn target(&self, shared: &Shared, unnamed: Into) -> Result<(Into, AudioFormat), ServiceError> {
        let place =
            self.request.output_path.as_deref().map(|path| shared.config.root.place(path)).transpose()?;
        let format = built(place::format(self.request.output_format, place.as_deref()))?;
        Ok((place.map_or(unnamed, Into::File), format))
    }

    async fn listen(
        &self,
        shared: &Shared,
        recording: &mut Recording,
    ) -> Result<SynthesisResult, ServiceError> {
        let mut speaking = self.begin(shared).await?;
        let mut heard = Listening::new(&self.cancel);
        while let Some(event) = heard.next(&mut speaking).await {
            match event {
                SpeechEvent::Accepted { model, .. } => tracing::debug!(id = %self.id, %model, "accepted"),
                SpeechEvent::Audio(piece) => {
                    // A slow disk holds the listener back, and with it the asking for more.
                    tokio::task::block_in_place(|| recording.push(&piece.pcm, piece.sample_rate))?;
                }
                SpeechEvent::Ended(result) => return Ok(*result),
            }
        }
        Err(ServiceError::new(Reason::NoManager, "the session ended without a result; ask again"))
    }
}

/// Events of a session, until it is given up; its end comes all the same.
pub(super) struct Listening<'a> {
    cancel: &'a CancellationToken,
    told: bool,
}

impl<'a> Listening<'a> {
    pub(super) fn new(cancel: &'a CancellationToken) -> Self {
        Self { cancel, told: false }
    }

    pub(super) async fn next(&mut self, speaking: &mut Speaking) -> Option<SpeechEvent> {
        loop {
            tokio::select! {
                event = speaking.next() => return event,
                () = self.cancel.cancelled(), if !self.told => {
                    self.told = true;
                    speaking.cancel();
                }
            }
        }
    }
}

impl Recorded {
    /// Puts the audio where it shall go; the result says where. Blocks as long as a disk does.
    pub(super) fn deliver(self, now: impl FnOnce() -> Instant) -> SynthesisResult {
        let Self { id, mut result, recording, format, into, asked_at } = self;
        if result.success {
            let delivered = match into {
                Into::File(place) => recording.into_file(&place, format).map(|()| {
                    result.output_path = Some(place.display().to_string());
                }),
                Into::Temporary => recording.into_temporary_file(format).map(|place| {
                    result.output_path = Some(place.display().to_string());
                }),
                Into::Result => {
                    let sample_rate = chorus_audio::encode::carried_rate(format, recording.sample_rate());
                    recording.into_bytes(format, MAX_INLINE_AUDIO_BYTES).map(|audio| {
                        let data = Some(audio.into());
                        result.audio = Some(AudioRef { format, sample_rate, data, bucket: None, key: None });
                    })
                }
            };
            if let Err(error) = delivered {
                result = SynthesisResult::failed(id, 0.0, error);
            }
        }
        // As the parent sees it: from its words to the whole audio, the fleet's start included.
        result.latency_ms = (now() - asked_at).as_secs_f64() * 1000.0;
        result
    }
}

/// A clip of the parent's host.
async fn read_clip(shared: &Shared, path: &str) -> Result<Bytes, ServiceError> {
    let place = shared.config.root.existing(path)?;
    clips::read(&place).await
}

/// The format, if this build can encode it.
pub(super) fn built(format: AudioFormat) -> Result<AudioFormat, ServiceError> {
    if is_built(format) {
        return Ok(format);
    }
    let message = format!("this build of chorus has no encoder for {format}");
    Err(ServiceError::field(Reason::UnsupportedOption, "outputFormat", message))
}

/// The error of a request that was given up before it had a session.
pub(super) fn cancelled() -> ServiceError {
    ServiceError::new(Reason::Cancelled, "the request was given up")
}
