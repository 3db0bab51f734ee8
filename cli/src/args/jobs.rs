//! `chorus jobs`: durable jobs.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ReportArgs;

/// `chorus jobs`.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// Hand a text in; the fleet speaks it, whatever dies meanwhile.
    Submit(Box<SubmitArgs>),
    /// How a job is.
    Status(JobArgs),
    /// Write a job's audio into a file.
    Fetch {
        /// Where the audio goes; `-` is stdout.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Which job.
        #[command(flatten)]
        job: JobArgs,
    },
    /// Give a job up.
    Cancel(JobArgs),
    /// All jobs that are remembered.
    List {
        /// Where to ask and how to answer.
        #[command(flatten)]
        report: ReportArgs,
    },
}

/// `chorus jobs submit`.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// What to say; `-` reads it from stdin.
    pub text: Option<OsString>,
    /// A file that holds what to say.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The job's name; made up without it. Handing the same text in twice under one name is one job.
    #[arg(long)]
    pub id: Option<String>,
    /// wav, mp3, ogg, opus, flac or pcm.
    #[arg(long, default_value = "wav")]
    pub format: String,
    /// A model of the catalogue.
    #[arg(long)]
    pub model: Option<String>,
    /// A voice: another name of a model, or a speaker of it.
    #[arg(long)]
    pub voice: Option<String>,
    /// A recording of somebody's speech, for models that can take on a voice.
    #[arg(long, value_name = "FILE")]
    pub speaker_clip: Option<PathBuf>,
    /// Where to ask and how to answer.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// A job, and where to ask after it.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The name that it was handed in under.
    pub id: String,
    /// Where to ask and how to answer.
    #[command(flatten)]
    pub report: ReportArgs,
}

impl JobsCommand {
    /// Where to ask and how to answer.
    pub fn report(&self) -> &ReportArgs {
        match self {
            Self::Submit(args) => &args.report,
            Self::Status(job) | Self::Cancel(job) | Self::Fetch { job, .. } => &job.report,
            Self::List { report } => report,
        }
    }
}
