//! The binary `chorus`: one command speaks, `chorus up` keeps a fleet, the others look after it.
//!
//! ```text
//!  main ─► app ── args (what was typed) ─► config (defaults < file < environment < flags) ─► commands
//!                                                                                              │
//!    locate: --nats, the run file's fleet, or none            fleet: broker, manager, workers of our own
//! ```
//! Nothing here knows how speech is made or carried: [`commands`] put the other crates together, [`fleet`] starts and ends
//! them in order, [`error`] turns every failure into two lines and an exit code, [`bench`] measures what all of it adds
//! to the engine's own time, and [`conformance`] checks engines and gateways of others.

pub mod app;
pub mod args;
pub mod bench;
pub mod commands;
pub mod config;
pub mod conformance;
pub mod error;
pub mod fleet;
pub mod input;
pub mod locate;
pub mod output;
pub mod runfile;
pub mod switches;
pub mod ui;
