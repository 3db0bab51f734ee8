//! Framing of the engine pipe: frames with a length prefix, and lines for legacy engines.
//!
//! A frame is a big-endian u32 length and that many bytes. [`FrameReader`] fills one buffer with as much as a
//! read gives and hands out frames as slices of it; [`FrameWriter`] gathers frames into one buffer and writes
//! them together. Both keep their place when a future is dropped, so they may stand in a `select!`. After an
//! error other than [`FrameError::Stalled`] the boundary is lost and the pipe must be closed.

mod lines;

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

pub use lines::{Line, LineReader};

/// The greatest frame body of the engine pipe, in bytes.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;

const PREFIX_BYTES: usize = 4;
/// What one read asks for; the usual size of a pipe's buffer.
const READ_BYTES: usize = 64 * 1024;
/// A writer's buffer that grew beyond this is given back when empty.
const KEPT_WRITE_BYTES: usize = 256 * 1024;

/// What can go wrong on a framed pipe.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame larger than agreed: on reading, its body was not read; on writing, nothing of it was sent.
    #[error("a frame of {len} bytes is over the limit of {max}")]
    Oversized {
        /// Length of the body in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The pipe ended inside a frame.
    #[error("the pipe ended after {have} bytes of a frame of {want}")]
    Truncated {
        /// Bytes there, prefix included.
        have: usize,
        /// Bytes needed, prefix included (the prefix alone when not even that was there).
        want: usize,
    },
    /// A frame began and its rest did not come in time.
    #[error("a frame was not finished within {after:?}")]
    Stalled {
        /// The deadline that passed.
        after: Duration,
    },
    /// The other end is gone.
    #[error("the pipe is closed")]
    Closed,
    /// Reading or writing failed.
    #[error("the pipe failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero | io::ErrorKind::ConnectionReset => {
                Self::Closed
            }
            _ => Self::Io(error),
        }
    }
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
    max_bytes: usize,
    deadline: Option<Duration>,
    frame_began: Option<Instant>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `max_bytes` each from `source`.
    pub fn new(source: R, max_bytes: usize) -> Self {
        Self { source, buffer: BytesMut::new(), max_bytes, deadline: None, frame_began: None }
    }

    /// Gives a frame that has begun this long to be finished. Silence between frames is not limited.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The body of the next frame; `None` when the pipe ended between frames. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let want = match self.take_buffered()? {
                Ok(frame) => return Ok(Some(frame)),
                Err(want) => want,
            };
            if self.read_more(want).await? == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    have => Err(FrameError::Truncated { have, want }),
                };
            }
        }
    }

    /// The next frame if it is already here, else how many bytes the buffer must hold for it.
    fn take_buffered(&mut self) -> Result<Result<Bytes, usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(Err(PREFIX_BYTES));
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > self.max_bytes {
            return Err(FrameError::Oversized { len, max: self.max_bytes });
        }
        let want = PREFIX_BYTES + len;
        if self.buffer.len() < want {
            return Ok(Err(want));
        }
        self.buffer.advance(PREFIX_BYTES);
        self.frame_began = None;
        Ok(Ok(self.buffer.split_to(len).freeze()))
    }

    async fn read_more(&mut self, want: usize) -> Result<usize, FrameError> {
        let missing = want - self.buffer.len();
        self.buffer.reserve(missing.max(READ_BYTES));
        // A frame has begun as soon as part of it is here, also when that came with the frame before it.
        let begun = !self.buffer.is_empty();
        let reading = self.source.read_buf(&mut self.buffer);
        let Some(after) = self.deadline.filter(|_| begun) else {
            return Ok(reading.await?);
        };
        let began = *self.frame_began.get_or_insert_with(Instant::now);
        let in_time = timeout_at(began + after, reading).await;
        Ok(in_time.map_err(|_elapsed| FrameError::Stalled { after })??)
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    sink: W,
    buffer: BytesMut,
    max_bytes: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames of at most `max_bytes` each to `sink`.
    pub fn new(sink: W, max_bytes: usize) -> Self {
        Self { sink, buffer: BytesMut::new(), max_bytes }
    }

    /// Puts a frame behind those that wait for [`FrameWriter::flush`].
    pub fn queue(&mut self, body: &[u8]) -> Result<(), FrameError> {
        let len = match u32::try_from(body.len()) {
            Ok(len) if body.len() <= self.max_bytes => len,
            _ => return Err(FrameError::Oversized { len: body.len(), max: self.max_bytes }),
        };
        self.buffer.reserve(PREFIX_BYTES + body.len());
        self.buffer.put_u32(len);
        self.buffer.put_slice(body);
        Ok(())
    }

    /// Bytes that wait for [`FrameWriter::flush`].
    pub fn queued_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what waits. When the future is dropped half-way, the next call goes on where it stopped.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        while !self.buffer.is_empty() {
            if self.sink.write_buf(&mut self.buffer).await? == 0 {
                return Err(FrameError::Closed);
            }
        }
        if self.buffer.capacity() > KEPT_WRITE_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(self.sink.flush().await?)
    }

    /// Writes one frame.
    pub async fn send(&mut self, body: &[u8]) -> Result<(), FrameError> {
        self.queue(body)?;
        self.flush().await
    }

    /// Writes many frames with as few writes as the pipe allows. An oversized frame among them stops before
    /// it; those before it stay queued.
    pub async fn send_all<B: AsRef<[u8]>>(
        &mut self,
        bodies: impl IntoIterator<Item = B>,
    ) -> Result<(), FrameError> {
        for body in bodies {
            self.queue(body.as_ref())?;
        }
        self.flush().await
    }

    /// The pipe itself, to close it.
    pub fn into_inner(self) -> W {
        self.sink
    }
}

#[cfg(test)]
mod tests;
