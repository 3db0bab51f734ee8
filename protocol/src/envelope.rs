//! The envelope: what every message from 2.0 on travels in (plan.md §2.1, DESIGN.md "On the wire").
//!
//! 2.0 is the envelope as JSON, 2.1 as MessagePack; the fields are the same. `accept` and `traceparent` are ours.

use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::error::ServiceError;
use crate::ids::MessageId;
use crate::request::Priority;
use crate::version;

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageType {
    /// Asks for an answer.
    Request,
    /// Answers.
    Response,
    /// Tells, and expects nothing.
    Event,
    /// Answers with a [`ServiceError`].
    Error,
}

/// Optional data about a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The `messageId` of the request that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<MessageId>,
    /// Attempts before this one: attempt - 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<u32>,
    /// Priority, where the request itself names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Envelope")]
pub struct Envelope<T> {
    /// Protocol version of this message.
    pub version: Version,
    /// Its id; answers name it as `correlationId`.
    pub message_id: MessageId,
    /// When it was made: milliseconds of Unix time on the sender's clock. For people; nothing is decided by it.
    pub timestamp: u64,
    /// Request, response, event or error.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// What it says.
    pub payload: T,
    /// Correlation and priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// The version range accepted for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// W3C trace context of the sender's span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl<T> Envelope<T> {
    fn new(message_type: MessageType, payload: T, now_ms: u64) -> Self {
        Self {
            version: version::V2_1,
            message_id: MessageId::fresh(),
            timestamp: now_ms,
            message_type,
            payload,
            metadata: None,
            accept: Some(version::ACCEPT.to_owned()),
            traceparent: None,
        }
    }

    /// A question.
    pub fn request(payload: T, now_ms: u64) -> Self {
        Self::new(MessageType::Request, payload, now_ms)
    }

    /// Something told.
    pub fn event(payload: T, now_ms: u64) -> Self {
        Self::new(MessageType::Event, payload, now_ms)
    }

    /// The answer to the message called `to`.
    pub fn response(to: &MessageId, payload: T, now_ms: u64) -> Self {
        Self::new(MessageType::Response, payload, now_ms).answering(to)
    }

    /// With the sender's trace context.
    #[must_use]
    pub fn traced(mut self, traceparent: Option<String>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// In another version of the same major (the answer to a client that accepts only 2.0).
    #[must_use]
    pub fn in_version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Marked as the answer to `to`.
    #[must_use]
    pub fn answering(mut self, to: &MessageId) -> Self {
        self.metadata.get_or_insert_default().correlation_id = Some(to.clone());
        self
    }

    /// The id of the request that this answers, if it says so.
    pub fn correlation_id(&self) -> Option<&MessageId> {
        self.metadata.as_ref()?.correlation_id.as_ref()
    }

    /// The same envelope around a borrowed payload.
    pub fn borrowed(&self) -> Envelope<&T> {
        Envelope {
            version: self.version.clone(),
            message_id: self.message_id.clone(),
            timestamp: self.timestamp,
            message_type: self.message_type,
            payload: &self.payload,
            metadata: self.metadata.clone(),
            accept: self.accept.clone(),
            traceparent: self.traceparent.clone(),
        }
    }

    /// The same envelope around another payload.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Envelope<U> {
        Envelope {
            version: self.version,
            message_id: self.message_id,
            timestamp: self.timestamp,
            message_type: self.message_type,
            payload: f(self.payload),
            metadata: self.metadata,
            accept: self.accept,
            traceparent: self.traceparent,
        }
    }
}

impl Envelope<ServiceError> {
    /// The failed answer to the message called `to`, where that could be read.
    pub fn error(to: Option<&MessageId>, error: ServiceError, now_ms: u64) -> Self {
        let envelope = Self::new(MessageType::Error, error, now_ms);
        match to {
            Some(id) => envelope.answering(id),
            None => envelope,
        }
    }
}
