//! Command line of the stdio gateway.

use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;

/// `chorus stdio`.
#[derive(Debug, Args)]
pub struct StdioArgs {
    /// A broker that a fleet serves; without it a fleet of its own is started.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// A model for a fleet of its own: NAME=PATH, a voice that is installed, or a name on Coqui's hub. May be repeated; the
    /// first is meant when a request names none.
    #[arg(long = "model", value_name = "MODEL", conflicts_with = "nats")]
    pub models: Vec<String>,
    /// How many workers a fleet of its own has.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "nats",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// The folder that every outputPath must lie in.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub output_root: PathBuf,
    /// The protocol versions offered, as a range such as '<2.1.0'. [default: features.protocol, else all]
    #[arg(long, value_name = "RANGE")]
    pub protocol: Option<String>,
    /// The engine of a fleet of its own.
    #[command(flatten)]
    pub engine: EngineArgs,
}
