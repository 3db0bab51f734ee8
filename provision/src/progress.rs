//! What provisioning tells its caller while it works.
//!
//! The steps call a [`Progress`]; the command line draws it as bars on a terminal and as plain lines in a pipe. Nothing here
//! blocks or fails: an observer cannot stop the work.

use std::time::Duration;

/// One thing that provisioning makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Finding a Python.
    Python,
    /// Finding or installing `uv`.
    Uv,
    /// Finding or installing `nats-server`.
    NatsServer,
    /// Unpacking the engine's own source.
    Engine,
    /// Building the engine's environment.
    Environment,
    /// Installing the demo voice, or importing another.
    Voice,
}

impl Step {
    /// A short name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Uv => "uv, the installer",
            Self::NatsServer => "nats-server",
            Self::Engine => "the engine's source",
            Self::Environment => "the engine's environment",
            Self::Voice => "the voice",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What was found or made: a version, a path.
    pub outcome: String,
    /// How long it took.
    pub took: Duration,
    /// What it takes on the disk; `None` when nothing was installed.
    pub size_bytes: Option<u64>,
}

/// What an observer hears. All methods do nothing unless they are overridden.
pub trait Progress: Send + Sync {
    /// A step begins. Steps that were done in an earlier run are not mentioned.
    fn started(&self, step: Step) {
        let _ = step;
    }
    /// A line from the tool at work, without credentials.
    fn line(&self, step: Step, line: &str) {
        let _ = (step, line);
    }
    /// How much is to be downloaded in this step, as far as the tool has said, and how much of it has come.
    fn amount(&self, step: Step, done_bytes: u64, known_bytes: u64) {
        let _ = (step, done_bytes, known_bytes);
    }
    /// The step is done.
    fn finished(&self, step: Step, finished: &Finished) {
        let _ = (step, finished);
    }
    /// Another process is provisioning the same folder: we wait for it.
    fn waiting(&self, holder: &str) {
        let _ = holder;
    }
}

/// An observer that says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {}

/// Adds up what uv says about its large downloads: `Downloading torch (506.1MiB)`, later ` Downloaded torch`.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    announced: Vec<(String, u64)>,
    done_bytes: u64,
}

impl Downloads {
    /// Takes one line; `Some((done_bytes, known_bytes))` when it changed the sum.
    pub(crate) fn line(&mut self, line: &str) -> Option<(u64, u64)> {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?) {
            ("Downloading", name) => {
                let bytes = size(words.next()?)?;
                self.announced.push((name.to_owned(), bytes));
            }
            ("Downloaded", name) => {
                let (_, bytes) = self.announced.iter().find(|(announced, _)| announced == name)?;
                self.done_bytes += bytes;
            }
            _ => return None,
        }
        Some((self.done_bytes, self.announced.iter().map(|(_, bytes)| bytes).sum()))
    }
}

/// `(506.1MiB)` in bytes.
fn size(text: &str) -> Option<u64> {
    let text = text.strip_prefix('(')?.strip_suffix(')')?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u32 = match &text[digits.len()..] {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    #[allow(clippy::cast_sign_loss, reason = "a size is not negative")]
    (number >= 0.0).then(|| (number * f64::from(1_u32 << unit)) as u64)
}

/// A size for people: `58 MB`, in powers of ten.
#[must_use]
pub fn readable(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_add_up() {
        let mut downloads = Downloads::default();
        assert_eq!(downloads.line("Downloading torch (2.0MiB)"), Some((0, 2 << 20)));
        assert_eq!(downloads.line("   Downloading numpy (1.5KiB)"), Some((0, (2 << 20) + 1536)));
        assert_eq!(downloads.line(" Downloaded torch"), Some((2 << 20, (2 << 20) + 1536)));
        assert_eq!(downloads.line("Downloaded unheard-of"), None);
        assert_eq!(downloads.line("Downloading torch (many)"), None);
        assert_eq!(downloads.line("Resolved 130 packages in 1 s"), None);
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(readable(999), "999 B");
        assert_eq!(readable(58_368_729), "58 MB");
        assert_eq!(readable(5_240_000_000), "5.2 GB");
    }
}
