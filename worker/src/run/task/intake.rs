//! What becomes of a delivery before it is a run: read, or refused in a way that its session hears of.

use chorus_bus::Delivery;
use chorus_protocol::codec::{self, DecodeError};
use chorus_protocol::job::{Failed, Job, RunOutcome, RunRef, RunResult};
use chorus_protocol::names::{SessionSubject, session_subject};
use chorus_protocol::{JobId, RunId, ServiceError};
use serde::Deserialize;
use serde_json::Map;

use super::RunContext;
use super::ask::{Question, ask};
use crate::run::Event;
use crate::run::limits::MAX_JOB_BYTES;

/// A run of a job, under a fresh name.
pub(super) fn run_of(job: &JobId) -> RunRef {
    RunRef { session: job.session, segment: job.segment, attempt: job.attempt, run: RunId::new() }
}

/// The job of a delivery and the inbox of its session; `None` when the delivery was ended here.
pub(super) async fn take_in(context: &RunContext, delivery: Delivery) -> Option<(Delivery, Job, String)> {
    let job = match delivery.job() {
        Ok(envelope) => envelope.payload,
        Err(error) => {
            refuse(context, delivery, error).await;
            return None;
        }
    };
    let Some(inbox) = delivery.inbox.clone() else {
        give_up(context, delivery, "a job without a session's inbox").await;
        return None;
    };
    let speaks = context.models.borrow().ready.contains(&job.speech.model)
        && context.engine.borrow().session().is_some();
    if !speaks {
        context.hand_back(delivery, context.config.run.retry_after).await;
        return None;
    }
    Some((delivery, job, inbox))
}

/// The part of a job that a newer version is sure to keep.
#[derive(Deserialize)]
struct AnyJob {
    payload: JobId,
}

/// A job that cannot be read is answered with why, where anybody can be found to hear it.
async fn refuse(context: &RunContext, delivery: Delivery, error: DecodeError) {
    let known = codec::decode_value::<AnyJob>(&delivery.payload, MAX_JOB_BYTES).ok();
    let (Some(inbox), Some(AnyJob { payload: job })) = (&delivery.inbox, known) else {
        return give_up(context, delivery, &format!("a job that cannot be read: {error}")).await;
    };
    tracing::warn!(%error, %job, "a job cannot be read");
    let failed = Failed { error: ServiceError::from(error), stderr: Vec::new() };
    let result = RunResult {
        run: run_of(&job),
        worker: context.config.id.clone(),
        outcome: RunOutcome::Failed(failed),
    };
    let subject = session_subject(inbox, SessionSubject::Result);
    let question = Question::Result { subject, question: Box::new(result) };
    let within = context.config.run.answer_within;
    let traceparent = delivery.traceparent.clone();
    let judged = ask(context.bus.clone(), context.clock.clone(), question, traceparent, within).await;
    context.metrics.failed();
    let ended = match judged {
        Event::Judged(Ok(chorus_protocol::job::ResultAnswer::Accepted)) => delivery.ack().await,
        _ => delivery.terminate().await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the end of a delivery was not told");
    }
}

/// A job that nobody can be told about leaves the queue, with an event.
async fn give_up(context: &RunContext, delivery: Delivery, why: &str) {
    let mut details = Map::new();
    details.insert("subject".to_owned(), delivery.subject.clone().into());
    details.insert("seq".to_owned(), delivery.seq.into());
    tracing::warn!(subject = %delivery.subject, seq = delivery.seq, "terminated {why}");
    context.metrics.failed();
    if let Err(error) = delivery.terminate().await {
        tracing::debug!(%error, "the end of a delivery was not told");
    }
    context.events.fleet("jobUnreadable", format!("terminated {why}"), details).await;
}
