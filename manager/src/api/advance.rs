//! `tts.advance`: a session asks on: further segments, retries, look-ups.
//!
//! Look-ups come first, because they change nothing: where the broker does not answer them, the whole question fails
//! before anything was published, and is asked again.

use chorus_protocol::plan::{Advance, Advanced, Lookup, LookupAnswer, Retry, Speech};
use chorus_protocol::{Reason, ServiceError, SynthesisRequest};
use chorus_runtime::telemetry::TraceContext;
use futures::{StreamExt, TryStreamExt, stream};

use super::check::{check_count, check_inbox, check_text, check_unplanned};
use crate::admit::Stage;
use crate::core::Core;
use crate::plan::{PlanQuestion, plan};
use crate::publish::Asker;

/// The most retries, and the most look-ups, of one question: several times the largest window.
const MAX_ENTRIES: usize = 256;

/// Look-ups that are asked of the broker at once.
const LOOKUPS_AT_ONCE: usize = 16;

impl Core {
    /// Goes on with a session.
    ///
    /// # Errors
    /// INVALID_REQUEST; MODEL_NOT_FOUND when the model was removed; RESOURCE_EXHAUSTED/no_broker when look-ups got no
    /// answer. Segments that the queue did not take are no error: their disposition says so.
    pub async fn answer_advance(
        &self,
        advance: Advance,
        traceparent: Option<String>,
    ) -> Result<Advanced, ServiceError> {
        let trace = TraceContext::continue_from(traceparent.as_deref()).traceparent();
        validate(&advance)?;
        let catalogue = self.catalogue();
        let model = &advance.speech.model;
        let definition = catalogue.get(model).ok_or_else(|| catalogue.unknown_model(model.as_str()))?;
        let lookups = self.look_up(&advance.lookups).await?;

        let asker = Asker {
            session: advance.session,
            inbox: &advance.inbox,
            speech: &advance.speech,
            traceparent: &trace,
        };
        let mut retries = Vec::with_capacity(advance.retries.len());
        for retry in advance.retries {
            retries.push(self.publish_retry(&asker, retry).await);
        }
        let question = PlanQuestion {
            text: &advance.text,
            text_complete: advance.text_complete,
            first_index: advance.next_segment,
            window: self.window(advance.window),
            urgent: advance.urgent,
            priority: advance.speech.priority,
        };
        let plan = plan(&question, &self.segmenter_for(definition));
        let found = self.look_up_takes(&advance.speech, &plan.drafts, advance.takes).await;
        let page = self.publish_page(&asker, plan, found, Stage::UnderWay).await?;
        Ok(Advanced { page, retries, lookups, ready_workers: self.ready_workers(model) })
    }

    async fn look_up(&self, lookups: &[Lookup]) -> Result<Vec<LookupAnswer>, ServiceError> {
        let asked = lookups.iter().copied().map(|Lookup { segment, attempt, seq }| async move {
            let present = self.bus.job_exists(seq).await.map_err(|error| error.into_service_error())?;
            Ok::<_, ServiceError>(LookupAnswer { segment, attempt, present })
        });
        stream::iter(asked).buffered(LOOKUPS_AT_ONCE).try_collect().await
    }
}

fn validate(advance: &Advance) -> Result<(), ServiceError> {
    check_inbox(&advance.inbox)?;
    check_unplanned(&advance.text)?;
    check_speech(&advance.speech)?;
    check_count("retries", advance.retries.len(), MAX_ENTRIES)?;
    check_count("lookups", advance.lookups.len(), MAX_ENTRIES)?;
    advance.retries.iter().try_for_each(validate_retry)
}

/// The speech came from a manager, but it comes back from a session: its figures are checked as a request's are.
fn check_speech(speech: &Speech) -> Result<(), ServiceError> {
    let (speed, pitch) = (speech.speed, speech.pitch);
    SynthesisRequest { text: "-".into(), speed, pitch, ..SynthesisRequest::default() }.validate()
}

fn validate_retry(retry: &Retry) -> Result<(), ServiceError> {
    check_text("retries.text", &retry.text)?;
    if retry.text.trim().is_empty() {
        return Err(ServiceError::field(Reason::Unspeakable, "retries.text", "a retry says nothing"));
    }
    if retry.attempt < 2 {
        let message = format!("a retry is attempt 2 or later; it is {}", retry.attempt);
        return Err(ServiceError::field(Reason::Malformed, "retries.attempt", message));
    }
    check_count("retries.tried", retry.tried.len(), MAX_ENTRIES)
}
