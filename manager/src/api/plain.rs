//! Plain requests as they look on the wire: read, judged and written, without any effect.
//!
//! A plain request is a bare JSON object (`{"text": "hello"}`) or a 2.0 or 2.1 envelope around one. Its answer is a
//! SynthesisResult in the same dress, whatever came of it: bare JSON for bare JSON, an envelope in the question's encoding
//! for an envelope.

use chorus_audio::encode::is_built;
use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::{
    AudioFormat, Envelope, MessageId, Reason, ServiceError, SynthesisRequest, SynthesisResult,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::question::{self, ReplyStyle, Unreadable};

/// What the broker may add around a reply, and what the estimate may be short of, in bytes.
const HEADROOM_BYTES: usize = 512;

/// How the reply is dressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dress {
    /// A bare JSON object.
    Bare,
    /// An envelope.
    Envelope(ReplyStyle),
}

impl Dress {
    fn encoding(&self) -> Encoding {
        match self {
            Self::Bare => Encoding::Json,
            Self::Envelope(style) => style.encoding,
        }
    }

    /// What the client calls the request, where that could be read.
    pub(crate) fn request_id(&self) -> Option<MessageId> {
        match self {
            Self::Bare => None,
            Self::Envelope(style) => style.to.clone(),
        }
    }

    /// The reply's bytes.
    ///
    /// # Errors
    /// Never for a result of ours: it holds nothing that cannot be written.
    pub(crate) fn write(&self, result: &SynthesisResult, now_ms: u64) -> Result<Vec<u8>, ServiceError> {
        match self {
            Self::Bare => serde_json::to_vec(result)
                .map_err(|e| ServiceError::new(Reason::Output, format!("the result cannot be written: {e}"))),
            Self::Envelope(style) => {
                let to = style.to.as_ref().unwrap_or(&result.request_id);
                let envelope = Envelope::response(to, result, now_ms).in_version(style.version());
                codec::encode(&envelope, style.encoding)
            }
        }
    }

    /// Whether audio of this size fits into a reply whose other bytes are these.
    pub(crate) fn fits(&self, frame_bytes: usize, audio_bytes: usize, max_payload: usize) -> bool {
        let carried_bytes = match self.encoding() {
            Encoding::Json => audio_bytes.div_ceil(3).saturating_mul(4),
            Encoding::MessagePack => audio_bytes,
        };
        frame_bytes.saturating_add(carried_bytes).saturating_add(HEADROOM_BYTES) <= max_payload
    }
}

/// A plain request, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlainAsk {
    /// What the client calls it, or what we do.
    pub(crate) request_id: MessageId,
    /// What is asked for.
    pub(crate) request: SynthesisRequest,
    /// The client's trace.
    pub(crate) traceparent: Option<String>,
    /// How the audio is written.
    pub(crate) format: AudioFormat,
}

/// What tells an envelope from a bare request.
#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    text: Option<IgnoredAny>,
    #[serde(default)]
    version: Option<IgnoredAny>,
    #[serde(default)]
    payload: Option<IgnoredAny>,
}

impl Shape {
    fn is_envelope(&self) -> bool {
        self.payload.is_some() || (self.version.is_some() && self.text.is_none())
    }
}

/// Reads a plain request. How to answer is known in any case.
pub(crate) fn read(payload: &[u8], max_bytes: usize) -> (Dress, Result<PlainAsk, ServiceError>) {
    let encoding = match codec::detect(payload) {
        Ok(encoding) => encoding,
        Err(error) => return (Dress::Bare, Err(error.into())),
    };
    let is_bare = encoding == Encoding::Json
        && codec::decode_value::<Shape>(payload, max_bytes).map_or(true, |shape| !shape.is_envelope());
    if is_bare {
        let request = codec::decode_value::<SynthesisRequest>(payload, max_bytes).map_err(ServiceError::from);
        let ask = request.and_then(|request| PlainAsk::new(MessageId::fresh(), request, None));
        return (Dress::Bare, ask);
    }
    match question::read::<SynthesisRequest>(payload, max_bytes) {
        Err(Unreadable { error, style }) => (Dress::Envelope(style), Err(*error)),
        Ok((envelope, style)) => {
            let mut request = envelope.payload;
            let of_envelope = envelope.metadata.and_then(|metadata| metadata.priority);
            request.priority = request.priority.or(of_envelope);
            (Dress::Envelope(style), PlainAsk::new(envelope.message_id, request, envelope.traceparent))
        }
    }
}

impl PlainAsk {
    pub(crate) fn new(
        request_id: MessageId,
        request: SynthesisRequest,
        traceparent: Option<String>,
    ) -> Result<Self, ServiceError> {
        if request.output_path.is_some() {
            let message =
                "outputPath needs a file system that both sides share; over NATS the audio is in the reply";
            return Err(ServiceError::field(Reason::UnsupportedOption, "outputPath", message));
        }
        let format = built(request.output_format.unwrap_or_default())?;
        Ok(Self { request_id, request, traceparent, format })
    }
}

/// The format, if this build can encode it.
fn built(format: AudioFormat) -> Result<AudioFormat, ServiceError> {
    if is_built(format) {
        return Ok(format);
    }
    let known: Vec<&str> =
        AudioFormat::ALL.into_iter().filter(|f| is_built(*f)).map(AudioFormat::name).collect();
    let message = format!("outputFormat {format} is not in this build; known: {}", known.join(", "));
    Err(ServiceError::field(Reason::UnsupportedOption, "outputFormat", message).with("known", known))
}

#[cfg(test)]
mod tests {
    use chorus_protocol::Priority;
    use serde_json::{Value, json};

    use super::*;

    fn read_json(value: &Value) -> (Dress, Result<PlainAsk, ServiceError>) {
        read(value.to_string().as_bytes(), 1_000_000)
    }

    fn envelope(payload: Value, metadata: Value) -> Value {
        json!({"version": "2.0.0", "messageId": "m-1", "timestamp": 1, "type": "request",
               "payload": payload, "metadata": metadata})
    }

    fn field(error: ServiceError) -> String {
        error.details.unwrap()["field"].as_str().unwrap().to_owned()
    }

    #[test]
    fn bare_and_enveloped_requests_are_told_apart() {
        let (dress, ask) = read_json(&json!({"text": "hello", "version": 3}));
        assert_eq!((dress, ask.unwrap().request.text.as_str()), (Dress::Bare, "hello"));
        let (dress, ask) = read_json(&envelope(json!({"text": "hello"}), Value::Null));
        assert!(matches!(dress, Dress::Envelope(ReplyStyle { encoding: Encoding::Json, .. })));
        assert_eq!(ask.unwrap().request_id.as_str(), "m-1");
    }

    #[test]
    fn the_requests_own_priority_wins() {
        let priority_of = |payload: Value| {
            read_json(&envelope(payload, json!({"priority": "low"}))).1.unwrap().request.priority
        };
        assert_eq!(priority_of(json!({"text": "a"})), Some(Priority::Low));
        assert_eq!(priority_of(json!({"text": "a", "priority": "high"})), Some(Priority::High));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_field() {
        let refused = |value: Value| field(read_json(&value).1.unwrap_err());
        assert_eq!(refused(json!({"text": "a", "outputPath": "/tmp/x.wav"})), "outputPath");
        assert_eq!(refused(json!({"text": 5})), "text");
        assert_eq!(refused(json!({"text": "a", "speed": "fast"})), "speed");
        assert_eq!(refused(json!({"text": "a", "outputFormat": "midi"})), "outputFormat");
        for garbage in [&b""[..], b"hello", b"\xff\xfe", b"{\"text\":\"a", b"[1]"] {
            let (dress, ask) = read(garbage, 1_000);
            assert_eq!((dress, ask.is_err()), (Dress::Bare, true));
        }
        let (dress, ask) = read(&[0x81, 0xa1], 1_000);
        assert!(matches!(dress, Dress::Envelope(_)) && ask.is_err());
    }

    #[test]
    fn a_failed_result_wears_the_same_dress() {
        let error = ServiceError::new(Reason::QueueFull, "full");
        let result = SynthesisResult::failed(MessageId::new("m-1").unwrap(), 1.0, error);
        let bare: Value = serde_json::from_slice(&Dress::Bare.write(&result, 1).unwrap()).unwrap();
        assert_eq!(
            (bare["success"].as_bool(), &bare["error"]["code"]),
            (Some(false), &json!("RESOURCE_EXHAUSTED"))
        );
        let (dress, _) = read_json(&envelope(json!({"text": "a"}), Value::Null));
        let dressed: Value = serde_json::from_slice(&dress.write(&result, 1).unwrap()).unwrap();
        assert_eq!(dressed["type"], "response");
        assert_eq!(dressed["version"], "2.0.0");
        assert_eq!(dressed["metadata"]["correlationId"], "m-1");
        assert_eq!(dressed["payload"]["requestId"], "m-1");
    }

    #[test]
    fn base64_grows_audio_by_a_third() {
        assert!(Dress::Bare.fits(1_000, 300_000, 402_000));
        assert!(!Dress::Bare.fits(1_000, 300_000, 401_000));
        let packed = Dress::Envelope(ReplyStyle { to: None, encoding: Encoding::MessagePack });
        assert!(packed.fits(1_000, 300_000, 302_000));
        assert!(!packed.fits(0, usize::MAX, 1_000));
    }
}
