//! `cargo xtask test`: every test there is, on a machine that may have nothing but Rust and a Python.

use std::path::Path;
use std::process::Command;

use crate::command::{self, command};
use crate::report::{Passed, Report};
use crate::setup::{self, Installed, cargo};
use crate::{node, sources};

/// Installs what the tests need, then runs them all.
pub(crate) fn run(root: &Path, report: &mut Report) {
    let mut installed = None;
    report.step("setup", || {
        let found = setup::install(root, "test")?;
        let done = Passed::Done(found.python.display().to_string());
        installed = Some(found);
        Ok(done)
    });
    let Some(installed) = installed else { return };
    report.step("rust", || rust(root, &installed));
    report.step("documents", || documents(root));
    report.step("python", || pytest(root, &installed.python));
    report.step("node", || node::test(root, &installed));
}

fn rust(root: &Path, installed: &Installed) -> anyhow::Result<Passed> {
    if command::present(root, &cargo(), &["nextest", "--version"]) {
        let nextest = command(root, cargo(), &["nextest", "run", "--workspace"]);
        let nextest = with_parts(nextest, root, installed);
        return command::run(nextest, |line| line.contains("Summary [")).map(Passed::Done);
    }
    println!("   cargo-nextest is not installed (cargo install --locked cargo-nextest); cargo test instead:");
    let test =
        command(root, cargo(), &["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]);
    command::run(with_parts(test, root, installed), |line| line.starts_with("test result:")).map(Passed::Done)
}

/// Tells the tests of single crates where the real parts are.
fn with_parts(mut tests: Command, root: &Path, installed: &Installed) -> Command {
    tests
        .env("CHORUS_ENGINE_PYTHON", &installed.python)
        .env("CHORUS_ENGINE_PATH", root.join("worker/engine"));
    if let Some(server) = &installed.nats_server {
        tests.env("CHORUS_NATS_SERVER", server);
    }
    tests
}

/// The examples in the documentation, which nextest does not run.
fn documents(root: &Path) -> anyhow::Result<Passed> {
    let sources = sources::read_all(root)?;
    if !sources.iter().any(|source| source.is_rust() && has_example(&source.text)) {
        return Ok(Passed::Skipped("no documentation has a runnable example".into()));
    }
    let test = command(root, cargo(), &["test", "--workspace", "--doc"]);
    command::run(test, |line| line.starts_with("test result:")).map(Passed::Done)
}

/// Whether a doc comment opens a code block that rustdoc would run.
fn has_example(text: &str) -> bool {
    let comments = text.lines().map(str::trim_start).filter_map(|line| {
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
        comment.trim_start().strip_prefix("```")
    });
    // Every second fence closes a block.
    comments.step_by(2).any(|language| matches!(language.trim(), "" | "rust" | "no_run" | "should_panic"))
}

fn pytest(root: &Path, python: &Path) -> anyhow::Result<Passed> {
    let engine = root.join("worker/engine");
    let mut pytest = command(&engine, python, &["-m", "pytest", "-p", "no:cacheprovider"]);
    // No compiled files: they would count as a change to the embedded package.
    pytest.env("PYTHONPATH", &engine).env("PYTHONDONTWRITEBYTECODE", "1");
    let closing =
        |line: &str| line.contains(" in ") && (line.contains(" passed") || line.contains(" failed"));
    command::run(pytest, closing).map(Passed::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runnable_blocks_are_examples() {
        assert!(has_example("/// Text.\n/// ```\n/// let a = 1;\n/// ```\n"));
        assert!(!has_example("/// ```text\n/// a -> b\n/// ```\n"));
        assert!(has_example("//! ```text\n//! a\n//! ```\n//! ```no_run\n//! f()\n//! ```\n"));
        assert!(!has_example("let fence = \"```\";"));
    }
}
