//! What can go wrong between us and the broker, in kinds that callers match on.
//!
//! [`BusError`] is for operations of the bus itself, [`RequestError`] for questions to other parts of chorus,
//! [`PublishError`] for jobs. Each turns into a [`ServiceError`] for a client, and keeps its source for the log.

use std::error::Error;
use std::fmt;

use chorus_protocol::{Reason, ServiceError};

type Source = Box<dyn Error + Send + Sync>;

/// How long a client should wait before it asks a full queue again, in milliseconds: about ten jobs of a busy worker.
const QUEUE_FULL_RETRY_MS: u64 = 250;

/// What kind of failure a [`BusError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BusErrorKind {
    /// The URL, the credentials file or a name cannot be used as it stands.
    Config,
    /// No server answers at the URL.
    Unreachable,
    /// The server refuses our credentials.
    Unauthorized,
    /// The server is older than we need.
    OldServer,
    /// The server runs without JetStream.
    NoJetStream,
    /// The caller's token was cancelled.
    Cancelled,
    /// A message over the server's max_payload; nothing was sent.
    TooLarge,
    /// The connection is down, or was closed.
    Disconnected,
    /// No answer in time; whether the operation took effect is unknown.
    Timeout,
    /// The stream, bucket, consumer or object does not exist.
    NotFound,
    /// Something stored or answered cannot be read.
    Malformed,
    /// The server said no; the message says why.
    Refused,
}

/// A failed operation of the bus.
#[derive(Debug)]
pub struct BusError {
    /// What kind of failure it is.
    pub kind: BusErrorKind,
    message: String,
    source: Option<Source>,
}

impl BusError {
    pub(crate) fn new(kind: BusErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn caused(kind: BusErrorKind, message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    pub(crate) fn too_large(len: usize, max: usize) -> Self {
        Self::new(
            BusErrorKind::TooLarge,
            format!("the message is {len} bytes; the broker's max_payload is {max} bytes"),
        )
    }

    /// For a client: RESOURCE_EXHAUSTED (no_broker), unless the message itself was at fault.
    pub fn into_service_error(self) -> ServiceError {
        let reason = match self.kind {
            BusErrorKind::TooLarge => Reason::TooLarge,
            BusErrorKind::Malformed => Reason::Malformed,
            _ => Reason::NoBroker,
        };
        ServiceError::new(reason, self.message)
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        show_source(self.source.as_deref(), f)
    }
}

impl Error for BusError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The library's errors name their kind only; what the server or the system said is in the source.
fn show_source(source: Option<&(dyn Error + Send + Sync)>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match source {
        Some(source) => write!(f, ": {source}"),
        None => Ok(()),
    }
}

/// What kind of failure a [`RequestError`] is.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestErrorKind {
    /// Nobody listens on the subject; known at once.
    NoResponders,
    /// Somebody listens, but no answer came in time.
    Timeout,
    /// The connection was down when the time ran out.
    Disconnected,
    /// The question is over the server's max_payload; nothing was sent.
    TooLarge,
    /// The other side answered with an error.
    Refused(ServiceError),
    /// The question cannot be encoded, or the answer cannot be read.
    Malformed,
}

/// A question without a good answer.
#[derive(Debug)]
pub struct RequestError {
    /// What kind of failure it is.
    pub kind: RequestErrorKind,
    // Boxed so that the error stays small beside the answers it stands in for.
    about: Box<About>,
}

#[derive(Debug)]
struct About {
    subject: String,
    source: Option<Source>,
}

impl RequestError {
    pub(crate) fn new(kind: RequestErrorKind, subject: &str) -> Self {
        Self { kind, about: Box::new(About { subject: subject.to_owned(), source: None }) }
    }

    pub(crate) fn caused(kind: RequestErrorKind, subject: &str, source: impl Into<Source>) -> Self {
        Self { kind, about: Box::new(About { subject: subject.to_owned(), source: Some(source.into()) }) }
    }

    /// The subject that was asked.
    pub fn subject(&self) -> &str {
        &self.about.subject
    }

    /// For a client: the other side's own error passes through; silence is RESOURCE_EXHAUSTED (no_manager, or no_broker
    /// when the connection is down).
    pub fn into_service_error(self) -> ServiceError {
        let message = self.to_string();
        match self.kind {
            RequestErrorKind::Refused(error) => error,
            RequestErrorKind::NoResponders | RequestErrorKind::Timeout => {
                ServiceError::new(Reason::NoManager, message)
            }
            RequestErrorKind::Disconnected => ServiceError::new(Reason::NoBroker, message),
            RequestErrorKind::TooLarge => ServiceError::new(Reason::TooLarge, message),
            RequestErrorKind::Malformed => ServiceError::new(Reason::Malformed, message),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.about.subject;
        match &self.kind {
            RequestErrorKind::NoResponders => write!(f, "nobody answers on {subject}")?,
            RequestErrorKind::Timeout => write!(f, "no answer on {subject} in time")?,
            RequestErrorKind::Disconnected => {
                write!(f, "{subject} cannot be asked: the connection to the broker is down")?;
            }
            RequestErrorKind::TooLarge => write!(f, "the question on {subject} is too large")?,
            RequestErrorKind::Refused(error) => write!(f, "{error}")?,
            RequestErrorKind::Malformed => {
                write!(f, "the question or answer on {subject} is malformed")?;
            }
        }
        show_source(self.about.source.as_deref(), f)
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.about.source.as_deref().map(|source| source as _)
    }
}

/// What kind of failure a [`PublishError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishErrorKind {
    /// The queue of this model and class is at its bound.
    QueueFull,
    /// The job is over the server's max_payload; nothing was sent.
    TooLarge,
    /// The stream does not exist, or JetStream is off.
    NoStream,
    /// The broker cannot be reached, did not confirm in time, or cannot store now.
    Unavailable,
}

/// A job that is not on the queue, as far as we know (after `Unavailable` it may be: publish it again under its id).
#[derive(Debug)]
pub struct PublishError {
    /// What kind of failure it is.
    pub kind: PublishErrorKind,
    message: String,
    source: Option<Source>,
}

impl PublishError {
    pub(crate) fn caused(
        kind: PublishErrorKind,
        message: impl Into<String>,
        source: impl Into<Source>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// For a client: RESOURCE_EXHAUSTED (queue_full or no_broker), or INVALID_REQUEST (too_large).
    pub fn into_service_error(self) -> ServiceError {
        match self.kind {
            PublishErrorKind::QueueFull => {
                ServiceError::new(Reason::QueueFull, self.message).retry_after_ms(QUEUE_FULL_RETRY_MS)
            }
            PublishErrorKind::TooLarge => ServiceError::new(Reason::TooLarge, self.message),
            PublishErrorKind::NoStream | PublishErrorKind::Unavailable => {
                ServiceError::new(Reason::NoBroker, self.message)
            }
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        show_source(self.source.as_deref(), f)
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_become_the_right_service_errors() {
        let refused = ServiceError::new(Reason::BreakerOpen, "all breakers are open");
        let error = RequestError::new(RequestErrorKind::Refused(refused.clone()), "tts.open");
        assert_eq!(error.into_service_error(), refused);
        let silent = RequestError::new(RequestErrorKind::NoResponders, "tts.open").into_service_error();
        assert_eq!(silent.reason(), Some(Reason::NoManager));
        let full = PublishError::caused(PublishErrorKind::QueueFull, "full", "10077").into_service_error();
        assert_eq!((full.reason(), full.retryable), (Some(Reason::QueueFull), true));
        let large = BusError::too_large(2, 1).into_service_error();
        assert_eq!((large.reason(), large.retryable), (Some(Reason::TooLarge), false));
    }
}
