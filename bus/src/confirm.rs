//! One message into a stream, confirmed: what jobs, records and dead letters have in common.
//!
//! Every message carries an id, so a publish whose outcome is unknown is simply repeated: the server keeps the first and
//! names its sequence again. A stream of a cluster that has just lost its leader has nobody who listens, which looks like
//! a stream that does not exist; so silence of that kind is looked into, and asked again while an election may be on.
//! A connection that breaks while the confirmation is awaited costs no more than its return. All of it is bounded by
//! three times the configured request time-out.

use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::{ApiError, AskError, Fault, code};
use crate::bus::{Inner, bounded};
use crate::error::{BusError, BusErrorKind};
use crate::link::ConnectionState;

/// How often a publish is sent in all when each time there is no answer; also the bound of the whole, in request time-outs.
const ATTEMPTS: u32 = 3;
/// Between two attempts that were answered at once.
const PAUSE: Duration = Duration::from_millis(250);
/// The header by which the server knows a repeated publish.
pub(crate) const MESSAGE_ID_NAME: &str = "Nats-Msg-Id";
const MESSAGE_ID: HeaderName = HeaderName::from_static(MESSAGE_ID_NAME);

/// A message for a stream.
pub(crate) struct Outgoing<'a> {
    pub(crate) stream: &'a str,
    pub(crate) subject: &'a str,
    /// What makes a repeated publish the same one; without it, it is another message.
    pub(crate) id: Option<&'a str>,
    /// Further headers.
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Why the last attempt was not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unconfirmed {
    Silence,
    Disconnected,
    NoLeader,
}

impl Unconfirmed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "no confirmation in time",
            Self::Disconnected => "the connection is down",
            Self::NoLeader => "the stream has no leader now",
        }
    }
}

/// A message that is not in its stream, as far as we know.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfirmError {
    #[error("stream {0} does not exist, or JetStream is off")]
    NoStream(String),
    #[error(transparent)]
    TooLarge(BusError),
    #[error(transparent)]
    Fault(Fault),
    #[error("the broker did not confirm the message: {}", .0.as_str())]
    Unconfirmed(Unconfirmed),
    #[error("the broker's confirmation cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    #[error("the value cannot be written: {0}")]
    Unwritable(#[source] serde_json::Error),
    #[error("the message cannot be sent: {0}")]
    Failed(#[source] async_nats::RequestError),
}

impl ConfirmError {
    /// With what was to be stored, such as `the record w-1`.
    pub(crate) fn into_bus(self, what: &str) -> BusError {
        let kind = match &self {
            Self::NoStream(_) => BusErrorKind::NotFound,
            Self::TooLarge(_) => BusErrorKind::TooLarge,
            Self::Fault(_) => BusErrorKind::Refused,
            Self::Unconfirmed(Unconfirmed::Disconnected) | Self::Failed(_) => BusErrorKind::Disconnected,
            Self::Unconfirmed(_) => BusErrorKind::Timeout,
            Self::Unreadable(_) | Self::Unwritable(_) => BusErrorKind::Malformed,
        };
        BusError::caused(kind, format!("{what} was not stored"), self)
    }
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<Fault>,
}

impl Inner {
    /// Puts a message into its stream and gives its sequence: the first one's, when one of its id is there already.
    pub(crate) async fn confirm(&self, message: Outgoing<'_>) -> Result<u64, ConfirmError> {
        let Outgoing { stream, subject, id, mut headers, payload } = message;
        if let Some(id) = id {
            headers.insert(MESSAGE_ID, HeaderValue::from(id));
        }
        let give_up = Instant::now() + ATTEMPTS * self.request_timeout;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let limit = left.min(self.request_timeout);
            let asked = tokio::select! {
                biased;
                asked = self.ask(subject, Some(headers.clone()), payload.clone(), limit) => asked,
                // No answer comes over a connection that is gone; over the next one it can be asked for again.
                () = self.broken() => Err(AskError::Disconnected),
            };
            let (why, pause) = match asked {
                Ok(answer) => match read_ack(&answer.payload) {
                    Err(ConfirmError::Fault(fault)) if is_passing(&fault) => (Unconfirmed::NoLeader, PAUSE),
                    answered => return answered,
                },
                Err(AskError::Timeout) => (Unconfirmed::Silence, Duration::ZERO),
                Err(AskError::Disconnected) => (Unconfirmed::Disconnected, Duration::ZERO),
                Err(AskError::NoResponders) => {
                    if bounded(left, self.is_missing(stream)).await == Some(true) {
                        return Err(ConfirmError::NoStream(stream.to_owned()));
                    }
                    (Unconfirmed::NoLeader, PAUSE)
                }
                Err(AskError::TooLarge { len, max }) => {
                    return Err(ConfirmError::TooLarge(BusError::too_large(len, max)));
                }
                Err(AskError::Failed(error)) => return Err(ConfirmError::Failed(error)),
            };
            if self.link.closed.is_cancelled() || Instant::now() + pause >= give_up {
                return Err(ConfirmError::Unconfirmed(why));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The moment at which a connection that is up, or comes up, is lost.
    async fn broken(&self) {
        let mut state = self.link.subscribe();
        let up = |state: &ConnectionState| *state == ConnectionState::Connected;
        if state.wait_for(up).await.is_err() || state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether nobody listens on a stream's subjects because there is no such stream.
    async fn is_missing(&self, stream: &str) -> bool {
        match self.api_bare::<IgnoredAny>(&format!("STREAM.INFO.{stream}")).await {
            Err(ApiError::Fault(fault)) => {
                fault.err_code == code::STREAM_NOT_FOUND || fault.is_no_jetstream()
            }
            // A server that greets with JetStream but does not answer for it yet has just been started.
            Err(ApiError::NoResponders) => !self.client.server_info().jetstream,
            Ok(_) | Err(ApiError::Bus(_)) => false,
        }
    }
}

/// Whether the same publish may be confirmed in a moment. A full queue or disk is not among it.
fn is_passing(fault: &Fault) -> bool {
    matches!(fault.err_code, code::CLUSTER_NOT_AVAILABLE | code::DUPLICATE_IN_PROCESS)
}

fn read_ack(payload: &[u8]) -> Result<u64, ConfirmError> {
    let ack: Ack = serde_json::from_slice(payload).map_err(ConfirmError::Unreadable)?;
    match ack.error {
        None => Ok(ack.seq),
        Some(fault) => Err(ConfirmError::Fault(fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_refusals_and_rubbish() {
        assert_eq!(read_ack(br#"{"stream":"S","seq":7,"duplicate":true}"#).unwrap(), 7);
        let refusal = br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}"#;
        assert!(matches!(
            read_ack(refusal),
            Err(ConfirmError::Fault(fault)) if fault.err_code == code::WRONG_LAST_SEQUENCE
        ));
        assert!(matches!(read_ack(b"pong"), Err(ConfirmError::Unreadable(_))));
    }

    #[test]
    fn only_elections_pass() {
        let fault = |err_code| Fault { code: 503, err_code, description: String::new() };
        assert!(is_passing(&fault(code::CLUSTER_NOT_AVAILABLE)));
        assert!(!is_passing(&fault(code::STORE_FAILED)));
    }
}
