//! `chorus-fuzz`: feeds all decoders and adapters mutated messages, for as long as one likes; or writes what `cargo fuzz`
//! begins with.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chorus_fuzz::{Fuzzer, Stats, corpus, peak_mib};
use clap::Parser;

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Feeds all decoders and adapters mutated messages.
#[derive(Debug, Parser)]
struct Args {
    /// How many inputs in all.
    #[arg(long, default_value_t = 10_000_000)]
    executions: u64,
    /// How many seconds at most.
    #[arg(long)]
    seconds: Option<u64>,
    /// What the mutations are drawn from: the same seed gives the same inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only writes the inputs that mutation begins with into this folder.
    #[arg(long)]
    write_corpus: Option<PathBuf>,
}

#[allow(clippy::print_stdout, reason = "a program for a terminal")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let inputs = corpus()?;
    if let Some(folder) = args.write_corpus {
        return write(&folder, &inputs);
    }
    let mut fuzzer = Fuzzer::new(inputs, args.seed);
    let (begun, mut told) = (Instant::now(), Instant::now());
    let until = args.seconds.map(|seconds| begun + Duration::from_secs(seconds));
    let mut stats = Stats::default();
    while stats.executions < args.executions && until.is_none_or(|until| Instant::now() < until) {
        stats = match fuzzer.step() {
            Ok(stats) => stats,
            Err(fault) => bail!("seed {}, after {} executions: {fault}", args.seed, stats.executions),
        };
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            println!("{}", line(&stats, begun.elapsed()));
        }
    }
    println!("{}, seed {}", line(&stats, begun.elapsed()), args.seed);
    Ok(())
}

fn write(folder: &Path, inputs: &[Vec<u8>]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (number, input) in inputs.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), input)?;
    }
    Ok(())
}

fn line(stats: &Stats, took: Duration) -> String {
    let per_s = stats.executions as f64 / took.as_secs_f64().max(1e-9);
    format!(
        "{} executions, {per_s:.0}/s, {} messages accepted, the longest {:?}, memory at most {} MiB",
        stats.executions,
        stats.accepted,
        stats.longest,
        peak_mib()
    )
}
