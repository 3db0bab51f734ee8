//! The manager: answers what sessions and operators ask, and keeps nothing about a request.
//!
//! ```text
//!   sessions ── tts.open, tts.advance, … ─► api ─► plan, admit (pure) ─► publish ─► TTS_JOBS
//!   clients  ── tts.synthesize ──────────► api ─► a session in this process ─► the same methods of `Core`
//!   workers  ── heartbeats, outcomes ────► listen ─► fleet, figures (pure) ─► status, metrics, events, hooks
//!   KV       ── tts-jobs ────────────────► jobs: sessions in this process that outlive it, through their records
//!   workers  ◄─ pings ───────────────────── ping ─► liveness, rendezvous (pure) ─► workerLost
//!   KV       ── tts-models ──────────────► catalogue (watch) ─► resolve (pure)
//! ```
//!
//! [`service`] starts and stops it. There may be several managers on one broker, and any may die: whatever an answer
//! needs comes with the question or from the broker.

mod admission;
pub mod admit;
mod api;
pub mod breaker;
pub mod cache;
pub mod catalogue;
pub mod config;
pub mod core;
pub mod error;
mod events;
pub mod figures;
pub mod fleet;
pub mod hooks;
pub mod jobs;
mod listen;
pub mod liveness;
mod ping;
pub mod plan;
mod publish;
pub mod rendezvous;
mod replies;
pub mod service;

pub use cache::CacheConfig;
pub use config::{ConfigError, ManagerConfig};
pub use core::Core;
pub use error::ManagerError;
pub use hooks::{Hook, HookError, HookPoint};
pub use jobs::JobsConfig;
pub use service::{Manager, ManagerHandle};
