//! Jobs onto the queue, and what becomes of them there.
//!
//! A job is published under its id, so a publish whose outcome is unknown is simply repeated: the server keeps the first
//! and names its sequence. What a worker must know before it can trust the payload (inbox, failures, workers tried,
//! version, trace) travels in headers.

use std::collections::HashMap;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use chorus_protocol::job::Job;
use chorus_protocol::{
    Envelope, JobClass, MessageId, MessageType, Metadata, ModelName, WorkerId, names, version,
};
use serde::Deserialize;
use serde_json::json;

use crate::api::code;
use crate::bus::Bus;
use crate::confirm::{ConfirmError, Outgoing};
use crate::error::{BusError, PublishError, PublishErrorKind};

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
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
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

impl Bus {
    /// Puts a job on its queue and gives its stream sequence: the first one's, when it is there already. A publish with an
    /// unknown outcome, or to a stream that is without a leader, is repeated under the same id, within three times the
    /// configured request time-out in all.
    ///
    /// # Errors
    /// See [`PublishErrorKind`].
    pub async fn publish_job(&self, job: &OutgoingJob<'_>) -> Result<u64, PublishError> {
        let id = names::message_id(&job.job.id());
        let subject = names::job_subject(&job.job.speech.model, job.job.class);
        let payload = self.inner.wire.encode(&job.envelope(&id)?).map_err(|error| {
            PublishError::caused(PublishErrorKind::TooLarge, "the job cannot be encoded", error)
        })?;
        let message = Outgoing {
            stream: names::JOBS_STREAM,
            subject: &subject,
            id: self.inner.job_ids.then_some(id.as_str()),
            headers: job.headers(),
            payload: payload.into(),
        };
        self.inner.confirm(message).await.map_err(refuse)
    }

    /// Whether a job is still on the queue, waiting or with a worker.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing, `Timeout`, `Disconnected`, `Refused`.
    pub async fn job_exists(&self, seq: u64) -> Result<bool, BusError> {
        self.inner.is_stored(names::JOBS_STREAM, seq).await
    }

    /// Takes a job off the queue; `false` when it was gone already.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing, `Timeout`, `Disconnected`, `Refused`.
    pub async fn delete_job(&self, seq: u64) -> Result<bool, BusError> {
        self.inner.delete_stored(names::JOBS_STREAM, seq).await
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

fn refuse(error: ConfirmError) -> PublishError {
    let (kind, message) = match &error {
        ConfirmError::NoStream(_) => (PublishErrorKind::NoStream, "the job cannot be queued"),
        ConfirmError::TooLarge(_) => (PublishErrorKind::TooLarge, "the job cannot be queued"),
        ConfirmError::Fault(fault)
            if fault.err_code == code::STORE_FAILED && fault.description.contains("maximum") =>
        {
            (PublishErrorKind::QueueFull, "the queue is full")
        }
        ConfirmError::Fault(_) => (PublishErrorKind::Unavailable, "the broker does not store the job"),
        ConfirmError::Unconfirmed(_)
        | ConfirmError::Unreadable(_)
        | ConfirmError::Unwritable(_)
        | ConfirmError::Failed(_) => (PublishErrorKind::Unavailable, "the job may not be queued"),
    };
    PublishError::caused(kind, message, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Fault;

    #[test]
    fn a_full_queue_is_told_from_a_full_disk() {
        let kind = |description: &str| {
            let description = description.to_owned();
            refuse(ConfirmError::Fault(Fault { code: 503, err_code: code::STORE_FAILED, description })).kind
        };
        assert_eq!(kind("maximum messages per subject exceeded"), PublishErrorKind::QueueFull);
        assert_eq!(kind("no space left on device"), PublishErrorKind::Unavailable);
    }

    #[test]
    fn depths_are_summed_by_model() {
        let subjects = [("tts.jobs.a=2Fb.urgent", 1), ("tts.jobs.a=2Fb.low", 4), ("tts.jobs.c.high", 2)];
        let depths = sum_depths(subjects.map(|(subject, n)| (subject.to_owned(), n)).into());
        assert_eq!(depths["a=2Fb"].by_class, [1, 0, 0, 4]);
        assert_eq!(depths["c"].total(), 2);
    }
}
