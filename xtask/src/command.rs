//! Running a tool: its output goes to the terminal as it comes, and its closing line is kept for the summary.
//!
//! Both streams are read by a thread each and printed line by line to stdout, so that neither can fill its pipe while
//! the other is waited for.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, bail};

/// A command in the folder `root`. Tools that colour their output are asked not to: it is read here, line by line.
#[allow(clippy::disallowed_methods, reason = "a chore outside the fleet; it runs cargo and friends")]
pub(crate) fn command(root: &Path, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root).stdin(Stdio::null()).env("CARGO_TERM_COLOR", "never");
    command
}

/// Whether `program` can be started at all.
pub(crate) fn present(root: &Path, program: &str, arguments: &[&str]) -> bool {
    let status = command(root, program, arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Runs a command to its end and returns the last of its lines for which `closing` holds, trimmed; an error when it
/// could not be started or did not succeed.
pub(crate) fn run(mut command: Command, closing: fn(&str) -> bool) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let last = Mutex::new(String::new());
    let read_both = std::thread::scope(|scope| {
        let errors = scope.spawn(|| echo(stderr, closing, &last));
        let output = echo(stdout, closing, &last);
        output.and(errors.join().unwrap_or_else(|_| bail!("the reader of {name}'s messages failed")))
    });
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    read_both?;
    let last = last.into_inner().unwrap_or_default();
    if !status.success() {
        let because = if last.is_empty() { String::new() } else { format!(": {last}") };
        bail!("{name} ended with {status}{because}");
    }
    Ok(last)
}

/// Prints a stream's lines, keeping the newest that `closing` picks.
fn echo(stream: Option<impl Read>, closing: fn(&str) -> bool, last: &Mutex<String>) -> anyhow::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    for line in BufReader::new(stream).split(b'\n') {
        let line = line.context("cannot read a tool's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("   {}", line.trim_end());
        if closing(&line)
            && let Ok(mut last) = last.lock()
        {
            *last = line.trim().trim_matches('=').trim().to_owned();
        }
    }
    Ok(())
}

/// For tools that have no closing line worth keeping.
pub(crate) fn no_closing_line(_: &str) -> bool {
    false
}
