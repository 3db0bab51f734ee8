//! Frames of the engine pipe to messages, and requests to frames.
//!
//! Audio is by far the most of what comes, so a frame is read in one pass and its samples stay where they are: a piece is
//! a slice of the frame it came in. What is rare (errors, the answers to `hello` and `load`) is decoded again in full by
//! the protocol's own types.

use bytes::Bytes;
use chorus_protocol::codec::{self, Encoding, MAX_DEPTH};
use chorus_protocol::pipe::{EngineRequest, EngineWarning, MAX_FRAME_BYTES, SpokenAnswer};
use chorus_protocol::{AudioData, Envelope, MessageId, MessageType, Metadata, Reason, ServiceError, version};
use serde::Deserialize;

/// A message of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    /// The request it is about; `None` when the engine could not tell.
    pub(crate) to: Option<MessageId>,
    /// What it says.
    pub(crate) what: What,
}

/// What an engine's message says.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A piece of audio.
    Piece {
        /// Its place.
        seq: u32,
        /// Its samples.
        data: Bytes,
    },
    /// It has moved on, or told something that this version does not know.
    Progress,
    /// Spoken to the end.
    Spoken(Box<SpokenAnswer>),
    /// The answer to another request: the whole frame.
    Answer(Bytes),
    /// The request failed.
    Failed(Box<ServiceError>),
}

/// A frame that is not a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Not MessagePack, or not an envelope.
    #[error("the engine sent a frame that cannot be read: {0}")]
    Unreadable(#[source] rmp_serde::decode::Error),
    /// An envelope of a version that was not agreed on.
    #[error("the engine sent a frame of protocol version {0}")]
    Version(semver::Version),
    /// A message that lacks what its kind needs.
    #[error("the engine sent {0} without what belongs into it")]
    Incomplete(&'static str),
    /// A request: an engine has none to make.
    #[error("the engine sent a request")]
    Request,
}

#[derive(Deserialize)]
struct Frame<'a> {
    version: semver::Version,
    #[serde(rename = "type")]
    message_type: MessageType,
    #[serde(borrow)]
    payload: Payload<'a>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// The fields of all hot payloads in one, so that one pass reads them without a buffer in between.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Payload<'a> {
    #[serde(borrow)]
    event: Option<&'a str>,
    #[serde(borrow)]
    method: Option<&'a str>,
    seq: Option<u32>,
    #[serde(borrow)]
    data: Option<&'a [u8]>,
    chunks: Option<u32>,
    samples: Option<u64>,
    sample_rate: Option<u32>,
    crc32: Option<u32>,
    engine_ms: Option<f64>,
    warnings: Vec<EngineWarning>,
}

impl Payload<'_> {
    /// Whether it answers `synthesize`: it says so, or says nothing about it and has what only such an answer has.
    fn is_spoken(&self) -> bool {
        match self.method {
            Some(method) => method == "synthesize",
            None => self.crc32.is_some() && self.samples.is_some(),
        }
    }
}

/// A request as the body of a frame.
///
/// # Errors
/// When it is larger than a frame may be.
pub(crate) fn encode(request: &Envelope<EngineRequest>) -> Result<Vec<u8>, ServiceError> {
    let body = codec::encode(request, Encoding::MessagePack)?;
    if body.len() > MAX_FRAME_BYTES {
        let message = format!("the request is {} bytes; the engine takes {MAX_FRAME_BYTES}", body.len());
        return Err(ServiceError::new(Reason::TooLarge, message));
    }
    Ok(body)
}

/// The message in a frame.
pub(crate) fn decode(frame: &Bytes) -> Result<Incoming, WireError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(&frame[..]);
    reader.set_max_depth(MAX_DEPTH);
    let head = Frame::deserialize(&mut reader).map_err(WireError::Unreadable)?;
    if !version::readable(&head.version) {
        return Err(WireError::Version(head.version));
    }
    let what = match head.message_type {
        MessageType::Request => return Err(WireError::Request),
        MessageType::Error => What::Failed(Box::new(decode_error(frame))),
        MessageType::Event if head.payload.event == Some("chunk") => piece(frame, &head.payload)?,
        MessageType::Event => What::Progress,
        MessageType::Response if head.payload.is_spoken() => spoken(frame, head.payload)?,
        MessageType::Response => What::Answer(frame.clone()),
    };
    Ok(Incoming { to: head.metadata.and_then(|metadata| metadata.correlation_id), what })
}

fn piece(frame: &Bytes, payload: &Payload<'_>) -> Result<What, WireError> {
    let (Some(seq), Some(data)) = (payload.seq, payload.data) else {
        return Err(WireError::Incomplete("a chunk"));
    };
    Ok(What::Piece { seq, data: frame.slice_ref(data) })
}

fn spoken(frame: &Bytes, payload: Payload<'_>) -> Result<What, WireError> {
    let read = || {
        Some(SpokenAnswer {
            seq: payload.seq?,
            data: AudioData(frame.slice_ref(payload.data?)),
            chunks: payload.chunks?,
            samples: payload.samples?,
            sample_rate: payload.sample_rate?,
            crc32: payload.crc32?,
            engine_ms: payload.engine_ms.filter(|ms| ms.is_finite())?,
            warnings: payload.warnings,
        })
    };
    read().map(|answer| What::Spoken(Box::new(answer))).ok_or(WireError::Incomplete("a spoken segment"))
}

/// The error an engine answered with. One that cannot be read is an engine error itself.
fn decode_error(frame: &Bytes) -> ServiceError {
    match codec::decode::<ServiceError>(frame, MAX_FRAME_BYTES) {
        Ok(envelope) => envelope.payload,
        Err(error) => {
            ServiceError::new(Reason::EngineError, format!("the engine's error cannot be read: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn frame(kind: &str, payload: serde_json::Value) -> Bytes {
        let id = "5";
        let value = json!({"version": "2.1.0", "messageId": "1", "timestamp": 1, "type": kind,
            "payload": payload, "metadata": {"correlationId": id}, "unknown": [1]});
        rmp_serde::to_vec_named(&value).unwrap().into()
    }

    fn with_data(kind: &str, payload: serde_json::Value, data: &[u8]) -> Bytes {
        // JSON has no bytes: the data goes in as MessagePack bin in place of a marker.
        let marked = rmp_serde::to_vec_named("DATA").unwrap();
        let packed = rmp_serde::to_vec(&AudioData::from(data.to_vec())).unwrap();
        let body = frame(kind, payload);
        let at = body.windows(marked.len()).position(|window| window == marked).unwrap();
        [&body[..at], &packed, &body[at + marked.len()..]].concat().into()
    }

    #[test]
    fn a_piece_is_a_slice_of_its_frame() {
        let frame = with_data("event", json!({"event": "chunk", "seq": 3, "data": "DATA"}), &[1, 2, 3, 4]);
        let message = decode(&frame).unwrap();
        assert_eq!(message.to.unwrap().as_str(), "5");
        let What::Piece { seq: 3, data } = message.what else { panic!() };
        assert_eq!(&data[..], [1, 2, 3, 4]);
        assert!(frame.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn a_spoken_segment_is_read_whole() {
        let mut payload = json!({"method": "synthesize", "seq": 0, "data": "DATA", "chunks": 1, "samples": 1,
            "sampleRate": 22050, "crc32": 7, "engineMs": 1.5, "warnings":
            [{"reason": "unspeakable", "message": "left out", "characters": "?"}]});
        // As the specification shows it, an answer does not repeat the method.
        for _with_and_without_a_method in 0..2 {
            let message = decode(&with_data("response", payload.clone(), &[0, 0])).unwrap();
            let What::Spoken(answer) = message.what else { panic!("{message:?}") };
            assert_eq!((answer.sample_rate, answer.crc32, answer.warnings.len()), (22050, 7, 1));
            payload.as_object_mut().unwrap().remove("method");
        }
    }

    #[test]
    fn errors_are_read_and_unreadable_ones_are_engine_errors() {
        let error = json!({"code": "INVALID_REQUEST", "message": "no", "retryable": false,
            "details": {"reason": "unspeakable"}});
        let What::Failed(error) = decode(&frame("error", error)).unwrap().what else { panic!() };
        assert_eq!(error.reason(), Some(Reason::Unspeakable));
        let What::Failed(error) = decode(&frame("error", json!({"code": 7}))).unwrap().what else { panic!() };
        assert_eq!(error.reason(), Some(Reason::EngineError));
    }

    #[test]
    fn incomplete_and_foreign_messages_are_refused() {
        assert!(matches!(decode(&frame("event", json!({"event": "chunk"}))), Err(WireError::Incomplete(_))));
        assert!(matches!(decode(&frame("request", json!({}))), Err(WireError::Request)));
        assert!(matches!(decode(&Bytes::from_static(b"\xc1")), Err(WireError::Unreadable(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read_or_refused = decode(&Bytes::from(bytes));
        }

        #[test]
        fn no_damage_makes_it_panic(
            message in proptest::sample::select(vec![
                include_str!("../../../protocol/tests/golden/pipe_chunk.hex"),
                include_str!("../../../protocol/tests/golden/pipe_spoken.hex"),
                include_str!("../../../protocol/tests/golden/service_error.hex"),
            ]),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            kind in proptest::sample::select(vec!["\u{a7}request", "\u{a5}event", "\u{a5}error", "\u{a8}response"]),
        ) {
            let digits: Vec<u8> = message.bytes().filter(u8::is_ascii_hexdigit).collect();
            let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            let mut body: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            let at = body.windows(8).position(|window| window == b"\xa7request").unwrap();
            let kind = kind.chars().map(|character| character as u8);
            body.splice(at..at + 8, kind);
            for (index, byte) in changes {
                let at = index.index(body.len());
                body[at] = byte;
            }
            let _read_or_refused = decode(&Bytes::from(body));
        }
    }
}
