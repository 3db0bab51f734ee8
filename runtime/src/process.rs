//! Child processes: the only place that starts any.
//!
//! A [`ProcessSpec`] says what to run. [`Child::spawn`] starts it in a process group of its own, under a
//! guard (this same program, see [`guard`]) that ends the group when we die, however we die. Its output is
//! drained from birth into a [`LogRing`]; its frame pipe, when it has one, is read and written with
//! [`framing`]. [`supervisor`] keeps one child alive, and [`run_to_end`] runs one that is meant to end.

pub mod child;
pub mod framing;
pub mod guard;
mod launch;
mod limits;
pub mod logs;
pub mod run;
pub mod spec;
pub mod supervisor;
mod tree;

pub use child::{Child, Exit, ExitWatch, FramePipe, Program};
pub use framing::{FrameError, FrameReader, FrameWriter, Line, LineReader};
pub use launch::SpawnError;
pub use limits::ProgramLimits;
pub use logs::{LogPolicy, LogRing, LogSink, Stream};
pub use run::{Output, RunError, RunLimits, run_to_end};
pub use spec::{GuardBinary, Pipes, ProcessSpec, StreamPolicy};
pub use tree::{children, descendants};
