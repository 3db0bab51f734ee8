//! Whether a fleet can speak, judged from its own status.
//!
//! [`judge`] is pure; [`wait`] asks a manager until it says yes or no, or the time is up, and shows what is waited for.

use std::time::Duration;

use chorus_bus::Bus;
use chorus_protocol::fleet::{LoadedModel, ModelState};
use chorus_protocol::service::{Ask, ServiceStatus};
use chorus_protocol::{Envelope, Reason, ServiceError, names};
use chorus_runtime::clock::{Clock as _, SystemClock};
use tokio::time::Instant;

use crate::error::CliError;
use crate::ui::Spinner;

/// Time between two questions.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// How long one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a status says about speaking.
#[derive(Debug, Clone, PartialEq)]
pub enum Judged {
    /// A model can speak.
    Ready,
    /// Not yet; what is going on, for a person.
    Waiting(String),
    /// No model will: this is why.
    Failed(ServiceError),
}

/// Judges a status.
pub fn judge(status: &ServiceStatus) -> Judged {
    if can_speak(status) {
        return Judged::Ready;
    }
    let models = || status.workers.iter().flat_map(|worker| &worker.heartbeat.models);
    if let Some(loading) = models().find(|model| model.state == ModelState::Loading) {
        return Judged::Waiting(format!("loading voice {} …", loading.name));
    }
    let failed: Vec<&LoadedModel> = models().filter(|model| model.state == ModelState::Failed).collect();
    match failed.first() {
        Some(model) => {
            let why = model.error.as_deref().unwrap_or("the engine does not say why");
            let message = format!("the model {} did not load: {why}", model.name);
            Judged::Failed(ServiceError::new(Reason::LoadFailed, message))
        }
        None => Judged::Waiting("starting the engine …".to_owned()),
    }
}

/// Whether any model can speak now.
pub fn can_speak(status: &ServiceStatus) -> bool {
    status.models.iter().any(|model| model.ready_workers > 0)
}

/// On how many workers the model that most of them speak can speak now.
fn speaking(status: &ServiceStatus) -> usize {
    status.models.iter().map(|model| model.ready_workers as usize).max().unwrap_or_default()
}

/// One status of the fleet.
pub async fn status(bus: &Bus) -> Result<ServiceStatus, CliError> {
    let question = Envelope::request(Ask::default(), SystemClock.unix_ms());
    Ok(bus.request(names::STATUS, &question, ANSWER_WITHIN).await?)
}

/// Waits until a model can speak on so many workers.
///
/// # Errors
/// INIT_FAILED when none will, or none does within `limit`.
pub async fn wait(
    bus: &Bus,
    workers: usize,
    limit: Duration,
    spinner: &Spinner,
) -> Result<ServiceStatus, CliError> {
    let deadline = Instant::now() + limit;
    let mut waiting_for = "starting the fleet …".to_owned();
    loop {
        match status(bus).await {
            Ok(status) => match judge(&status) {
                Judged::Ready if speaking(&status) >= workers => return Ok(status),
                Judged::Ready => waiting_for = "starting more workers …".to_owned(),
                Judged::Failed(error) => return Err(error.into()),
                Judged::Waiting(what) => waiting_for = what,
            },
            Err(error) => tracing::debug!(%error, "no status yet"),
        }
        spinner.say(&waiting_for);
        if Instant::now() >= deadline {
            let message = format!("no model can speak after {} s ({waiting_for})", limit.as_secs());
            return Err(ServiceError::new(Reason::EngineStart, message).into());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A status with one worker whose one model is in this state.
    pub(crate) fn status_with(state: &str, ready_workers: u32) -> ServiceStatus {
        let incarnation = chorus_protocol::Incarnation::new().to_string();
        let worker = json!({
            "id": "w", "lastHeartbeatMs": 20, "worker": "w", "incarnation": incarnation, "sequence": 1, "pid": 7,
            "enginePid": 8, "host": "h", "version": "0.1.0", "engine": "coqui", "device": {"kind": "cpu", "threads": 2},
            "models": [{"name": "joe", "state": state, "error": "no file"}], "credits": {"total": 1, "free": 1},
            "inFlight": 0, "jobsDone": 3, "jobsFailed": 0, "engineRestarts": 0, "rssBytes": 1, "cpuPercent": 0.0,
            "latency": {"p50Ms": 0.0, "p95Ms": 0.0, "p99Ms": 0.0, "realTimeFactor": 0.2}, "uptimeMs": 5,
        });
        serde_json::from_value(json!({
            "state": "ready", "nats": {"url": "nats://127.0.0.1:1", "version": "2.15.1", "maxPayload": 1},
            "managers": [], "workers": [worker],
            "models": [{"name": "joe", "default": true, "aliases": [], "readyWorkers": ready_workers, "queued": 0}],
        }))
        .unwrap()
    }

    #[test]
    fn a_fleet_is_ready_waiting_or_failed() {
        assert_eq!(judge(&status_with("ready", 1)), Judged::Ready);
        assert_eq!(judge(&status_with("loading", 0)), Judged::Waiting("loading voice joe …".into()));
        match judge(&status_with("failed", 0)) {
            Judged::Failed(error) => assert!(error.message.contains("no file"), "{error}"),
            other => panic!("{other:?}"),
        }
        let empty = ServiceStatus { workers: Vec::new(), ..status_with("ready", 0) };
        assert!(matches!(judge(&empty), Judged::Waiting(_)));
    }
}
