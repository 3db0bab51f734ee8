//! Streams of frames and of lines: however they are cut into reads, the same comes out, and never more than went in.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use chorus_runtime::process::{FrameError, FrameReader, FrameWriter, Line, LineReader};
use futures::executor::block_on;
use tokio::io::{AsyncRead, ReadBuf};

/// The largest frame or line that is read here.
const MAX_BYTES: usize = 16 * 1024;

/// The frames in these bytes, as the pipe's reader finds them.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Bytes> {
    let (whole, end) = read_frames(bytes, usize::MAX);
    let (pieces, other_end) = read_frames(bytes, 1 + bytes.len() % 7);
    assert_eq!(whole, pieces, "frames depend on how they come");
    assert_eq!(format!("{end:?}"), format!("{other_end:?}"));
    let mut writer = FrameWriter::new(Vec::new(), MAX_BYTES);
    block_on(writer.send_all(&whole)).expect("what was read can be written");
    assert!(bytes.starts_with(&writer.into_inner()), "frames are not what stood there");
    whole
}

/// The lines in these bytes.
pub(crate) fn lines(bytes: &[u8]) -> Vec<Bytes> {
    let whole = read_lines(bytes, usize::MAX);
    assert_eq!(whole, read_lines(bytes, 1 + bytes.len() % 7), "lines depend on how they come");
    let kept = whole.into_iter().filter_map(|line| match line {
        Line::Whole(line) => Some(line),
        Line::TooLong { len } => {
            assert!(len > MAX_BYTES as u64 && len <= bytes.len() as u64);
            None
        }
    });
    kept.collect()
}

fn read_frames(bytes: &[u8], at_once: usize) -> (Vec<Bytes>, Option<FrameError>) {
    let mut reader = FrameReader::new(Trickle { bytes, at_once }, MAX_BYTES);
    let mut found = Vec::new();
    loop {
        match block_on(reader.next()) {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

fn read_lines(bytes: &[u8], at_once: usize) -> Vec<Line> {
    let mut reader = LineReader::new(Trickle { bytes, at_once }, MAX_BYTES);
    let next = || block_on(reader.next()).expect("lines may hold anything");
    std::iter::from_fn(next).collect()
}

/// Bytes that come a few at a time.
struct Trickle<'a> {
    bytes: &'a [u8],
    at_once: usize,
}

impl AsyncRead for Trickle<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.at_once.min(buffer.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}
