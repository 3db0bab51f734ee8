//! All of NATS, behind words of our own: no other crate names the client library.
//!
//! A [`Bus`] is one connection, cheap to clone. It carries three kinds of traffic:
//! - **core messages**: [`Bus::publish`], [`Bus::request`], [`Bus::subscribe`], [`Bus::respond`]; envelopes in, envelopes
//!   out, sizes checked before anything is sent, every question with a time-out and a typed failure;
//! - **the queue**: [`Bus::publish_job`] puts a job into the work-queue stream under its id; a [`Puller`] asks for jobs
//!   and hands out each as a [`Delivery`], a guard that gives the job back when it is forgotten;
//! - **stored things**: [`Records`] under compare-and-set (KV buckets; the [`Catalogue`] of models is one), [`Objects`]
//!   (audio, in object buckets), [`Clips`] (somebody's speech), [`Takes`] (the cache) and [`DeadLetters`].
//!
//! [`Layout`] says what streams and buckets there are and how large they may grow; [`Bus::ensure_layout`] makes them so.
//! The connection heals by itself. What was under way when it broke ends with a typed error or event, never in silence.

mod api;
mod bus;
mod catalogue;
mod clips;
mod config;
mod confirm;
mod connect;
mod consumers;
mod dead_letters;
mod delivery;
mod error;
mod jobs;
mod layout;
mod link;
mod messages;
mod objects;
mod pull;
mod records;
mod stored;
mod takes;
mod wire;

pub use bus::{Bus, ServerInfo};
pub use catalogue::{Catalogue, CatalogueChange, CatalogueWatch};
pub use clips::Clips;
pub use config::BusConfig;
pub use dead_letters::{DeadLetters, DeadQuery, StoredLetter};
pub use delivery::{Delivery, InProgress};
pub use error::{BusError, BusErrorKind, PublishError, PublishErrorKind, RequestError, RequestErrorKind};
pub use jobs::{OutgoingJob, QueueDepth};
pub use layout::Layout;
pub use link::ConnectionState;
pub use messages::{Incoming, Subscription};
pub use objects::{ObjectBucket, Objects};
pub use pull::{PullEnd, PullEvent, PullRequest, PullWait, Puller};
pub use records::{Bucket, CasError, RecordChange, RecordWatch, Records, Versioned};
pub use takes::{Takes, TakesSize};
pub use wire::Wire;
