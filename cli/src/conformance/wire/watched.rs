//! A stream that knows what came after its last line end: how a message without one is found out.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::conformance::message::cut;

/// Bytes that are kept of a line without an end.
const KEPT_BYTES: usize = 512;

#[derive(Debug, Default)]
struct Tail {
    kept: Vec<u8>,
    bytes: usize,
}

/// What came after the last line end. A cheap clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Unfinished(Arc<Mutex<Tail>>);

impl Unfinished {
    /// For a person; `None` when there is nothing.
    pub(super) fn shown(&self) -> Option<String> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail.kept);
        (tail.bytes > 0).then(|| format!("{} bytes without a line end: {}", tail.bytes, cut(&text)))
    }

    fn take(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(at) => {
                *tail = Tail::default();
                &bytes[at + 1..]
            }
            None => bytes,
        };
        tail.bytes += rest.len();
        let room = KEPT_BYTES - tail.kept.len();
        tail.kept.extend_from_slice(&rest[..rest.len().min(room)]);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watched<R> {
    source: R,
    unfinished: Unfinished,
}

impl<R> Watched<R> {
    pub(super) fn new(source: R) -> (Self, Unfinished) {
        let unfinished = Unfinished::default();
        (Self { source, unfinished: unfinished.clone() }, unfinished)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.source).poll_read(context, buffer);
        self.unfinished.take(&buffer.filled()[before..]);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_the_last_line_end_counts() {
        let unfinished = Unfinished::default();
        assert_eq!(unfinished.shown(), None);
        unfinished.take(b"one\ntw");
        unfinished.take(b"o");
        assert_eq!(unfinished.shown().unwrap(), "3 bytes without a line end: two");
        unfinished.take(&[b'x'; 2000]);
        assert!(unfinished.shown().unwrap().starts_with("2003 bytes"));
        unfinished.take(b"\n");
        assert_eq!(unfinished.shown(), None);
    }
}
