//! The short set of chaos: whatever is killed, stopped or spoilt, listeners hear every sample once.
//!
//! Pauses are printed and only bounded generously: how long they may be is measured by `chorus bench chaos`, on a machine
//! that does nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use chorus_chaos::{Programs, scenarios};
use chorus_tests::{Home, chorus, fleet};

async fn holds(name: &str) {
    let home = Home::provisioned();
    let parts = chorus(&home, &["setup", "--profile", "test", "--json"]).await.ok().json();
    let path = |part: &str| parts[part].as_str().unwrap().into();
    let programs = Programs {
        chorus: fleet::binary(),
        nats_server: path("natsServer"),
        python: path("python"),
        engine: path("engine"),
        environment: std::env::vars_os().collect(),
        temporary: home.path().to_owned(),
    };
    let report = chorus_chaos::run(&programs, &scenarios::named(name).unwrap()).await.unwrap();
    #[allow(clippy::print_stdout, reason = "the figures of a run stand beside its verdict")]
    {
        println!("{}", report.lines().join("\n"));
    }
    assert!(report.passed(), "{:#}", report.to_json());
}

#[tokio::test]
async fn a_worker_killed_in_mid_utterance() {
    holds("worker-sigkill").await;
}

#[tokio::test]
async fn a_worker_killed_under_plain_requests() {
    holds("plain-worker-sigkill").await;
}

#[tokio::test]
async fn a_worker_stopped_in_mid_utterance() {
    holds("worker-sigstop").await;
}

#[tokio::test]
async fn an_engine_killed_in_mid_utterance() {
    holds("engine-sigkill").await;
}

#[tokio::test]
async fn a_manager_killed() {
    holds("manager-sigkill").await;
}

#[tokio::test]
async fn a_broker_killed_and_started_again() {
    holds("broker-restart").await;
}

#[tokio::test]
async fn engines_that_write_garbage_crash_and_lose_audio() {
    holds("engine-garbage").await;
}

#[tokio::test]
async fn an_engine_that_hangs() {
    holds("engine-hang").await;
}

#[tokio::test]
async fn no_worker_is_left() {
    holds("nobody-left").await;
}

#[tokio::test]
async fn a_broker_away_for_longer_than_the_deadline() {
    holds("broker-gone").await;
}

#[tokio::test]
async fn connections_reset() {
    holds("links-cut").await;
}

#[tokio::test]
async fn workers_and_managers_replaced_one_by_one() {
    holds("rolling-upgrade").await;
}

#[tokio::test]
async fn every_manager_killed_and_begun_again() {
    holds("managers-away").await;
}

#[tokio::test]
async fn segments_that_take_longer_than_the_queue_waits() {
    holds("long-segments").await;
}

#[tokio::test]
async fn jobs_that_vanish_from_the_queue() {
    holds("queue-emptied").await;
}

#[tokio::test]
async fn garbage_on_the_pipe_of_an_engine() {
    holds("engine-noise").await;
}

#[tokio::test]
async fn the_only_engine_killed() {
    holds("lone-engine-sigkill").await;
}

#[tokio::test]
async fn an_engine_over_its_memory_limit() {
    holds("memory-limit").await;
}

#[tokio::test]
async fn a_link_down_and_up_between_network_namespaces() {
    holds("link-down").await;
}

#[tokio::test]
async fn clocks_an_hour_off() {
    holds("clocks-off").await;
}

#[tokio::test]
async fn an_engine_that_fails_whatever_it_is_given() {
    holds("sick-engine").await;
}

#[tokio::test]
async fn parts_of_three_versions() {
    holds("mixed-versions").await;
}

#[tokio::test]
async fn no_false_alarm_while_every_core_is_busy() {
    holds("calm-little").await;
}

#[tokio::test]
async fn the_leading_node_of_a_cluster_killed() {
    holds("node-killed").await;
}

#[tokio::test]
async fn managers_that_answer_late() {
    holds("managers-far").await;
}

#[tokio::test]
async fn jobs_of_two_classes_at_once() {
    holds("all-classes").await;
}

#[tokio::test]
async fn engines_that_fall_ill_while_nothing_is_asked_of_them() {
    holds("ill-while-idle").await;
}

#[tokio::test]
async fn engines_that_grow_with_each_text() {
    holds("leaking-engines").await;
}

#[tokio::test]
async fn more_than_can_be_heard_in_time() {
    holds("too-late").await;
}

#[tokio::test]
async fn texts_that_crash_every_engine() {
    holds("poison").await;
}

#[tokio::test]
async fn texts_that_crash_engines_beside_others() {
    holds("poison-beside-innocents").await;
}

#[tokio::test]
async fn listeners_that_go_away_in_mid_sentence() {
    holds("listeners-leave").await;
}

#[tokio::test]
async fn low_priority_beside_high() {
    holds("low-advances").await;
}

#[tokio::test]
async fn managers_killed_while_they_have_durable_jobs() {
    holds("durable-managers-sigkill").await;
}
