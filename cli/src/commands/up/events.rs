//! The fleet's events as lines: what failed, and with `--verbose` what was spoken.

use chorus_bus::{Bus, Incoming};
use chorus_protocol::fleet::FleetEvent;
use chorus_protocol::job::{Outcome, OutcomeKind};
use chorus_protocol::names;

use crate::error::CliError;
use crate::ui::{Tone, Ui};

/// Events that the status tells better.
const TOLD_ELSEWHERE: [&str; 2] = ["workerStarted", "workerStopped"];

/// Tells events until it is dropped.
pub(super) async fn tell(ui: Ui, bus: &Bus, verbose: bool) -> Result<(), CliError> {
    let mut events = bus.subscribe(names::ALL_EVENTS, None).await?;
    while let Some(event) = events.next().await {
        match line(&event, verbose) {
            Some((Some(tone), text)) => ui.line(&ui.paint(tone, &text)),
            Some((None, text)) => ui.line(&text),
            None => {}
        }
    }
    Err(CliError::Fleet { part: "events", why: "the connection to the broker was closed".into() })
}

fn line(event: &Incoming, verbose: bool) -> Option<(Option<Tone>, String)> {
    if event.subject() == super::outcome_subject() {
        return outcome(&event.decode::<Outcome>().ok()?.payload, verbose);
    }
    match event.decode::<FleetEvent>() {
        Ok(envelope) => fleet(&envelope.payload),
        Err(error) => {
            tracing::debug!(subject = event.subject(), %error, "an event cannot be read");
            None
        }
    }
}

fn fleet(event: &FleetEvent) -> Option<(Option<Tone>, String)> {
    if TOLD_ELSEWHERE.contains(&event.kind.as_str()) {
        return None;
    }
    let who = event.worker_id.as_ref().map_or_else(String::new, |worker| format!("{worker}: "));
    let tone = matches!(event.kind.as_str(), "workerFailed" | "workerLost").then_some(Tone::Warn);
    Some((tone, format!("{who}{}: {}", event.kind, event.message)))
}

fn outcome(outcome: &Outcome, verbose: bool) -> Option<(Option<Tone>, String)> {
    let worker = &outcome.worker;
    if outcome.outcome == OutcomeKind::Success {
        let seconds = outcome.samples as f64 / f64::from(outcome.sample_rate.max(1));
        let (chars, engine_ms, run_ms) = (outcome.text_chars, outcome.engine_ms, outcome.run_ms);
        let text = format!(
            "{worker}: spoke {chars} characters, {seconds:.1} s in {run_ms:.0} ms (engine {engine_ms:.0} ms)"
        );
        return verbose.then_some((Some(Tone::Dim), text));
    }
    let why = outcome
        .error
        .as_ref()
        .map_or_else(|| format!("{:?}", outcome.outcome), |error| error.message.clone());
    let tone = (outcome.outcome == OutcomeKind::WorkerFault).then_some(Tone::Warn);
    let run = &outcome.run;
    Some((tone, format!("{worker}: segment {} attempt {} failed: {why}", run.segment, run.attempt)))
}

#[cfg(test)]
mod tests {
    use chorus_protocol::job::RunRef;
    use chorus_protocol::{JobClass, ModelName, Reason, RunId, ServiceError, SessionId, WorkerId};

    use super::*;

    #[test]
    fn failures_are_told_and_successes_on_request() {
        let run =
            RunRef { session: SessionId::from_u128(1), segment: 2, attempt: 1, run: RunId::from_u128(1) };
        let success = Outcome {
            run,
            worker: WorkerId::new("w").unwrap(),
            model: ModelName::new("joe").unwrap(),
            class: JobClass::High,
            outcome: OutcomeKind::Success,
            engine_ms: 90.0,
            run_ms: 91.4,
            text_chars: 12,
            samples: 22_050,
            sample_rate: 22_050,
            error: None,
        };
        assert_eq!(outcome(&success, false), None);
        let (_, text) = outcome(&success, true).unwrap();
        assert_eq!(text, "w: spoke 12 characters, 1.0 s in 91 ms (engine 90 ms)");
        let error = Some(ServiceError::new(Reason::EngineCrashed, "signal 9"));
        let (tone, text) =
            outcome(&Outcome { outcome: OutcomeKind::WorkerFault, error, ..success }, false).unwrap();
        assert_eq!((tone, text.as_str()), (Some(Tone::Warn), "w: segment 2 attempt 1 failed: signal 9"));
    }
}
