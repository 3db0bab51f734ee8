//! The bus against a real nats-server: one per test, on a free loopback port, with a store of its own.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod connection;
mod messages;
mod pulls;
mod queue;
mod stores;
mod support;
