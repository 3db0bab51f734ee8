//! A parent that speaks 1.0 to the gateway.

use serde_json::{Map, Value};

use super::{Fields, error_fields, error_of, fields};
use crate::envelope::{Envelope, MessageType};
use crate::error::{Reason, ServiceError};
use crate::gateway::{GatewayRequest, Method, read_value};
use crate::request::SynthesisResult;

/// What 1.0 can ask, in the order of the specification.
pub const METHODS: [Method; 4] = [Method::Synthesize, Method::Ping, Method::Status, Method::Shutdown];

/// An answer in the internal model, as far as 1.0 can be given one.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To `synthesize`; failed or not.
    Spoken(Box<SynthesisResult>),
    /// To any other method: what there is to say.
    Told(Method, Fields),
    /// To a request that could not be taken.
    Failed(ServiceError),
}

/// A line as what it asks. Any field of a [`crate::SynthesisRequest`] counts; unknown ones are ignored.
///
/// # Errors
/// INVALID_REQUEST: no JSON object, a type other than `request`, an unknown method, or a field that is wrong.
pub fn request_from_v1(line: &[u8], max_bytes: usize) -> Result<GatewayRequest, ServiceError> {
    request_of(fields(line, max_bytes)?)
}

/// The same, of a line that was taken apart already.
///
/// # Errors
/// As of [`request_from_v1`].
pub fn request_of(mut fields: Fields) -> Result<GatewayRequest, ServiceError> {
    match fields.remove("type") {
        None => {}
        Some(Value::String(kind)) if kind == "request" => {}
        Some(_) => {
            return Err(ServiceError::field(
                Reason::Malformed,
                "type",
                "type: a line to be answered is a request",
            ));
        }
    }
    let method = match fields.remove("method") {
        None => Method::Synthesize,
        Some(Value::String(name)) => method_named(&name)?,
        Some(_) => {
            return Err(ServiceError::field(Reason::Malformed, "method", "method: a name is expected"));
        }
    };
    read_value(method, Value::Object(fields))
}

fn method_named(name: &str) -> Result<Method, ServiceError> {
    let found = METHODS.into_iter().find(|method| method.as_str() == name);
    found.ok_or_else(|| {
        let known = METHODS.map(Method::as_str);
        let shown: String = name.chars().take(64).collect();
        let message = format!("method {shown:?} is not in protocol 1.0; there are {}", known.join(", "));
        ServiceError::field(Reason::UnknownMethod, "method", message).with("known", known.to_vec())
    })
}

/// A request as a line, to speak to a service that knows only 1.0.
///
/// # Errors
/// INVALID_REQUEST (unsupported_option) for what 1.0 has no words for.
pub fn request_to_v1(request: &GatewayRequest) -> Result<Fields, ServiceError> {
    let method = request.method();
    if !METHODS.contains(&method) {
        let message = format!("protocol 1.0 has no {}", method.as_str());
        return Err(ServiceError::field(Reason::UnsupportedOption, "method", message));
    }
    let mut line = Map::new();
    line.insert("type".into(), "request".into());
    let spread = serde_json::to_value(request).map_err(|error| {
        ServiceError::new(Reason::Malformed, format!("the request cannot be a line: {error}"))
    })?;
    if let Value::Object(payload) = spread {
        // 1.0's synthesize is known by its text, not by a name.
        line.extend(payload.into_iter().filter(|(name, _)| method != Method::Synthesize || name != "method"));
    }
    Ok(line)
}

/// An answer as a line.
pub fn answer_to_v1(answer: &Answer) -> Fields {
    match answer {
        Answer::Failed(error) => error_fields(error),
        Answer::Spoken(result) => spoken(result),
        Answer::Told(method, told) => {
            let mut line = head();
            line.insert("method".into(), method.as_str().into());
            let own = |name: &str| matches!(name, "type" | "success" | "method" | "error");
            line.extend(
                told.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name.clone(), value.clone())),
            );
            line
        }
    }
}

fn head() -> Fields {
    let mut line = Map::new();
    line.insert("type".into(), "response".into());
    line.insert("success".into(), true.into());
    line
}

fn spoken(result: &SynthesisResult) -> Fields {
    let mut line = match &result.error {
        Some(error) if !result.success => error_fields(error),
        None if !result.success => error_fields(&ServiceError::new(Reason::EngineError, "no audio was made")),
        _ => head(),
    };
    if let Ok(Value::Object(payload)) = serde_json::to_value(result) {
        line.extend(payload.into_iter().filter(|(name, _)| !matches!(name.as_str(), "success" | "error")));
    }
    line
}

/// A line as an answer to `method`.
///
/// # Errors
/// INVALID_REQUEST when it is no answer to it.
pub fn answer_from_v1(method: Method, line: &[u8], max_bytes: usize) -> Result<Answer, ServiceError> {
    let mut fields = fields(line, max_bytes)?;
    let error = error_of(&fields);
    if method == Method::Synthesize && fields.contains_key("requestId") {
        fields.insert("success".into(), error.is_none().into());
        fields.remove("error");
        let result = serde_json::from_value::<SynthesisResult>(Value::Object(fields));
        let result =
            result.map_err(|why| ServiceError::new(Reason::Malformed, format!("no result: {why}")))?;
        return Ok(Answer::Spoken(Box::new(SynthesisResult { error, ..result })));
    }
    if let Some(error) = error {
        return Ok(Answer::Failed(error));
    }
    for own in ["type", "success", "method"] {
        fields.remove(own);
    }
    Ok(Answer::Told(method, fields))
}

/// An envelope in 1.0's shape (plan.md's `adaptToV1`): its type beside its payload's own fields. A payload that is no object
/// has none and is dropped; so are the envelope's own fields, for which 1.0 has no place.
pub fn envelope_to_v1(envelope: &Envelope<Value>) -> Fields {
    let mut line = Map::new();
    let kind = match envelope.message_type {
        MessageType::Request => "request",
        MessageType::Response => "response",
        MessageType::Event => "event",
        MessageType::Error => "error",
    };
    line.insert("type".into(), kind.into());
    if let Value::Object(payload) = &envelope.payload {
        line.extend(
            payload
                .iter()
                .filter(|(name, _)| *name != "type")
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
    line
}

#[cfg(test)]
mod tests;
