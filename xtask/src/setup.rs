//! What the Python side of the checks needs: installed by the product's own `chorus setup`, so that the chores use, and
//! prove, the same provisioning as everybody else.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::command::{self, command};

/// The cargo that runs us.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Builds `chorus` and returns where it is.
pub(crate) fn build_chorus(root: &Path) -> anyhow::Result<PathBuf> {
    let build = command(root, cargo(), &["build", "--package", "chorus-cli", "--bin", "chorus"]);
    command::run(build, command::no_closing_line)?;
    let metadata = metadata(root)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(Path::new(target).join("debug/chorus"))
}

/// `cargo metadata`: the workspace's own packages.
pub(crate) fn metadata(root: &Path) -> anyhow::Result<Value> {
    let output = command(root, cargo(), &["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo metadata")?;
    serde_json::from_slice(&output.stdout).context("cargo metadata did not answer in JSON")
}

/// What `chorus setup` installed, as the tests need it.
pub(crate) struct Installed {
    /// The engine environment's interpreter.
    pub python: PathBuf,
    /// The nats-server, where the profile has one.
    pub nats_server: Option<PathBuf>,
}

/// Runs `chorus setup` for a profile (`check`: the tools of the Python checks; `test`: everything).
pub(crate) fn install(root: &Path, profile: &str) -> anyhow::Result<Installed> {
    let chorus = build_chorus(root)?;
    let output = command(root, chorus, &["setup", "--profile", profile, "--json"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run chorus setup")?;
    if !output.status.success() {
        bail!("chorus setup ended with {}", output.status);
    }
    let answer = String::from_utf8_lossy(&output.stdout);
    let last = answer.lines().next_back().unwrap_or_default();
    let paths: Value = serde_json::from_str(last).context("chorus setup did not answer in JSON")?;
    let path = |name: &str| paths[name].as_str().map(PathBuf::from);
    Ok(Installed {
        python: path("python").context("chorus setup named no python")?,
        nats_server: path("natsServer"),
    })
}
