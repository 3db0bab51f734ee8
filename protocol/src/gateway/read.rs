//! A parent's envelope to what it asks, or to an error that says which field is wrong.
//!
//! The method is looked at first, so that the payload is then read as exactly what it should be and an error can name its
//! field. Whatever cannot be read still says, as far as possible, which request it was.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    CancelRequest, GatewayRequest, Grant, Hello, LoadModelRequest, Method, OfText, StreamRequest, Subscribe,
    TextPiece,
};
use crate::codec::{self, DecodeError};
use crate::envelope::{Envelope, MessageType};
use crate::error::{Reason, ServiceError};
use crate::ids::MessageId;
use crate::request::SynthesisRequest;
use crate::service::UnloadModel;

/// A request, and what its envelope says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Its id, which the answer names.
    pub id: MessageId,
    /// What is asked.
    pub request: GatewayRequest,
    /// The version of the envelope.
    pub version: semver::Version,
    /// The sender's trace.
    pub traceparent: Option<String>,
}

/// What a parent has said.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// It asks.
    Asked(Box<Asked>),
    /// It makes room for audio.
    Granted(Grant),
    /// It told something that this version does not know.
    Nothing,
}

/// A message that cannot be taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// The request it was, as far as that can be told.
    pub id: Option<MessageId>,
    /// The method, as far as that can be told.
    pub method: Option<Method>,
    /// What is wrong with it.
    pub error: Box<ServiceError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    message_id: Option<MessageId>,
    #[serde(default)]
    payload: Option<Named>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    event: Option<String>,
}

/// Reads a message of a parent, in JSON or MessagePack.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(bytes: &[u8], max_bytes: usize) -> Result<Heard, Unreadable> {
    let nameless =
        |error: DecodeError| Unreadable { id: id_of(bytes, max_bytes), method: None, error: boxed(error) };
    let head: Envelope<Named> = codec::decode(bytes, max_bytes).map_err(nameless)?;
    match head.message_type {
        MessageType::Request => {}
        MessageType::Event if head.payload.event.as_deref() == Some("grant") => {
            let granted: Envelope<Grant> = codec::decode(bytes, max_bytes).map_err(nameless)?;
            return Ok(Heard::Granted(granted.payload));
        }
        MessageType::Event | MessageType::Response | MessageType::Error => return Ok(Heard::Nothing),
    }
    let method = match head.payload.method.as_deref() {
        None => Method::Synthesize,
        Some(name) => Method::named(name).ok_or_else(|| unknown(&head.message_id, name))?,
    };
    let wrong = |error: DecodeError| Unreadable {
        id: Some(head.message_id.clone()),
        method: Some(method),
        error: boxed(error),
    };
    let request = payload(bytes, max_bytes, method).map_err(wrong)?;
    let mut asked =
        Asked { id: head.message_id, request, version: head.version, traceparent: head.traceparent };
    take_over(&mut asked.request, head.metadata.and_then(|metadata| metadata.priority), head.accept);
    Ok(Heard::Asked(Box::new(asked)))
}

/// Reads a request that is a JSON value already (a 1.0 line that was given an envelope).
///
/// # Errors
/// INVALID_REQUEST naming the field.
pub fn read_value(method: Method, value: Value) -> Result<GatewayRequest, ServiceError> {
    let envelope = serde_json::json!({
        "version": crate::version::V2_0, "messageId": "line", "timestamp": 0, "type": "request", "payload": value});
    let bytes = envelope.to_string().into_bytes();
    payload(&bytes, bytes.len(), method).map_err(ServiceError::from)
}

fn payload(bytes: &[u8], max_bytes: usize, method: Method) -> Result<GatewayRequest, DecodeError> {
    fn of<T: DeserializeOwned>(bytes: &[u8], max_bytes: usize) -> Result<T, DecodeError> {
        codec::decode::<T>(bytes, max_bytes).map(|envelope| envelope.payload)
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stream {
        #[serde(default)]
        window: Option<u32>,
        #[serde(default)]
        text_comes: bool,
    }
    Ok(match method {
        Method::Hello => GatewayRequest::Hello(of::<Hello>(bytes, max_bytes)?),
        Method::Synthesize => GatewayRequest::Synthesize(Box::new(of::<SynthesisRequest>(bytes, max_bytes)?)),
        Method::SynthesizeStream => {
            // Twice, for a flattened struct forgets which field was wrong.
            let request = of::<SynthesisRequest>(bytes, max_bytes)?;
            let Stream { window, text_comes } = of::<Stream>(bytes, max_bytes)?;
            GatewayRequest::SynthesizeStream(Box::new(StreamRequest { request, window, text_comes }))
        }
        Method::Text => GatewayRequest::Text(of::<TextPiece>(bytes, max_bytes)?),
        Method::Flush => GatewayRequest::Flush(of::<OfText>(bytes, max_bytes)?),
        Method::End => GatewayRequest::End(of::<OfText>(bytes, max_bytes)?),
        Method::Cancel => GatewayRequest::Cancel(of::<CancelRequest>(bytes, max_bytes)?),
        Method::Status => GatewayRequest::Status,
        Method::Metrics => GatewayRequest::Metrics,
        Method::ListModels => GatewayRequest::ListModels,
        Method::LoadModel => GatewayRequest::LoadModel(Box::new(of::<LoadModelRequest>(bytes, max_bytes)?)),
        Method::UnloadModel => GatewayRequest::UnloadModel(of::<UnloadModel>(bytes, max_bytes)?),
        Method::ClearCache => GatewayRequest::ClearCache,
        Method::Subscribe => GatewayRequest::Subscribe(of::<Subscribe>(bytes, max_bytes)?),
        Method::Unsubscribe => GatewayRequest::Unsubscribe,
        Method::Ping => GatewayRequest::Ping,
        Method::Shutdown => GatewayRequest::Shutdown,
    })
}

/// What the envelope says where the payload is silent.
fn take_over(request: &mut GatewayRequest, priority: Option<crate::Priority>, accept: Option<String>) {
    match request {
        GatewayRequest::Synthesize(request) => request.priority = request.priority.or(priority),
        GatewayRequest::SynthesizeStream(stream) => {
            stream.request.priority = stream.request.priority.or(priority);
        }
        GatewayRequest::Hello(hello) => hello.accept = hello.accept.take().or(accept),
        _ => {}
    }
}

fn unknown(id: &MessageId, name: &str) -> Unreadable {
    Unreadable { id: Some(id.clone()), method: None, error: Box::new(unknown_method(name)) }
}

/// The error about a method that is not in the protocol.
pub(crate) fn unknown_method(name: &str) -> ServiceError {
    let known: Vec<&str> = Method::ALL.iter().map(|method| method.as_str()).collect();
    let shown: String = name.chars().take(64).collect();
    let message = format!("method {shown:?} is not in the protocol; there are {}", known.join(", "));
    ServiceError::field(Reason::UnknownMethod, "method", message).with("known", known)
}

fn id_of(bytes: &[u8], max_bytes: usize) -> Option<MessageId> {
    let head: Head = codec::decode_value(bytes, max_bytes).ok()?;
    let _named = head.payload;
    head.message_id
}

fn boxed(error: DecodeError) -> Box<ServiceError> {
    Box::new(error.into())
}

#[cfg(test)]
mod tests;
