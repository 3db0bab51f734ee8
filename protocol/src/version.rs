//! Versions and how two sides agree on one (plan.md §2).
//!
//! A side states the range it accepts; the other picks the highest version it supports within that range. Pipes and
//! stdio do it once at the handshake; every NATS message carries its version and the accepted range for the answer.

use semver::{Version, VersionReq};

/// 1.0: bare JSON lines.
pub const V1_0: Version = Version::new(1, 0, 0);
/// 2.0: a JSON envelope.
pub const V2_0: Version = Version::new(2, 0, 0);
/// 2.1: a MessagePack envelope and streamed chunks.
pub const V2_1: Version = Version::new(2, 1, 0);

/// What chorus speaks, oldest first.
pub const SUPPORTED: [Version; 3] = [V1_0, V2_0, V2_1];

/// The range that chorus accepts in answers over NATS and in frames: any 2.x from 2.0.
pub const ACCEPT: &str = ">=2.0.0, <3.0.0";

/// No version that both sides speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Nothing in common.
    #[error("Unsupported protocol version: {offered} (supported: {})", list(.supported))]
    Unsupported {
        /// What the other side offered, as it said it.
        offered: String,
        /// What this side supports, oldest first.
        supported: Vec<Version>,
    },
    /// The range cannot be read.
    #[error("protocol version range {range:?} cannot be read: {why}")]
    Malformed {
        /// The range as it was given, cut to 64 characters.
        range: String,
        /// What the parser says.
        why: String,
    },
}

fn list(versions: &[Version]) -> String {
    versions.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}

/// The highest of `supported` that lies in `range` (a semver range such as `>=2.0.0, <3.0.0`, or a plain version, which
/// means "compatible with it").
///
/// # Errors
/// When the range cannot be read or nothing is in common; the error lists what is supported.
pub fn negotiate(range: &str, supported: &[Version]) -> Result<Version, VersionError> {
    let shown = || range.chars().take(64).collect::<String>();
    let wanted = VersionReq::parse(range)
        .map_err(|e| VersionError::Malformed { range: shown(), why: e.to_string() })?;
    supported
        .iter()
        .filter(|version| wanted.matches(version))
        .max()
        .cloned()
        .ok_or_else(|| VersionError::Unsupported { offered: shown(), supported: supported.to_vec() })
}

/// Whether a message of this version can be read: same major as one we speak with an envelope. A newer minor is read with
/// its unknown fields ignored.
pub fn readable(version: &Version) -> bool {
    version.major == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_mutual_version_wins() {
        assert_eq!(negotiate(ACCEPT, &SUPPORTED), Ok(V2_1));
        assert_eq!(negotiate("2.0.0", &SUPPORTED), Ok(V2_1));
        assert_eq!(negotiate("=2.0.0", &SUPPORTED), Ok(V2_0));
        assert_eq!(negotiate("^1", &SUPPORTED), Ok(V1_0));
        assert_eq!(negotiate("*", &SUPPORTED), Ok(V2_1));
    }

    #[test]
    fn no_mutual_version_lists_what_there_is() {
        let error = negotiate(">=3", &SUPPORTED).unwrap_err();
        assert_eq!(error.to_string(), "Unsupported protocol version: >=3 (supported: 1.0.0, 2.0.0, 2.1.0)");
        assert!(matches!(negotiate("two", &SUPPORTED), Err(VersionError::Malformed { .. })));
    }
}
