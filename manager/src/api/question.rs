//! Reading a question and saying how its answer is to be written.
//!
//! An answer goes out in the encoding of its question, unless the question's `accept` range excludes that; then in the
//! newest one that it does accept. Where a question cannot be read, whatever of its head can be still decides how the
//! error is written and which message it answers.

use chorus_bus::{Bus, Incoming};
use chorus_protocol::codec::{self, DecodeError, Encoding};
use chorus_protocol::version::{self, V2_0, V2_1};
use chorus_protocol::{Envelope, MessageId, MessageType, Reason, ServiceError};
use semver::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How an answer is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplyStyle {
    /// The message that is answered, where its id could be read.
    pub(crate) to: Option<MessageId>,
    /// JSON or MessagePack.
    pub(crate) encoding: Encoding,
}

impl ReplyStyle {
    /// The version that goes with the encoding.
    pub(crate) fn version(&self) -> Version {
        version_of(self.encoding)
    }
}

/// A question that cannot be taken, and how to say so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unreadable {
    pub(crate) error: Box<ServiceError>,
    pub(crate) style: ReplyStyle,
}

/// What is looked at of a message that cannot be read as a whole.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    message_id: Option<MessageId>,
}

/// Reads a question.
pub(crate) fn read<Q: DeserializeOwned>(
    payload: &[u8],
    max_bytes: usize,
) -> Result<(Envelope<Q>, ReplyStyle), Unreadable> {
    let envelope: Envelope<Q> =
        codec::decode(payload, max_bytes).map_err(|error| unreadable(payload, max_bytes, error))?;
    let asked_in = codec::detect(payload).unwrap_or(Encoding::Json);
    let mut style = ReplyStyle { to: Some(envelope.message_id.clone()), encoding: asked_in };
    match encoding_for(asked_in, envelope.accept.as_deref()) {
        Ok(encoding) => style.encoding = encoding,
        Err(error) => return Err(Unreadable { error: Box::new(error), style }),
    }
    if !matches!(envelope.message_type, MessageType::Request | MessageType::Event) {
        let message = "type: a question is a request";
        let error = Box::new(ServiceError::field(Reason::Malformed, "type", message));
        return Err(Unreadable { error, style });
    }
    Ok((envelope, style))
}

/// What is said about bytes that are not the question they should be.
pub(crate) fn unreadable(payload: &[u8], max_bytes: usize, error: DecodeError) -> Unreadable {
    let head: Option<Head> = codec::decode_value(payload, max_bytes).ok();
    let to = head.and_then(|head| head.message_id);
    let encoding = codec::detect(payload).unwrap_or(Encoding::Json);
    Unreadable { error: Box::new(error.into()), style: ReplyStyle { to, encoding } }
}

/// In which encoding the answer to a question goes out.
fn encoding_for(asked_in: Encoding, accept: Option<&str>) -> Result<Encoding, ServiceError> {
    let Some(range) = accept else { return Ok(asked_in) };
    if version::negotiate(range, &[version_of(asked_in)]).is_ok() {
        return Ok(asked_in);
    }
    match version::negotiate(range, &[V2_0, V2_1]) {
        Ok(version) if version == V2_0 => Ok(Encoding::Json),
        Ok(_) => Ok(Encoding::MessagePack),
        Err(error) => Err(ServiceError::field(Reason::Version, "accept", error.to_string())
            .with("supported", vec![V2_0.to_string(), V2_1.to_string()])),
    }
}

fn version_of(encoding: Encoding) -> Version {
    match encoding {
        Encoding::Json => V2_0,
        Encoding::MessagePack => V2_1,
    }
}

/// Sends an answer, or the error in its place.
pub(crate) async fn answer<A: Serialize>(
    bus: &Bus,
    to: &Incoming,
    style: &ReplyStyle,
    outcome: Result<A, ServiceError>,
    traceparent: Option<String>,
    now_ms: u64,
) {
    let sent = match (outcome, &style.to) {
        (Ok(answer), Some(question)) => {
            let envelope = Envelope::response(question, answer, now_ms);
            let envelope = envelope.in_version(style.version()).traced(traceparent);
            bus.respond(to, &envelope, style.encoding).await
        }
        (Ok(_), None) => return,
        (Err(error), question) => {
            let envelope = Envelope::error(question.as_ref(), error, now_ms);
            let envelope = envelope.in_version(style.version()).traced(traceparent);
            bus.respond(to, &envelope, style.encoding).await
        }
    };
    if let Err(error) = sent {
        tracing::warn!(subject = to.subject(), %error, "an answer was not sent; the question will be asked again");
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::SynthesisRequest;
    use chorus_protocol::service::Ask;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn question() -> Envelope<Ask> {
        Envelope::request(Ask {}, 1)
    }

    fn style_of(envelope: &Envelope<Ask>, encoding: Encoding) -> Result<ReplyStyle, Unreadable> {
        let bytes = codec::encode(envelope, encoding).unwrap();
        read::<Ask>(&bytes, 10_000).map(|(_, style)| style)
    }

    #[test]
    fn the_answer_is_in_the_encoding_of_the_question() {
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let style = style_of(&question(), encoding).unwrap();
            assert_eq!(style.encoding, encoding);
            assert!(style.to.is_some());
        }
    }

    #[test]
    fn the_accepted_range_has_the_last_word() {
        let accepting = |range: &str| Envelope { accept: Some(range.into()), ..question() };
        let style = style_of(&accepting("=2.0.0"), Encoding::MessagePack).unwrap();
        assert_eq!((style.encoding, style.version()), (Encoding::Json, V2_0));
        let style = style_of(&accepting("=2.1.0"), Encoding::Json).unwrap();
        assert_eq!((style.encoding, style.version()), (Encoding::MessagePack, V2_1));
        for impossible in [">=3.0.0", "two"] {
            let refused = style_of(&accepting(impossible), Encoding::Json).unwrap_err();
            assert_eq!(refused.error.reason(), Some(Reason::Version));
            assert_eq!(refused.error.details.unwrap()["field"], "accept");
        }
    }

    #[test]
    fn an_unreadable_question_is_still_answered_by_its_name() {
        let bytes = json!({"version": "2.0.0", "messageId": "m-1", "timestamp": 1, "type": "request",
                           "payload": {"text": 5}});
        let refused = read::<SynthesisRequest>(bytes.to_string().as_bytes(), 10_000).unwrap_err();
        assert_eq!(refused.style.to.unwrap().as_str(), "m-1");
        assert_eq!(refused.error.details.unwrap()["field"], "text");
        let refused = read::<Ask>(b"hello", 10_000).unwrap_err();
        assert_eq!(refused.style, ReplyStyle { to: None, encoding: Encoding::Json });
        let answer = Envelope { message_type: MessageType::Response, ..question() };
        let refused = style_of(&answer, Encoding::Json).unwrap_err();
        assert_eq!(refused.error.details.unwrap()["field"], "type");
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let refused = read::<chorus_protocol::plan::Open>(&bytes, 150).unwrap_err();
            prop_assert!(!refused.error.retryable);
        }
    }
}
