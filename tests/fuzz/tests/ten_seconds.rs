//! Ten seconds of mutated messages in every test run, from another seed each day.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::time::{Duration, Instant, SystemTime};

use chorus_fuzz::{Fuzzer, corpus};

#[test]
fn whatever_comes_is_answered() {
    let today = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let begun = Instant::now();
    let mut fuzzer = Fuzzer::new(corpus().unwrap(), today);
    let mut executions = 0;
    while begun.elapsed() < Duration::from_secs(10) {
        let stats = fuzzer.step().unwrap_or_else(|fault| panic!("seed {today}: {fault}"));
        executions = stats.executions;
    }
    assert!(executions > 1_000, "only {executions} in ten seconds");
}
