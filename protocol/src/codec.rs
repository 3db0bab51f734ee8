//! Envelopes to bytes and back, under limits.
//!
//! The two encodings tell themselves apart by their first byte: JSON objects begin with `{` (after white space),
//! MessagePack maps with `0x80..=0x8f`, `0xde` or `0xdf`. Decoding checks size, then depth, then shape; an error names
//! the field. The path of the field is found by decoding once more with tracking, so good messages pay nothing for it.

mod finite;

use std::io::Cursor;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::envelope::{Envelope, MessageType};
use crate::error::{Reason, ServiceError};
use crate::version;

/// The deepest nesting of maps and lists that is read.
pub const MAX_DEPTH: usize = 32;

/// The largest message that is read when nothing narrower is given, in bytes: the broker's default max_payload.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// How an envelope is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// 2.0.
    Json,
    /// 2.1.
    MessagePack,
}

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing there.
    #[error("the message is empty")]
    Empty,
    /// Over the size limit.
    #[error("the message is {len} bytes; at most {max} are read")]
    TooLarge {
        /// Size found, in bytes.
        len: usize,
        /// Size allowed, in bytes.
        max: usize,
    },
    /// Neither a JSON object nor a MessagePack map.
    #[error("the message is neither a JSON object nor a MessagePack map")]
    NotAMap,
    /// Nested too deeply.
    #[error("the message nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A version whose envelope we cannot read.
    #[error("Unsupported protocol version: {0} (supported: 2.0.0, 2.1.0)")]
    Version(semver::Version),
    /// Truncated, or of the wrong shape.
    #[error("{}{message}", field_prefix(.field))]
    Malformed {
        /// Path of the field, such as `payload.speed`; empty when the whole is broken.
        field: String,
        /// What the parser says.
        message: String,
    },
}

fn field_prefix(field: &str) -> String {
    if field.is_empty() || field == "." { String::new() } else { format!("{field}: ") }
}

impl From<DecodeError> for ServiceError {
    fn from(error: DecodeError) -> Self {
        let message = error.to_string();
        match error {
            DecodeError::TooLarge { .. } => ServiceError::new(Reason::TooLarge, message),
            DecodeError::Version(_) => ServiceError::new(Reason::Version, message)
                .with("supported", vec![version::V2_0.to_string(), version::V2_1.to_string()]),
            DecodeError::Malformed { ref field, .. } => {
                let field = field.strip_prefix("payload.").unwrap_or(field);
                ServiceError::field(Reason::Malformed, field, message)
            }
            DecodeError::Empty | DecodeError::NotAMap | DecodeError::TooDeep => {
                ServiceError::new(Reason::Malformed, message)
            }
        }
    }
}

/// Which encoding these bytes are in.
///
/// # Errors
/// When they are empty or in neither.
pub fn detect(bytes: &[u8]) -> Result<Encoding, DecodeError> {
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        None => Err(DecodeError::Empty),
        Some(b'{') => Ok(Encoding::Json),
        Some(_) if matches!(bytes[0], 0x80..=0x8f | 0xde | 0xdf) => Ok(Encoding::MessagePack),
        Some(_) => Err(DecodeError::NotAMap),
    }
}

/// An envelope as bytes.
///
/// # Errors
/// Only when a payload holds what the encoding cannot carry (a map with keys that are not strings, in JSON).
pub fn encode<T: Serialize>(envelope: &Envelope<T>, encoding: Encoding) -> Result<Vec<u8>, ServiceError> {
    let unencodable = |error: &dyn std::fmt::Display| {
        ServiceError::new(Reason::Malformed, format!("the message cannot be encoded: {error}"))
    };
    match encoding {
        Encoding::Json => serde_json::to_vec(envelope).map_err(|e| unencodable(&e)),
        Encoding::MessagePack => rmp_serde::to_vec_named(envelope).map_err(|e| unencodable(&e)),
    }
}

/// Bytes as an envelope around `T`.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<Envelope<T>, DecodeError> {
    let envelope: Envelope<T> = decode_value(bytes, max_bytes)?;
    if version::readable(&envelope.version) {
        Ok(envelope)
    } else {
        Err(DecodeError::Version(envelope.version))
    }
}

/// Bytes as an answer: the payload, or the [`ServiceError`] that the other side sent instead.
///
/// # Errors
/// The other side's error, or an INVALID_REQUEST that says what is wrong with the answer.
pub fn decode_reply<T: DeserializeOwned>(
    bytes: &[u8],
    max_bytes: usize,
) -> Result<Envelope<T>, ServiceError> {
    let head: Envelope<IgnoredAny> = decode(bytes, max_bytes)?;
    if head.message_type == MessageType::Error {
        return Err(decode::<ServiceError>(bytes, max_bytes)?.payload);
    }
    Ok(decode(bytes, max_bytes)?)
}

/// Bytes as any value, without the envelope's rules (bare `{"text": …}` requests, 1.0 lines).
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<T, DecodeError> {
    if bytes.len() > max_bytes {
        return Err(DecodeError::TooLarge { len: bytes.len(), max: max_bytes });
    }
    match detect(bytes)? {
        Encoding::Json => {
            check_json_depth(bytes)?;
            serde_json::from_slice(bytes).map_err(|_| locate_json::<T>(bytes))
        }
        Encoding::MessagePack => {
            let mut reader = message_pack(bytes);
            match T::deserialize(&mut reader) {
                Ok(_) if reader.position() != bytes.len() as u64 => Err(malformed("trailing bytes")),
                Ok(_) if finite::holds_no_number(bytes) => {
                    Err(malformed("a number is infinite or not a number"))
                }
                Ok(value) => Ok(value),
                Err(rmp_serde::decode::Error::DepthLimitExceeded) => Err(DecodeError::TooDeep),
                Err(_) => Err(locate_message_pack::<T>(bytes)),
            }
        }
    }
}

fn malformed(message: &str) -> DecodeError {
    DecodeError::Malformed { field: String::new(), message: message.into() }
}

type MessagePackReader<'a> = rmp_serde::Deserializer<rmp_serde::decode::ReadReader<Cursor<&'a [u8]>>>;

fn message_pack(bytes: &[u8]) -> MessagePackReader<'_> {
    let mut reader = rmp_serde::Deserializer::new(Cursor::new(bytes));
    reader.set_max_depth(MAX_DEPTH);
    reader
}

fn locate_json<T: DeserializeOwned>(bytes: &[u8]) -> DecodeError {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let tracked = serde_path_to_error::deserialize::<_, T>(&mut reader);
    located(tracked.err().map(|e| (e.path().to_string(), e.inner().to_string())), || {
        reader.end().err().map_or_else(|| "not valid JSON".to_owned(), |e| e.to_string())
    })
}

fn locate_message_pack<T: DeserializeOwned>(bytes: &[u8]) -> DecodeError {
    let tracked = serde_path_to_error::deserialize::<_, T>(&mut message_pack(bytes));
    located(tracked.err().map(|e| (e.path().to_string(), e.inner().to_string())), || {
        "not valid MessagePack".into()
    })
}

fn located(found: Option<(String, String)>, otherwise: impl FnOnce() -> String) -> DecodeError {
    let (field, message) = found.unwrap_or_else(|| (String::new(), otherwise()));
    let field = if field == "." || field == "?" { String::new() } else { field };
    DecodeError::Malformed { field, message }
}

/// One pass over the text, counting brackets outside strings. The parser's own limit (128) is too deep for us and cannot
/// be lowered.
fn check_json_depth(bytes: &[u8]) -> Result<(), DecodeError> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(DecodeError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::request::SynthesisRequest;

    fn sample() -> Envelope<SynthesisRequest> {
        Envelope::request(
            SynthesisRequest { text: "hello".into(), speed: Some(1.5), ..Default::default() },
            42,
        )
    }

    #[test]
    fn both_encodings_read_back() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let bytes = encode(&sample(), encoding).unwrap();
            assert_eq!(detect(&bytes), Ok(encoding));
            let back: Envelope<SynthesisRequest> = decode(&bytes, MAX_MESSAGE_BYTES).unwrap();
            assert_eq!(back.payload, sample().payload);
        }
    }

    #[test]
    fn a_wrong_type_names_its_field_in_both_encodings() {
        let mut value = serde_json::to_value(sample()).unwrap();
        value["payload"]["speed"] = json!("fast");
        for bytes in [serde_json::to_vec(&value).unwrap(), rmp_serde::to_vec_named(&value).unwrap()] {
            let error = decode::<SynthesisRequest>(&bytes, MAX_MESSAGE_BYTES).unwrap_err();
            let DecodeError::Malformed { field, .. } = &error else { panic!("{error:?}") };
            assert_eq!(field, "payload.speed");
            assert_eq!(ServiceError::from(error).details.unwrap()["field"], "speed");
        }
    }

    #[test]
    fn truncation_depth_size_and_version_are_told_apart() {
        let bytes = encode(&sample(), Encoding::MessagePack).unwrap();
        for end in 1..bytes.len() {
            let error = decode::<SynthesisRequest>(&bytes[..end], MAX_MESSAGE_BYTES).unwrap_err();
            assert!(matches!(error, DecodeError::Malformed { .. }), "cut at {end}: {error:?}");
        }
        assert_eq!(decode::<Value>(&bytes, 10), Err(DecodeError::TooLarge { len: bytes.len(), max: 10 }));
        assert_eq!(decode::<Value>(b"", 10), Err(DecodeError::Empty));
        assert_eq!(decode::<Value>(b"[1]", 10), Err(DecodeError::NotAMap));
        let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
        assert_eq!(decode_value::<Value>(deep.as_bytes(), 1000), Err(DecodeError::TooDeep));
        let mut packed = vec![0x81, 0xa1, b'a'];
        packed.extend([0x91; 50]);
        assert_eq!(decode_value::<Value>(&packed, 1000), Err(DecodeError::TooDeep));
        let newer = encode(&sample().in_version(semver::Version::new(3, 0, 0)), Encoding::Json).unwrap();
        assert!(matches!(decode::<SynthesisRequest>(&newer, 1000), Err(DecodeError::Version(_))));
    }

    #[test]
    fn numbers_that_json_cannot_carry_are_refused() {
        for speed in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let bytes = encode(
                &sample().map(|request| SynthesisRequest { speed: Some(speed), ..request }),
                Encoding::MessagePack,
            );
            let error = decode::<SynthesisRequest>(&bytes.unwrap(), 1000).unwrap_err();
            assert!(error.to_string().contains("not a number"), "{error}");
        }
    }

    #[test]
    fn an_error_reply_is_an_error() {
        let error = ServiceError::new(Reason::QueueFull, "full").retry_after_ms(100);
        let bytes = encode(&Envelope::error(None, error.clone(), 1), Encoding::MessagePack).unwrap();
        assert_eq!(decode_reply::<Value>(&bytes, 1000).unwrap_err(), error);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<SynthesisRequest>(&bytes, 256);
            let _ = decode_reply::<crate::plan::Opened>(&bytes, 256);
            let _ = decode::<crate::job::RunResult>(&bytes, 256);
        }
    }
}
