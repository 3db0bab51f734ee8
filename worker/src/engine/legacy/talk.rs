//! The translator's side of the frames: requests in, answers out, and which text is spoken for whom.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::pipe::{Capabilities, EngineEvent, EngineRequest, EngineSpeech, MAX_FRAME_BYTES};
use chorus_protocol::{Envelope, MessageId, ServiceError};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::process::{FrameReader, FrameWriter};
use serde::Serialize;
use tokio::io::DuplexStream;

use super::Over;
use super::audio::Take;

/// A request of the worker.
pub(super) struct Asked {
    pub(super) id: MessageId,
    pub(super) request: EngineRequest,
}

/// A text that is spoken, or shall be.
pub(super) struct Speaking {
    /// The worker's request.
    pub(super) id: MessageId,
    /// Whether nobody wants it any more.
    pub(super) given_up: bool,
    speech: EngineSpeech,
    warm_up: bool,
    begun: Option<(MessageId, PathBuf, Instant)>,
}

impl Speaking {
    pub(super) fn of(id: MessageId, speech: EngineSpeech) -> Self {
        Self { id, given_up: false, speech, warm_up: false, begun: None }
    }

    pub(super) fn warm_up(id: MessageId, text: &str) -> Self {
        Self { warm_up: true, ..Self::of(id, EngineSpeech::plain("", text)) }
    }

    pub(super) fn is_warm_up(&self) -> bool {
        self.warm_up
    }

    /// What the script is asked for: only what it can do.
    pub(super) fn for_script(&self, can: &Capabilities) -> EngineSpeech {
        EngineSpeech {
            speed: self.speech.speed.filter(|_| can.speed),
            pitch: self.speech.pitch.filter(|_| can.pitch),
            seed: self.speech.seed.filter(|_| can.seed),
            ..self.speech.clone()
        }
    }

    /// The speed that is to be made of its audio.
    pub(super) fn speed(&self, can: &Capabilities) -> Option<f32> {
        self.speech.speed.filter(|_| !can.speed).map(|speed| speed as f32)
    }

    /// The shift of pitch that is to be made of its audio.
    pub(super) fn pitch(&self, can: &Capabilities) -> Option<f32> {
        self.speech.pitch.filter(|_| !can.pitch).map(|semitones| semitones as f32)
    }

    /// It is asked for now, as `line`, into this file.
    pub(super) fn begins(&mut self, line: MessageId, path: PathBuf) {
        self.begun = Some((line, path, Instant::now()));
    }

    /// How long it has been spoken.
    pub(super) fn took(&self) -> Duration {
        self.begun.as_ref().map_or(Duration::ZERO, |(_, _, since)| since.elapsed())
    }

    /// The file it is spoken into.
    pub(super) fn path(&self) -> &Path {
        self.begun.as_ref().map_or(Path::new(""), |(_, path, _)| path)
    }

    fn line(&self) -> Option<&MessageId> {
        self.begun.as_ref().map(|(line, _, _)| line)
    }
}

/// See the module.
pub(super) struct Talk {
    requests: FrameReader<DuplexStream>,
    answers: FrameWriter<DuplexStream>,
    clock: SharedClock,
    /// Texts that wait.
    pub(super) queue: VecDeque<Speaking>,
    /// Texts that the script speaks, in the order in which it was asked.
    pub(super) speaking: VecDeque<Speaking>,
}

impl Talk {
    pub(super) fn new(requests: DuplexStream, answers: DuplexStream, clock: SharedClock) -> Self {
        Self {
            requests: FrameReader::new(requests, MAX_FRAME_BYTES),
            answers: FrameWriter::new(answers, MAX_FRAME_BYTES),
            clock,
            queue: VecDeque::new(),
            speaking: VecDeque::new(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// The worker's next request; `None` when the link is closed. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Asked> {
        loop {
            let frame = self.requests.next().await.ok()??;
            match codec::decode::<EngineRequest>(&frame, MAX_FRAME_BYTES) {
                Ok(envelope) => return Some(Asked { id: envelope.message_id, request: envelope.payload }),
                Err(error) => tracing::warn!(%error, "a request to an old engine cannot be read"),
            }
        }
    }

    /// Takes a text that was not begun out of the queue; whether it was there.
    pub(super) fn unqueue(&mut self, id: &MessageId) -> bool {
        let before = self.queue.len();
        self.queue.retain(|waiting| waiting.id != *id);
        self.queue.len() < before
    }

    /// Marks a text as unwanted; the line it was asked for by.
    pub(super) fn give_up(&mut self, id: &MessageId) -> Option<MessageId> {
        let speaking = self.speaking.iter_mut().find(|speaking| speaking.id == *id)?;
        speaking.given_up = true;
        speaking.line().cloned()
    }

    /// The text that an answer is about: the one it names, else the first.
    pub(super) fn take(&mut self, to: Option<&MessageId>) -> Option<Speaking> {
        match to {
            None => self.speaking.pop_front(),
            Some(line) => {
                let at = self.speaking.iter().position(|speaking| speaking.line() == Some(line))?;
                self.speaking.remove(at)
            }
        }
    }

    /// Answers a request.
    pub(super) async fn answer<T: Serialize>(&mut self, to: &MessageId, payload: T) -> Result<(), Over> {
        let envelope = Envelope::response(to, payload, self.now_ms());
        self.send(&envelope).await
    }

    /// Answers a request with an error.
    pub(super) async fn fail(&mut self, to: &MessageId, error: ServiceError) -> Result<(), Over> {
        let envelope = Envelope::error(Some(to), error, self.now_ms());
        self.send(&envelope).await
    }

    /// Tells something about a request.
    pub(super) async fn event(&mut self, of: &MessageId, event: EngineEvent) -> Result<(), Over> {
        let envelope = Envelope::event(event, self.now_ms()).answering(of);
        self.send(&envelope).await
    }

    /// Sends what was spoken: pieces, and the last one in the answer.
    pub(super) async fn speak(&mut self, to: &MessageId, take: Take, engine_ms: f64) -> Result<(), Over> {
        let (pieces, answer) = take.pieces(engine_ms);
        for (seq, data) in pieces.into_iter().enumerate() {
            self.event(to, EngineEvent::Chunk { seq: seq as u32, data: data.into() }).await?;
        }
        self.answer(to, WithMethod { method: "synthesize", answer }).await
    }

    async fn send<T: Serialize>(&mut self, envelope: &Envelope<T>) -> Result<(), Over> {
        let frame = codec::encode(envelope, Encoding::MessagePack)
            .map_err(|error| Over::Broken(error.to_string()))?;
        self.answers.send(&frame).await.map_err(|_closed| Over::Link)
    }
}

/// How an engine says what it answers.
#[derive(Serialize)]
struct WithMethod<T> {
    method: &'static str,
    #[serde(flatten)]
    answer: T,
}
