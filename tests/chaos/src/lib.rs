//! Chaos as a program: a fleet is hurt on purpose while listeners listen, and every sample is checked.
//!
//! ```text
//!   Scenario (data) ─► run ─┬─ fleet: nats-server, managers, workers; real processes       drive: the steps, in order
//!                           ├─ load: clients that compare what they hear with what they must hear
//!                           ├─ wiretap ─► runs: who was in the middle of what, and who took over
//!                           └─ report: figures, and which checks did not hold
//! ```
//! The tests of the workspace run [`scenarios::short`]; `chorus bench chaos` runs [`scenarios::long`], or any by its name.
//! Scenarios use the `checkable` engine, whose samples say which text, segment and place they are of ([`checkable`]), so loss,
//! repetition and mixing are seen to the sample. How to write one: see [`scenario`].

pub mod checkable;
mod drive;
mod error;
mod fleet;
mod link;
mod load;
mod proc;
pub mod report;
mod run;
mod runs;
pub mod scenario;
pub mod scenarios;
pub mod switches;
mod usage;
mod wiretap;

pub use error::ChaosError;
pub use fleet::Programs;
pub use report::Report;
pub use run::run;
pub use scenario::Scenario;
