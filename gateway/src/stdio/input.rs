//! Messages of the parent: lines, or after a handshake frames.

use bytes::Bytes;
use chorus_protocol::gateway::MAX_REQUEST_BYTES;
use chorus_runtime::process::{FrameError, FrameReader, Line, LineReader};
use tokio::io::AsyncRead;

/// One message, or what stood in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Its bytes.
    Whole(Bytes),
    /// A line over the limit, skipped; its length in bytes.
    TooLong(u64),
}

/// See the module.
pub(super) enum Input<R> {
    Lines(LineReader<R>),
    Frames(FrameReader<R>),
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Self::Lines(LineReader::new(reader, MAX_REQUEST_BYTES))
    }

    /// From now on frames.
    pub(super) fn into_frames(self) -> Self {
        match self {
            Self::Lines(lines) => Self::Frames(lines.into_frames(MAX_REQUEST_BYTES)),
            frames @ Self::Frames(_) => frames,
        }
    }

    /// The next message; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// Why nothing more can be read.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, FrameError> {
        match self {
            Self::Frames(frames) => Ok(frames.next().await?.map(Message::Whole)),
            Self::Lines(lines) => Ok(lines.next().await?.map(|line| match line {
                Line::Whole(line) => Message::Whole(line),
                Line::TooLong { len } => Message::TooLong(len),
            })),
        }
    }
}
