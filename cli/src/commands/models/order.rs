//! `chorus models load|unload`: a model of the catalogue onto the workers of its engine, or off them again.
//!
//! Managers pass an order on and answer at once; workers carry it out in their own time. So the fleet's status is asked
//! until they have. [`loaded`] and [`unloaded`] judge it and are pure.

use std::collections::BTreeMap;
use std::time::Duration;

use chorus_bus::Bus;
use chorus_protocol::fleet::{LoadedModel, ModelState};
use chorus_protocol::service::{
    Ask, LoadModel, ModelList, ModelStatus, ServiceStatus, UnloadModel, WorkerStatus,
};
use chorus_protocol::{ModelDefinition, ModelName, Reason, ServiceError, names};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::ask;
use crate::error::CliError;
use crate::fleet::ready;
use crate::ui::Ui;

/// What carrying an order out may take: a large model comes from the hub first.
const DONE_WITHIN: Duration = Duration::from_secs(1800);
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A model on one worker, as measured there.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct OnWorker {
    worker: String,
    /// Milliseconds that the engine took.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_ms: Option<f64>,
    /// Memory of worker and engine after it.
    rss_bytes: u64,
    /// Memory on the GPU, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_memory_bytes: Option<u64>,
}

/// Number of the newest heartbeat of each worker when an order was given.
type Heard = BTreeMap<String, u64>;

/// Loads a model of the catalogue, by name or alias, on all workers of its engine.
pub async fn load(bus: &Bus, ui: Ui, name: &str) -> Result<(), CliError> {
    let model = named(bus, name).await?;
    let before = heard(&ready::status(bus).await?);
    let spinner = ui.spinner(&format!("loading {} …", model.name));
    let order = LoadModel { model: model.clone() };
    let _catalogued: ModelStatus = ask(bus, names::MODELS_LOAD, order).await?;
    let on = until(bus, |status| loaded(status, &model, &before)).await?;
    drop(spinner);
    told(ui, "loaded", &model.name, &on);
    Ok(())
}

/// Takes a model off all workers; it stays in the catalogue.
pub async fn unload(bus: &Bus, ui: Ui, name: &str) -> Result<(), CliError> {
    let model = named(bus, name).await?.name;
    let before = ready::status(bus).await?;
    let had: Vec<String> =
        before.workers.iter().filter(|on| on_worker(on, &model).is_some()).map(id).collect();
    let unload = UnloadModel { model: model.clone(), remove: false };
    let _ordered: Ask = ask(bus, names::MODELS_UNLOAD, unload).await?;
    let on = until(bus, |status| Ok(unloaded(status, &model, &had))).await?;
    told(ui, "unloaded", &model, &on);
    Ok(())
}

async fn named(bus: &Bus, name: &str) -> Result<ModelDefinition, CliError> {
    let list: ModelList = ask(bus, names::MODELS_LIST, Ask::default()).await?;
    let is_meant = |model: &ModelDefinition| {
        model.name.as_str() == name || model.aliases.iter().any(|alias| alias == name)
    };
    list.models.into_iter().find(is_meant).ok_or_else(|| {
        ServiceError::new(Reason::UnknownModel, format!("no model {name} is in the catalogue")).into()
    })
}

async fn until(
    bus: &Bus,
    judge: impl Fn(&ServiceStatus) -> Result<Option<Vec<OnWorker>>, ServiceError>,
) -> Result<Vec<OnWorker>, CliError> {
    let deadline = Instant::now() + DONE_WITHIN;
    loop {
        if let Some(done) = judge(&ready::status(bus).await?)? {
            return Ok(done);
        }
        if Instant::now() >= deadline {
            let message = format!("the workers are not done after {} s", DONE_WITHIN.as_secs());
            return Err(ServiceError::new(Reason::Stalled, message).into());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The workers on which the model is ready, once none is left that loads it. A failure counts once a worker has said it
/// after the order: two heartbeats on, for one may have been on its way.
fn loaded(
    status: &ServiceStatus,
    model: &ModelDefinition,
    before: &Heard,
) -> Result<Option<Vec<OnWorker>>, ServiceError> {
    let meant: Vec<&WorkerStatus> =
        status.workers.iter().filter(|worker| worker.heartbeat.engine == model.engine).collect();
    if meant.is_empty() {
        let message = format!("no worker with the engine {} is there", model.engine);
        return Err(ServiceError::new(Reason::NoWorker, message));
    }
    let mut done = Vec::new();
    for worker in meant {
        let Some(on) = on_worker(worker, &model.name) else { return Ok(None) };
        match on.state {
            ModelState::Ready => done.push(measured(worker, Some(on))),
            ModelState::Loading => return Ok(None),
            ModelState::Failed => {
                let heard = before.get(&id(worker)).copied().unwrap_or_default();
                if worker.heartbeat.sequence <= heard + 1 {
                    return Ok(None);
                }
                let why = on.error.as_deref().unwrap_or("the engine does not say why");
                let message = format!("{} did not load on {}: {why}", model.name, worker.id);
                return Err(ServiceError::new(Reason::LoadFailed, message));
            }
        }
    }
    Ok(Some(done))
}

/// The workers that had the model, once none has it any more.
fn unloaded(status: &ServiceStatus, model: &ModelName, had: &[String]) -> Option<Vec<OnWorker>> {
    if status.workers.iter().any(|worker| on_worker(worker, model).is_some()) {
        return None;
    }
    let freed = status.workers.iter().filter(|worker| had.contains(&worker.id));
    Some(freed.map(|worker| measured(worker, None)).collect())
}

fn on_worker<'a>(worker: &'a WorkerStatus, model: &ModelName) -> Option<&'a LoadedModel> {
    worker.heartbeat.models.iter().find(|loaded| loaded.name == *model)
}

fn measured(worker: &WorkerStatus, model: Option<&LoadedModel>) -> OnWorker {
    OnWorker {
        worker: worker.id.clone(),
        load_ms: model.and_then(|model| model.load_ms),
        rss_bytes: worker.heartbeat.rss_bytes,
        gpu_memory_bytes: worker.heartbeat.gpu_memory_bytes,
    }
}

fn id(worker: &WorkerStatus) -> String {
    worker.id.clone()
}

fn heard(status: &ServiceStatus) -> Heard {
    status.workers.iter().map(|worker| (id(worker), worker.heartbeat.sequence)).collect()
}

fn told(ui: Ui, what: &str, model: &ModelName, on: &[OnWorker]) {
    if ui.json() {
        ui.json_line(&json!({what: model, "workers": on}));
        return;
    }
    if on.is_empty() {
        ui.line(&format!("no worker had {model}"));
    }
    for worker in on {
        let took = worker.load_ms.map(|ms| format!(" in {ms:.0} ms")).unwrap_or_default();
        let gpu = worker.gpu_memory_bytes.map(|bytes| format!(", {} MiB on the GPU", bytes >> 20));
        let memory = format!("{} MiB{}", worker.rss_bytes >> 20, gpu.unwrap_or_default());
        ui.line(&format!("{model} is {what} on {}{took}; it holds {memory}", worker.worker));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;
    use crate::fleet::ready::tests::status_with;

    /// A status with these workers, each with a name, the number of its heartbeat, and its models.
    fn status(workers: &[(&str, u64, &Value)]) -> ServiceStatus {
        let like = status_with("ready", 1);
        let worker = |&(name, sequence, models): &(&str, u64, &Value)| {
            let mut worker = like.workers[0].clone();
            worker.id = name.to_owned();
            worker.heartbeat.sequence = sequence;
            worker.heartbeat.models = from_value(models.clone()).unwrap();
            worker
        };
        let workers = workers.iter().map(worker).collect();
        ServiceStatus { workers, ..like }
    }

    fn model() -> ModelDefinition {
        from_value(json!({"name": "joe", "engine": "coqui", "source": {"path": "/voices/joe"}})).unwrap()
    }

    fn heard_until(sequence: u64) -> Heard {
        BTreeMap::from([("a".to_owned(), sequence)])
    }

    #[test]
    fn a_load_is_done_when_every_worker_of_the_engine_is_ready() {
        let ready = json!([{"name": "joe", "state": "ready", "loadMs": 3.0}]);
        let loading = json!([{"name": "joe", "state": "loading"}]);
        for still in [json!([]), loading] {
            let both = status(&[("a", 9, &ready), ("b", 9, &still)]);
            assert_eq!(loaded(&both, &model(), &Heard::new()), Ok(None));
        }
        let both = status(&[("a", 9, &ready), ("b", 9, &ready)]);
        let done = loaded(&both, &model(), &Heard::new()).unwrap().unwrap();
        assert_eq!((done.len(), done[0].load_ms, done[0].rss_bytes), (2, Some(3.0), 1));
    }

    #[test]
    fn a_failure_of_before_the_order_does_not_count() {
        let failed = json!([{"name": "joe", "state": "failed", "error": "no such file"}]);
        let one = status(&[("a", 6, &failed)]);
        assert_eq!(loaded(&one, &model(), &heard_until(5)), Ok(None));
        let error = loaded(&one, &model(), &heard_until(4)).unwrap_err();
        assert!(error.message.contains("joe did not load on a: no such file"), "{error:?}");
    }

    #[test]
    fn nobody_to_load_it_is_an_error() {
        assert_eq!(
            loaded(&status(&[]), &model(), &Heard::new()).unwrap_err().reason(),
            Some(Reason::NoWorker)
        );
    }

    #[test]
    fn an_unload_is_done_when_no_worker_has_it() {
        let name = model().name;
        let had = ["a".to_owned()];
        let with = status(&[("a", 9, &json!([{"name": "joe", "state": "ready"}]))]);
        assert_eq!(unloaded(&with, &name, &had), None);
        let without = status(&[("a", 9, &json!([])), ("b", 9, &json!([]))]);
        let freed = unloaded(&without, &name, &had).unwrap();
        assert_eq!((freed.len(), freed[0].worker.as_str(), freed[0].load_ms), (1, "a", None));
    }
}
