//! Jobs onto the queue, and what becomes of them there.
//!
//! A job is published under its id, so a publish whose outcome is unknown is simply repeated: the server keeps the first
//! and names its sequence. What a worker must know before it can trust the payload (inbox, failures, workers tried,
//! version, trace) travels in headers.

use std::collections::HashMap;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::job::Job;
use chorus_protocol::{
    Envelope, JobClass, MessageId, MessageType, Metadata, ModelName, WorkerId, names, version,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::api::{ApiError, AskError, Fault, code};
use crate::bus::Bus;
use crate::error::{BusError, PublishError, PublishErrorKind};

/// How often a publish with an unknown outcome is sent in all.
const PUBLISH_ATTEMPTS: u32 = 3;

const MESSAGE_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
const INBOX: HeaderName = HeaderName::from_static(names::HEADER_INBOX);
const FAILURES: HeaderName = HeaderName::from_static(names::HEADER_FAILURES);
const TRIED: HeaderName = HeaderName::from_static(names::HEADER_TRIED);
const VERSION: HeaderName = HeaderName::from_static(names::HEADER_VERSION);
const TRACEPARENT: HeaderName = HeaderName::from_static(TRACEPARENT_NAME);
/// As W3C Trace Context names it.
pub(crate) const TRACEPARENT_NAME: &str = "traceparent";

/// A job about to be queued.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingJob<'a> {
    /// The job. Its model and class choose the queue.
    pub job: &'a Job,
    /// The inbox of the session that asks.
    pub inbox: &'a str,
    /// Worker faults that the segment has met so far.
    pub failures: u32,
    /// Workers that have tried it.
    pub tried: &'a [WorkerId],
    /// W3C trace context of the sender's span.
    pub traceparent: Option<&'a str>,
    /// Milliseconds of Unix time, for the envelope.
    pub now_ms: u64,
}

impl OutgoingJob<'_> {
    fn headers(&self, id: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, HeaderValue::from(id));
        headers.insert(INBOX, HeaderValue::from(self.inbox));
        headers.insert(VERSION, HeaderValue::from(version::V2_1.to_string()));
        if self.failures > 0 {
            headers.insert(FAILURES, HeaderValue::from(self.failures));
        }
        if !self.tried.is_empty() {
            let tried: Vec<_> = self.tried.iter().map(WorkerId::as_str).collect();
            headers.insert(TRIED, HeaderValue::from(tried.join(",")));
        }
        if let Some(traceparent) = self.traceparent {
            headers.insert(TRACEPARENT, HeaderValue::from(traceparent));
        }
        headers
    }

    /// The message id is the job's, so that a repeated publish is the same to the byte.
    fn envelope(&self, id: &str) -> Result<Envelope<&Job>, PublishError> {
        let message_id = MessageId::new(id).map_err(|e| {
            PublishError::caused(PublishErrorKind::TooLarge, "the job's id is no message id", e)
        })?;
        let metadata = Metadata {
            correlation_id: None,
            retry_count: (self.job.attempt > 1).then(|| self.job.attempt - 1),
            priority: None,
        };
        Ok(Envelope {
            version: version::V2_1,
            message_id,
            timestamp: self.now_ms,
            message_type: MessageType::Request,
            payload: self.job,
            metadata: metadata.retry_count.is_some().then_some(metadata),
            accept: None,
            traceparent: self.traceparent.map(str::to_owned),
        })
    }
}

/// Jobs on the queue of one model, waiting or with a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// By class, in the order in which they are served: urgent, high, normal, low.
    pub by_class: [u64; 4],
}

impl QueueDepth {
    /// Of all classes.
    pub fn total(&self) -> u64 {
        self.by_class.iter().sum()
    }
}

#[derive(Deserialize)]
struct PublishAck {
    #[serde(default)]
    seq: u64,
    error: Option<Fault>,
}

impl Bus {
    /// Puts a job on its queue and gives its stream sequence: the first one's, when it is there already. A publish with an
    /// unknown outcome is repeated under the same id, three times in all.
    ///
    /// # Errors
    /// See [`PublishErrorKind`].
    pub async fn publish_job(&self, job: &OutgoingJob<'_>) -> Result<u64, PublishError> {
        let id = names::message_id(&job.job.id());
        let subject = names::job_subject(&job.job.speech.model, job.job.class);
        let payload = codec::encode(&job.envelope(&id)?, Encoding::MessagePack).map_err(|error| {
            PublishError::caused(PublishErrorKind::TooLarge, "the job cannot be encoded", error)
        })?;
        let payload = Bytes::from(payload);
        let mut disconnected = false;
        for _ in 0..PUBLISH_ATTEMPTS {
            let headers = Some(job.headers(&id));
            let asked = self.inner.ask(&subject, headers, payload.clone(), self.inner.request_timeout).await;
            match asked {
                Ok(answer) => return read_ack(&answer.payload),
                Err(AskError::Timeout) => disconnected = false,
                Err(AskError::Disconnected) => disconnected = true,
                Err(error) => return Err(refuse(error)),
            }
        }
        let why = if disconnected { "the connection is down" } else { "no confirmation in time" };
        Err(PublishError::new(
            PublishErrorKind::Unavailable,
            format!("the broker did not confirm the job: {why}, {PUBLISH_ATTEMPTS} times"),
        ))
    }

    /// Whether a job is still on the queue, waiting or with a worker.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing, `Timeout`, `Disconnected`, `Refused`.
    pub async fn job_exists(&self, seq: u64) -> Result<bool, BusError> {
        let subject = format!("STREAM.MSG.GET.{}", names::JOBS_STREAM);
        match self.inner.api::<_, IgnoredAny>(&subject, &json!({ "seq": seq })).await {
            Ok(_) => Ok(true),
            Err(ApiError::Fault(fault)) if fault.err_code == code::MESSAGE_NOT_FOUND => Ok(false),
            Err(error) => Err(error.into_bus(&format!("stream {}", names::JOBS_STREAM))),
        }
    }

    /// Takes a job off the queue; `false` when it was gone already.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing, `Timeout`, `Disconnected`, `Refused`.
    pub async fn delete_job(&self, seq: u64) -> Result<bool, BusError> {
        let subject = format!("STREAM.MSG.DELETE.{}", names::JOBS_STREAM);
        let body = json!({ "seq": seq, "no_erase": true });
        match self.inner.api::<_, IgnoredAny>(&subject, &body).await {
            Ok(_) => Ok(true),
            Err(ApiError::Fault(fault)) if fault.err_code == code::SEQUENCE_NOT_FOUND => Ok(false),
            // The server says in several ways, and in words only, that there was nothing to delete.
            Err(ApiError::Fault(fault))
                if fault.err_code == code::MESSAGE_DELETE_FAILED && !self.job_exists(seq).await? =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into_bus(&format!("stream {}", names::JOBS_STREAM))),
        }
    }

    /// How many jobs of a model are on the queue.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing, `Timeout`, `Disconnected`, `Refused`.
    pub async fn queue_depth(&self, model: &ModelName) -> Result<QueueDepth, BusError> {
        let depths = self.depths(&names::model_jobs(model)).await?;
        Ok(depths.into_values().next().unwrap_or_default())
    }

    /// How many jobs are on the queue, by the subject token of the model ([`names::encode_token`]). Models without any are
    /// left out.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing, `Timeout`, `Disconnected`, `Refused`.
    pub async fn queue_depths(&self) -> Result<HashMap<String, QueueDepth>, BusError> {
        self.depths(names::ALL_JOBS).await
    }

    async fn depths(&self, filter: &str) -> Result<HashMap<String, QueueDepth>, BusError> {
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            #[serde(default)]
            subjects: HashMap<String, u64>,
        }
        let subject = format!("STREAM.INFO.{}", names::JOBS_STREAM);
        let info: Info = self
            .inner
            .api(&subject, &json!({ "subjects_filter": filter }))
            .await
            .map_err(|error| error.into_bus(&format!("stream {}", names::JOBS_STREAM)))?;
        Ok(sum_depths(info.state.subjects))
    }
}

fn sum_depths(subjects: HashMap<String, u64>) -> HashMap<String, QueueDepth> {
    let mut depths: HashMap<String, QueueDepth> = HashMap::new();
    for (subject, count) in subjects {
        let mut tokens = subject.rsplit('.');
        let (Some(class), Some(model)) = (tokens.next(), tokens.next()) else { continue };
        let Some(place) = JobClass::BY_URGENCY.iter().position(|known| known.as_str() == class) else {
            continue;
        };
        depths.entry(model.to_owned()).or_default().by_class[place] += count;
    }
    depths
}

fn read_ack(payload: &[u8]) -> Result<u64, PublishError> {
    let ack: PublishAck = serde_json::from_slice(payload).map_err(|error| {
        PublishError::caused(PublishErrorKind::Unavailable, "the broker's confirmation cannot be read", error)
    })?;
    match ack.error {
        None => Ok(ack.seq),
        Some(fault) if fault.err_code == code::STORE_FAILED && fault.description.contains("maximum") => {
            Err(PublishError::caused(PublishErrorKind::QueueFull, "the queue is full", fault))
        }
        Some(fault) => Err(PublishError::caused(
            PublishErrorKind::Unavailable,
            "the broker does not store the job",
            fault,
        )),
    }
}

fn refuse(error: AskError) -> PublishError {
    match error {
        AskError::NoResponders => PublishError::new(
            PublishErrorKind::NoStream,
            format!("stream {} does not exist, or JetStream is off", names::JOBS_STREAM),
        ),
        AskError::TooLarge { len, max } => {
            PublishError::new(PublishErrorKind::TooLarge, BusError::too_large(len, max).to_string())
        }
        AskError::Timeout | AskError::Disconnected => {
            PublishError::new(PublishErrorKind::Unavailable, "the broker did not confirm the job")
        }
        AskError::Failed(error) => {
            PublishError::caused(PublishErrorKind::Unavailable, "the job cannot be sent", error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_refusals_and_rubbish() {
        assert_eq!(read_ack(br#"{"stream":"S","seq":7,"duplicate":true}"#).unwrap(), 7);
        let kind = |text: &[u8]| read_ack(text).unwrap_err().kind;
        assert_eq!(
            kind(br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"}}"#),
            PublishErrorKind::QueueFull
        );
        assert_eq!(
            kind(br#"{"error":{"code":503,"err_code":10077,"description":"no space left on device"}}"#),
            PublishErrorKind::Unavailable
        );
        assert_eq!(kind(b"pong"), PublishErrorKind::Unavailable);
    }

    #[test]
    fn depths_are_summed_by_model() {
        let subjects = [("tts.jobs.a=2Fb.urgent", 1), ("tts.jobs.a=2Fb.low", 4), ("tts.jobs.c.high", 2)];
        let depths = sum_depths(subjects.map(|(subject, n)| (subject.to_owned(), n)).into());
        assert_eq!(depths["a=2Fb"].by_class, [1, 0, 0, 4]);
        assert_eq!(depths["c"].total(), 2);
    }
}
