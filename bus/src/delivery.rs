//! One delivery of a job: a guard that must be ended, and gives the job back when it is not.
//!
//! Acks go out without waiting for the server: none of them is the truth about a segment (the session is), so a lost one
//! costs a redelivery and nothing more.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use chorus_protocol::codec::{self, DecodeError};
use chorus_protocol::job::Job;
use chorus_protocol::{Envelope, WorkerId, names};
use chorus_runtime::task::{self, FailureMeans};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::error::BusError;
use crate::jobs::TRACEPARENT_NAME;

const ACK: &[u8] = b"+ACK";
const NAK: &[u8] = b"-NAK";
const TERMINATE: &[u8] = b"+TERM";
const IN_PROGRESS: &[u8] = b"+WPI";

/// What the ack subject of a delivery tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AckSubject<'a> {
    pub(crate) consumer: &'a str,
    pub(crate) deliveries: u64,
    pub(crate) seq: u64,
}

/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>`, or the newer form with
/// a domain and an account before the stream, and possibly a token after the end (ADR-15 of nats-architecture-and-design).
pub(crate) fn parse_ack_subject(subject: &str) -> Option<AckSubject<'_>> {
    let rest = subject.strip_prefix("$JS.ACK.")?;
    let before_stream = match rest.split('.').count() {
        7 => 0,
        9.. => 2,
        _ => return None,
    };
    let mut tokens = rest.split('.').skip(before_stream + 1);
    Some(AckSubject {
        consumer: tokens.next()?,
        deliveries: tokens.next()?.parse().ok()?,
        seq: tokens.next()?.parse().ok()?,
    })
}

/// A job in the hands of this worker, until it is ended by [`Delivery::ack`], [`Delivery::terminate`] or
/// [`Delivery::nak`]. One that is dropped before goes back to the queue at once.
pub struct Delivery {
    /// The envelope around the [`Job`], as it came.
    pub payload: Bytes,
    /// The inbox of the session that asks.
    pub inbox: Option<String>,
    /// Worker faults that the segment has met so far.
    pub failures: u32,
    /// Workers that have tried it.
    pub tried: Vec<WorkerId>,
    /// The protocol version of the payload.
    pub version: Option<String>,
    /// W3C trace context of the publisher's span.
    pub traceparent: Option<String>,
    /// Deliveries so far, this one included.
    pub deliveries: u64,
    /// Its sequence in the stream.
    pub seq: u64,
    /// The subject it was queued on.
    pub subject: String,
    bus: Bus,
    /// Where it is ended; `None` once it is.
    ack_to: Option<Subject>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("seq", &self.seq)
            .field("subject", &self.subject)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// `ack` must have been read from `ack_to`.
    pub(crate) fn new(bus: Bus, message: Message, ack_to: Subject, deliveries: u64, seq: u64) -> Self {
        let headers = message.headers.unwrap_or_default();
        Self {
            payload: message.payload,
            inbox: text(&headers, names::HEADER_INBOX),
            failures: header(&headers, names::HEADER_FAILURES).and_then(|n| n.parse().ok()).unwrap_or(0),
            tried: header(&headers, names::HEADER_TRIED).map(read_tried).unwrap_or_default(),
            version: text(&headers, names::HEADER_VERSION),
            traceparent: text(&headers, TRACEPARENT_NAME),
            deliveries,
            seq,
            subject: message.subject.into_string(),
            bus,
            ack_to: Some(ack_to),
        }
    }

    /// The job.
    ///
    /// # Errors
    /// When the payload is no envelope around a [`Job`].
    pub fn job(&self) -> Result<Envelope<Job>, DecodeError> {
        codec::decode(&self.payload, self.bus.inner.client.max_payload())
    }

    /// Done: the job leaves the queue.
    ///
    /// # Errors
    /// `Disconnected` or `Timeout`; the job is then redelivered.
    pub async fn ack(self) -> Result<(), BusError> {
        self.end(Bytes::from_static(ACK)).await
    }

    /// Not wanted any more: the job leaves the queue.
    ///
    /// # Errors
    /// `Disconnected` or `Timeout`; the job is then redelivered.
    pub async fn terminate(self) -> Result<(), BusError> {
        self.end(Bytes::from_static(TERMINATE)).await
    }

    /// Not begun: the job goes back to the queue, to be delivered again after `delay`.
    ///
    /// # Errors
    /// `Disconnected` or `Timeout`; the job is then redelivered when its time runs out.
    pub async fn nak(self, delay: Duration) -> Result<(), BusError> {
        let payload = if delay.is_zero() {
            Bytes::from_static(NAK)
        } else {
            Bytes::from(format!("-NAK {{\"delay\":{}}}", delay.as_nanos()))
        };
        self.end(payload).await
    }

    /// Tells the queue nothing: the job is another worker's only when its time has run out.
    pub fn abandon(mut self) {
        self.ack_to = None;
    }

    /// Being worked on: its time (1 s) begins anew.
    ///
    /// # Errors
    /// `Disconnected` or `Timeout`.
    pub async fn in_progress(&self) -> Result<(), BusError> {
        self.progress_handle().send().await
    }

    /// A handle that can say [`Delivery::in_progress`] from another task, and nothing else.
    pub fn progress_handle(&self) -> InProgress {
        InProgress { bus: self.bus.clone(), ack_to: self.ack_to.clone() }
    }

    async fn end(mut self, payload: Bytes) -> Result<(), BusError> {
        match self.ack_to.take() {
            Some(ack_to) => self.bus.inner.send(ack_to, None, payload).await,
            None => Ok(()),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(ack_to) = self.ack_to.take() else { return };
        let seq = self.seq;
        tracing::warn!(seq, subject = %self.subject, "a delivery was forgotten; the job goes back to the queue");
        let client = self.bus.inner.client.clone();
        let mut sending = Box::pin(async move {
            if let Err(error) = client.publish(ack_to, Bytes::from_static(NAK)).await {
                tracing::debug!(seq, %error, "the forgotten delivery waits for its time to run out");
            }
        });
        // Nearly always there is room in the send buffer and nothing to wait for.
        if sending.as_mut().now_or_never().is_none() && tokio::runtime::Handle::try_current().is_ok() {
            task::spawn("nak-forgotten", CancellationToken::new(), FailureMeans::Log, sending);
        }
    }
}

/// Says that a delivery is being worked on. Cheap to clone; harmless after the delivery has ended.
#[derive(Clone)]
pub struct InProgress {
    bus: Bus,
    ack_to: Option<Subject>,
}

impl InProgress {
    /// The delivery's time (1 s) begins anew.
    ///
    /// # Errors
    /// `Disconnected` or `Timeout`.
    pub async fn send(&self) -> Result<(), BusError> {
        match &self.ack_to {
            Some(ack_to) => self.bus.inner.send(ack_to.clone(), None, Bytes::from_static(IN_PROGRESS)).await,
            None => Ok(()),
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.as_str())
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    header(headers, name).map(str::to_owned)
}

/// Names that cannot be worker ids are nobody's, so they are left out.
fn read_tried(list: &str) -> Vec<WorkerId> {
    list.split(',').filter_map(|id| WorkerId::new(id.trim()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_ack_subjects_are_read() {
        let expected = AckSubject { consumer: "high_m", deliveries: 2, seq: 31 };
        let v1 = "$JS.ACK.TTS_JOBS.high_m.2.31.5.1700000000000000000.9";
        let v2 = "$JS.ACK._.ACC.TTS_JOBS.high_m.2.31.5.1700000000000000000.9.token";
        assert_eq!(parse_ack_subject(v1).as_ref(), Some(&expected));
        assert_eq!(parse_ack_subject(v2).as_ref(), Some(&expected));
        for bad in ["", "$JS.ACK.", "$JS.ACK.a.b.c.d.e.f.g", "tts.jobs.a.b", "$JS.ACK.S.c.1.2.3.4"] {
            assert_eq!(parse_ack_subject(bad), None, "{bad}");
        }
    }

    #[test]
    fn tried_workers_read_back() {
        let ids: Vec<_> = read_tried("w-1, w-2,,no.id").iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["w-1", "w-2"]);
    }

    proptest! {
        #[test]
        fn no_subject_panics(subject in "\\$JS\\.ACK\\.[a-z0-9.]{0,60}") {
            let _ = parse_ack_subject(&subject);
        }
    }
}
