//! Core messages: told, asked, heard, answered.
//!
//! Envelopes are encoded and checked against the server's max_payload before anything is sent. A reader gets the bytes as
//! they came and decodes them itself, since only it knows what they should be.

use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use chorus_protocol::codec::{self, DecodeError, Encoding};
use chorus_protocol::{Envelope, MessageType, Reason, ServiceError};
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::api::AskError;
use crate::bus::{Bus, Inner, bounded};
use crate::error::{BusError, BusErrorKind, RequestError, RequestErrorKind};

/// A message that was heard.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// What it says, as it came.
    pub payload: Bytes,
    subject: Subject,
    reply: Option<Subject>,
    max_bytes: usize,
}

impl Incoming {
    /// The subject it was sent to.
    pub fn subject(&self) -> &str {
        self.subject.as_str()
    }

    /// Where an answer is awaited, if one is.
    pub fn reply(&self) -> Option<&str> {
        self.reply.as_ref().map(Subject::as_str)
    }

    /// The encoding it came in, for the answer; MessagePack when it is unreadable.
    pub fn encoding(&self) -> Encoding {
        codec::detect(&self.payload).unwrap_or(Encoding::MessagePack)
    }

    /// Its envelope.
    ///
    /// # Errors
    /// When the payload is no envelope around a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<Envelope<T>, DecodeError> {
        codec::decode(&self.payload, self.max_bytes)
    }
}

/// What is heard on a subject, in order. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    subscriber: async_nats::Subscriber,
    max_bytes: usize,
}

impl Subscription {
    /// The next message; `None` after [`Subscription::drain`] or when the connection was closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Incoming> {
        let message = self.subscriber.next().await?;
        Some(incoming(message, self.max_bytes))
    }

    /// Asks for no more: what is on its way is still heard, then [`Subscription::next`] gives `None`.
    pub async fn drain(&mut self) {
        if let Err(error) = self.subscriber.drain().await {
            tracing::debug!(%error, "the connection is closed already");
        }
    }
}

fn incoming(message: Message, max_bytes: usize) -> Incoming {
    Incoming { payload: message.payload, subject: message.subject, reply: message.reply, max_bytes }
}

impl Inner {
    pub(crate) async fn send(
        &self,
        subject: Subject,
        reply: Option<Subject>,
        payload: Bytes,
    ) -> Result<(), BusError> {
        self.check_size(payload.len())?;
        self.ready(self.request_timeout).await?;
        let sent = bounded(self.request_timeout, async {
            match reply {
                Some(reply) => self.client.publish_with_reply(subject, reply, payload).await,
                None => self.client.publish(subject, payload).await,
            }
        });
        match sent.await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(match error.kind() {
                async_nats::PublishErrorKind::MaxPayloadExceeded => {
                    BusError::caused(BusErrorKind::TooLarge, "the message is too large", error)
                }
                async_nats::PublishErrorKind::InvalidSubject => {
                    BusError::caused(BusErrorKind::Config, "a subject that cannot be", error)
                }
                async_nats::PublishErrorKind::Send => {
                    BusError::caused(BusErrorKind::Disconnected, "the connection is closed", error)
                }
            }),
            None => Err(takes_no_more()),
        }
    }
}

fn takes_no_more() -> BusError {
    BusError::new(BusErrorKind::Timeout, "the connection takes no more messages")
}

fn encoded(bytes: Result<Vec<u8>, ServiceError>) -> Result<Bytes, BusError> {
    let unencodable =
        |error| BusError::caused(BusErrorKind::Malformed, "the message cannot be encoded", error);
    bytes.map(Bytes::from).map_err(unencodable)
}

impl Bus {
    /// Tells `envelope` to whoever listens on `subject`.
    ///
    /// # Errors
    /// `TooLarge` (nothing was sent), `Disconnected`, or `Timeout` when the send buffer stays full.
    pub async fn publish<T: Serialize>(&self, subject: &str, envelope: &Envelope<T>) -> Result<(), BusError> {
        let payload = encoded(self.inner.wire.encode(envelope))?;
        self.inner.send(Subject::from(subject), None, payload).await
    }

    /// Asks on `subject` and waits for the payload of the answer, `timeout` at most.
    ///
    /// # Errors
    /// See [`RequestErrorKind`]; an answer that is an error is `Refused`.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &str,
        envelope: &Envelope<Q>,
        timeout: Duration,
    ) -> Result<A, RequestError> {
        let payload = self
            .inner
            .wire
            .encode(envelope)
            .map_err(|error| RequestError::caused(RequestErrorKind::Malformed, subject, error))?;
        let answer = self.request_raw(subject, payload.into(), timeout).await?;
        read_answer(&answer, self.inner.client.max_payload(), subject)
    }

    /// Asks with bytes and gives back bytes.
    ///
    /// # Errors
    /// See [`RequestErrorKind`]; never `Refused`, since the answer is not read.
    pub async fn request_raw(
        &self,
        subject: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        let answered = self.inner.ask(subject, None, payload, timeout).await;
        answered.map(|message| message.payload).map_err(|error| match error {
            AskError::NoResponders => RequestError::new(RequestErrorKind::NoResponders, subject),
            AskError::Timeout => RequestError::new(RequestErrorKind::Timeout, subject),
            AskError::Disconnected => RequestError::new(RequestErrorKind::Disconnected, subject),
            AskError::TooLarge { len, max } => {
                RequestError::caused(RequestErrorKind::TooLarge, subject, BusError::too_large(len, max))
            }
            AskError::Failed(error) => RequestError::caused(RequestErrorKind::Disconnected, subject, error),
        })
    }

    /// Listens on `subject`; with a `group`, each message goes to one member of it.
    ///
    /// # Errors
    /// `Disconnected` when the connection is down or closed, `Config` when the subject cannot be one.
    pub async fn subscribe(&self, subject: &str, group: Option<&str>) -> Result<Subscription, BusError> {
        let inner = &self.inner;
        inner.ready(inner.request_timeout).await?;
        let subscribing = async {
            match group {
                Some(group) => inner.client.queue_subscribe(subject.to_owned(), group.to_owned()).await,
                None => inner.client.subscribe(subject.to_owned()).await,
            }
        };
        let max_bytes = inner.client.max_payload();
        match bounded(inner.request_timeout, subscribing).await {
            Some(Ok(subscriber)) => Ok(Subscription { subscriber, max_bytes }),
            Some(Err(error)) => {
                let kind = match error.kind() {
                    async_nats::SubscribeErrorKind::Other => BusErrorKind::Disconnected,
                    _ => BusErrorKind::Config,
                };
                Err(BusError::caused(kind, format!("cannot listen on {subject}"), error))
            }
            None => Err(takes_no_more()),
        }
    }

    /// Answers `to`; nothing is sent where no answer is awaited. An answer over max_payload is replaced by a TooLarge
    /// error, so that the asker is not left waiting.
    ///
    /// # Errors
    /// As of [`Bus::publish`].
    pub async fn respond<T: Serialize>(
        &self,
        to: &Incoming,
        envelope: &Envelope<T>,
        encoding: Encoding,
    ) -> Result<(), BusError> {
        let Some(reply) = &to.reply else { return Ok(()) };
        let payload = self.answer(envelope, encoding)?;
        self.inner.send(reply.clone(), None, payload).await
    }

    /// The same, and waits for nothing: an answer that cannot be sent now is not sent. For whoever has more important
    /// things to do than to answer somebody who will ask again.
    ///
    /// # Errors
    /// `Disconnected` when the connection is down, `Timeout` when the send buffer is full.
    pub fn respond_now<T: Serialize>(
        &self,
        to: &Incoming,
        envelope: &Envelope<T>,
        encoding: Encoding,
    ) -> Result<(), BusError> {
        let Some(reply) = &to.reply else { return Ok(()) };
        let payload = self.answer(envelope, encoding)?;
        if !self.inner.is_connected() {
            return Err(self.inner.disconnected());
        }
        // Without tokio's budget, a task that has done much would look like a full buffer.
        let sent = tokio::task::unconstrained(self.inner.send(reply.clone(), None, payload)).now_or_never();
        sent.unwrap_or_else(|| Err(takes_no_more()))
    }

    /// The bytes of an answer.
    fn answer<T: Serialize>(&self, envelope: &Envelope<T>, encoding: Encoding) -> Result<Bytes, BusError> {
        let payload = encoded(self.inner.wire.encode_in(envelope, encoding))?;
        let Err(too_large) = self.inner.check_size(payload.len()) else { return Ok(payload) };
        let error = ServiceError::new(Reason::TooLarge, format!("the answer cannot be sent: {too_large}"));
        let instead = Envelope::error(envelope.correlation_id(), error, envelope.timestamp);
        encoded(codec::encode(&instead.in_version(envelope.version.clone()), encoding))
    }

    /// Sends bytes to a reply subject.
    ///
    /// # Errors
    /// As of [`Bus::publish`].
    pub async fn respond_raw(&self, reply: &str, payload: Bytes) -> Result<(), BusError> {
        self.inner.send(Subject::from(reply), None, payload).await
    }
}

/// A good answer is parsed once; only what does not fit is looked at again, to see whether it is an error.
fn read_answer<A: DeserializeOwned>(
    bytes: &[u8],
    max_bytes: usize,
    subject: &str,
) -> Result<A, RequestError> {
    let malformed = |error: DecodeError| RequestError::caused(RequestErrorKind::Malformed, subject, error);
    let not_an_answer = match codec::decode::<A>(bytes, max_bytes) {
        Ok(envelope) if envelope.message_type != MessageType::Error => return Ok(envelope.payload),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    let head = codec::decode::<IgnoredAny>(bytes, max_bytes).map_err(malformed)?;
    match not_an_answer {
        Some(error) if head.message_type != MessageType::Error => Err(malformed(error)),
        _ => {
            let refusal = codec::decode::<ServiceError>(bytes, max_bytes).map_err(malformed)?;
            Err(RequestError::new(RequestErrorKind::Refused(refusal.payload), subject))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn packed<T: Serialize>(envelope: &Envelope<T>) -> Vec<u8> {
        codec::encode(envelope, Encoding::MessagePack).unwrap()
    }

    #[test]
    fn answers_errors_and_rubbish_are_told_apart() {
        let good = packed(&Envelope::request(7u32, 1));
        assert_eq!(read_answer::<u32>(&good, 1_000, "s").unwrap(), 7);
        let wrong_shape = read_answer::<String>(&good, 1_000, "s").unwrap_err();
        assert_eq!(wrong_shape.kind, RequestErrorKind::Malformed);
        assert_eq!(read_answer::<u32>(b"x", 1_000, "s").unwrap_err().kind, RequestErrorKind::Malformed);

        let error = ServiceError::new(Reason::QueueFull, "full");
        let refusal = packed(&Envelope::error(None, error.clone(), 1));
        for kind in [
            read_answer::<u32>(&refusal, 1_000, "s").unwrap_err().kind,
            // A permissive type would take an error for an answer.
            read_answer::<Value>(&refusal, 1_000, "s").unwrap_err().kind,
        ] {
            assert_eq!(kind, RequestErrorKind::Refused(error.clone()));
        }
    }
}
