//! `chorus status`: how the fleet is, as its manager says; succeeds only when a model can speak.

use chorus_protocol::breaker::BreakerState;
use chorus_protocol::fleet::ModelState;
use chorus_protocol::service::{BreakerStatus, ServiceStatus, WorkerStatus};
use serde_json::json;

use crate::app::Context;
use crate::error::CliError;
use crate::fleet::ready;
use crate::locate::{self, unless_stopped};
use crate::ui::{Tone, Ui, table};

/// Runs the command.
pub async fn run(context: Context) -> Result<(), CliError> {
    let asking = async {
        let bus = locate::connect(&context).await?;
        let status = ready::status(&bus).await;
        bus.close().await;
        status
    };
    let status = unless_stopped(&context.shutdown, asking).await?;
    if context.ui.json() {
        context.ui.json_line(&json!(status));
    } else {
        print(context.ui, &status);
    }
    if ready::can_speak(&status) { Ok(()) } else { Err(CliError::Reported) }
}

fn print(ui: Ui, status: &ServiceStatus) {
    let state = format!("{:?}", status.state).to_lowercase();
    let tone = if ready::can_speak(status) { Tone::Good } else { Tone::Bad };
    let broker = status.nats.as_ref();
    let broker =
        broker.map_or_else(String::new, |nats| format!("  {} (nats-server {})", nats.url, nats.version));
    ui.line(&format!("{}{broker}", ui.paint(tone, &state)));
    for line in lines(status) {
        ui.line(&line);
    }
}

fn lines(status: &ServiceStatus) -> Vec<String> {
    let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<String>>();
    let mut models = vec![cells(&["MODEL", "READY ON", "QUEUED", ""])];
    models.extend(status.models.iter().map(|model| {
        let mark = if model.default { "default" } else { "" };
        vec![
            model.name.to_string(),
            model.ready_workers.to_string(),
            model.queued.to_string(),
            mark.to_owned(),
        ]
    }));
    let mut workers = vec![cells(&[
        "WORKER",
        "HOST",
        "PID",
        "ENGINE",
        "DEVICE",
        "IN FLIGHT",
        "DONE",
        "BREAKER",
        "HEARD",
        "MODELS",
    ])];
    workers.extend(status.workers.iter().map(worker));
    let mut managers = vec![cells(&["MANAGER", "HOST", "PID", "HEARD"])];
    managers.extend(status.managers.iter().map(|manager| {
        let (id, host, pid) = (manager.id.clone(), manager.heartbeat.host.clone(), manager.heartbeat.pid);
        vec![id, host, pid.to_string(), ago(manager.last_heartbeat_ms)]
    }));
    [table(&models), table(&workers), table(&managers)].join(&String::new())
}

fn worker(worker: &WorkerStatus) -> Vec<String> {
    let beat = &worker.heartbeat;
    let state = |state| match state {
        ModelState::Loading => " (loading)",
        ModelState::Ready => "",
        ModelState::Failed => " (failed)",
    };
    let models: Vec<String> =
        beat.models.iter().map(|model| format!("{}{}", model.name, state(model.state))).collect();
    let engine =
        beat.engine_pid.map_or_else(|| format!("{} -", beat.engine), |pid| format!("{} {pid}", beat.engine));
    vec![
        worker.id.clone(),
        beat.host.clone(),
        beat.pid.to_string(),
        engine,
        beat.device.kind.clone(),
        beat.in_flight.to_string(),
        beat.jobs_done.to_string(),
        worker.breaker.as_ref().map_or_else(|| "-".to_owned(), breaker),
        ago(worker.last_heartbeat_ms),
        if models.is_empty() { "-".to_owned() } else { models.join(", ") },
    ]
}

/// Such as `closed`, `closed, 20 % failed`, `open, tried in 59.0 s`.
fn breaker(breaker: &BreakerStatus) -> String {
    let state = match breaker.state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
    };
    match breaker.retry_in_ms {
        Some(ms) => format!("{state}, tried in {}", ago(ms)),
        None if breaker.failure_rate > 0.0 => {
            format!("{state}, {:.0} % failed", breaker.failure_rate * 100.0)
        }
        None => state.to_owned(),
    }
}

fn ago(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::ready::tests::status_with;

    #[test]
    fn the_table_names_all_there_is() {
        let text = lines(&status_with("loading", 0)).join("\n");
        for word in ["joe", "default", "coqui 8", "cpu", "(loading)", "0.0 s", "MANAGER"] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
    }

    #[test]
    fn a_breaker_says_what_an_operator_asks_first() {
        let of = |state, failure_rate, retry_in_ms| {
            breaker(&BreakerStatus { state, since_ms: 1, failure_rate, runs: 10, retry_in_ms })
        };
        assert_eq!(of(BreakerState::Closed, 0.0, None), "closed");
        assert_eq!(of(BreakerState::Closed, 0.2, None), "closed, 20 % failed");
        assert_eq!(of(BreakerState::Open, 0.6, Some(59_000)), "open, tried in 59.0 s");
        assert_eq!(of(BreakerState::HalfOpen, 0.0, None), "half-open");
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let status = json!(status_with("ready", 1));
        assert!(status["nats"]["url"].is_string() && status["managers"].is_array());
        let worker = &status["workers"][0];
        for field in
            ["id", "pid", "enginePid", "host", "device", "models", "inFlight", "jobsDone", "lastHeartbeatMs"]
        {
            assert!(!worker[field].is_null(), "{field}");
        }
    }
}
