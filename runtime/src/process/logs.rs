//! A child's stdout and stderr: drained from birth, kept in a bounded ring, passed on at a bounded rate.
//!
//! Bytes are read in blocks and split into lines. The last lines stay in a [`LogRing`] (what an error report
//! shows); each line also goes to the sink of [`LogPolicy`], or to `tracing`, as long as the rate allows;
//! lines beyond it are counted and the count is told. A flood costs one pass over its bytes and no memory.

mod drain;
mod ring;

use std::fmt;
use std::sync::Arc;

pub(super) use drain::drain;
pub use ring::LogRing;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// fd 1.
    Stdout,
    /// fd 2.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// Gets lines as they come. Called from the draining task, so it must be quick and must not block.
pub type LogSink = Arc<dyn Fn(Stream, &str) + Send + Sync>;

/// How a child's output is kept and passed on. The bounds are per stream.
#[derive(Clone)]
pub struct LogPolicy {
    /// Lines kept in the ring.
    pub keep_lines: usize,
    /// Bytes kept in the ring.
    pub keep_bytes: usize,
    /// A line is cut at this many bytes.
    pub max_line_bytes: usize,
    /// Lines passed on per second; as many again may come in one burst.
    pub forward_per_second: u32,
    /// Where lines go; `None` sends them to `tracing` at debug level, under the target `child`.
    pub sink: Option<LogSink>,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            keep_lines: 200,
            keep_bytes: 64 * 1024,
            max_line_bytes: 4 * 1024,
            forward_per_second: 100,
            sink: None,
        }
    }
}

impl fmt::Debug for LogPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LogPolicy")
            .field("keep_lines", &self.keep_lines)
            .field("keep_bytes", &self.keep_bytes)
            .field("max_line_bytes", &self.max_line_bytes)
            .field("forward_per_second", &self.forward_per_second)
            .field("sink", &self.sink.is_some())
            .finish()
    }
}
