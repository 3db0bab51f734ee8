//! Follows the fleet's own status and tells what changed in it. [`changes`] is pure.

use std::collections::BTreeMap;
use std::time::Duration;

use chorus_bus::Bus;
use chorus_protocol::fleet::{LoadedModel, ModelState};
use chorus_protocol::service::{ServiceStatus, WorkerStatus};

use crate::error::CliError;
use crate::fleet::ready;
use crate::ui::{Tone, Ui};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What was seen last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    speaks: bool,
    /// By worker: its process and how far each of its models is.
    workers: BTreeMap<String, (u32, BTreeMap<String, ModelState>)>,
}

/// A change worth a line.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    tone: Option<Tone>,
    text: String,
}

/// Watches until it is dropped.
pub(super) async fn watch(ui: Ui, bus: &Bus) -> Result<(), CliError> {
    let mut seen = Seen::default();
    loop {
        match ready::status(bus).await {
            Ok(status) => {
                for change in changes(&mut seen, &status) {
                    ui.line(&change.tone.map_or(change.text.clone(), |tone| ui.paint(tone, &change.text)));
                }
            }
            Err(error) => tracing::debug!(%error, "no status"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn changes(seen: &mut Seen, status: &ServiceStatus) -> Vec<Change> {
    let mut told = Vec::new();
    let mut news = |tone, text: String| told.push(Change { tone, text });
    let now = Seen { speaks: ready::can_speak(status), workers: status.workers.iter().map(see).collect() };
    for worker in &status.workers {
        let (id, beat) = (&worker.id, &worker.heartbeat);
        let before = seen.workers.get(id).filter(|(pid, _)| *pid == beat.pid);
        if before.is_none() {
            news(None, format!("{id}: here, process {}, engine {}", beat.pid, beat.engine));
        }
        for model in &beat.models {
            if before.and_then(|(_, models)| models.get(model.name.as_str())) != Some(&model.state) {
                let tone = (model.state == ModelState::Failed).then_some(Tone::Bad);
                news(tone, format!("{id}: {}", describe(model)));
            }
        }
    }
    for id in seen.workers.keys().filter(|id| !now.workers.contains_key(*id)) {
        news(Some(Tone::Warn), format!("{id}: gone"));
    }
    if now.speaks && !seen.speaks {
        let broker = status.nats.as_ref().map_or("", |nats| nats.url.as_str());
        news(Some(Tone::Good), format!("ready: {broker}  say: chorus say \"hello\""));
    }
    if seen.speaks && !now.speaks {
        news(Some(Tone::Warn), "no model can speak now".to_owned());
    }
    *seen = now;
    told
}

fn see(worker: &WorkerStatus) -> (String, (u32, BTreeMap<String, ModelState>)) {
    let models = worker.heartbeat.models.iter().map(|model| (model.name.to_string(), model.state));
    (worker.id.clone(), (worker.heartbeat.pid, models.collect()))
}

fn describe(model: &LoadedModel) -> String {
    let name = &model.name;
    match model.state {
        ModelState::Loading => format!("loading {name}"),
        ModelState::Ready => match model.load_ms {
            Some(ms) => format!("{name} is ready, loaded in {:.1} s", ms / 1000.0),
            None => format!("{name} is ready"),
        },
        ModelState::Failed => {
            format!(
                "{name} did not load: {}",
                model.error.as_deref().unwrap_or("the engine does not say why")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::ready::tests::status_with;

    fn texts(seen: &mut Seen, status: &ServiceStatus) -> Vec<String> {
        changes(seen, status).into_iter().map(|change| change.text).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let mut seen = Seen::default();
        let loading = status_with("loading", 0);
        assert_eq!(texts(&mut seen, &loading), ["w: here, process 7, engine coqui", "w: loading joe"]);
        assert!(texts(&mut seen, &loading).is_empty());
        let ready = status_with("ready", 1);
        assert_eq!(
            texts(&mut seen, &ready),
            ["w: joe is ready", "ready: nats://127.0.0.1:1  say: chorus say \"hello\""]
        );
        let mut gone = status_with("ready", 0);
        gone.workers.clear();
        assert_eq!(texts(&mut seen, &gone), ["w: gone", "no model can speak now"]);
        assert_eq!(texts(&mut seen, &ready).len(), 3, "it is back");
    }

    #[test]
    fn a_worker_that_was_started_again_is_news() {
        let mut seen = Seen::default();
        texts(&mut seen, &status_with("ready", 1));
        let mut again = status_with("ready", 1);
        again.workers[0].heartbeat.pid = 9;
        assert_eq!(texts(&mut seen, &again), ["w: here, process 9, engine coqui", "w: joe is ready"]);
    }
}
