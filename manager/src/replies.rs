//! One messageId, one synthesis: what plain requests were answered, so that a request asked again is not spoken again.
//!
//! ```text
//!   tts.synthesize ─► claim (create in KV) ── ours ──────────► speak ─► reply ─► keep (the answer, in the record)
//!                          └── somebody's: wait for the answer, take the claim over when its holder is gone
//! ```
//!
//! The record of a claim names its holder, a manager's start; a holder that the fleet does not hear any more has lost it. What
//! failed is not kept: the client shall be able to try again. Records run out by the bucket's age, and the oldest go when
//! it is full ([`Layout`](chorus_bus::Layout)), so nothing here is deleted in the usual case. [`judge`] decides (pure); a
//! bucket that does not answer costs the promise and not the request.

use std::time::{Duration, Instant};

use chorus_bus::{Bucket, CasError, Records, Versioned};
use chorus_protocol::durable::{Lease, PlainReply};
use chorus_protocol::{MessageId, Reason, ServiceError, SynthesisResult, names};

use crate::core::Core;

/// How often is looked for an answer that somebody else is about to give: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// A claim on a messageId, under which the answer is kept.
pub(crate) struct Claimed {
    key: String,
    revision: u64,
    reply: PlainReply,
}

/// What is known of a request under this id.
pub(crate) enum Claim {
    /// Nobody has answered it: it is ours to speak, and to keep where there is a claim.
    Ours(Option<Claimed>),
    /// It was answered before.
    Answered(Box<SynthesisResult>),
}

/// What a record means for who asks under its id.
#[derive(Debug, PartialEq)]
enum Step {
    Answer(Box<SynthesisResult>),
    Wait,
    TakeOver,
    Reused,
}

fn judge(found: PlainReply, digest: &str, holder_lives: impl FnOnce(&Lease) -> bool) -> Step {
    if found.digest != digest {
        return Step::Reused;
    }
    match found.result {
        Some(result) => Step::Answer(Box::new(result)),
        None if holder_lives(&found.holder) => Step::Wait,
        None => Step::TakeOver,
    }
}

impl Core {
    /// Claims a messageId, or finds its answer; waits until `until` for somebody else's.
    ///
    /// # Errors
    /// INVALID_REQUEST/id_reused when another request bears the id; TIMEOUT/first_audio when no answer came in time.
    pub(crate) async fn claim_reply(
        &self,
        id: &MessageId,
        digest: String,
        until: Instant,
    ) -> Result<Claim, ServiceError> {
        let records = self.replies();
        let key = names::durable_job_key(names::DEFAULT_PRINCIPAL, id);
        let holder = Lease { manager: self.id.clone(), incarnation: self.incarnation };
        let reply = PlainReply { digest, holder, result: None, created_ms: self.clock.unix_ms() };
        let mut look = FIRST_LOOK;
        loop {
            let tried = match self.look_at(&records, &key, &reply).await {
                Ok(tried) => tried,
                Err(error) => {
                    tracing::warn!(%error, "a request is spoken without a claim on its messageId");
                    return Ok(Claim::Ours(None));
                }
            };
            match tried {
                Tried::Ours(revision) => return Ok(Claim::Ours(Some(Claimed { key, revision, reply }))),
                Tried::Judged(Step::Answer(result)) => return Ok(Claim::Answered(result)),
                Tried::Judged(Step::Reused) => return Err(reused(id)),
                Tried::Judged(Step::Wait | Step::TakeOver) => {}
            }
            if self.clock.now() + look >= until {
                let message = "the same request is still being spoken; ask again under its messageId";
                return Err(ServiceError::new(Reason::FirstAudio, message));
            }
            tokio::time::sleep(look).await;
            look = (look * 2).min(LONGEST_LOOK);
        }
    }

    /// Keeps the answer under its claim; a failed one gives the claim back.
    pub(crate) async fn keep_reply(&self, claimed: Claimed, result: &SynthesisResult) {
        let Claimed { key, revision, reply } = claimed;
        let records = self.replies();
        let kept = if result.success {
            let reply = PlainReply { result: Some(result.clone()), ..reply };
            records.update(&key, &reply, revision).await.map(|_| ())
        } else {
            records.delete(&key, Some(revision)).await
        };
        if let Err(error) = kept {
            tracing::debug!(key, %error, "an answer is not kept: asked again, it is spoken again");
        }
    }

    fn replies(&self) -> Records<PlainReply> {
        self.bus.records(Bucket::REPLIES)
    }

    async fn look_at(
        &self,
        records: &Records<PlainReply>,
        key: &str,
        reply: &PlainReply,
    ) -> Result<Tried, chorus_bus::BusError> {
        match records.create(key, reply).await {
            Ok(revision) => return Ok(Tried::Ours(revision)),
            Err(CasError::Exists | CasError::Conflict) => {}
            Err(CasError::Bus(error)) => return Err(error),
        }
        // Gone between the two: created at the next look.
        let Some(Versioned { value, revision }) = records.get(key).await? else {
            return Ok(Tried::Judged(Step::Wait));
        };
        let step = judge(value, &reply.digest, |holder| self.lives(holder));
        if step != Step::TakeOver {
            return Ok(Tried::Judged(step));
        }
        match records.update(key, reply, revision).await {
            Ok(revision) => Ok(Tried::Ours(revision)),
            Err(CasError::Exists | CasError::Conflict) => Ok(Tried::Judged(Step::Wait)),
            Err(CasError::Bus(error)) => Err(error),
        }
    }

    /// Whether a manager's start is still there. One that has just begun does not know yet who is.
    fn lives(&self, holder: &Lease) -> bool {
        let now = self.clock.now();
        let limit = self.config.liveness.manager_timeout;
        let is_us = (&holder.manager, holder.incarnation) == (&self.id, self.incarnation);
        let knows_nobody_yet = now.saturating_duration_since(self.started) < limit;
        is_us || knows_nobody_yet || self.fleet().hears(&holder.manager, holder.incarnation, limit, now)
    }
}

/// What came of a look.
enum Tried {
    Ours(u64),
    Judged(Step),
}

fn reused(id: &MessageId) -> ServiceError {
    let message = format!("messageId {id} is that of another request: choose another one");
    ServiceError::field(Reason::IdReused, "messageId", message)
}

#[cfg(test)]
mod tests {
    use chorus_protocol::{Incarnation, ManagerId};

    use super::*;

    fn reply(result: Option<SynthesisResult>) -> PlainReply {
        let holder = Lease { manager: ManagerId::new("m").unwrap(), incarnation: Incarnation::from_u128(1) };
        PlainReply { digest: "d".into(), holder, result, created_ms: 1 }
    }

    #[test]
    fn an_answer_is_given_again_a_living_holder_waited_for_and_a_dead_one_replaced() {
        let error = ServiceError::new(Reason::QueueFull, "full");
        let result = SynthesisResult::failed(MessageId::new("a").unwrap(), 1.0, error);
        let answered = reply(Some(result.clone()));
        assert_eq!(judge(answered, "d", |_| false), Step::Answer(Box::new(result)), "whoever gave it");
        assert_eq!(judge(reply(None), "d", |_| true), Step::Wait);
        assert_eq!(judge(reply(None), "d", |_| false), Step::TakeOver);
        assert_eq!(judge(reply(None), "e", |_| false), Step::Reused);
    }
}
