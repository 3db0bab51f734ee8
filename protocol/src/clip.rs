//! Speaker reference clips: a few seconds of somebody's speech, for models that can take on a voice.
//!
//! A clip is an object in [`crate::names::CLIPS_BUCKET`], named by what is in it. So whoever fetches one can tell whether it is
//! the one that was meant, the same clip is kept once, and takes of two voices never share a key ([`crate::takes`]). Requests
//! refer to it as `sha256:` and that name.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::takes::hex;

/// The largest clip, in bytes: a minute and a half of 48 kHz in stereo. Models listen to half a minute at most.
pub const MAX_CLIP_BYTES: usize = 16 * 1024 * 1024;

/// What a reference begins with.
const SCHEME: &str = "sha256:";

/// Why a text is no reference to a clip.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no reference to a clip: `sha256:` and 64 digits of 0-9 and a-f")]
pub struct ClipIdError(String);

/// A clip, by the SHA-256 of its bytes. Written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClipId([u8; 32]);

impl ClipId {
    /// The one with these bytes.
    pub fn of(clip: &[u8]) -> Self {
        Self(Sha256::digest(clip).into())
    }

    /// The digest itself.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `text` means to be a reference, well formed or not: no path of a file is taken for one by mistake.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The object's name in [`crate::names::CLIPS_BUCKET`]: the hexadecimal digits.
    pub fn key(&self) -> String {
        hex(&self.0)
    }
}

impl fmt::Display for ClipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.key())
    }
}

impl fmt::Debug for ClipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClipId({})", self.key())
    }
}

impl FromStr for ClipId {
    type Err = ClipIdError;

    fn from_str(text: &str) -> Result<Self, ClipIdError> {
        let wrong = || ClipIdError(text.chars().take(96).collect());
        let digits = text.strip_prefix(SCHEME).ok_or_else(wrong)?.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or_else(wrong)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for ClipId {
    type Error = ClipIdError;

    fn try_from(text: String) -> Result<Self, ClipIdError> {
        text.parse()
    }
}

impl From<ClipId> for String {
    fn from(clip: ClipId) -> Self {
        clip.to_string()
    }
}

impl JsonSchema for ClipId {
    fn schema_name() -> Cow<'static, str> {
        "ClipId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"})
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clip_is_known_by_what_is_in_it() {
        let clip = ClipId::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((clip.to_string().as_str(), clip.key().as_str()), (text, &text[7..]));
        assert_eq!(text.parse(), Ok(clip));
        assert_ne!(ClipId::of(b"abd"), clip);
        assert_eq!(serde_json::to_string(&clip).unwrap(), format!("\"{text}\""));
    }

    #[test]
    fn nothing_else_is_a_reference() {
        let good = ClipId::of(b"abc").to_string();
        for bad in [
            "",
            "sha256:",
            "sha256:../../../../etc/passwd",
            &good[7..],
            &good[..good.len() - 1],
            &good.to_uppercase(),
            &format!("{good}0"),
            &format!("{good}/"),
            &good.replace("sha256", "SHA256"),
            &good.replace("ba78", "ba7\u{661}"),
        ] {
            assert!(bad.parse::<ClipId>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<ClipId>(bad.into()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn references_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..64), other in "\\PC{0,80}") {
            let clip = ClipId::of(&bytes);
            prop_assert_eq!(clip.to_string().parse(), Ok(clip));
            if let Ok(read) = other.parse::<ClipId>() {
                prop_assert_eq!(read.to_string(), other);
            }
        }
    }
}
