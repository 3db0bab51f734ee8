//! One message of a program under test, whatever version it is in.
//!
//! The protocol's own codec and adapters read it; here it is only kept with its bytes, so that each check reads from it
//! what it is about.

use bytes::Bytes;
use chorus_protocol::adapt::{self, Fields};
use chorus_protocol::gateway::MAX_ANSWER_BYTES;
use chorus_protocol::version::{V1_0, V2_0, V2_1};
use chorus_protocol::{MessageId, MessageType, ServiceError, codec};
use semver::Version;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

/// Characters of a message that a report shows.
const SHOWN_CHARS: usize = 240;

/// How a conversation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 1.0: bare lines, no ids.
    Bare,
    /// 2.0: envelopes in JSON, one per line.
    Lines,
    /// 2.1: envelopes in MessagePack, in frames.
    Frames,
}

impl Dialect {
    /// Its version.
    pub fn version(self) -> Version {
        match self {
            Self::Bare => V1_0,
            Self::Lines => V2_0,
            Self::Frames => V2_1,
        }
    }

    /// That of a version, where it is one that we speak.
    pub fn of(version: &Version) -> Option<Self> {
        [Self::Bare, Self::Lines, Self::Frames].into_iter().find(|dialect| dialect.version() == *version)
    }
}

/// A message that came.
#[derive(Debug, Clone)]
pub struct Message {
    /// What kind it is.
    pub kind: MessageType,
    /// The request that it names.
    pub to: Option<MessageId>,
    /// Whether it is a bare line of 1.0.
    pub bare: bool,
    bytes: Bytes,
}

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// Why it is no message.
    pub fn of_line(bytes: Bytes) -> Result<Self, String> {
        let fields = adapt::fields(&bytes, MAX_ANSWER_BYTES).map_err(|error| error.message)?;
        if adapt::is_envelope(&fields) {
            return Self::of_frame(bytes);
        }
        let kind = match fields.get("type").and_then(Value::as_str) {
            Some("response") => MessageType::Response,
            Some("error") => MessageType::Error,
            Some("event") => MessageType::Event,
            None if fields.contains_key("success") => MessageType::Response,
            other => return Err(format!("a line of type {other:?}")),
        };
        Ok(Self { kind, to: None, bare: true, bytes })
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// Why it is no message.
    pub fn of_frame(bytes: Bytes) -> Result<Self, String> {
        let head =
            codec::decode::<IgnoredAny>(&bytes, MAX_ANSWER_BYTES).map_err(|error| error.to_string())?;
        if head.message_type == MessageType::Request {
            return Err("a request, where only answers and events are due".to_owned());
        }
        let to = head.correlation_id().cloned();
        Ok(Self { kind: head.message_type, to, bare: false, bytes })
    }

    /// What it says, as `T`.
    ///
    /// # Errors
    /// Which field is wrong.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let read = if self.bare {
            codec::decode_value(&self.bytes, MAX_ANSWER_BYTES)
        } else {
            codec::decode(&self.bytes, MAX_ANSWER_BYTES).map(|envelope| envelope.payload)
        };
        read.map_err(|error| error.to_string())
    }

    /// Its payload's fields; none where it holds bytes.
    pub fn fields(&self) -> Fields {
        self.read().unwrap_or_default()
    }

    /// The error that it tells, in whichever place its version has for it.
    pub fn error(&self) -> Option<ServiceError> {
        #[derive(Deserialize)]
        struct Outcome {
            success: bool,
            error: Option<ServiceError>,
        }
        if self.bare {
            return adapt::error_of(&self.fields());
        }
        match self.kind {
            MessageType::Error => self.read().ok(),
            _ => self.read::<Outcome>().ok().filter(|outcome| !outcome.success)?.error,
        }
    }

    /// Whether it says that something failed.
    pub fn failed(&self) -> bool {
        self.kind == MessageType::Error || self.error().is_some()
    }

    /// For a person.
    pub fn shown(&self) -> String {
        let text = match self.read::<Value>() {
            _ if self.bare || self.bytes.first() == Some(&b'{') => {
                String::from_utf8_lossy(&self.bytes).into_owned()
            }
            Ok(payload) => format!("{:?} to {}: {payload}", self.kind, self.named()),
            Err(_holds_bytes) => {
                format!("{:?} to {}: a frame of {} bytes", self.kind, self.named(), self.bytes.len())
            }
        };
        cut(&text)
    }

    fn named(&self) -> &str {
        self.to.as_ref().map_or("nobody", MessageId::as_str)
    }
}

/// As much of a text as a report shows.
pub fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_versions_are_told_apart_and_their_errors_found() {
        let line = |text: &'static str| Message::of_line(Bytes::from_static(text.as_bytes()));
        let bare = line(r#"{"type":"error","success":false,"error":"no"}"#).unwrap();
        assert!(bare.bare && bare.failed());
        let envelope = line(
            r#"{"version":"2.0.0","messageId":"a","timestamp":1,"type":"response","payload":{"success":true},
                "metadata":{"correlationId":"7"}}"#,
        )
        .unwrap();
        assert_eq!((envelope.bare, envelope.failed(), envelope.named()), (false, false, "7"));
        for noise in ["loading", "{}", r#"{"type":"request"}"#] {
            assert!(line(noise).is_err(), "{noise}");
        }
    }
}
