//! The built `chorus`: run to its end, or kept up as a fleet.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::{Home, poll};

/// The longest that a single run may take: a cold start of the real engine on a busy machine.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// What a run left behind.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last line of standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        let text = self.text();
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {text:?}\n{}", self.stderr))
    }

    /// The run, when it succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.text(), self.stderr);
        self
    }
}

/// The binary that this workspace built.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    let binary = profile.join("chorus");
    assert!(binary.exists(), "{} is not built: run `cargo build -p chorus-cli`", binary.display());
    binary
}

/// The interpreter of the provisioned engine.
///
/// # Panics
/// When none is provisioned.
pub fn python(home: &Home) -> PathBuf {
    let environments = std::fs::read_dir(home.path().join("env")).expect("an environment is provisioned");
    // That of the linters has no engine.
    let engines =
        environments.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with("check-"));
    let mut found = engines.map(|entry| entry.path().join("bin/python"));
    found.find(|python| python.exists()).expect("an environment has an interpreter")
}

/// A command line, not yet started, with nothing of this process' CHORUS_ settings.
pub fn command(home: &Home, args: &[&str]) -> Command {
    #[allow(clippy::disallowed_methods, reason = "the tests stand where a user's shell stands")]
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHORUS_") {
            command.env_remove(name);
        }
    }
    command.args(args).env("CHORUS_HOME", home.path()).current_dir(home.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs `chorus` to its end.
pub async fn chorus(home: &Home, args: &[&str]) -> Ran {
    finish(command(home, args)).await
}

/// Runs `chorus` to its end with `input` on its standard input.
pub async fn chorus_with_stdin(home: &Home, args: &[&str], input: &[u8]) -> Ran {
    let mut command = command(home, args);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("chorus starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    // It may stop reading early, when what it has read is too long already.
    drop(stdin.write_all(input).await);
    drop(stdin);
    wait(child).await
}

/// Runs a prepared command to its end.
pub async fn finish(mut command: Command) -> Ran {
    wait(command.spawn().expect("chorus starts")).await
}

async fn wait(child: Child) -> Ran {
    let output = tokio::time::timeout(RUN_LIMIT, child.wait_with_output()).await;
    let output = output.expect("chorus ends in time").expect("its output can be read");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A fleet kept up by `chorus up` on a free port.
pub struct Fleet {
    /// Its home.
    pub home: Home,
    /// Its broker.
    pub url: String,
    child: Child,
}

impl Fleet {
    /// Starts `chorus up` with `args` and waits until a model can speak.
    pub async fn up(args: &[&str]) -> Self {
        Self::up_in(Home::provisioned(), args).await
    }

    /// The same in a given home.
    pub async fn up_in(home: Home, args: &[&str]) -> Self {
        Self::up_set(home, args, &[]).await
    }

    /// The same with settings, given as CHORUS_ variables.
    pub async fn up_set(home: Home, args: &[&str], settings: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(home.file("up.log")).expect("the home is writable");
        let mut command = command(&home, &["up", "--port", "0"]);
        command
            .args(args)
            .envs(settings.iter().copied())
            .stdout(log.try_clone().expect("a file has a twin"))
            .stderr(log);
        let child = command.spawn().expect("chorus starts");
        let status = poll("a fleet that can speak", RUN_LIMIT, || async {
            let status = chorus(&home, &["status", "--json"]).await;
            (status.code == 0).then(|| status.json())
        })
        .await;
        let url = status["nats"]["url"].as_str().expect("a status names its broker").to_owned();
        Self { home, url, child }
    }

    /// `chorus status --json`.
    pub async fn status(&self) -> Value {
        chorus(&self.home, &["status", "--json"]).await.json()
    }

    /// What `chorus up` has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.file("up.log")).unwrap_or_default()
    }

    /// The process of `chorus up`.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// Interrupts it, as Ctrl-C does, and waits for its end.
    pub async fn interrupt(mut self) -> (i32, Home) {
        signal(self.pid(), rustix::process::Signal::INT);
        let status = tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await;
        let status = status.expect("chorus up ends within 20 s").expect("its status can be read");
        (status.code().unwrap_or(-1), self.home)
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid is positive");
    rustix::process::kill_process(pid, signal).expect("the process is there");
}

/// Waits until no process of this home is left.
pub async fn nothing_is_left(home: &Home) {
    poll("no process is left behind", Duration::from_secs(10), || async {
        home.processes().is_empty().then_some(())
    })
    .await;
}
