//! What every chorus process stands on: named tasks, one shutdown path, an injected clock, retry policy,
//! telemetry, careful files, and child processes that never outlive us.
//!
//! The crate knows nothing of speech, of NATS or of any other chorus crate. Decisions (when to retry, when to
//! restart, what a frame is) are pure and live beside the thin code that acts on them.

pub mod clock;
pub mod fs;
pub mod process;
pub mod retry;
pub mod shutdown;
pub mod stdio;
pub mod task;
pub mod telemetry;
