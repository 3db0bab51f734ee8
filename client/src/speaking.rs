//! What the listener holds while a request is spoken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use chorus_protocol::{MessageId, ModelName, SynthesisRequest, SynthesisResult};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What is asked of a session.
#[derive(Debug, Clone)]
pub struct SpeakAsk {
    /// What the client calls the request.
    pub request_id: MessageId,
    /// What is asked for.
    pub request: SynthesisRequest,
    /// The client's trace context.
    pub traceparent: Option<String>,
    /// Whether the deadline covers the whole reply (plain requests) instead of first audio.
    pub whole_reply_deadline: bool,
}

/// A piece of audio, in order: s16le mono PCM of one whole segment and the pause before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioPiece {
    /// The samples.
    pub pcm: Bytes,
    /// Samples per second; the same for all pieces of a request.
    pub sample_rate: u32,
    /// The segment it is.
    pub segment: u32,
    /// Silence owed before the next audio, in milliseconds.
    pub pause_after_ms: u32,
    /// Bytes of the session's text that are spoken with it.
    pub consumed_bytes: usize,
}

/// Where a session goes on that an earlier one began: its text is only what is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resume {
    /// The index of its first segment; 0 where nothing was spoken yet.
    pub first_segment: u32,
    /// Silence owed before its first audio, in milliseconds.
    pub pause_ms: u32,
    /// Samples spoken before; the result counts them.
    pub samples: u64,
    /// How much of an SSML document was planned; its text is the whole document.
    pub planned_bytes: usize,
    /// Their rate, which holds on; 0 where nothing was spoken yet.
    pub sample_rate: u32,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum SpeechEvent {
    /// A manager has taken it.
    Accepted {
        /// The model that will speak.
        model: ModelName,
        /// The text, where a hook changed it.
        text: Option<String>,
    },
    /// The next piece of audio.
    Audio(AudioPiece),
    /// It is over; the last event, and it always comes. Carries no audio.
    Ended(Box<SynthesisResult>),
}

/// Audio that was taken: tells the session that there is room again.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) segments: AtomicU32,
    pub(crate) changed: Notify,
}

/// A request being spoken. Dropping it cancels the request.
#[derive(Debug)]
pub struct Speaking {
    pub(crate) events: mpsc::Receiver<SpeechEvent>,
    pub(crate) taken: Arc<Taken>,
    pub(crate) cancel: CancellationToken,
    pub(crate) _cancel_on_drop: DropGuard,
}

impl Speaking {
    /// The next event; `None` after [`SpeechEvent::Ended`]. A listener that stops calling stops the asking for more, and
    /// holds no worker.
    pub async fn next(&mut self) -> Option<SpeechEvent> {
        let event = self.events.recv().await?;
        if matches!(event, SpeechEvent::Audio(_)) {
            self.taken.segments.fetch_add(1, Ordering::AcqRel);
            self.taken.changed.notify_one();
        }
        Some(event)
    }

    /// Gives the request up; [`SpeechEvent::Ended`] with `cancelled` still comes.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// What comes of a text.
#[derive(Debug)]
pub(crate) enum TextPiece {
    More(String),
    Flush,
}

/// The writing end of a request whose text comes in pieces. Dropping it ends the text.
#[derive(Debug, Clone)]
pub struct TextInput(pub(crate) mpsc::Sender<TextPiece>);

impl TextInput {
    /// Adds to the text; waits while the session has enough. False when the request is over: nobody reads any more.
    pub async fn push(&self, text: impl Into<String>) -> bool {
        self.0.send(TextPiece::More(text.into())).await.is_ok()
    }

    /// Has what was written so far spoken, though its last sentence may not look complete. False as of [`TextInput::push`].
    pub async fn flush(&self) -> bool {
        self.0.send(TextPiece::Flush).await.is_ok()
    }
}

/// All audio of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectedAudio {
    /// s16le mono PCM.
    pub pcm: Vec<u8>,
    /// Samples per second; 0 when there is no audio.
    pub sample_rate: u32,
}

/// Listens to the end.
pub async fn collect(mut speaking: Speaking) -> (SynthesisResult, CollectedAudio) {
    let mut audio = CollectedAudio::default();
    loop {
        match speaking.next().await {
            Some(SpeechEvent::Audio(piece)) => {
                audio.sample_rate = piece.sample_rate;
                audio.pcm.extend_from_slice(&piece.pcm);
            }
            Some(SpeechEvent::Ended(result)) => return (*result, audio),
            Some(SpeechEvent::Accepted { .. }) => {}
            None => return (crate::host::host_is_gone(), audio),
        }
    }
}
