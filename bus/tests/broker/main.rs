//! The bus against a real nats-server: one per test, on a free loopback port, with a store of its own.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod cluster;
mod connection;
mod dead;
mod messages;
mod pulls;
mod queue;
mod records;
mod stores;
mod support;
mod takes;
mod traffic;
mod trouble;
