//! Putting segments on the queue: the effect behind the plan.
//!
//! Jobs of a page are published one after another, so that their sequences follow their indexes, and each under its job
//! id, so that a question asked twice puts nothing on the queue twice. The first refusal ends the page: what follows it
//! stays unplanned in the session's hands.

use chorus_bus::OutgoingJob;
use chorus_protocol::job::Job;
use chorus_protocol::plan::{Disposition, PlanPage, PlannedSegment, Retry, RetryAnswer, Speech};
use chorus_protocol::{JobClass, ServiceError, SessionId};

use crate::admit::{Stage, Verdict, judge};
use crate::core::Core;
use crate::plan::{Draft, Plan};

/// For whom jobs are published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The session.
    pub(crate) session: SessionId,
    /// Where workers find it.
    pub(crate) inbox: &'a str,
    /// How its segments are spoken.
    pub(crate) speech: &'a Speech,
    /// Its trace.
    pub(crate) traceparent: &'a str,
}

impl Core {
    /// Publishes the drafts of a plan, in order, but for those whose takes were found.
    ///
    /// # Errors
    /// At [`Stage::Opening`], when the first of them cannot be queued.
    pub(crate) async fn publish_page(
        &self,
        asker: &Asker<'_>,
        mut plan: Plan,
        found: Vec<Option<Disposition>>,
        stage: Stage,
    ) -> Result<PlanPage, ServiceError> {
        let ends_bytes: Vec<usize> = (1..=plan.drafts.len()).map(|queued| plan.consumed_by(queued)).collect();
        let drafts = std::mem::take(&mut plan.drafts);
        let mut page = PlanPage {
            segments: Vec::with_capacity(drafts.len()),
            consumed_bytes: plan.consumed_bytes,
            complete: plan.complete,
            warnings: plan.warnings,
        };
        for ((draft, end_bytes), found) in drafts.into_iter().zip(ends_bytes).zip(found) {
            let stage = if page.segments.is_empty() { stage } else { Stage::UnderWay };
            let start_bytes = draft.start_bytes;
            let disposition = match found {
                Some(found) => found,
                None => self.queue_draft(asker, &draft, stage).await?,
            };
            let refused = matches!(disposition, Disposition::Refused { .. });
            let Draft { index, text, pause_after_ms, manner, class, .. } = draft;
            page.segments.push(PlannedSegment {
                index,
                text,
                pause_after_ms,
                manner,
                class,
                end_bytes,
                disposition,
            });
            if refused {
                page.consumed_bytes = start_bytes;
                page.complete = false;
                break;
            }
        }
        Ok(page)
    }

    /// Publishes the next attempt at a segment, after its forerunner was taken off the queue.
    pub(crate) async fn publish_retry(&self, asker: &Asker<'_>, retry: Retry) -> RetryAnswer {
        if let Some(seq) = retry.supersedes
            && let Err(error) = self.bus.delete_job(seq).await
        {
            // Not a fault of the retry: the session stops the old attempt when it is started.
            tracing::warn!(session = %asker.session, seq, %error, "a superseded job was not deleted");
        }
        let Retry { segment, text, manner, attempt, class, failures, tried, .. } = retry;
        if failures > 1
            && class != JobClass::Urgent
            && let Err(error) = self.retries().spend(class, self.clock.now())
        {
            return RetryAnswer { segment, disposition: Disposition::Refused { error } };
        }
        let (session, speech) = (asker.session, asker.speech.with(manner.as_ref()));
        let keep = self.config.cache.enabled;
        let job = Job { session, segment, attempt, text, speech, class, keep };
        let outgoing = OutgoingJob { failures, tried: &tried, ..self.outgoing(asker, &job) };
        let disposition = match self.bus.publish_job(&outgoing).await {
            Ok(seq) => Disposition::Queued { attempt, seq },
            Err(error) => match judge(error.into_service_error(), Stage::UnderWay, self.config.retry_after) {
                Verdict::Fail(error) | Verdict::Refuse(error) => Disposition::Refused { error },
            },
        };
        RetryAnswer { segment, disposition }
    }

    async fn queue_draft(
        &self,
        asker: &Asker<'_>,
        draft: &Draft,
        stage: Stage,
    ) -> Result<Disposition, ServiceError> {
        match self.publish_draft(asker, draft).await {
            Ok(seq) => Ok(Disposition::Queued { attempt: 1, seq }),
            Err(error) => match judge(error, stage, self.config.retry_after) {
                Verdict::Fail(error) => Err(error),
                Verdict::Refuse(error) => Ok(Disposition::Refused { error }),
            },
        }
    }

    async fn publish_draft(&self, asker: &Asker<'_>, draft: &Draft) -> Result<u64, ServiceError> {
        let job = Job {
            session: asker.session,
            segment: draft.index,
            attempt: 1,
            text: draft.text.clone(),
            speech: asker.speech.with(draft.manner.as_ref()),
            class: draft.class,
            keep: self.config.cache.enabled,
        };
        let outgoing = self.outgoing(asker, &job);
        let seq = self.bus.publish_job(&outgoing).await.map_err(|error| error.into_service_error())?;
        self.backlog().add(&asker.speech.model, draft.class);
        self.retries().earn(draft.class);
        Ok(seq)
    }

    fn outgoing<'a>(&self, asker: &'a Asker<'_>, job: &'a Job) -> OutgoingJob<'a> {
        OutgoingJob {
            job,
            inbox: asker.inbox,
            failures: 0,
            tried: &[],
            traceparent: Some(asker.traceparent),
            now_ms: self.clock.unix_ms(),
        }
    }
}
