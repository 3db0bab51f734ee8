//! Protocol 1.0, turned into the internal model and back: pure, total functions.
//!
//! 1.0 is one JSON object per line, `type` beside the payload's own fields (plan.md's `adaptToV1`), without ids: answers come
//! in the order of the requests. [`client`] is the side of a parent that speaks 1.0 to the gateway, [`engine`] the side of a
//! worker that speaks 1.0 or 2.0 to an old engine. What a line holds beyond what is known here is kept and handed on.

pub mod client;
pub mod engine;

use serde_json::{Map, Value};

use crate::error::{Reason, ServiceError};

/// The fields of a line.
pub type Fields = Map<String, Value>;

/// A line as its fields.
///
/// # Errors
/// INVALID_REQUEST when it is no JSON object, is too large or nests too deeply.
pub fn fields(line: &[u8], max_bytes: usize) -> Result<Fields, ServiceError> {
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(ServiceError::new(Reason::Malformed, "the line is no JSON object"));
    }
    crate::codec::decode_value(line, max_bytes).map_err(ServiceError::from)
}

/// Whether the fields are those of an envelope (2.0 or later) and not of a bare line.
pub fn is_envelope(fields: &Fields) -> bool {
    fields.contains_key("payload") && fields.contains_key("version")
}

/// An error as 1.0 says it: the message is what 1.0 knows, the rest is for those who know more.
pub fn error_fields(error: &ServiceError) -> Fields {
    let mut fields = Map::new();
    fields.insert("type".into(), "error".into());
    fields.insert("success".into(), false.into());
    fields.insert("error".into(), error.message.clone().into());
    if let Ok(Value::Object(more)) = serde_json::to_value(error) {
        fields.extend(more.into_iter().filter(|(name, _)| name != "message"));
    }
    fields
}

/// The error in an answer, if it is one: `success` is false, or its type is `error`.
pub fn error_of(fields: &Fields) -> Option<ServiceError> {
    let failed = fields.get("success") == Some(&Value::Bool(false));
    if !failed && fields.get("type").and_then(Value::as_str) != Some("error") {
        return None;
    }
    let message = match fields.get("error").or_else(|| fields.get("message")) {
        Some(Value::String(message)) => message.clone(),
        // 2.0's result carries a whole ServiceError there.
        Some(whole @ Value::Object(_)) => match serde_json::from_value(whole.clone()) {
            Ok(error) => return Some(error),
            Err(_) => whole.to_string(),
        },
        Some(other) => other.to_string(),
        None => "the service said nothing about it".to_owned(),
    };
    let mut told = fields.clone();
    told.insert("message".into(), message.clone().into());
    let whole: Option<ServiceError> = serde_json::from_value(Value::Object(told)).ok();
    Some(whole.unwrap_or_else(|| ServiceError::new(Reason::EngineError, message)))
}
