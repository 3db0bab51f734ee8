//! `chorus conformance`: does somebody else's engine or gateway keep to the specification?
//!
//! ```text
//!  engine, gateway   the rules, each with its check, in the order in which they are tried
//!       │
//!     talk           requests and the answers to them; what is odd is written down
//!       │
//!     wire           the program and its streams        message   what came, read by the protocol's own codec
//!       └─▶ report   passed, failed (what was expected, what came, where it says so), not applicable
//! ```
//! A program that lets a check down is started anew for the next, so that one fault is one failed check.

/// Makes the checks of these rules, one after the other.
macro_rules! tries {
    ($lab:ident, $spinner:ident; $($rule:ident: $check:expr;)*) => {
        $(
            $spinner.say(&format!("{} …", $rule.name));
            let checked = Box::pin($check(&mut $lab)).await;
            $lab.put(&$rule, checked).await;
        )*
    };
}

mod common;
mod engine;
mod gateway;
mod message;
mod report;
mod talk;
mod wire;

use std::ffi::OsString;
use std::time::Duration;

use chorus_runtime::process::SpawnError;

use crate::app::Context;
use crate::args::{ConformanceArgs, ConformanceCommand, ProtocolArg};
use crate::error::CliError;
use crate::locate::unless_stopped;
use message::Dialect;
use wire::Program;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// From the start to the first answer, and to the first model that can speak.
    start: Duration,
    /// One answer.
    answer: Duration,
    /// The end, once it was asked for.
    end: Duration,
}

/// Runs the command.
pub async fn run(context: Context, command: ConformanceCommand) -> Result<(), CliError> {
    let args = command.args().clone();
    let spinner = context.ui.spinner("checking …");
    let checking = async {
        let (program, patience) = (program(&context, &args)?, patience(&args));
        match command {
            ConformanceCommand::Engine(args) => engine::check(&args, program, patience, &spinner).await,
            ConformanceCommand::Gateway(args) => gateway::check(&args, program, patience, &spinner).await,
        }
    };
    let report = unless_stopped(&context.shutdown, Box::pin(checking)).await?;
    drop(spinner);
    if context.ui.json() {
        context.ui.json_line(&report.to_json());
    } else {
        report.print(context.ui);
    }
    if report.conforms() { Ok(()) } else { Err(CliError::Reported) }
}

/// The command as the user would start it: all of our environment is its own.
fn program(context: &Context, args: &ConformanceArgs) -> Result<Program, CliError> {
    let name = args.command.first().map_or_else(OsString::new, Clone::clone);
    let known = std::path::Path::new(&name).components().count() > 1
        || name.to_str().is_some_and(|name| context.environment.on_path(name).is_some());
    if !known {
        let not_found = SpawnError::NotFound { name: "the command".into(), program: name.into() };
        return Err(CliError::Usage(not_found.to_string()));
    }
    Ok(Program { command: args.command.clone(), environment: context.environment.pairs() })
}

fn patience(args: &ConformanceArgs) -> Patience {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Patience {
        start: seconds(args.start_within),
        answer: seconds(args.answer_within),
        end: seconds(args.end_within),
    }
}

/// A command, for a report.
fn shown(program: &Program) -> Vec<String> {
    program.command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// A version that was asked for.
fn dialect_of(asked: ProtocolArg) -> Dialect {
    match asked {
        ProtocolArg::V1_0 => Dialect::Bare,
        ProtocolArg::V2_0 => Dialect::Lines,
        ProtocolArg::V2_1 => Dialect::Frames,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_stands_on_the_page_under_the_heading_that_it_names() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = std::fs::read_to_string(folder.join(report::PAGE)).unwrap();
        let kit = std::fs::read_to_string(folder.join("docs/conformance.md")).unwrap();
        for rules in [&engine::ALL[..], &gateway::ALL[..]] {
            let names: BTreeSet<&str> = rules.iter().map(|rule| rule.name).collect();
            assert_eq!(names.len(), rules.len(), "two rules of one name");
            for rule in rules {
                let heading = |line: &str| line.trim_start_matches('#') == format!(" {}", rule.section);
                assert!(page.lines().any(|line| line.starts_with("##") && heading(line)), "{}", rule.section);
                assert!(kit.contains(&format!("`{}`", rule.name)), "docs/conformance.md lacks {}", rule.name);
            }
        }
    }
}
