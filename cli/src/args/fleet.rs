//! Command lines of those who run a fleet, and of its catalogue.

use clap::{Args, Subcommand};

use super::{EngineArgs, ReportArgs};

/// `chorus up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// How many workers.
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// A broker that is there; otherwise one is started.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// The port of a broker that is started. [default: 4222 when it is free, else any]
    #[arg(long, value_name = "PORT", conflicts_with = "nats")]
    pub port: Option<String>,
    /// A model to serve: NAME=PATH, a voice that is installed, or a name on Coqui's hub. May be repeated.
    #[arg(long = "model", value_name = "MODEL")]
    pub models: Vec<String>,
    /// A line for every segment that was spoken, too.
    #[arg(short, long)]
    pub verbose: bool,
    /// The workers' engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `chorus models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// What can be asked for.
    List {
        /// Where to ask and how to answer.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Put a model into the catalogue; workers of its engine load it.
    Add {
        /// NAME=PATH, a voice that is installed, or a name on Coqui's hub.
        model: String,
        /// What is meant when a request names no model.
        #[arg(long)]
        default: bool,
        /// Another name for it. May be repeated.
        #[arg(long = "alias")]
        aliases: Vec<String>,
        /// Which engine speaks it.
        #[command(flatten)]
        engine: EngineArgs,
        /// Where to ask and how to answer.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Load a model of the catalogue on the workers of its engine, and wait until it is there.
    Load {
        /// Its name, or another name for it.
        model: String,
        /// Where to ask and how to answer.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Take a model off the workers. It stays in the catalogue: `load` brings it back, and so does a worker's next start.
    Unload {
        /// Its name, or another name for it.
        model: String,
        /// Where to ask and how to answer.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Take a model out of the catalogue; what is queued for it is dropped.
    Remove {
        /// Its name.
        model: String,
        /// Where to ask and how to answer.
        #[command(flatten)]
        report: ReportArgs,
    },
}

/// `chorus drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The worker, as `chorus status` names it.
    pub worker: String,
    /// Where to ask and how to answer.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `chorus manager`.
#[derive(Debug, Args)]
pub struct ManagerArgs {
    /// The broker. [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// A stable name.
    #[arg(long)]
    pub id: Option<String>,
}

/// `chorus worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The broker. [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// A stable name; made from the host's name without it.
    #[arg(long)]
    pub id: Option<String>,
    /// A model to serve: NAME=PATH, a voice that is installed, or a name on Coqui's hub. May be repeated; without it, all
    /// of the catalogue that are for this engine.
    #[arg(long = "model", value_name = "MODEL")]
    pub models: Vec<String>,
    /// The engine.
    #[command(flatten)]
    pub engine: EngineArgs,
}
