//! A worker against the real broker and a real engine process, with sessions played by hand.

#![allow(clippy::unwrap_used, reason = "what serves a test fails it as the test itself would")]

mod support;

mod breaker;
#[cfg(target_os = "linux")]
mod command;
mod faults;
mod leaving;
mod life;
mod speaking;
