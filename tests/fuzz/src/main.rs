//! `chorus-fuzz`: feeds all decoders and adapters mutated messages, for as long as one likes.

use std::time::{Duration, Instant};

use anyhow::bail;
use chorus_fuzz::{Fuzzer, Stats, corpus};
use clap::Parser;

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Feeds all decoders and adapters mutated messages.
#[derive(Debug, Parser)]
struct Args {
    /// How many inputs in all.
    #[arg(long, default_value_t = 10_000_000)]
    executions: u64,
    /// What the mutations are drawn from: the same seed gives the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[allow(clippy::print_stdout, reason = "a program for a terminal")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut fuzzer = Fuzzer::new(corpus()?, args.seed);
    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut stats = Stats::default();
    while stats.executions < args.executions {
        stats = match fuzzer.step() {
            Ok(stats) => stats,
            Err(slow) => bail!("{} took {:?} for {:02x?}", slow.target, slow.took, slow.input),
        };
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            println!("{}", line(&stats, begun.elapsed()));
        }
    }
    println!("{}, seed {}", line(&stats, begun.elapsed()), args.seed);
    Ok(())
}

fn line(stats: &Stats, took: Duration) -> String {
    let per_s = stats.executions as f64 / took.as_secs_f64().max(1e-9);
    let (executions, longest) = (stats.executions, stats.longest);
    format!(
        "{executions} executions, {per_s:.0}/s, the longest {longest:?}, memory at most {} MiB",
        peak_mib()
    )
}

/// The most memory that this process had; 0 where the system does not tell.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}
