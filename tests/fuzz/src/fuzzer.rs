//! Mutated golden vectors, the same for the same seed.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::mutate::mutate;
use crate::targets::TARGETS;

/// An input that takes longer is looked at again, and is a hang if it does so every time: machines have bad moments.
const TOO_LONG: Duration = Duration::from_secs(1);
const LOOKS: u32 = 3;

/// What was run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Inputs, over all targets.
    pub executions: u64,
    /// The longest that one took.
    pub longest: Duration,
}

/// An input that hangs a target.
#[derive(Debug)]
pub struct Slow {
    /// The target.
    pub target: &'static str,
    /// The input.
    pub input: Vec<u8>,
    /// What it took.
    pub took: Duration,
}

/// Feeds the targets.
#[derive(Debug)]
pub struct Fuzzer {
    corpus: Vec<Vec<u8>>,
    random: StdRng,
    stats: Stats,
}

impl Fuzzer {
    /// One that starts from these inputs; the same seed gives the same run.
    pub fn new(corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        Self { corpus, random: StdRng::seed_from_u64(seed), stats: Stats::default() }
    }

    /// Feeds every target one input.
    ///
    /// # Errors
    /// When a target hangs. One that panics does so here: the seed and [`Stats::executions`] lead there again.
    pub fn step(&mut self) -> Result<Stats, Slow> {
        let mut input = self.corpus.choose(&mut self.random).cloned().unwrap_or_default();
        // Now and then one is left as it is: what is good must stay good.
        if self.random.random_ratio(31, 32) {
            mutate(&mut input, &self.corpus, &mut self.random);
        }
        for target in TARGETS {
            let took = time(target.run, &input);
            if took > TOO_LONG && (1..LOOKS).all(|_| time(target.run, &input) > TOO_LONG) {
                return Err(Slow { target: target.name, input, took });
            }
            self.stats.executions += 1;
            self.stats.longest = self.stats.longest.max(took);
        }
        Ok(self.stats)
    }
}

fn time(run: fn(&[u8]), input: &[u8]) -> Duration {
    let begun = Instant::now();
    run(input);
    begun.elapsed()
}
