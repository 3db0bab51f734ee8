//! Command lines of the benchmarks.

use clap::{Args, Subcommand};

use super::EngineArgs;

/// `chorus bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// What the fleet adds to the engine's own time.
    Latency(LatencyArgs),
    /// First audio of a sentence of 60 characters, against the engine's own time.
    FirstAudio(FirstAudioArgs),
    /// Hurt a fleet on purpose and check every sample that listeners hear.
    Chaos(ChaosArgs),
}

/// `chorus bench chaos`.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// A scenario of either set; the long set without it. May be repeated.
    #[arg(long = "scenario", value_name = "NAME")]
    pub scenarios: Vec<String>,
    /// Show what scenarios there are.
    #[arg(long, conflicts_with = "scenarios")]
    pub list: bool,
    /// Switch the fleet's mechanisms off, one at a time, and see that a scenario fails without each.
    #[arg(long, conflicts_with_all = ["scenarios", "list"])]
    pub switches: bool,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
}

/// `chorus bench latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// How many requests.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests: u32,
    /// The model: NAME=PATH, a voice that is installed, or a name on Coqui's hub; the demo voice without it.
    #[arg(long)]
    pub model: Option<String>,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `chorus bench first-audio`.
#[derive(Debug, Args)]
pub struct FirstAudioArgs {
    /// How many sentences.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// The model: NAME=PATH, a voice that is installed, or a name on Coqui's hub; the demo voice without it.
    #[arg(long)]
    pub model: Option<String>,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}
