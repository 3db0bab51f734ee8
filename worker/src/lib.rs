//! A worker: one engine process, fed from the queue, speaking to the sessions that asked.
//!
//! ```text
//!  queue ──pull──▶ run ──started?──▶ session        pull     which job next, and whether there is room
//!                  │ ▲ ◀──go/stop───                run      one delivery: the arbiter's questions, chunks, result
//!             text │ │ pieces ─────▶                engine   the process, its pipe, its restarts
//!                  ▼ │                              models   what is loaded
//!                 engine                            control  pings, orders      heartbeat  figures
//!                                        life     canaries, recycling
//! ```
//!
//! [`pull`] owns the credits and asks for jobs; each delivery becomes a [`run`], a pure state machine with one task around
//! it; the run speaks through the [`engine`]'s pipe and sends the pieces on as they come. [`runs`] is the table that all
//! others look at. What was spoken is stored on the side (`keep`); somebody's speech to speak like is fetched before (`clips`). [`service`] starts everything and knows the one way out.
//!
//! Decisions (what to pull, what a run does next, which model to load) are pure and take the time as an argument.

mod clips;
pub mod config;
pub mod control;
pub mod engine;
mod events;
mod gate;
pub mod handle;
mod health;
mod heartbeat;
mod keep;
mod life;
mod metrics;
mod models;
pub mod pull;
pub mod run;
mod runs;
pub mod service;
mod usage;
mod voicing;

pub use config::{Assigned, ConfigError, EngineConfig, WorkerConfig};
pub use control::GateOrder;
pub use handle::WorkerHandle;
pub use life::canary::CanaryConfig;
pub use life::recycle::RecycleConfig;
pub use service::{WorkerError, WorkerService};
