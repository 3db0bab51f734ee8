//! The command line as it is written.
//!
//! These types mirror what a user types and hold no rules of their own: values that are settings become
//! [`Value`](crate::config::Value)s of the configuration's last layer, the rest is checked by the command that takes it.

mod bench;
mod cache;
mod config;
mod conformance;
mod fleet;
mod jobs;
mod stdio;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Value;
pub use bench::{
    BatchArgs, BenchCommand, BesideArgs, CacheBenchArgs, ChaosArgs, FirstAudioArgs, LatencyArgs,
    LongTextArgs, NullArgs, SlaArgs, StreamsArgs, TtsServerArgs,
};
pub use cache::CacheCommand;
pub use config::ConfigCommand;
pub use conformance::{ConformanceArgs, ConformanceCommand, EngineCheckArgs, GatewayCheckArgs, ProtocolArg};
pub use fleet::{DrainArgs, ManagerArgs, ModelsCommand, UpArgs, WorkerArgs};
pub use jobs::{JobArgs, JobsCommand, SubmitArgs};
pub use stdio::StdioArgs;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 the command line, configuration or text cannot be used, \
                          130 and 143 ended by SIGINT and SIGTERM.";

/// Text to speech by a fleet of engines: one command speaks, `chorus up` keeps the fleet.
#[derive(Debug, Parser)]
#[command(name = "chorus", version, about, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// A configuration file instead of config.toml in CHORUS_HOME.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Speak a text into a file; without a fleet, one is started for it and stopped again.
    Say(SayArgs),
    /// Keep a fleet in the foreground: broker, manager, workers.
    Up(UpArgs),
    /// Serve a parent process on stdin and stdout, as the single Python script did; with a fleet behind it.
    Stdio(StdioArgs),
    /// Show brokers, managers, workers and models; succeeds only when a model can speak.
    Status(ReportArgs),
    /// Check this machine and say what to do.
    Doctor(DoctorArgs),
    /// Install what chorus needs into CHORUS_HOME: nats-server, the engine's environment, the demo voice.
    Setup(SetupArgs),
    /// Voices on this machine.
    #[command(subcommand)]
    Voice(VoiceCommand),
    /// The catalogue of models that can be asked for.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Let a worker finish what it speaks and leave; nothing is lost.
    Drain(DrainArgs),
    /// Durable jobs: texts that are spoken whatever dies.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// What is kept of what was spoken before.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Segments that failed wherever they were tried, kept with their whole history.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// The configuration: check it, show it, describe it, migrate an old one.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check somebody else's engine or gateway against the specification.
    #[command(subcommand)]
    Conformance(ConformanceCommand),
    /// Run one manager.
    Manager(ManagerArgs),
    /// Run one worker.
    Worker(WorkerArgs),
    /// Measure.
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// How loudly a request asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PriorityArg {
    /// Can wait.
    Low,
    /// As it comes.
    Normal,
    /// Somebody listens.
    High,
}

/// An engine for a fleet that the command starts itself.
#[derive(Debug, Clone, Default, Args)]
pub struct EngineArgs {
    /// Which engine: coqui (real speech), null or checkable (for measuring and testing).
    #[arg(long = "engine", value_name = "KIND", id = "engine")]
    pub kind: Option<String>,
    /// An engine of your own: a command that speaks protocol 1.0 or 2.0 on stdin and stdout.
    #[arg(long = "engine-command", value_name = "COMMAND", conflicts_with = "engine")]
    pub command: Option<String>,
    /// Threads of one inference.
    #[arg(long = "engine-threads", value_name = "N")]
    pub threads: Option<String>,
}

impl EngineArgs {
    /// As settings.
    pub fn values(&self) -> Vec<Value> {
        // A command that is given here is what shall speak, whatever the file says.
        let by_command = self.command.as_ref().map(|_| "command".to_owned());
        let pairs = [
            ("engine.kind", "--engine", if by_command.is_some() { &by_command } else { &self.kind }),
            ("engine.command", "--engine-command", &self.command),
            ("engine.threads", "--engine-threads", &self.threads),
        ];
        values(pairs)
    }
}

fn values<'a>(
    pairs: impl IntoIterator<Item = (&'static str, &'static str, &'a Option<String>)>,
) -> Vec<Value> {
    let given =
        pairs.into_iter().filter_map(|(key, flag, text)| Some(Value::flag(key, flag, text.as_ref()?)));
    given.collect()
}

/// `chorus say`.
#[derive(Debug, Args)]
pub struct SayArgs {
    /// What to say; `-` reads it from stdin.
    pub text: Option<OsString>,
    /// A file that holds what to say.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where the audio goes; `-` is stdout. Its extension names the format. [default: speech.wav]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A folder that the file must lie in, whatever links and `..` its path has.
    #[arg(long, value_name = "DIR")]
    pub output_root: Option<PathBuf>,
    /// wav, mp3, ogg, opus, flac or pcm; otherwise as the file's extension says.
    #[arg(long)]
    pub format: Option<String>,
    /// A model of the catalogue; without a fleet also a voice's folder or a name on Coqui's hub.
    #[arg(long)]
    pub model: Option<String>,
    /// A voice: another name of a model, or a speaker of it.
    #[arg(long)]
    pub voice: Option<String>,
    /// A recording of somebody's speech, for models that can take on a voice.
    #[arg(long, value_name = "FILE")]
    pub speaker_clip: Option<PathBuf>,
    /// A language, for models that have several.
    #[arg(long)]
    pub language: Option<String>,
    /// The text is an SSML document: speak, p, s, break, prosody, voice.
    #[arg(long)]
    pub ssml: bool,
    /// Rate of speech, 0.25 to 4; 1 is the voice's own.
    #[arg(long)]
    pub speed: Option<f64>,
    /// Semitones, -12 to 12; 0 is the voice's own.
    #[arg(long, allow_negative_numbers = true)]
    pub pitch: Option<f64>,
    /// Samples per second, 8000 to 48000; the voice's own without it.
    #[arg(long, value_name = "HZ")]
    pub sample_rate: Option<u32>,
    /// How urgent it is.
    #[arg(long)]
    pub priority: Option<PriorityArg>,
    /// A new take, though the same words may have been spoken before.
    #[arg(long)]
    pub fresh: bool,
    /// A broker that a fleet serves.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// The result as JSON.
    #[arg(long)]
    pub json: bool,
    /// The engine of a fleet of its own.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// `chorus status`, and commands that ask a fleet.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A broker that a fleet serves; otherwise the fleet that runs on this machine.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// The answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `chorus doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The findings as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How much `chorus setup` installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// The engines null and checkable, and nats-server.
    Light,
    /// The tools of the project's own checks.
    Check,
    /// Real speech: Coqui, nats-server, the demo voice.
    Coqui,
    /// All of it.
    Test,
}

/// `chorus setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// How much to install.
    #[arg(long, default_value = "coqui")]
    pub profile: ProfileArg,
    /// The paths as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `chorus voice`.
#[derive(Debug, Subcommand)]
pub enum VoiceCommand {
    /// Make a Coqui voice of a Piper voice: FILE.onnx with FILE.onnx.json beside it.
    Import {
        /// The ONNX file.
        file: PathBuf,
        /// The voice's name; the file's without it.
        #[arg(long)]
        name: Option<String>,
        /// The voice as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The voices that are installed.
    List {
        /// The voices as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `chorus dead`.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// The letters, the oldest first.
    List {
        /// Those of this model only.
        #[arg(long)]
        model: Option<String>,
        /// Those after this number only.
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Where the fleet is, and how the answer is told.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// One letter with its whole history.
    Show {
        /// Its number.
        seq: u64,
        /// Where the fleet is, and how the answer is told.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Ask for its text again, as a new request; the letter is deleted when it was spoken.
    Replay {
        /// Its number.
        seq: u64,
        /// Where the audio goes. [default: speech.wav]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Do not delete the letter.
        #[arg(long)]
        keep: bool,
        /// Where the fleet is, and how the answer is told.
        #[command(flatten)]
        report: ReportArgs,
    },
    /// Delete letters.
    Purge {
        /// Those of this model only.
        #[arg(long)]
        model: Option<String>,
        /// Where the fleet is, and how the answer is told.
        #[command(flatten)]
        report: ReportArgs,
    },
}

impl DeadCommand {
    fn report(&self) -> &ReportArgs {
        match self {
            Self::List { report, .. }
            | Self::Show { report, .. }
            | Self::Replay { report, .. }
            | Self::Purge { report, .. } => report,
        }
    }
}

impl Command {
    /// What its flags say about settings.
    pub fn values(&self) -> Vec<Value> {
        let nats = |url: &Option<String>| values([("nats.url", "--nats", url)]);
        match self {
            Self::Say(args) => [nats(&args.nats), args.engine.values()].concat(),
            Self::Up(args) => {
                let own = [
                    ("nats.port", "--port", &args.port),
                    ("workerPool.minWorkers", "--workers", &args.workers),
                ];
                [nats(&args.nats), values(own), args.engine.values()].concat()
            }
            Self::Stdio(args) => [nats(&args.nats), args.engine.values()].concat(),
            Self::Status(args) => nats(&args.nats),
            Self::Models(ModelsCommand::Add { engine, report, .. }) => {
                [nats(&report.nats), engine.values()].concat()
            }
            Self::Models(
                ModelsCommand::List { report }
                | ModelsCommand::Load { report, .. }
                | ModelsCommand::Unload { report, .. }
                | ModelsCommand::Remove { report, .. },
            ) => nats(&report.nats),
            Self::Drain(args) => nats(&args.report.nats),
            Self::Jobs(command) => nats(&command.report().nats),
            Self::Cache(command) => nats(&command.report().nats),
            Self::Dead(command) => nats(&command.report().nats),
            Self::Manager(args) => nats(&args.nats),
            Self::Worker(args) => [nats(&args.nats), args.engine.values()].concat(),
            Self::Bench(command) => command.values(),
            Self::Doctor(_) | Self::Setup(_) | Self::Voice(_) | Self::Config(_) | Self::Conformance(_) => {
                Vec::new()
            }
        }
    }

    /// Whether stdout carries JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Say(args) => args.json,
            Self::Status(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Setup(args) => args.json,
            Self::Voice(VoiceCommand::Import { json, .. } | VoiceCommand::List { json }) => *json,
            Self::Models(ModelsCommand::List { report }) => report.json,
            Self::Models(
                ModelsCommand::Add { report, .. }
                | ModelsCommand::Load { report, .. }
                | ModelsCommand::Unload { report, .. }
                | ModelsCommand::Remove { report, .. },
            ) => report.json,
            Self::Drain(args) => args.report.json,
            Self::Jobs(command) => command.report().json,
            Self::Cache(command) => command.report().json,
            Self::Dead(command) => command.report().json,
            Self::Config(command) => command.json(),
            Self::Conformance(command) => command.args().json,
            Self::Bench(command) => command.json(),
            Self::Up(_) | Self::Stdio(_) | Self::Manager(_) | Self::Worker(_) => false,
        }
    }

    /// The log filter where none is configured: roles tell what they do, commands only what went wrong.
    pub fn default_log_filter(&self) -> &'static str {
        match self {
            Self::Manager(_) | Self::Worker(_) => "info,async_nats=warn",
            // An embedded broker goes away before its clients: that is no news.
            _ => "error,async_nats=off",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let cli = Cli::parse_from(["chorus", "up", "--workers", "2", "--port", "4300", "--engine", "null"]);
        let values: Vec<_> = cli.command.values().into_iter().map(|v| (v.key, v.place, v.text)).collect();
        let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            values,
            [
                text("nats.port", "--port", "4300"),
                text("workerPool.minWorkers", "--workers", "2"),
                text("engine.kind", "--engine", "null")
            ]
        );
        let bad = Cli::try_parse_from(["chorus", "up", "--port", "1", "--nats", "nats://x"]);
        assert!(bad.is_err());
    }
}
