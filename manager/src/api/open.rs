//! `tts.open`: a session begins.
//!
//! Checks the request, lets `beforeSynthesis` hooks change it, finds its voice, plans the first window, looks for takes of it
//! that are stored, refuses what would be heard too late, and puts the window on the queue. Nothing is remembered: the answer carries all that the session sends back with its next question.

use std::time::Duration;

use chorus_protocol::plan::{Disposition, Open, Opened};
use chorus_protocol::{Reason, ServiceError, SynthesisRequest};
use chorus_runtime::telemetry::TraceContext;

use super::check::{check_inbox, check_text};
use crate::admit::Stage;
use crate::catalogue::Resolved;
use crate::core::Core;
use crate::hooks::HookPoint;
use crate::plan::{Plan, PlanQuestion, plan};
use crate::publish::Asker;

impl Core {
    /// Opens a session.
    ///
    /// # Errors
    /// INVALID_REQUEST, MODEL_NOT_FOUND, or RESOURCE_EXHAUSTED when it would be heard too late or nothing of it could be queued.
    pub async fn answer_open(&self, open: Open, traceparent: Option<String>) -> Result<Opened, ServiceError> {
        let trace = TraceContext::continue_from(traceparent.as_deref()).traceparent();
        check_inbox(&open.inbox)?;
        check_text("text", &open.request.text)?;
        validate(&open.request, open.text_complete)?;
        let text_before = open.request.text.clone();
        let request = if open.first_segment == 0 {
            let (request, failures) = self.hooks.before(open.request, open.text_complete).await;
            self.tell_hook_failures(failures).await;
            request
        } else {
            open.request
        };

        let Resolved { definition, speech } = self.catalogue().resolve(&request)?;
        let question = PlanQuestion {
            text: &request.text,
            text_complete: open.text_complete,
            first_index: open.first_segment,
            window: self.window(open.window),
            urgent: false,
            priority: speech.priority,
        };
        let plan = plan(&question, &self.segmenter_for(&definition));
        if open.first_segment == 0 {
            refuse_unspeakable(&plan)?;
        }
        let found = self.look_up_takes(&speech, &plan.drafts, open.takes).await;
        let deadline = request.deadline_ms.map_or(self.config.default_deadline, Duration::from_millis);
        // What is stored needs no worker.
        if !matches!(found.first(), Some(Some(Disposition::Stored { .. }))) {
            self.refuse_when_all_open(&speech.model)?;
            if let Some(first) = plan.drafts.first() {
                self.admit_first(&speech.model, first, deadline)?;
            }
        }
        let asker = Asker { session: open.session, inbox: &open.inbox, speech: &speech, traceparent: &trace };
        let page = self.publish_page(&asker, plan, found, Stage::Opening).await?;
        let (session, segments) = (open.session, page.segments.len());
        tracing::debug!(%session, request = %open.request_id, model = %speech.model, segments, "opened");
        let ready_workers = self.ready_workers(&speech.model);
        Ok(Opened {
            manager: self.id.clone(),
            deadline_ms: deadline.as_millis() as u64,
            attempt_timeout_ms: self.config.breaker.timeout_ms,
            finish: self.hooks.wanted_at(HookPoint::AfterSynthesis),
            text: (request.text != text_before).then_some(request.text),
            speech,
            page,
            ready_workers,
        })
    }

    /// How many segments a session may have planned at once.
    pub(crate) fn window(&self, asked: u32) -> usize {
        (asked as usize).min(self.config.max_window)
    }
}

/// Checks the request's fields. A first piece of text may be blank when more will come.
fn validate(request: &SynthesisRequest, text_complete: bool) -> Result<(), ServiceError> {
    if text_complete || !request.text.trim().is_empty() {
        return request.validate();
    }
    SynthesisRequest { text: "-".into(), ..request.clone() }.validate()
}

fn refuse_unspeakable(plan: &Plan) -> Result<(), ServiceError> {
    if !plan.complete || !plan.drafts.is_empty() {
        return Ok(());
    }
    let message = "the text holds no letter and no digit: there is nothing to say";
    Err(ServiceError::field(Reason::Unspeakable, "text", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_first_piece_is_welcome_only_when_more_will_come() {
        let blank = SynthesisRequest { text: " ".into(), ..SynthesisRequest::default() };
        assert!(validate(&blank, false).is_ok());
        assert_eq!(validate(&blank, true).unwrap_err().reason(), Some(Reason::Unspeakable));
        let fast = SynthesisRequest { speed: Some(9.0), ..blank };
        assert_eq!(validate(&fast, false).unwrap_err().details.unwrap()["field"], "speed");
    }
}
