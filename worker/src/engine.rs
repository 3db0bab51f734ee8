//! The engine of a worker: a supervised process, spoken to through a pipe of frames.
//!
//! [`Engine::start`] keeps one process alive through the runtime's supervisor. Each process gets a [`Link`] after it has
//! shaken hands; [`Engine::state`] shows the present one. When a link ends, all its requests end with it, and the
//! supervisor starts the next process. [`wire`] reads frames, [`router`] finds the request that a message belongs to.
//! [`legacy`] stands between a link and a script that speaks lines of an older protocol.

pub mod handshake;
pub mod legacy;
pub mod link;
mod router;
pub mod supervise;
mod wire;

pub use link::{Behind, Call, End, Link, Liveness, Told};
pub use supervise::{Engine, EngineState, Session};
