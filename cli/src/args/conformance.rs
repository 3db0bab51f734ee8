//! Command lines of the conformance kit.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `chorus conformance`.
#[derive(Debug, Subcommand)]
pub enum ConformanceCommand {
    /// Check an engine: a program that speaks frames on descriptors 4 and 5, or lines on stdin and stdout.
    Engine(EngineCheckArgs),
    /// Check a gateway: a program that a parent speaks to on stdin and stdout, as `chorus stdio` is one.
    Gateway(GatewayCheckArgs),
}

/// A version that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArg {
    /// Bare lines.
    #[value(name = "1.0")]
    V1_0,
    /// Envelopes in JSON.
    #[value(name = "2.0")]
    V2_0,
    /// Frames.
    #[value(name = "2.1")]
    V2_1,
}

/// What both checks are told.
#[derive(Debug, Clone, Args)]
pub struct ConformanceArgs {
    /// Only this version; otherwise what the program speaks is found out.
    #[arg(long, value_name = "VERSION")]
    pub protocol: Option<ProtocolArg>,
    /// What is spoken.
    #[arg(long, default_value = "The quick brown fox jumps over the lazy dog.")]
    pub text: String,
    /// Seconds to the first answer and to the first model that can speak.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub start_within: u32,
    /// Seconds to any other answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub answer_within: u32,
    /// Seconds to the end of the process once it was asked for.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub end_within: u32,
    /// The report as JSON.
    #[arg(long)]
    pub json: bool,
    /// The program and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `chorus conformance engine`.
#[derive(Debug, Args)]
pub struct EngineCheckArgs {
    /// The model that it shall load: NAME=PATH, or the name of one that it has built in. [default: its own kind]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What both checks are told.
    #[command(flatten)]
    pub common: ConformanceArgs,
}

/// `chorus conformance gateway`.
#[derive(Debug, Args)]
pub struct GatewayCheckArgs {
    /// The folder that the gateway was told to keep its files in; that it does is checked only with this.
    #[arg(long, value_name = "DIR")]
    pub output_root: Option<PathBuf>,
    /// Requests that are sent at once.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=256))]
    pub in_flight: u32,
    /// What both checks are told.
    #[command(flatten)]
    pub common: ConformanceArgs,
}

impl ConformanceCommand {
    /// What both checks are told.
    pub fn args(&self) -> &ConformanceArgs {
        match self {
            Self::Engine(args) => &args.common,
            Self::Gateway(args) => &args.common,
        }
    }
}
