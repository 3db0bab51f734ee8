//! One durable consumer per model and class: where workers pull from.
//!
//! The server orders pull requests, not messages, so each class of a model needs a consumer of its own. Creating one that
//! exists is harmless but costs a round trip, so each process remembers what it has made sure of; it forgets at a
//! disconnect and when a pull finds a consumer gone.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, IntoConsumerConfig, pull};
use chorus_protocol::{JobClass, ModelName, names};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::api::{ApiError, code};
use crate::bus::Bus;
use crate::error::BusError;

/// A delivery that is neither ended nor in progress for so long goes to another worker (measured: 811 ms after a SIGKILL).
const ACK_WAIT: Duration = Duration::from_secs(1);
/// Above the slots of any fleet, so that the queue never holds back work that a worker has room for.
const MAX_ACK_PENDING: i64 = 10_000;
/// Pull requests that may wait (the server's default of 512 answers further ones with a conflict).
const MAX_WAITING: i64 = 4_096;

fn consumer_config(model: &ModelName, class: JobClass) -> pull::Config {
    pull::Config {
        durable_name: Some(names::job_consumer(model, class)),
        filter_subject: names::job_subject(model, class),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        max_waiting: MAX_WAITING,
        ..pull::Config::default()
    }
}

impl Bus {
    /// Makes sure of the four consumers of a model.
    ///
    /// # Errors
    /// `NotFound` when the jobs' stream is missing (see [`Bus::ensure_layout`]), `Refused`, `Timeout`, `Disconnected`.
    pub async fn ensure_consumers(&self, model: &ModelName) -> Result<(), BusError> {
        if self.inner.ensured_consumers().contains(model) {
            return Ok(());
        }
        let creating = JobClass::BY_URGENCY.map(|class| self.create_consumer(model, class));
        futures::future::try_join_all(creating).await?;
        self.inner.ensured_consumers().insert(model.clone());
        Ok(())
    }

    async fn create_consumer(&self, model: &ModelName, class: JobClass) -> Result<(), BusError> {
        let (stream, name) = (names::JOBS_STREAM, names::job_consumer(model, class));
        let config = consumer_config(model, class).into_consumer_config();
        let body = json!({ "stream_name": stream, "config": config });
        let created =
            self.inner.api::<_, IgnoredAny>(&format!("CONSUMER.CREATE.{stream}.{name}"), &body).await;
        created.map(|_| ()).map_err(|error| error.into_bus(&format!("consumer {name} of stream {stream}")))
    }

    /// Takes a model off the queue: its consumers go (waiting pulls end), then its jobs.
    ///
    /// # Errors
    /// `NotFound` when the jobs' stream is missing, `Refused`, `Timeout`, `Disconnected`.
    pub async fn remove_model_queue(&self, model: &ModelName) -> Result<(), BusError> {
        self.inner.ensured_consumers().remove(model);
        let deleting = JobClass::BY_URGENCY.map(|class| self.delete_consumer(model, class));
        futures::future::try_join_all(deleting).await?;
        self.inner.purge_stored(names::JOBS_STREAM, &names::model_jobs(model)).await.map(|_| ())
    }

    async fn delete_consumer(&self, model: &ModelName, class: JobClass) -> Result<(), BusError> {
        let (stream, name) = (names::JOBS_STREAM, names::job_consumer(model, class));
        match self.inner.api_bare::<IgnoredAny>(&format!("CONSUMER.DELETE.{stream}.{name}")).await {
            Err(ApiError::Fault(fault)) if fault.err_code == code::CONSUMER_NOT_FOUND => Ok(()),
            deleted => deleted
                .map(|_| ())
                .map_err(|error| error.into_bus(&format!("consumer {name} of stream {stream}"))),
        }
    }
}
