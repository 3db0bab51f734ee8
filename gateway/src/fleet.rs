//! A fleet as a gateway sees it: starting, there, or gone.
//!
//! Whoever starts or finds the fleet publishes [`FleetState`]; the gateway answers from the first moment, and what needs a
//! fleet waits for it.

use std::sync::Arc;
use std::time::Duration;

use chorus_bus::Bus;
use chorus_client::SessionHost;
use chorus_protocol::{Envelope, ModelDefinition, Reason, ServiceError};
use chorus_runtime::clock::SharedClock;
use serde_json::Value;
use tokio::sync::watch;

/// How long a manager may take to answer a question of a client.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A fleet that can be asked.
#[derive(Clone)]
pub struct Fleet {
    /// Its broker.
    pub bus: Bus,
    /// Our sessions on it.
    pub sessions: SessionHost,
}

/// How far a fleet is.
#[derive(Clone)]
pub enum FleetState {
    /// Not there yet.
    Starting,
    /// There.
    Ready(Fleet),
    /// It will not come, or has ended.
    Failed(ServiceError),
}

/// Turns what a client calls a model into its definition.
pub type Resolver = Arc<dyn Fn(&str) -> Result<ModelDefinition, ServiceError> + Send + Sync>;

/// The way to a fleet. A cheap clone.
#[derive(Clone)]
pub struct Access {
    state: watch::Receiver<FleetState>,
    clock: SharedClock,
    resolver: Resolver,
}

impl Access {
    /// To the fleet whose state is published there. `resolver` knows the models of this machine.
    pub fn new(state: watch::Receiver<FleetState>, clock: SharedClock, resolver: Resolver) -> Self {
        Self { state, clock, resolver }
    }

    /// The time.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The fleet, if it is there.
    pub fn now(&self) -> Option<Fleet> {
        match &*self.state.borrow() {
            FleetState::Ready(fleet) => Some(fleet.clone()),
            FleetState::Starting | FleetState::Failed(_) => None,
        }
    }

    /// Waits for the fleet.
    ///
    /// # Errors
    /// Why it will not come.
    pub async fn ready(&self) -> Result<Fleet, ServiceError> {
        let mut state = self.state.clone();
        let decided = state.wait_for(|state| !matches!(state, FleetState::Starting)).await;
        match decided.as_deref() {
            Ok(FleetState::Ready(fleet)) => Ok(fleet.clone()),
            Ok(FleetState::Failed(error)) => Err(error.clone()),
            Ok(FleetState::Starting) | Err(_) => {
                Err(ServiceError::new(Reason::EngineStart, "the fleet was stopped before it could speak"))
            }
        }
    }

    /// Waits until it is known that there is no fleet (any more); why.
    pub async fn failed(&self) -> ServiceError {
        let mut state = self.state.clone();
        loop {
            let failed = match &*state.borrow_and_update() {
                FleetState::Failed(error) => Some(error.clone()),
                FleetState::Starting | FleetState::Ready(_) => None,
            };
            if let Some(error) = failed {
                return error;
            }
            if state.changed().await.is_err() {
                // Nobody can tell any more; who waits is told otherwise.
                return std::future::pending().await;
            }
        }
    }

    /// Asks a manager, and hands its answer on as it is: fields that only newer ones know stay in it.
    ///
    /// # Errors
    /// The manager's error, or that none answered.
    pub async fn ask(&self, subject: &str, question: Value) -> Result<Value, ServiceError> {
        let fleet = self.ready().await?;
        let envelope = Envelope::request(question, self.clock.unix_ms());
        let answer = fleet.bus.request(subject, &envelope, ANSWER_WITHIN).await;
        answer.map_err(|error| error.into_service_error())
    }

    /// What a name means on this machine.
    ///
    /// # Errors
    /// MODEL_NOT_FOUND.
    pub fn resolve(&self, name: &str) -> Result<ModelDefinition, ServiceError> {
        (self.resolver)(name)
    }
}
