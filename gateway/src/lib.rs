//! The fleet for clients that do not speak NATS.
//!
//! [`stdio`] is `chorus stdio`: a parent process speaks protocol 1.0, 2.0 or 2.1 on our stdin and stdout, as it did with the
//! single Python script that chorus replaces, and gets a fleet. [`fleet`] is what a gateway needs of one, which may still be
//! starting; [`recording`] turns speech into a file or into bytes, in bounded memory; [`place`] says where a file may lie.

pub mod fleet;
pub mod place;
pub mod recording;
pub mod stdio;

pub use fleet::{Access, Fleet, FleetState};
pub use place::Root;
