//! The repository's own chores: `cargo xtask lint` and `cargo xtask test`.
//!
//! Both are lists of steps. A step runs one tool or one check of ours, shows what it is doing, and is timed; the list
//! goes on after a failed step, so that one run tells everything that is wrong. The exit code is zero only
//! when nothing failed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

mod command;
mod files;
mod imports;
mod lint;
mod node;
mod report;
mod setup;
mod sources;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use report::Report;

const USAGE: &str = "usage: cargo xtask <lint|test>

  lint  format, clippy, who may import what, file sizes, licences, ruff on the Python package, the Node client's types
  test  every test, Rust, Python and Node; installs what they need on the first run";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Report::default();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lint"] => lint::run(&root(), &mut report),
        ["test"] => test::run(&root(), &mut report),
        ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    report.summary()
}

/// The root of the repository: the folder that holds this crate's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask/ lies inside the repository").to_path_buf()
}
