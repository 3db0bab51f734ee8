//! `tts.models.{list,load,unload}`: the catalogue, and orders to the workers that speak it.
//!
//! Loading puts a model into the catalogue, makes its consumers, and tells every live worker of its engine's kind to serve
//! it; a record ([`Placement`]) tells those that come later, or come back. Unloading takes it off the workers; with `remove` out of the catalogue too, and its queue is purged. Workers take
//! orders at once and carry them out in their own time: `tts.status` shows how far they are.

use std::time::Duration;

use chorus_bus::{Bucket, CasError, Records};
use chorus_protocol::fleet::{OrderTaken, WorkerOrder};
use chorus_protocol::names::{self, WorkerControl};
use chorus_protocol::service::{Ask, LoadModel, ModelList, ModelStatus, Placement, UnloadModel};
use chorus_protocol::{Envelope, ModelDefinition, ModelName, Reason, ServiceError, WorkerId};
use futures::future::join_all;

use super::check::check_count;
use crate::core::Core;

/// How long a worker may take to say that it took an order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(2);

/// Aliases, speakers and languages of one model at most.
const MAX_NAMES: usize = 4096;

/// Models of a catalogue at most.
const MAX_MODELS: usize = 4096;

/// The least and the most characters that a model may give as its limit: what the segmenter can honour.
const TEXT_CHARS: std::ops::RangeInclusive<u32> = 20..=10_000;

impl Core {
    /// The catalogue, by name.
    pub async fn answer_models_list(&self) -> Result<ModelList, ServiceError> {
        let models = self.catalogue().models().map(|model| ModelDefinition::clone(model)).collect();
        Ok(ModelList { models })
    }

    /// Puts a model into the catalogue and on the workers; answers how it stands.
    ///
    /// # Errors
    /// INVALID_REQUEST naming the field; RESOURCE_EXHAUSTED/no_broker when it could not be stored.
    pub async fn answer_models_load(&self, load: LoadModel) -> Result<ModelStatus, ServiceError> {
        let model = load.model;
        validate(&model)?;
        self.check_aliases(&model)?;
        self.bus.catalogue().put(&model).await.map_err(|error| error.into_service_error())?;
        self.bus.ensure_consumers(&model.name).await.map_err(|error| error.into_service_error())?;
        self.change_catalogue(|view| view.with(model.clone()));
        tracing::info!(model = %model.name, engine = %model.engine, "model is in the catalogue");
        let placement = Placement { model: model.name.clone(), since_ms: self.clock.unix_ms() };
        let placed = self.placements().put(model.name.as_str(), &placement).await;
        placed.map_err(|error| error.into_service_error())?;
        let order = WorkerOrder::Load { model: Box::new(model.clone()) };
        let engine = model.engine.clone();
        self.order_workers(WorkerControl::Load, &order, |worker| worker.engine == engine).await;
        self.status_of(&model).await
    }

    /// Takes a model off the workers and, where asked, out of the catalogue.
    ///
    /// # Errors
    /// MODEL_NOT_FOUND; RESOURCE_EXHAUSTED/no_broker when it could not be removed.
    pub async fn answer_models_unload(&self, unload: UnloadModel) -> Result<Ask, ServiceError> {
        let UnloadModel { model, remove } = unload;
        let catalogue = self.catalogue();
        if catalogue.get(&model).is_none() {
            return Err(catalogue.unknown_model(model.as_str()));
        }
        match self.placements().delete(model.as_str(), None).await {
            // Without a revision there is nothing to conflict with.
            Ok(()) | Err(CasError::Exists | CasError::Conflict) => {}
            Err(CasError::Bus(error)) => return Err(error.into_service_error()),
        }
        if remove {
            self.remove_model(&model).await?;
        }
        let order = WorkerOrder::Unload { model: model.clone() };
        let has_it = |worker: &chorus_protocol::fleet::WorkerHeartbeat| {
            worker.models.iter().any(|loaded| loaded.name == model)
        };
        self.order_workers(WorkerControl::Unload, &order, has_it).await;
        Ok(Ask {})
    }

    fn placements(&self) -> Records<Placement> {
        self.bus.records(Bucket::MODEL_ORDERS)
    }

    async fn remove_model(&self, model: &ModelName) -> Result<(), ServiceError> {
        self.bus.catalogue().remove(model).await.map_err(|error| error.into_service_error())?;
        self.change_catalogue(|view| view.without(model));
        self.bus.remove_model_queue(model).await.map_err(|error| error.into_service_error())?;
        tracing::info!(%model, "model is out of the catalogue");
        Ok(())
    }

    fn check_aliases(&self, model: &ModelDefinition) -> Result<(), ServiceError> {
        let catalogue = self.catalogue();
        if catalogue.get(&model.name).is_none() && catalogue.len() >= MAX_MODELS {
            let message = format!("the catalogue holds {MAX_MODELS} models already");
            return Err(ServiceError::field(Reason::TooLarge, "model", message));
        }
        let names = std::iter::once(model.name.as_str()).chain(model.aliases.iter().map(String::as_str));
        for name in names {
            let taken = catalogue.named(name).filter(|other| other.name != model.name);
            if let Some(other) = taken {
                let message = format!("{name:?} already means the model {}", other.name);
                return Err(ServiceError::field(Reason::Malformed, "model.aliases", message));
            }
        }
        Ok(())
    }

    /// Tells the live workers that are meant, all at once. One that does not take the order is logged: its heartbeats go
    /// on saying what it serves.
    async fn order_workers(
        &self,
        control: WorkerControl,
        order: &WorkerOrder,
        meant: impl Fn(&chorus_protocol::fleet::WorkerHeartbeat) -> bool,
    ) {
        let workers: Vec<WorkerId> =
            self.fleet().live().filter(|worker| meant(worker)).map(|worker| worker.worker.clone()).collect();
        let orders = workers.iter().map(|worker| async move {
            let subject = names::worker_control(worker, control);
            let envelope = Envelope::request(order.clone(), self.clock.unix_ms());
            match self.bus.request::<_, OrderTaken>(&subject, &envelope, ORDER_TIMEOUT).await {
                Ok(OrderTaken { incarnation }) => tracing::debug!(%worker, %incarnation, "order taken"),
                Err(error) => tracing::warn!(%worker, %subject, %error, "a worker did not take an order"),
            }
        });
        join_all(orders).await;
    }
}

fn validate(model: &ModelDefinition) -> Result<(), ServiceError> {
    let wrong = |field: &str, why: String| Err(ServiceError::field(Reason::Malformed, field, why));
    if model.engine.is_empty() {
        return wrong(
            "model.engine",
            "engine is empty: name the kind of engine that speaks this model".into(),
        );
    }
    let lists = [
        ("model.aliases", &model.aliases),
        ("model.voices", &model.voices),
        ("model.languages", &model.languages),
    ];
    for (field, list) in lists {
        check_count(field, list.len(), MAX_NAMES)?;
        if list.iter().any(|name| name.is_empty() || name.chars().any(char::is_control)) {
            return wrong(field, format!("{field} holds a name that is empty or has control characters"));
        }
    }
    match model.max_text_chars {
        Some(chars) if !TEXT_CHARS.contains(&chars) => {
            let why =
                format!("maxTextChars must be {} to {}; it is {chars}", TEXT_CHARS.start(), TEXT_CHARS.end());
            wrong("model.maxTextChars", why)
        }
        _ => Ok(()),
    }
}
