//! `chorus config`.

use std::path::PathBuf;

use clap::Subcommand;

/// `chorus config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the file, the environment and all rules between settings; every fault is listed.
    Check {
        /// The findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Every setting, its value, and where that comes from. Secrets are hidden.
    Show {
        /// The settings as JSON, with what each is for.
        #[arg(long)]
        json: bool,
    },
    /// The JSON Schema of the file, for editors and validators.
    Schema,
    /// Turn the configuration of the single-process service (JSON) into chorus.toml.
    Migrate {
        /// The old file.
        old: PathBuf,
        /// Where the new one goes; stdout without it. A file that is there is never overwritten.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

impl ConfigCommand {
    /// Whether stdout carries JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Check { json } | Self::Show { json } => *json,
            Self::Schema | Self::Migrate { .. } => false,
        }
    }
}
