//! Calls of the JetStream API: JSON out, JSON or a typed refusal back.
//!
//! The few calls we make are made here, so that each failure keeps the server's error code and none waits without bound.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Request, RequestErrorKind as Kind};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bus::Inner;
use crate::error::{BusError, BusErrorKind};

/// Where the API listens.
pub(crate) const PREFIX: &str = "$JS.API";

/// Error codes of the server (nats-server, server/errors.json).
pub(crate) mod code {
    pub(crate) const CLUSTER_NOT_AVAILABLE: u32 = 10_008;
    pub(crate) const CONSUMER_NOT_FOUND: u32 = 10_014;
    pub(crate) const MESSAGE_NOT_FOUND: u32 = 10_037;
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u32 = 10_039;
    pub(crate) const SEQUENCE_NOT_FOUND: u32 = 10_043;
    pub(crate) const MESSAGE_DELETE_FAILED: u32 = 10_057;
    pub(crate) const STREAM_NAME_IN_USE: u32 = 10_058;
    pub(crate) const STREAM_NOT_FOUND: u32 = 10_059;
    pub(crate) const NOT_ENABLED: u32 = 10_076;
    pub(crate) const WRONG_LAST_SEQUENCE: u32 = 10_071;
    pub(crate) const STORE_FAILED: u32 = 10_077;
    pub(crate) const DUPLICATE_IN_PROCESS: u32 = 10_158;
    pub(crate) const WRONG_LAST_SEQUENCE_UNSAID: u32 = 10_164;
}

/// The server's refusal.
#[derive(Debug, Clone, Deserialize, thiserror::Error)]
#[error("{description} (error {err_code})")]
pub(crate) struct Fault {
    #[serde(default)]
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) err_code: u32,
    #[serde(default)]
    pub(crate) description: String,
}

impl Fault {
    pub(crate) fn is_no_jetstream(&self) -> bool {
        matches!(self.err_code, code::NOT_ENABLED | code::NOT_ENABLED_FOR_ACCOUNT)
    }

    /// Whether a conditional publish came too late.
    pub(crate) fn is_wrong_sequence(&self) -> bool {
        matches!(self.err_code, code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_UNSAID)
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// JetStream is off, or what was addressed does not exist.
    #[error("nobody answers")]
    NoResponders,
    /// The server said no.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It never came so far, or no answer came.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl ApiError {
    /// With what was asked for, such as `stream TTS_JOBS`.
    pub(crate) fn into_bus(self, what: &str) -> BusError {
        match self {
            Self::Bus(error) => error,
            Self::NoResponders => BusError::new(
                BusErrorKind::NotFound,
                format!("{what}: nobody answers, so JetStream is off or it does not exist"),
            ),
            Self::Fault(fault) => {
                let kind = match fault.err_code {
                    code::STREAM_NOT_FOUND | code::CONSUMER_NOT_FOUND | code::MESSAGE_NOT_FOUND => {
                        BusErrorKind::NotFound
                    }
                    _ if fault.is_no_jetstream() => BusErrorKind::NoJetStream,
                    _ => BusErrorKind::Refused,
                };
                BusError::caused(kind, format!("{what}: the broker refuses"), fault)
            }
        }
    }

    /// Whether the same call may succeed in a moment, as while a cluster elects a leader.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Fault(fault) => fault.err_code == code::CLUSTER_NOT_AVAILABLE || fault.code == 503,
            Self::Bus(error) => matches!(error.kind, BusErrorKind::Timeout | BusErrorKind::Disconnected),
            Self::NoResponders => false,
        }
    }
}

/// How a question to anyone ended without an answer.
pub(crate) enum AskError {
    NoResponders,
    Timeout,
    Disconnected,
    TooLarge { len: usize, max: usize },
    Failed(async_nats::RequestError),
}

impl Inner {
    /// One question, one answer, through the library's shared reply subscription. Everything happens within `limit`.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, AskError> {
        let len = payload.len();
        if self.check_size(len).is_err() {
            return Err(AskError::TooLarge { len, max: self.client.max_payload() });
        }
        let answered = tokio::time::timeout(limit, async {
            if !self.is_connected() {
                self.ready(limit).await.map_err(|_| AskError::Disconnected)?;
            }
            let request = Request { payload: Some(payload), headers, timeout: Some(None), inbox: None };
            self.client.send_request(subject.to_owned(), request).await.map_err(|error| match error.kind() {
                Kind::NoResponders => AskError::NoResponders,
                Kind::TimedOut => AskError::Timeout,
                Kind::MaxPayloadExceeded => AskError::TooLarge { len, max: self.client.max_payload() },
                Kind::InvalidSubject | Kind::Other => AskError::Failed(error),
            })
        });
        match answered.await {
            Ok(result) => result,
            Err(_) if self.is_connected() => Err(AskError::Timeout),
            Err(_) => Err(AskError::Disconnected),
        }
    }

    /// Calls the API on `$JS.API.<subject>` with a body, within the configured request time-out.
    pub(crate) async fn api<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        body: &Q,
    ) -> Result<A, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| unreadable(subject, error))?;
        self.call(subject, body.into()).await
    }

    /// Calls the API on `$JS.API.<subject>` without a body (some calls refuse any).
    pub(crate) async fn api_bare<A: DeserializeOwned>(&self, subject: &str) -> Result<A, ApiError> {
        self.call(subject, Bytes::new()).await
    }

    async fn call<A: DeserializeOwned>(&self, subject: &str, body: Bytes) -> Result<A, ApiError> {
        #[derive(Deserialize)]
        struct Head {
            error: Option<Fault>,
        }
        let subject = format!("{PREFIX}.{subject}");
        let answer = self
            .ask(&subject, None, body, self.request_timeout)
            .await
            .map_err(|error| self.explain_ask(error, &subject))?;
        let head: Head =
            serde_json::from_slice(&answer.payload).map_err(|error| unreadable(&subject, error))?;
        match head.error {
            Some(fault) => Err(ApiError::Fault(fault)),
            None => serde_json::from_slice(&answer.payload).map_err(|error| unreadable(&subject, error)),
        }
    }

    fn explain_ask(&self, error: AskError, subject: &str) -> ApiError {
        ApiError::Bus(match error {
            AskError::NoResponders => return ApiError::NoResponders,
            AskError::Timeout => {
                BusError::new(BusErrorKind::Timeout, format!("no answer on {subject} in time"))
            }
            AskError::Disconnected => self.disconnected(),
            AskError::TooLarge { len, max } => BusError::too_large(len, max),
            AskError::Failed(error) => {
                BusError::caused(BusErrorKind::Disconnected, format!("{subject} cannot be asked"), error)
            }
        })
    }
}

fn unreadable(subject: &str, error: serde_json::Error) -> ApiError {
    let message = format!("{subject}: the question or answer cannot be read");
    ApiError::Bus(BusError::caused(BusErrorKind::Malformed, message, error))
}
