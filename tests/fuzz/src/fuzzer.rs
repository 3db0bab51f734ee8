//! Mutated golden vectors, the same for the same seed.

use std::fmt;
use std::time::Duration;

use chorus_protocol::codec;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::mutate::mutate;
use crate::targets::{TARGETS, Target};
use crate::tree;

/// What an input may take of a processor; what the machine does beside it does not count.
const TOO_LONG: Duration = Duration::from_secs(1);

/// The most memory that a run may need, in MiB: no input is larger than 80 KiB, and none may be blown up.
const MOST_MIB: u64 = 256;

/// What was run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Inputs, over all targets.
    pub executions: u64,
    /// Messages that were good: read, written, and read again.
    pub accepted: u64,
    /// The longest that one input took of a processor.
    pub longest: Duration,
}

/// An input with which a target does what it must not.
#[derive(Debug)]
pub struct Fault {
    /// What it did.
    pub what: String,
    /// The target.
    pub target: &'static str,
    /// The input.
    pub input: Vec<u8>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, with {}", self.target, self.what, self.input.escape_ascii())
    }
}

/// Feeds the targets.
#[derive(Debug)]
pub struct Fuzzer {
    corpus: Vec<Vec<u8>>,
    trees: Vec<Value>,
    random: StdRng,
    stats: Stats,
}

impl Fuzzer {
    /// One that starts from these inputs; the same seed gives the same run.
    pub fn new(corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        let read = |input: &Vec<u8>| codec::decode_value::<Value>(input, input.len()).ok();
        let trees = corpus.iter().filter_map(read).collect();
        Self { corpus, trees, random: StdRng::seed_from_u64(seed), stats: Stats::default() }
    }

    /// Feeds every target one input.
    ///
    /// # Errors
    /// When a target panics or hangs, or the process has grown too large.
    pub fn step(&mut self) -> Result<Stats, Fault> {
        let input = self.input();
        for target in TARGETS {
            let found = |what| Fault { what, target: target.name, input: input.clone() };
            let (accepted, took) = watched(*target, &input).map_err(found)?;
            if took > TOO_LONG {
                return Err(found(format!("takes {took:?}")));
            }
            self.stats.executions += 1;
            self.stats.accepted += accepted;
            self.stats.longest = self.stats.longest.max(took);
        }
        if self.stats.executions.is_multiple_of(TARGETS.len() as u64 * 1024) && peak_mib() > MOST_MIB {
            let what = format!("the process has grown to {} MiB", peak_mib());
            return Err(Fault { what, target: "all", input });
        }
        Ok(self.stats)
    }

    fn input(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut input = self.corpus.choose(random).cloned().unwrap_or_default();
        match random.random_range(0..32) {
            // Now and then one is left as it is: what is good must stay good.
            0 => {}
            1..=15 => mutate(&mut input, &self.corpus, random),
            kind => {
                let mut tree = self.trees.choose(random).cloned().unwrap_or_default();
                tree::mutate(&mut tree, &self.trees, random);
                input = tree::encode(&tree, random);
                if kind < 20 {
                    mutate(&mut input, &self.corpus, random);
                }
            }
        }
        input
    }
}

fn watched(target: Target, input: &[u8]) -> Result<(u64, Duration), String> {
    let begun = processor_time();
    let accepted = std::panic::catch_unwind(|| (target.run)(input));
    let accepted = accepted.map_err(|_told_by_the_hook| "panics".to_owned())?;
    Ok((accepted, processor_time().saturating_sub(begun)))
}

/// What this thread has used of a processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// The most memory that this process had, in MiB; 0 where the system does not tell.
pub fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}
