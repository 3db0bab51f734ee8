//! Managers against a real nats-server: one per test, on a free loopback port, with a store of its own.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod admission;
mod breakers;
mod hooks;
mod jobs;
mod liveness;
mod malformed;
mod models;
mod plain;
mod sessions;
mod support;
mod watching;
