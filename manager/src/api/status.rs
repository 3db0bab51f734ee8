//! `tts.status`: how the fleet is, as this manager sees it.

use std::collections::HashMap;

use chorus_bus::QueueDepth;
use chorus_protocol::service::{BrokerStatus, ModelStatus, ServiceState, ServiceStatus, WorkerStatus};
use chorus_protocol::{ModelDefinition, ServiceError, names};

use crate::core::Core;

impl Core {
    /// The state of the fleet.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED/no_broker when the broker does not tell the depth of the queues.
    pub async fn answer_status(&self) -> Result<ServiceStatus, ServiceError> {
        let depths = self.depths().await?;
        let catalogue = self.catalogue();
        let now = self.clock.now();
        let server = self.bus.server();
        let fleet = self.fleet();
        let models: Vec<(ModelStatus, bool)> = catalogue
            .models()
            .map(|model| {
                let ready_workers = fleet.ready_for(&model.name).count() as u32;
                let loading = fleet.loading(&model.name).next().is_some();
                (model_status(model, ready_workers, &depths), loading)
            })
            .collect();
        Ok(ServiceStatus {
            state: state_of(models.iter().map(|(model, loading)| (model.ready_workers > 0, *loading))),
            nats: Some(BrokerStatus {
                url: server.url,
                version: server.version,
                max_payload: server.max_payload,
            }),
            managers: fleet.managers(now),
            workers: self.with_breakers(fleet.workers(now)),
            models: models.into_iter().map(|(model, _)| model).collect(),
        })
    }

    fn with_breakers(&self, mut workers: Vec<WorkerStatus>) -> Vec<WorkerStatus> {
        if self.config.breaker_enabled {
            let (book, now_ms) = (self.breakers.book(), self.clock.unix_ms());
            for worker in &mut workers {
                worker.breaker = Some(book.status(&worker.heartbeat.worker, now_ms));
            }
        }
        workers
    }

    /// One model as the status shows it.
    ///
    /// # Errors
    /// As [`Core::answer_status`].
    pub(crate) async fn status_of(&self, model: &ModelDefinition) -> Result<ModelStatus, ServiceError> {
        let depths = self.depths().await?;
        Ok(model_status(model, self.ready_workers(&model.name), &depths))
    }

    /// Jobs waiting, by the model's subject token.
    pub(crate) async fn depths(&self) -> Result<HashMap<String, QueueDepth>, ServiceError> {
        self.bus.queue_depths().await.map_err(|error| error.into_service_error())
    }
}

fn model_status(
    model: &ModelDefinition,
    ready_workers: u32,
    depths: &HashMap<String, QueueDepth>,
) -> ModelStatus {
    let depth = depths.get(&names::encode_token(model.name.as_str()));
    ModelStatus {
        name: model.name.clone(),
        default: model.default,
        aliases: model.aliases.clone(),
        ready_workers,
        queued: depth.map_or(0, QueueDepth::total),
    }
}

/// How the fleet is, from whether each model is ready and whether it is being loaded somewhere.
fn state_of(models: impl Iterator<Item = (bool, bool)>) -> ServiceState {
    let (mut ready, mut waiting, mut loading) = (0, 0, 0);
    for (is_ready, is_loading) in models {
        if is_ready {
            ready += 1;
        } else {
            waiting += 1;
            loading += u32::from(is_loading);
        }
    }
    match (ready, waiting, loading) {
        (0, _, 0) => ServiceState::Down,
        (0, _, _) => ServiceState::Starting,
        (_, 0, _) => ServiceState::Ready,
        _ => ServiceState::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_models() {
        let state = |models: &[(bool, bool)]| state_of(models.iter().copied());
        assert_eq!(state(&[]), ServiceState::Down);
        assert_eq!(state(&[(false, false)]), ServiceState::Down);
        assert_eq!(state(&[(false, true), (false, false)]), ServiceState::Starting);
        assert_eq!(state(&[(true, false), (false, true)]), ServiceState::Degraded);
        assert_eq!(state(&[(true, true), (true, false)]), ServiceState::Ready);
    }
}
