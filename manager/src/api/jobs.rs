//! `tts.jobs.api.*`: durable jobs are submitted, asked after, fetched and given up.
//!
//! Only the record is written or read here; whichever manager has the lease speaks it.

use chorus_protocol::durable::{JobAsk, JobStatus};
use chorus_protocol::{Envelope, Reason, ServiceError, SynthesisRequest, SynthesisResult};

use super::check::check_text;
use super::plain::PlainAsk;
use crate::core::Core;
use crate::jobs::store::Submission;

impl Core {
    /// Keeps a job under the question's messageId, or finds the one that it was submitted as before.
    ///
    /// # Errors
    /// INVALID_REQUEST (`id_reused` when another request bears that id), MODEL_NOT_FOUND, or RESOURCE_EXHAUSTED when it
    /// could not be kept: then it may be submitted again under the same id.
    pub async fn answer_jobs_submit(
        &self,
        question: Envelope<SynthesisRequest>,
    ) -> Result<JobStatus, ServiceError> {
        let Envelope { message_id, mut payload, metadata, traceparent, .. } = question;
        payload.priority = payload.priority.or(metadata.and_then(|metadata| metadata.priority));
        let ask = PlainAsk::new(message_id, payload, traceparent)?;
        ask.request.validate()?;
        check_text("text", &ask.request.text)?;
        self.catalogue().resolve(&ask.request)?;
        let PlainAsk { request_id, request, format, .. } = ask;
        let asked = Submission { job: request_id, request, format, now_ms: self.clock.unix_ms() };
        Ok(self.jobs.submit(asked).await?.status())
    }

    /// How a job is.
    ///
    /// # Errors
    /// INVALID_REQUEST/unknown_job; RESOURCE_EXHAUSTED/no_broker.
    pub async fn answer_jobs_status(&self, ask: JobAsk) -> Result<JobStatus, ServiceError> {
        Ok(self.jobs.get(&ask.job).await?.status())
    }

    /// A job's result, with where its audio is; a failed one where the job failed or was cancelled.
    ///
    /// # Errors
    /// As of [`Core::answer_jobs_status`]; RESOURCE_EXHAUSTED/not_done while there is none.
    pub async fn answer_jobs_fetch(&self, ask: JobAsk) -> Result<SynthesisResult, ServiceError> {
        let job = self.jobs.get(&ask.job).await?;
        let state = job.state.as_str();
        job.result.ok_or_else(|| {
            let message = format!("job {} is {state}: fetch it when it is done", job.job);
            ServiceError::new(Reason::NotDone, message)
                .with("state", state)
                .retry_after_ms(self.config.retry_after.as_millis() as u64)
        })
    }

    /// Gives a job up; one that is over stays as it is.
    ///
    /// # Errors
    /// As of [`Core::answer_jobs_status`].
    pub async fn answer_jobs_cancel(&self, ask: JobAsk) -> Result<JobStatus, ServiceError> {
        Ok(self.jobs.cancel(&ask.job, self.clock.unix_ms()).await?.status())
    }
}
