//! The commands, one file each. Each takes the [`Context`] and its own arguments, prints its result, and gives back an
//! error that says what to do.

pub mod cache;
pub mod config;
pub mod dead;
pub mod doctor;
pub mod drain;
pub mod embedded;
pub mod jobs;
pub mod models;
pub mod roles;
pub mod say;
pub mod setup;
pub mod speak;
pub mod status;
pub mod stdio;
pub mod up;
pub mod voice;

use crate::app::Context;
use crate::args::{BenchCommand, Command};
use crate::bench;
use crate::conformance;
use crate::error::CliError;

/// Runs a command. Those that embed a fleet are large, and boxed.
pub async fn run(context: Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Say(args) => Box::pin(say::run(context, args)).await,
        Command::Up(args) => Box::pin(up::run(context, args)).await,
        Command::Stdio(args) => Box::pin(stdio::run(context, args)).await,
        Command::Status(_) => status::run(context).await,
        Command::Doctor(_) => doctor::run(context).await,
        Command::Setup(args) => setup::run(context, args).await,
        Command::Voice(command) => voice::run(context, command).await,
        Command::Models(command) => models::run(context, command).await,
        Command::Drain(args) => drain::run(context, args).await,
        Command::Jobs(command) => jobs::run(context, command).await,
        Command::Cache(command) => Box::pin(cache::run(context, command)).await,
        Command::Dead(command) => Box::pin(dead::run(context, command)).await,
        Command::Config(command) => {
            config::run(&context, &command);
            Ok(())
        }
        Command::Conformance(command) => Box::pin(conformance::run(context, command)).await,
        Command::Manager(args) => roles::manager(context, args).await,
        Command::Worker(args) => Box::pin(roles::worker(context, args)).await,
        Command::Bench(BenchCommand::Latency(args)) => Box::pin(bench::latency::run(context, args)).await,
        Command::Bench(BenchCommand::FirstAudio(args)) => {
            Box::pin(bench::first_audio::run(context, args)).await
        }
        Command::Bench(BenchCommand::Batch(args)) => Box::pin(bench::batch::run(context, args)).await,
        Command::Bench(BenchCommand::Cache(args)) => Box::pin(bench::cache::run(context, args)).await,
        Command::Bench(BenchCommand::LongText(args)) => Box::pin(bench::long_text::run(context, args)).await,
        Command::Bench(BenchCommand::Null(args)) => Box::pin(bench::null::run(context, args)).await,
        Command::Bench(BenchCommand::Beside(args)) => Box::pin(bench::beside::run(context, args)).await,
        Command::Bench(BenchCommand::Streams(args)) => Box::pin(bench::streams::run(context, args)).await,
        Command::Bench(BenchCommand::Sla(args)) => Box::pin(bench::sla::run(context, args)).await,
        Command::Bench(BenchCommand::TtsServer(args)) => {
            Box::pin(bench::tts_server::run(context, args)).await
        }
        Command::Bench(BenchCommand::Chaos(args)) => Box::pin(bench::chaos::run(context, args)).await,
    }
}
