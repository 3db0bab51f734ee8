//! `cargo xtask lint`: what must hold before a change is looked at.

use std::path::Path;

use anyhow::bail;

use crate::command::{self, command};
use crate::report::{Passed, Report};
use crate::setup::{self, cargo};
use crate::{files, imports, node, sources};

/// Runs every lint.
pub(crate) fn run(root: &Path, report: &mut Report) {
    report.step("format", || tool(root, &["fmt", "--all", "--check"]));
    report.step("clippy", || {
        tool(root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])
    });
    report.step("imports", || {
        let mut faults = imports::faults_of_graph(&setup::metadata(root)?);
        faults.extend(imports::faults_of_sources(&sources::read_all(root)?));
        none_of(&faults, "every crate keeps to its layer")
    });
    report.step("files", || {
        let sources = sources::read_all(root)?;
        none_of(&files::faults(&sources), &format!("{} source files", sources.len()))
    });
    report.step("licences", || deny(root, &["bans", "licenses", "sources"]));
    report.step("advisories", || deny(root, &["advisories"]));
    report.step("ruff", || ruff(root));
    report.step("typescript", || node::lint(root));
}

fn tool(root: &Path, arguments: &[&str]) -> anyhow::Result<Passed> {
    command::run(command(root, cargo(), arguments), command::no_closing_line).map(Passed::Done)
}

fn none_of(faults: &[String], good: &str) -> anyhow::Result<Passed> {
    for fault in faults {
        println!("   {fault}");
    }
    match faults.len() {
        0 => Ok(Passed::Done(good.to_owned())),
        1 => bail!("1 fault"),
        many => bail!("{many} faults"),
    }
}

/// `cargo deny` with the rules of `deny.toml`. The advisories come from a database on GitHub; without a way there, that
/// check is left out and said so.
fn deny(root: &Path, checks: &[&str]) -> anyhow::Result<Passed> {
    const NO_DATABASE: &str = "failed to fetch advisory database";
    if !command::present(root, &cargo(), &["deny", "--version"]) {
        return Ok(Passed::Skipped("cargo-deny is not installed (cargo install --locked cargo-deny)".into()));
    }
    let arguments = [&["deny", "check", "--hide-inclusion-graph"], checks].concat();
    let closing =
        |line: &str| line.contains(NO_DATABASE) || line.starts_with("error") || line.contains(" ok");
    match command::run(command(root, cargo(), &arguments), closing) {
        Ok(closing) => Ok(Passed::Done(closing)),
        Err(error) if error.to_string().contains(NO_DATABASE) => {
            Ok(Passed::Skipped("the advisory database cannot be reached from here".into()))
        }
        Err(error) => Err(error),
    }
}

fn ruff(root: &Path) -> anyhow::Result<Passed> {
    let python = setup::install(root, "check")?.python;
    let arguments = ["-m", "ruff", "check", "--no-cache", "worker/engine"];
    let closing = |line: &str| line.starts_with("All checks") || line.starts_with("Found");
    command::run(command(root, python, &arguments), closing).map(Passed::Done)
}
