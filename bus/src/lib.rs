//! All of NATS, behind words of our own: no other crate names the client library.
//!
//! A [`Bus`] is one connection, cheap to clone. It carries three kinds of traffic:
//! - **core messages**: [`Bus::publish`], [`Bus::request`], [`Bus::subscribe`], [`Bus::respond`]; envelopes in, envelopes
//!   out, sizes checked before anything is sent, every question with a time-out and a typed failure;
//! - **the queue**: [`Bus::publish_job`] puts a job into the work-queue stream under its id; a [`Puller`] asks for jobs
//!   and hands out each as a [`Delivery`], a guard that gives the job back when it is forgotten;
//! - **stored things**: the [`Catalogue`] of models (a KV bucket) and the [`AudioStore`] (an object bucket).
//!
//! [`Layout`] says what streams and buckets there are and how large they may grow; [`Bus::ensure_layout`] makes them so.
//! The connection heals by itself. What was under way when it broke ends with a typed error or event, never in silence.

mod api;
mod audio_store;
mod bus;
mod catalogue;
mod config;
mod connect;
mod consumers;
mod delivery;
mod error;
mod jobs;
mod layout;
mod link;
mod messages;
mod pull;

pub use audio_store::AudioStore;
pub use bus::{Bus, ServerInfo};
pub use catalogue::{Catalogue, CatalogueChange, CatalogueWatch};
pub use config::BusConfig;
pub use delivery::{Delivery, InProgress};
pub use error::{BusError, BusErrorKind, PublishError, PublishErrorKind, RequestError, RequestErrorKind};
pub use jobs::{OutgoingJob, QueueDepth};
pub use layout::Layout;
pub use link::ConnectionState;
pub use messages::{Incoming, Subscription};
pub use pull::{PullEnd, PullEvent, PullRequest, PullWait, Puller};
