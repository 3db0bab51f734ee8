//! Identities, each a type of its own so that one cannot be taken for another.
//!
//! All of them travel as strings, in JSON and in MessagePack alike: a capture can be read, and another language needs no
//! special case.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a string is not the identity it was offered as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, where something must stand.
    #[error("{what} is empty")]
    Empty {
        /// The kind of identity.
        what: &'static str,
    },
    /// Longer than its bound, in bytes.
    #[error("{what} is {len} bytes long; at most {max} are allowed")]
    TooLong {
        /// The kind of identity.
        what: &'static str,
        /// The length found, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// A character that the identity may not hold, or a shape it does not have.
    #[error("{what} {value:?} is malformed: {why}")]
    Malformed {
        /// The kind of identity.
        what: &'static str,
        /// The text offered, cut to 64 characters.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

fn malformed(what: &'static str, value: &str, why: &'static str) -> IdError {
    IdError::Malformed { what, value: value.chars().take(64).collect(), why }
}

/// Chorus writes 32 hexadecimal digits and reads any form of a UUID, in which hyphens, braces or `urn:uuid:` are added.
const UUID_PATTERN: &str = "^(urn:uuid:)?\\{?[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\\}?$";

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $new:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh one.
            #[allow(clippy::new_without_default, reason = "an identity is made on purpose, never by default")]
            pub fn new() -> Self {
                Self(Uuid::$new())
            }

            /// From its 128 bits (tests and deterministic replays).
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_simple().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_simple())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text).map(Self).map_err(|_| malformed($what, text, "not a UUID"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = [0u8; uuid::fmt::Simple::LENGTH];
                serializer.serialize_str(self.0.as_simple().encode_lower(&mut buffer))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": UUID_PATTERN})
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

uuid_id!(
    /// One opening of a request: every open, re-open or adoption is a new session. Sorted by the time it was made.
    SessionId, "session id", now_v7
);
uuid_id!(
    /// One pull of a job by a worker. Two deliveries of the same attempt are two runs.
    RunId, "run id", new_v4
);
uuid_id!(
    /// One start of a worker or manager process. The stable name is [`WorkerId`] or [`ManagerId`].
    Incarnation, "incarnation", now_v7
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $allowed:expr, $why:literal, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The longest allowed, in UTF-8 bytes.
            pub const MAX_BYTES: usize = $max;

            /// Checks and wraps `text`.
            ///
            /// # Errors
            /// When it is empty, too long, or holds a character that it may not.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                if text.is_empty() {
                    return Err(IdError::Empty { what: $what });
                }
                if text.len() > Self::MAX_BYTES {
                    return Err(IdError::TooLong { what: $what, len: text.len(), max: Self::MAX_BYTES });
                }
                let allowed: fn(char) -> bool = $allowed;
                if !text.chars().all(allowed) {
                    return Err(malformed($what, &text, $why));
                }
                Ok(Self(text))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                // Bytes are what is counted; characters are all that JSON Schema can count.
                json_schema!({"type": "string", "minLength": 1, "maxLength": Self::MAX_BYTES, "pattern": $pattern})
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

text_id!(
    /// The stable name of a worker: what breakers and placement know it by. A subject token as it stands.
    WorkerId, "worker id", 64, is_token_char, "only ASCII letters, digits, '-' and '_' are allowed",
    "^[A-Za-z0-9_-]+$"
);
text_id!(
    /// The stable name of a manager. A subject token as it stands.
    ManagerId, "manager id", 64, is_token_char, "only ASCII letters, digits, '-' and '_' are allowed",
    "^[A-Za-z0-9_-]+$"
);
text_id!(
    /// What a client calls a message: a UUID as chorus makes them, any printable text as others may.
    MessageId, "messageId", 128, |c| !c.is_control(), "control characters are not allowed",
    "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
);
text_id!(
    /// The name of a model in the catalogue, e.g. `tts_models/en/ljspeech/vits`. Becomes a subject token through
    /// [`crate::names::encode_token`], whose growth (three bytes for one) bounds it.
    ModelName, "model name", 80, |c| !c.is_control(), "control characters are not allowed",
    "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
);

impl MessageId {
    /// A fresh random one.
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().to_string())
    }
}

/// The place of a segment in its request, from 0.
pub type SegmentIndex = u32;

/// Which try of a segment this is, from 1. Attempt numbers fence; they do not count failures.
pub type Attempt = u32;

/// One attempt at one segment of one session: the unit of the queue, and its `Nats-Msg-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobId {
    /// The session that asks.
    pub session: SessionId,
    /// The segment asked for.
    pub segment: SegmentIndex,
    /// The attempt, from 1.
    pub attempt: Attempt,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.session, self.segment, self.attempt)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || malformed("job id", text, "expected session/segment/attempt");
        let mut parts = text.split('/');
        let (Some(session), Some(segment), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self {
            session: session.parse()?,
            segment: segment.parse().map_err(|_| wrong())?,
            attempt: attempt.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_read_back() {
        let job = JobId { session: SessionId::from_u128(7), segment: 3, attempt: 2 };
        assert_eq!(job.to_string(), "00000000000000000000000000000007/3/2");
        assert_eq!(job.to_string().parse::<JobId>(), Ok(job));
        for bad in [
            "",
            "a/b",
            "00000000000000000000000000000007/3",
            "00000000000000000000000000000007/3/2/1",
            "x/3/2",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad:?} must not be a job id");
        }
    }

    #[test]
    fn text_ids_are_bounded() {
        assert_eq!(WorkerId::new(""), Err(IdError::Empty { what: "worker id" }));
        assert!(matches!(WorkerId::new("a.b"), Err(IdError::Malformed { .. })));
        assert!(matches!(MessageId::new("x".repeat(129)), Err(IdError::TooLong { .. })));
        assert!(matches!(ModelName::new("a\u{0}b"), Err(IdError::Malformed { .. })));
        assert!(ModelName::new("tts_models/日本語/vits").is_ok());
    }
}
