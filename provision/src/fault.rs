//! Reads an installer's last words: what went wrong, in terms that a user can act on. Pure.
//!
//! pip and uv have no codes for their failures, so their texts are searched. A phrase that is not known ends as
//! [`Error::Tool`] with the whole tail; nothing is guessed.

use std::path::Path;

use crate::error::Error;

/// What an installer's last words mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No space, or no quota, left.
    DiskFull,
    /// A download does not have the pinned hash.
    HashMismatch,
    /// The index, or the way to it, does not answer.
    NoNetwork,
    /// No wheel for this machine.
    NoWheel,
    /// This Python has no pip, or cannot make environments.
    NoPip,
    /// Something else.
    Unknown,
}

/// Phrases of uv, pip, Python and the operating system, in lower case. The first kind that matches is it: pip, for one, ends
/// with "no matching distribution" when in truth it could not connect.
const PHRASES: &[(Fault, &[&str])] = &[
    (
        Fault::DiskFull,
        &["no space left on device", "disk quota exceeded", "(os error 28)", "[errno 28]", "(os error 122)"],
    ),
    (Fault::HashMismatch, &["hash mismatch", "do not match the hashes", "hashes are required"]),
    (Fault::NoPip, &["no module named pip", "no module named 'pip'", "no module named venv", "ensurepip"]),
    (
        Fault::NoNetwork,
        &[
            "error sending request",
            "failed to fetch",
            "dns error",
            "name resolution",
            "connection refused",
            "connection reset",
            "failed to establish a new connection",
            "max retries exceeded",
            "network is unreachable",
            "timed out",
            "network connectivity is disabled",
            "could not fetch url",
            "failed to download",
        ],
    ),
    (
        Fault::NoWheel,
        &[
            "no wheels with a matching",
            "has no usable wheels",
            "doesn't have a source distribution or wheel for the current platform",
            "can't be installed because",
            "no matching distribution found",
            "is not a supported wheel on this platform",
        ],
    ),
];

/// What these last words mean.
pub(crate) fn read(words: &str) -> Fault {
    let words = words.to_lowercase();
    let matches = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    PHRASES.iter().find(|(_, phrases)| matches(phrases)).map_or(Fault::Unknown, |(fault, _)| *fault)
}

/// The error for a failed installer.
pub(crate) fn error(what: &'static str, at: &Path, tool: &Path, status: String, tail: &str) -> Error {
    let detail = last_lines(tail, 3);
    match read(tail) {
        Fault::DiskFull => {
            Error::DiskFull { what, at: at.to_path_buf(), needed_bytes: None, free_bytes: None, detail }
        }
        Fault::HashMismatch => Error::HashMismatch { what, detail },
        Fault::NoNetwork => Error::NoNetwork { what, detail },
        Fault::NoWheel => Error::UnsupportedPlatform {
            what,
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            advice: "Install it by other means and put it on PATH, or use another machine.",
            detail,
        },
        Fault::NoPip => Error::PipMissing { python: tool.to_path_buf(), advice: crate::python::PIP_ADVICE },
        Fault::Unknown => {
            let tool = tool.file_name().unwrap_or(tool.as_os_str()).to_string_lossy().into_owned();
            Error::Tool { what, tool, status, tail: last_lines(tail, 20) }
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A line without the credentials of the addresses in it: `https://user:secret@host` becomes `https://***@host`.
pub(crate) fn without_credentials(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let authority_end = after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len());
        let (authority, beyond) = after.split_at(authority_end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                clean.push_str("***@");
                clean.push_str(host);
            }
            None => clean.push_str(authority),
        }
        rest = beyond;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn real_last_words_are_understood() {
        let words = [
            ("error: failed to write to file `/x/y`: No space left on device (os error 28)", Fault::DiskFull),
            (
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left",
                Fault::DiskFull,
            ),
            ("  × Failed to download `x==1`\n  ╰─▶ Hash mismatch for `x==1`", Fault::HashMismatch),
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
                Fault::HashMismatch,
            ),
            (
                "error: Request failed after 3 retries\n  Caused by: error sending request for url",
                Fault::NoNetwork,
            ),
            (
                "Temporary failure in name resolution\nERROR: No matching distribution found for uv",
                Fault::NoNetwork,
            ),
            ("ERROR: No matching distribution found for uv==0.13.9", Fault::NoWheel),
            ("/usr/bin/python3: No module named pip", Fault::NoPip),
            ("The virtual environment was not created successfully because ensurepip is not", Fault::NoPip),
            ("Segmentation fault", Fault::Unknown),
        ];
        for (text, fault) in words {
            assert_eq!(read(text), fault, "{text}");
        }
    }

    #[test]
    fn credentials_are_left_out() {
        let clean = without_credentials("index https://me:se@cret@host/simple and http://plain/x");
        assert_eq!(clean, "index https://***@host/simple and http://plain/x");
        assert_eq!(without_credentials("no address"), "no address");
    }

    proptest! {
        #[test]
        fn no_password_survives(user in "[a-z]{0,5}", word in "[A-Z0-9@:]{8}", path in "[a-z/]{0,9}") {
            let clean = without_credentials(&format!("fetch https://{user}:{word}@host/{path} now"));
            prop_assert!(!clean.contains(&word));
            prop_assert!(clean.contains("@host/"));
        }
    }
}
