//! Command lines of the benchmarks.

use chorus_chaos::switches::Mechanism;
use clap::{Args, Subcommand};

use super::EngineArgs;
use crate::config::Value;

/// `chorus bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// What the fleet adds to the engine's own time.
    Latency(LatencyArgs),
    /// First audio of a sentence of 60 characters, against the engine's own time.
    FirstAudio(FirstAudioArgs),
    /// One long text on two workers of one thread, against one engine of one thread.
    LongText(LongTextArgs),
    /// What the way costs when the engine costs nothing: one client and 64.
    Null(NullArgs),
    /// Many listeners at once, each at the pace at which it sounds.
    Streams(StreamsArgs),
    /// Short sentences beside a book, on one worker.
    Beside(BesideArgs),
    /// One engine alone: one text at a time, and several at once.
    Batch(BatchArgs),
    /// The same words again.
    Cache(CacheBenchArgs),
    /// The plan's service levels under Poisson arrivals, and the highest rate that holds them.
    Sla(SlaArgs),
    /// Against Coqui's own server, on the same voice. Needs the program espeak-ng, which that server calls.
    TtsServer(TtsServerArgs),
    /// Hurt a fleet on purpose and check every sample that listeners hear.
    Chaos(ChaosArgs),
}

impl BenchCommand {
    /// What the command line sets.
    pub fn values(&self) -> Vec<Value> {
        match self {
            Self::Latency(args) => args.on.engine.values(),
            Self::FirstAudio(args) => args.on.engine.values(),
            Self::Sla(args) => args.on.engine.values(),
            Self::Batch(args) => args.on.engine.values(),
            Self::Cache(args) => args.on.engine.values(),
            Self::Beside(_) => ["engine.threads", "engine.lanes"]
                .map(|key| Value::flag(key, "chorus bench beside", "1"))
                .to_vec(),
            Self::LongText(_) => ["engine.threads", "engine.lanes"]
                .map(|key| Value::flag(key, "chorus bench long-text", "1"))
                .to_vec(),
            Self::Null(_) => vec![Value::flag("engine.kind", "chorus bench null", "null")],
            Self::Streams(_) => vec![Value::flag("engine.kind", "chorus bench streams", "checkable")],
            // Its engine's samples are what is checked.
            Self::Chaos(_) => vec![Value::flag("engine.kind", "chorus bench chaos", "checkable")],
            Self::TtsServer(_) => Vec::new(),
        }
    }

    /// Whether stdout carries JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Latency(args) => args.on.json,
            Self::FirstAudio(args) => args.on.json,
            Self::Sla(args) => args.on.json,
            Self::Batch(args) => args.on.json,
            Self::Cache(args) => args.on.json,
            Self::Beside(args) => args.json,
            Self::LongText(args) => args.json,
            Self::Null(args) => args.json,
            Self::Streams(args) => args.json,
            Self::Chaos(args) => args.json,
            Self::TtsServer(args) => args.json,
        }
    }
}

/// What a model of one's choice is measured with.
#[derive(Debug, Args)]
pub struct OnModel {
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

/// `chorus bench chaos`.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// A scenario of either set; the long set without it. May be repeated.
    #[arg(long = "scenario", value_name = "NAME")]
    pub scenarios: Vec<String>,
    /// Show what scenarios there are.
    #[arg(long, conflicts_with = "scenarios")]
    pub list: bool,
    /// Switch one of the fleet's mechanisms off. Without --scenario, the one that must fail then is run.
    #[arg(long, value_name = "MECHANISM", value_parser = Mechanism::named, conflicts_with = "list")]
    pub without: Option<Mechanism>,
    /// Switch all of them off, one at a time, and see that a scenario fails without each.
    #[arg(long, conflicts_with_all = ["scenarios", "list", "without"])]
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
    /// What is measured.
    #[command(flatten)]
    pub on: OnModel,
}

/// `chorus bench first-audio`.
#[derive(Debug, Args)]
pub struct FirstAudioArgs {
    /// How many sentences.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// What is measured.
    #[command(flatten)]
    pub on: OnModel,
}

/// `chorus bench sla`.
#[derive(Debug, Args)]
pub struct SlaArgs {
    /// Requests a second.
    #[arg(long, default_value_t = 2.0, value_parser = rate)]
    pub rate: f64,
    /// How many requests at each rate.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests: u32,
    /// What the arrivals are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What is measured.
    #[command(flatten)]
    pub on: OnModel,
}

#[cfg(test)]
impl SlaArgs {
    /// As without any option.
    pub fn for_tests() -> Self {
        let engine = EngineArgs { kind: None, command: None, threads: None };
        let on = OnModel { model: None, json: false, engine };
        Self { rate: 2.0, requests: 120, seed: 1, on }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number is needed".to_owned())?;
    if (0.01..=1000.0).contains(&rate) { Ok(rate) } else { Err("0.01 to 1000 a second are possible".into()) }
}

/// `chorus bench tts-server`.
#[derive(Debug, Args)]
pub struct TtsServerArgs {
    /// How many texts of each length from one client.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// How many rounds with ten clients.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How many requests in each.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub requests: u32,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
}

/// `chorus bench long-text`.
#[derive(Debug, Args)]
pub struct LongTextArgs {
    /// How many pairs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// The model: NAME=PATH, a voice that is installed, or a name on Coqui's hub; the demo voice without it.
    #[arg(long)]
    pub model: Option<String>,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
}

/// `chorus bench beside`.
#[derive(Debug, Args)]
pub struct BesideArgs {
    /// How many sentences the book has: more than are spoken meanwhile.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub sentences: u32,
    /// How many greetings.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub greetings: u32,
    /// The model: NAME=PATH, a voice that is installed, or a name on Coqui's hub; the demo voice without it.
    #[arg(long)]
    pub model: Option<String>,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
}

/// `chorus bench null`.
#[derive(Debug, Args)]
pub struct NullArgs {
    /// How many turns of one client.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub turns: u32,
    /// How many requests from 64 clients; a quarter as many plain ones.
    #[arg(long, default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(256..=10_000_000))]
    pub requests: u32,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
}

/// `chorus bench streams`.
#[derive(Debug, Args)]
pub struct StreamsArgs {
    /// How many listeners.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams: u32,
    /// Further listeners who ask for a long text and take nothing of it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=4_000))]
    pub stalled: u32,
    /// Sentences that each hears, of three seconds.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub sentences: u32,
    /// The figures as JSON, on the last line.
    #[arg(long)]
    pub json: bool,
}

/// `chorus bench batch`.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// How many texts at each level.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(16..=10_000))]
    pub texts: u32,
    /// What is measured.
    #[command(flatten)]
    pub on: OnModel,
}

/// `chorus bench cache`.
#[derive(Debug, Args)]
pub struct CacheBenchArgs {
    /// How many texts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub texts: u32,
    /// What is measured.
    #[command(flatten)]
    pub on: OnModel,
}
