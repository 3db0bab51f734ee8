//! Lines for legacy engines, which speak one JSON document per line on stdin and stdout.
//!
//! Such engines share stdout with whatever libraries print, so a line may be anything: too long, not UTF-8,
//! empty. [`LineReader`] never fails on content. It keeps at most one bounded line and says how much of a
//! longer one it skipped.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{FrameError, FrameReader};

const READ_BYTES: usize = 16 * 1024;

/// One line of a legacy engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Its bytes, without the line end; whether they are JSON is for the caller to see.
    Whole(Bytes),
    /// A line over the limit was skipped.
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
}

/// Reads lines, with a bound on their length.
#[derive(Debug)]
pub struct LineReader<R> {
    source: R,
    buffer: BytesMut,
    /// Bytes at the head of the buffer that hold no line end.
    searched: usize,
    max_bytes: usize,
    /// Bytes of an over-long line skipped so far.
    skipped: Option<u64>,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Reads lines of at most `max_bytes` each from `source`.
    pub fn new(source: R, max_bytes: usize) -> Self {
        Self { source, buffer: BytesMut::new(), searched: 0, max_bytes, skipped: None }
    }

    /// The rest of the stream as frames: both sides have agreed on them.
    pub fn into_frames(self, max_bytes: usize) -> FrameReader<R> {
        FrameReader { source: self.source, buffer: self.buffer, max_bytes, deadline: None, frame_began: None }
    }

    /// The next line that is not empty; `None` at the end. An unfinished last line counts. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Line>, FrameError> {
        loop {
            while let Some(line) = self.take_buffered() {
                if line != Line::Whole(Bytes::new()) {
                    return Ok(Some(line));
                }
            }
            self.buffer.reserve(READ_BYTES);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Ok(self.take_rest());
            }
        }
    }

    fn take_buffered(&mut self) -> Option<Line> {
        let found = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
        let Some(offset) = found else {
            self.searched = self.buffer.len();
            if self.searched > self.max_bytes || self.skipped.is_some() {
                *self.skipped.get_or_insert(0) += self.searched as u64;
                self.buffer.clear();
                self.searched = 0;
            }
            return None;
        };
        let line = self.buffer.split_to(self.searched + offset);
        self.buffer.advance(1);
        self.searched = 0;
        Some(self.finish(line))
    }

    fn take_rest(&mut self) -> Option<Line> {
        let rest = self.buffer.split();
        self.searched = 0;
        if rest.is_empty() && self.skipped.is_none() {
            return None;
        }
        Some(self.finish(rest)).filter(|line| *line != Line::Whole(Bytes::new()))
    }

    fn finish(&mut self, mut line: BytesMut) -> Line {
        let skipped = self.skipped.take();
        let len = skipped.unwrap_or(0) + line.len() as u64;
        if skipped.is_some() || line.len() > self.max_bytes {
            return Line::TooLong { len };
        }
        if line.ends_with(b"\r") {
            line.truncate(line.len() - 1);
        }
        Line::Whole(line.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn read_all(bytes: &[u8], max: usize) -> Vec<Line> {
        let mut reader = LineReader::new(bytes, max);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            lines.push(line);
        }
        lines
    }

    fn whole(text: &'static [u8]) -> Line {
        Line::Whole(Bytes::from_static(text))
    }

    #[tokio::test]
    async fn garbage_between_lines_is_survived() {
        let lines = read_all(b"{\"a\":1}\r\n\n\xff\xfe\0junk\n0123456789abcdef\n{\"b\":2}\nrest", 12).await;
        let too_long = Line::TooLong { len: 16 };
        assert_eq!(
            lines,
            [whole(b"{\"a\":1}"), whole(b"\xff\xfe\0junk"), too_long, whole(b"{\"b\":2}"), whole(b"rest")]
        );
    }

    #[tokio::test]
    async fn lines_can_turn_into_frames_in_mid_stream() {
        let mut lines = LineReader::new(&b"hello\n\0\0\0\x02ab\0\0\0\x01c"[..], 100);
        assert_eq!(lines.next().await.unwrap(), Some(whole(b"hello")));
        let mut frames = lines.into_frames(100);
        assert_eq!(frames.next().await.unwrap().unwrap(), Bytes::from_static(b"ab"));
        assert_eq!(frames.next().await.unwrap().unwrap(), Bytes::from_static(b"c"));
        assert_eq!(frames.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_endless_line_is_not_kept() {
        let (mut far, near) = tokio::io::duplex(4096);
        let mut reader = LineReader::new(near, 1000);
        let (line, ()) = tokio::join!(reader.next(), async {
            for _ in 0..1000 {
                far.write_all(&[b'x'; 1000]).await.unwrap();
            }
            far.write_all(b"\nok\n").await.unwrap();
        });
        assert_eq!(line.unwrap(), Some(Line::TooLong { len: 1_000_000 }));
        assert!(reader.buffer.capacity() < 64 * 1024);
        assert_eq!(reader.next().await.unwrap(), Some(whole(b"ok")));
        drop(far);
        assert_eq!(reader.next().await.unwrap(), None);
    }
}
