//! Versions and how two sides agree on one (plan.md §2).
//!
//! A side states the range it accepts; the other picks the highest version it supports within that range. Pipes and
//! stdio do it once at the handshake; every NATS message carries its version and the accepted range for the answer.
//! Ranges may be written as Cargo writes them (`>=2.0.0, <3.0.0`) and as npm does (`>=2 <3`, `1.x || 2.x`, `1.0.0 - 2.0.0`),
//! for clients of both kinds exist.

use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

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
    let wanted = alternatives(range).map_err(|why| VersionError::Malformed { range: shown(), why })?;
    supported
        .iter()
        .filter(|version| wanted.iter().any(|range| range.matches(version)))
        .max()
        .cloned()
        .ok_or_else(|| VersionError::Unsupported { offered: shown(), supported: supported.to_vec() })
}

/// The longest range that is read, in bytes.
const MAX_RANGE_BYTES: usize = 256;

/// The alternatives of a range: one, or those that npm parts by `||`.
fn alternatives(range: &str) -> Result<Vec<VersionReq>, String> {
    if range.len() > MAX_RANGE_BYTES {
        return Err(format!("it is longer than {MAX_RANGE_BYTES} bytes"));
    }
    range.split("||").map(|one| VersionReq::parse(&as_cargo(one)).map_err(|e| e.to_string())).collect()
}

/// One alternative as Cargo writes it: comparators parted by commas.
fn as_cargo(range: &str) -> String {
    if let Some((low, high)) = range.split_once(" - ") {
        return format!(">={}, <={}", low.trim(), high.trim());
    }
    let mut comparators: Vec<String> = Vec::new();
    for word in range.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()) {
        match comparators.last_mut() {
            // An operator that stands alone belongs to the version after it.
            Some(last) if last.ends_with(['<', '>', '=', '^', '~']) => last.push_str(word),
            _ => comparators.push(word.to_owned()),
        }
    }
    if comparators.is_empty() { "*".to_owned() } else { comparators.join(", ") }
}

/// A version that is still spoken, and for how long no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deprecation {
    /// The version.
    pub version: Version,
    /// For a person: what to do instead.
    pub message: String,
}

/// What a peer is told at the handshake about versions that will go.
pub fn deprecations() -> Vec<Deprecation> {
    vec![Deprecation {
        version: V1_0,
        message:
            "protocol 1.0 has no ids, no streaming and no cancellation; it stays served until chorus 2, and \
                  2.0 can be had by sending envelopes"
                .to_owned(),
    }]
}

/// Whether a message of this version can be read: same major as one we speak with an envelope. A newer minor is read with
/// its unknown fields ignored.
pub fn readable(version: &Version) -> bool {
    version.major == 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        let endless = "*".repeat(10_000);
        assert!(matches!(negotiate(&endless, &SUPPORTED), Err(VersionError::Malformed { .. })));
    }

    #[test]
    fn ranges_are_read_as_npm_writes_them_too() {
        assert_eq!(negotiate(">=2.0.0 <3.0.0", &SUPPORTED), Ok(V2_1));
        assert_eq!(negotiate(">= 2.0.0 < 2.1", &SUPPORTED), Ok(V2_0));
        assert_eq!(negotiate("1.x || =2.0.0", &SUPPORTED), Ok(V2_0));
        assert_eq!(negotiate("1.0.0 - 2.0.0", &SUPPORTED), Ok(V2_0));
        assert_eq!(negotiate("", &SUPPORTED), Ok(V2_1));
        assert!(negotiate("1.x || nonsense", &SUPPORTED).is_err());
    }

    proptest! {
        #[test]
        fn what_is_agreed_is_supported_and_no_range_makes_it_panic(range in ".{0,80}") {
            if let Ok(version) = negotiate(&range, &SUPPORTED) {
                prop_assert!(SUPPORTED.contains(&version));
            }
        }

        #[test]
        fn a_version_asked_for_exactly_is_what_is_agreed(index in 0usize..3) {
            let version = &SUPPORTED[index];
            prop_assert_eq!(&negotiate(&format!("={version}"), &SUPPORTED).unwrap(), version);
            prop_assert_eq!(negotiate(&format!(">={version}"), &SUPPORTED).unwrap(), V2_1);
        }
    }
}
