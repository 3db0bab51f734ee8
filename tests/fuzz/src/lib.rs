//! Whatever bytes come, the decoders, the adapters between versions and the readers of configurations answer: with a message,
//! or with a typed error.
//!
//! [`TARGETS`] are the ways in. Each takes any bytes; it must neither panic nor hang, and what it accepts must stay what it is
//! when it is written and read again. Two programs feed them: [`Fuzzer`] here, which mutates the golden vectors on any
//! stable toolchain (ten seconds of it in every test run, `chorus-fuzz` for as long as one likes), and `cargo fuzz` in
//! `libfuzzer`, which is led by coverage and begins with what `chorus-fuzz --write-corpus FOLDER` has written; its `Cargo.toml`
//! says how.

mod configuration;
mod corpus;
mod frames;
mod fuzzer;
mod mutate;
mod targets;
mod tree;

pub use corpus::corpus;
pub use fuzzer::{Fault, Fuzzer, Stats, peak_mib};
pub use targets::{TARGETS, Target, target};
