//! The task that drains one stream: block in, lines to the ring and, as the rate allows, to the sink.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::{LogPolicy, LogRing, LogSink, Stream};

const BLOCK_BYTES: usize = 64 * 1024;

/// Reads `source` to its end. A read error ends the draining like an end of file: the stream is gone either
/// way.
pub(in crate::process) async fn drain(
    name: String,
    stream: Stream,
    mut source: impl AsyncRead + Unpin,
    policy: LogPolicy,
    ring: LogRing,
) {
    let mut splitter = Splitter { unfinished: Vec::new(), max_bytes: policy.max_line_bytes };
    let mut forward = Forward::new(name, stream, &policy);
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let count = match source.read(&mut block).await {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) => {
                tracing::debug!(process = %forward.name, %stream, %error, "cannot read a child's output");
                break;
            }
        };
        ring.count_bytes(count);
        let now = Instant::now();
        splitter.split(&block[..count], |line| {
            ring.push(line);
            forward.line(line, now);
        });
    }
    splitter.finish(|line| {
        ring.push(line);
        forward.line(line, Instant::now());
    });
    forward.tell_suppressed();
}

struct Splitter {
    unfinished: Vec<u8>,
    max_bytes: usize,
}

impl Splitter {
    fn split(&mut self, mut block: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = block.iter().position(|&byte| byte == b'\n') {
            if self.unfinished.is_empty() {
                each(without_return(&block[..end.min(self.max_bytes)]));
            } else {
                self.keep(&block[..end]);
                each(without_return(&self.unfinished));
                self.unfinished.clear();
            }
            block = &block[end + 1..];
        }
        self.keep(block);
    }

    fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.unfinished.is_empty() {
            each(&std::mem::take(&mut self.unfinished));
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let room = self.max_bytes.saturating_sub(self.unfinished.len());
        self.unfinished.extend_from_slice(&part[..part.len().min(room)]);
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Passes lines on within a rate: a full second's worth may come at once, then as many per second.
struct Forward {
    name: String,
    stream: Stream,
    sink: Option<LogSink>,
    per_second: u32,
    window_began: Instant,
    in_window: u32,
    suppressed: u64,
}

impl Forward {
    fn new(name: String, stream: Stream, policy: &LogPolicy) -> Self {
        let (sink, per_second) = (policy.sink.clone(), policy.forward_per_second);
        Self { name, stream, sink, per_second, window_began: Instant::now(), in_window: 0, suppressed: 0 }
    }

    fn line(&mut self, line: &[u8], now: Instant) {
        if now.duration_since(self.window_began) >= Duration::from_secs(1) {
            self.tell_suppressed();
            self.window_began = now;
            self.in_window = 0;
        }
        if self.in_window >= self.per_second {
            self.suppressed += 1;
            return;
        }
        self.in_window += 1;
        let text = String::from_utf8_lossy(line);
        match &self.sink {
            Some(sink) => sink(self.stream, &text),
            None => tracing::debug!(target: "child", process = %self.name, stream = %self.stream, "{text}"),
        }
    }

    fn tell_suppressed(&mut self) {
        if self.suppressed > 0 {
            let (process, stream, lines) = (&self.name, self.stream, self.suppressed);
            tracing::warn!(%process, %stream, lines, "output came too fast to be passed on");
            self.suppressed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    async fn drained(bytes: &[u8], policy: LogPolicy) -> LogRing {
        let ring = LogRing::new(&policy);
        drain("test".to_owned(), Stream::Stderr, bytes, policy, ring.clone()).await;
        ring
    }

    #[tokio::test]
    async fn lines_are_split_and_cut() {
        let policy = LogPolicy { max_line_bytes: 5, ..LogPolicy::default() };
        let ring = drained(b"one\r\n\n1234567\n\xffx\nlast", policy).await;
        assert_eq!(ring.tail(), ["one", "", "12345", "\u{fffd}x", "last"]);
        assert_eq!(ring.seen_bytes(), 21);
    }

    #[tokio::test]
    async fn a_line_longer_than_a_block_is_cut_once() {
        let mut bytes = vec![b'x'; 3 * BLOCK_BYTES];
        bytes.extend_from_slice(b"\nnext\n");
        let ring = drained(&bytes, LogPolicy::default()).await;
        assert_eq!(ring.tail().iter().map(String::len).collect::<Vec<_>>(), [4096, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_passed_on_at_the_rate_and_kept_to_the_bound() {
        let heard = Arc::new(Mutex::new(0));
        let count = heard.clone();
        let sink: LogSink = Arc::new(move |_, _| *count.lock().unwrap() += 1);
        let policy = LogPolicy { forward_per_second: 10, sink: Some(sink), ..LogPolicy::default() };
        let ring = drained(&b"flood\n".repeat(10_000), policy).await;
        assert_eq!(*heard.lock().unwrap(), 10);
        assert_eq!((ring.seen_lines(), ring.tail().len()), (10_000, 200));
    }
}
