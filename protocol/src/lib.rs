//! The words that the parts of chorus say to one another.
//!
//! Everything here is data and pure functions over data: wire types ([`request`], [`clip`], [`plan`], [`job`], [`durable`], [`fleet`], [`pipe`]),
//! the [`envelope`] every message travels in, the [`codec`] that turns envelopes into bytes and back under limits,
//! [`version`] negotiation, and [`names`], the one place where a NATS subject, stream, consumer or bucket gets its name.
//! No I/O, no clock, no globals: a message is built by its sender with the time and ids it was given.

pub mod adapt;
pub mod audio;
pub mod breaker;
pub mod clip;
pub mod codec;
pub mod durable;
pub mod envelope;
pub mod error;
pub mod fleet;
pub mod gateway;
pub mod ids;
pub mod job;
pub mod model;
pub mod names;
pub mod pipe;
pub mod plan;
pub mod request;
pub mod service;
pub mod takes;
pub mod version;

pub use audio::{AudioChunk, AudioData, AudioFormat};
pub use clip::ClipId;
pub use envelope::{Envelope, MessageType, Metadata};
pub use error::{ErrorCode, Reason, ServiceError};
pub use ids::{
    Attempt, Incarnation, JobId, ManagerId, MessageId, ModelName, RunId, SegmentIndex, SessionId, WorkerId,
};
pub use model::{ModelDefinition, ModelSource};
pub use request::{InputType, JobClass, Priority, SynthesisRequest, SynthesisResult, Warning};

/// The longest text of one message, in UTF-8 bytes (DESIGN.md, "On the wire").
pub const MAX_TEXT_BYTES: usize = 256 * 1024;

/// The most text that a session hands to a manager for planning at a time, in UTF-8 bytes.
pub const MAX_UNPLANNED_BYTES: usize = 64 * 1024;
