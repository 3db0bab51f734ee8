//! Command lines about the cache.

use clap::Subcommand;

use super::ReportArgs;

/// `chorus cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// How large it is and how it serves.
    Status {
        /// Where the fleet is, and how the answer is told.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Forget everything: each text is spoken anew.
    Clear {
        /// Where the fleet is, and how the answer is told.
        #[command(flatten)]
        report: ReportArgs,
    },
}

impl CacheCommand {
    pub(super) fn report(&self) -> &ReportArgs {
        match self {
            Self::Status { report } | Self::Clear { report } => report,
        }
    }
}
