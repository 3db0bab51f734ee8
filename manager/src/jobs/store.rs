//! The records and objects of durable jobs, and the lease on one of them.
//!
//! A job's text is written before its record, so that no job is without its text; both run out by themselves.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chorus_bus::{Bucket, Bus, BusError, CasError, ObjectBucket, Objects, RecordWatch, Records};
use chorus_protocol::durable::{DurableJob, DurableState, DurableText, JobProgress, Lease};
use chorus_protocol::{AudioFormat, MessageId, Reason, ServiceError, SynthesisRequest, names};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};

use super::judge;

/// How often a change that others come before is tried.
const CHANGE_ROUNDS: usize = 8;
/// How long to wait before a write whose outcome is unknown is tried again.
const WRITE_AGAIN: Duration = Duration::from_millis(250);
/// Pieces that are deleted at once.
const DELETES_AT_ONCE: usize = 16;

/// What a job is asked with.
pub(crate) struct Submission {
    pub(crate) job: MessageId,
    pub(crate) request: SynthesisRequest,
    pub(crate) format: AudioFormat,
    pub(crate) now_ms: u64,
}

/// The durable jobs of the fleet.
#[derive(Clone)]
pub(crate) struct JobStore {
    pub(super) jobs: Records<DurableJob>,
    pub(super) texts: Records<DurableText>,
    pub(super) audio: Objects,
    retention: Duration,
}

impl JobStore {
    pub(crate) fn new(bus: &Bus, retention: Duration) -> Self {
        Self {
            jobs: bus.records(Bucket::DURABLE_JOBS.kind(names::JOB_RECORDS)),
            texts: bus.records(Bucket::DURABLE_JOBS.kind(names::JOB_TEXTS)),
            audio: bus.objects(ObjectBucket::Audio),
            retention,
        }
    }

    pub(crate) async fn watch(&self) -> Result<RecordWatch<DurableJob>, BusError> {
        self.jobs.watch().await
    }

    pub(super) fn retention(&self) -> Duration {
        self.retention
    }

    /// How long records of a job are kept that is not over: it is given up before, by whoever takes it next.
    fn unfinished_ttl(&self) -> Duration {
        self.retention * 2
    }

    /// Keeps a job, or finds the one that was submitted under the same id before.
    pub(crate) async fn submit(&self, asked: Submission) -> Result<DurableJob, ServiceError> {
        let principal = names::DEFAULT_PRINCIPAL;
        let key = names::durable_job_key(principal, &asked.job);
        let digest = digest(&asked.request)?;
        if let Some(known) = self.jobs.get(&key).await.map_err(BusError::into_service_error)? {
            return same(known.value, &digest);
        }
        let job = DurableJob {
            principal: principal.to_owned(),
            job: asked.job,
            digest,
            format: asked.format,
            text_bytes: asked.request.text.len() as u64,
            state: DurableState::Queued,
            lease: None,
            epoch: 0,
            model: None,
            progress: JobProgress::default(),
            fruitless: 0,
            result: None,
            created_ms: asked.now_ms,
            updated_ms: asked.now_ms,
        };
        self.keep_text(&key, &job, asked.request).await?;
        match self.jobs.create_with_ttl(&key, &job, self.unfinished_ttl()).await {
            Ok(_) => Ok(job),
            Err(CasError::Exists | CasError::Conflict) => same(self.get(&job.job).await?, &job.digest),
            Err(CasError::Bus(error)) => Err(error.into_service_error()),
        }
    }

    async fn keep_text(
        &self,
        key: &str,
        job: &DurableJob,
        request: SynthesisRequest,
    ) -> Result<(), ServiceError> {
        let text = DurableText { request, prepared: None };
        match self.texts.create_with_ttl(key, &text, self.unfinished_ttl()).await {
            Ok(_) => return Ok(()),
            Err(CasError::Exists | CasError::Conflict) => {}
            Err(CasError::Bus(error)) => return Err(error.into_service_error()),
        }
        // Of a submission that did not come to its end, or that is under way beside this one.
        match self.texts.get(key).await.map_err(BusError::into_service_error)? {
            Some(kept) if digest(&kept.value.request)? != job.digest => Err(reused(&job.job)),
            _ => Ok(()),
        }
    }

    /// A job.
    pub(crate) async fn get(&self, job: &MessageId) -> Result<DurableJob, ServiceError> {
        let key = names::durable_job_key(names::DEFAULT_PRINCIPAL, job);
        let found = self.jobs.get(&key).await.map_err(BusError::into_service_error)?;
        found.map(|record| record.value).ok_or_else(|| unknown(job))
    }

    /// Gives a job up, unless it is over.
    pub(crate) async fn cancel(&self, job: &MessageId, now_ms: u64) -> Result<DurableJob, ServiceError> {
        let key = names::durable_job_key(names::DEFAULT_PRINCIPAL, job);
        for _ in 0..CHANGE_ROUNDS {
            let found = self.jobs.get(&key).await.map_err(BusError::into_service_error)?;
            let found = found.ok_or_else(|| unknown(job))?;
            if found.value.state.is_over() {
                return Ok(found.value);
            }
            let error = ServiceError::new(Reason::Cancelled, "the job was cancelled");
            let cancelled = judge::ended(&found.value, error, now_ms);
            match self.jobs.update_with_ttl(&key, &cancelled, found.revision, self.retention).await {
                Ok(_) => {
                    self.clear(&key, &cancelled).await;
                    return Ok(cancelled);
                }
                Err(CasError::Exists | CasError::Conflict) => {}
                Err(CasError::Bus(error)) => return Err(error.into_service_error()),
            }
        }
        let message = "the job changes too fast to be cancelled now";
        Err(ServiceError::new(Reason::RateLimited, message).retry_after_ms(500))
    }

    /// Forgets what an ended job needs no more. What cannot be deleted runs out by itself.
    pub(super) async fn clear(&self, key: &str, job: &DurableJob) {
        if let Err(error) = self.texts.delete(key, None).await {
            tracing::debug!(key, %error, "the text of an ended job was not deleted");
        }
        let deletes = job.progress.each_piece().map(|(epoch, piece)| async move {
            let name = names::job_piece_key(key, epoch, piece);
            if let Err(error) = self.audio.delete(&name).await {
                tracing::debug!(name, %error, "a piece of an ended job was not deleted");
            }
        });
        stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).collect::<()>().await;
    }

    /// Takes the lease of a job whose record still has `revision`; `None` when somebody else was faster.
    pub(super) async fn take(
        &self,
        key: &str,
        revision: u64,
        lease: Lease,
        now_ms: u64,
    ) -> Result<Option<Held>, BusError> {
        let Some(found) = self.jobs.get(key).await?.filter(|found| found.revision == revision) else {
            return Ok(None);
        };
        let job = judge::taken(&found.value, lease, now_ms);
        match self.jobs.update_with_ttl(key, &job, revision, self.unfinished_ttl()).await {
            Ok(revision) => Ok(Some(Held { store: self.clone(), key: key.to_owned(), job, revision })),
            Err(CasError::Exists | CasError::Conflict) => Ok(None),
            Err(CasError::Bus(error)) => Err(error),
        }
    }
}

/// The job's record was changed by somebody else, or could not be written for as long as the lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease is lost")]
pub(super) struct LeaseLost;

/// The lease on a job.
pub(super) struct Held {
    pub(super) store: JobStore,
    pub(super) key: String,
    pub(super) job: DurableJob,
    revision: u64,
}

impl Held {
    /// Writes the record on the condition that nobody else did, within `limit`.
    pub(super) async fn write(&mut self, job: DurableJob, limit: Duration) -> Result<(), LeaseLost> {
        let ttl = if job.state.is_over() { self.store.retention } else { self.store.unfinished_ttl() };
        let give_up = Instant::now() + limit;
        loop {
            let error = match self.store.jobs.update_with_ttl(&self.key, &job, self.revision, ttl).await {
                Ok(revision) => {
                    (self.job, self.revision) = (job, revision);
                    return Ok(());
                }
                Err(CasError::Bus(error)) => error,
                // It may be our own write of a moment ago, whose outcome we did not hear.
                Err(CasError::Exists | CasError::Conflict) => match self.store.jobs.get(&self.key).await {
                    Ok(Some(found)) if found.value == job => {
                        (self.job, self.revision) = (job, found.revision);
                        return Ok(());
                    }
                    Ok(_) => return Err(LeaseLost),
                    Err(error) => error,
                },
            };
            if Instant::now() >= give_up {
                tracing::warn!(job = self.key, %error, "a durable job's record cannot be written; letting go of it");
                return Err(LeaseLost);
            }
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    /// Stores a piece under the next number of this lease.
    pub(super) async fn put_piece(&self, pcm: Bytes) -> Result<(), BusError> {
        let name = names::job_piece_key(&self.key, self.job.epoch, self.job.progress.pieces());
        self.store.audio.put(&name, pcm).await
    }
}

/// What tells one request from another under the same id.
pub(crate) fn digest(request: &SynthesisRequest) -> Result<String, ServiceError> {
    let bytes = serde_json::to_vec(request).map_err(|error| {
        ServiceError::new(Reason::Malformed, format!("the request cannot be written: {error}"))
    })?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn same(known: DurableJob, digest: &str) -> Result<DurableJob, ServiceError> {
    if known.digest == digest { Ok(known) } else { Err(reused(&known.job)) }
}

fn reused(job: &MessageId) -> ServiceError {
    let message = format!("messageId {job} is that of a job with another request: choose another one");
    ServiceError::field(Reason::IdReused, "messageId", message)
}

fn unknown(job: &MessageId) -> ServiceError {
    let message = format!("there is no durable job {job} (any more)");
    ServiceError::field(Reason::UnknownJob, "job", message)
}
