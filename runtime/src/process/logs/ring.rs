//! The last lines of a stream, bounded in lines and bytes. Line buffers are used again, so a flood allocates
//! nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::LogPolicy;

/// The last lines of a child's stream. Clones share it; it outlives the child.
#[derive(Debug, Clone)]
pub struct LogRing {
    kept: Arc<Mutex<Kept>>,
    keep_lines: usize,
    keep_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    seen_lines: u64,
    seen_bytes: u64,
    spare: Option<Vec<u8>>,
}

impl LogRing {
    /// An empty ring with the bounds of `policy`; it always keeps one line at least.
    pub fn new(policy: &LogPolicy) -> Self {
        Self { kept: Arc::default(), keep_lines: policy.keep_lines.max(1), keep_bytes: policy.keep_bytes }
    }

    /// The kept lines, oldest first. Bytes that are not UTF-8 are replaced.
    pub fn tail(&self) -> Vec<String> {
        self.lock().lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// The kept lines as one text.
    pub fn text(&self) -> String {
        self.tail().join("\n")
    }

    /// Lines seen in all.
    pub fn seen_lines(&self) -> u64 {
        self.lock().seen_lines
    }

    /// Bytes seen in all, line ends included.
    pub fn seen_bytes(&self) -> u64 {
        self.lock().seen_bytes
    }

    pub(super) fn count_bytes(&self, bytes: usize) {
        self.lock().seen_bytes += bytes as u64;
    }

    pub(super) fn push(&self, line: &[u8]) {
        let mut kept = self.lock();
        let mut buffer = kept.spare.take().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(line);
        kept.seen_lines += 1;
        kept.bytes += buffer.len();
        kept.lines.push_back(buffer);
        while kept.lines.len() > self.keep_lines || (kept.bytes > self.keep_bytes && kept.lines.len() > 1) {
            kept.spare = kept.lines.pop_front();
            kept.bytes -= kept.spare.as_ref().map_or(0, Vec::len);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_the_last_line_always_stays() {
        let policy = LogPolicy { keep_lines: 3, keep_bytes: 10, ..LogPolicy::default() };
        let ring = LogRing::new(&policy);
        for line in ["a", "b", "c", "d"] {
            ring.push(line.as_bytes());
        }
        assert_eq!(ring.tail(), ["b", "c", "d"]);
        ring.push(b"12345678");
        assert_eq!(ring.text(), "c\nd\n12345678");
        ring.push(b"longer than all the bytes");
        assert_eq!(ring.tail(), ["longer than all the bytes"]);
        assert_eq!(ring.seen_lines(), 6);
    }
}
