//! Why provisioning failed, and what to do next.
//!
//! The kinds are few because a caller, and a user, can do only a few different things about them: connect, make room, install
//! a Python, wait, choose another voice. The text of each says which.

use std::path::PathBuf;
use std::time::Duration;

use crate::progress::readable;

/// A failure of provisioning. Its text ends with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No Python that the engine can use.
    #[error("no Python from 3.10 to 3.14 was found (looked for {tried}). {advice}")]
    PythonMissing {
        /// The names that were tried, and what answered.
        tried: String,
        /// How to get one on this platform.
        advice: &'static str,
    },
    /// There is a Python, but it can install nothing: it has neither `pip` nor a working `venv`.
    #[error("{} has neither pip nor venv, so it cannot install uv. {advice}", python.display())]
    PipMissing {
        /// The Python.
        python: PathBuf,
        /// How to get pip on this platform.
        advice: &'static str,
    },
    /// The package index could not be reached.
    #[error(
        "{what} could not be downloaded: the package index does not answer. Check the network and the proxy \
         settings, then run the same command again: it goes on where it stopped. ({detail})"
    )]
    NoNetwork {
        /// What was to be installed.
        what: &'static str,
        /// The tool's own words.
        detail: String,
    },
    /// The disk is full, or would be.
    #[error(
        "there is no room for {what} below {}{}. Free some space, or set CHORUS_HOME to a folder on another disk, \
         then run the same command again.",
        at.display(), in_brackets(*.needed_bytes, *.free_bytes, .detail)
    )]
    DiskFull {
        /// What was to be installed.
        what: &'static str,
        /// Where.
        at: PathBuf,
        /// What it takes, when that is known beforehand.
        needed_bytes: Option<u64>,
        /// What there is, when it was measured.
        free_bytes: Option<u64>,
        /// The tool's own words, or nothing.
        detail: String,
    },
    /// A download is not what was pinned.
    #[error(
        "{what} was downloaded, but is not the file that this version of chorus was checked with, so it was thrown \
         away. If a mirror is configured (PIP_INDEX_URL, UV_DEFAULT_INDEX), try without it. ({detail})"
    )]
    HashMismatch {
        /// What was to be installed.
        what: &'static str,
        /// The tool's own words.
        detail: String,
    },
    /// Nobody builds this for the machine at hand.
    #[error("there is no build of {what} for this machine ({platform}). {advice} ({detail})")]
    UnsupportedPlatform {
        /// What was to be installed.
        what: &'static str,
        /// The operating system and the processor.
        platform: String,
        /// What can be done instead.
        advice: &'static str,
        /// The tool's own words.
        detail: String,
    },
    /// Another process holds the lock of CHORUS_HOME and does not let go.
    #[error(
        "waited {} s for {holder}, which is installing into the same CHORUS_HOME. Let it finish, or end it, \
         then run the same command again.", .waited.as_secs()
    )]
    LockTimeout {
        /// Who holds the lock.
        holder: String,
        /// How long we waited.
        waited: Duration,
    },
    /// A voice that cannot be imported, in the importer's words.
    #[error("the voice was refused ({reason}): {message}")]
    VoiceRefused {
        /// A word for programs.
        reason: String,
        /// A sentence for people.
        message: String,
    },
    /// A voice's name that cannot be a folder's name.
    #[error(
        "`{name}` cannot be a voice's name: use letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
    )]
    VoiceName {
        /// The name.
        name: String,
    },
    /// There is another voice of that name.
    #[error("there is already another voice at {}. Give this one another name, or remove that folder first.", at.display())]
    VoiceExists {
        /// Its folder.
        at: PathBuf,
    },
    /// A tool failed for a reason that we do not know.
    #[error("{what}: {tool} failed ({status}). Its last words:\n{tail}")]
    Tool {
        /// What was to be installed.
        what: &'static str,
        /// The tool.
        tool: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        tail: String,
    },
    /// A file of ours could not be read or written.
    #[error(
        "cannot {action} {}: {source}. Check that the path can be read and written, or set CHORUS_HOME to another.",
        path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps a failure of our own reading or writing; a full disk is told apart.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let (path, full) =
            (path.into(), [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded]);
        if full.contains(&source.kind()) {
            return Self::DiskFull {
                what: "chorus's own files",
                at: path,
                needed_bytes: None,
                free_bytes: None,
                detail: String::new(),
            };
        }
        Self::Io { action, path, source }
    }
}

fn in_brackets(needed_bytes: Option<u64>, free_bytes: Option<u64>, detail: &str) -> String {
    let needed = needed_bytes.map(|bytes| format!("it takes about {}", readable(bytes)));
    let free = free_bytes.map(|bytes| format!("{} are free", readable(bytes)));
    let detail = (!detail.is_empty()).then(|| detail.to_owned());
    let known: Vec<String> = needed.into_iter().chain(free).chain(detail).collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) }
}
