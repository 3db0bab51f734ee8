//! The built binary, as a shell sees it: exit codes, streams, and `say` through a whole fleet made of the parts
//! (a nats-server, an engine) that the environment names.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(50);
/// What `say` needs to be told when nothing shall be installed.
const PARTS: [&str; 3] = ["CHORUS_ENGINE_PYTHON", "CHORUS_ENGINE_PATH", "CHORUS_NATS_SERVER"];

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `chorus` with a home of its own and nothing of ours in its environment.
    #[allow(clippy::disallowed_methods, reason = "a test starts the program under test")]
    fn program(&self, binary: &str, args: &[&str]) -> Command {
        let mut command = Command::new(binary);
        let foreign = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CHORUS_"));
        for (name, _) in foreign {
            command.env_remove(name);
        }
        command.env("CHORUS_HOME", self.0.path()).env("TMPDIR", self.0.path()).current_dir(self.0.path());
        command.args(args).stdin(Stdio::null());
        command
    }

    fn chorus(&self, args: &[&str]) -> Output {
        self.program(env!("CARGO_BIN_EXE_chorus"), args).output().unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn refused(output: &Output, code: i32, word: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains("error: ") && text.contains("hint: "), "{text}");
    assert!(text.contains(word), "{word:?} in {text}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_hint() {
    let home = Home::new();
    refused(&home.chorus(&["bogus"]), 2, "bogus");
    refused(&home.chorus(&["say"]), 2, "nothing to say");
    refused(&home.chorus(&["say", ""]), 2, "empty");
    refused(&home.chorus(&["say", "hi", "--speed", "9"]), 2, "speed");
    refused(&home.chorus(&["say", "hi", "-o", "hi.txt"]), 2, "txt");
    refused(&home.chorus(&["say", "hi", "-o", "missing/hi.wav"]), 1, "missing/hi.wav");
    refused(&home.chorus(&["say", "hi", "--file", "x"]), 2, "not both");
    refused(&home.chorus(&["say", "--file", "x"]), 1, "x cannot be read");
    refused(&home.chorus(&["say", "hi", "--json", "-o", "-"]), 2, "stdout");
    refused(&home.chorus(&["say", "hi", "--engine", "loud"]), 2, "loud");
    refused(&home.chorus(&["say", "hi", "--config", "missing.toml"]), 2, "missing.toml");
    refused(&home.chorus(&["drain", "a.b"]), 2, "worker id");
    refused(&home.chorus(&["up", "--workers", "0", "--port", "x"]), 2, "--workers");
    refused(&home.chorus(&["worker", "--id", "a.b", "--nats", "nats://127.0.0.1:1"]), 2, "worker id");
    assert_eq!(std::fs::read_dir(home.0.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn without_a_fleet_the_commands_that_ask_one_say_so() {
    let home = Home::new();
    refused(&home.chorus(&["status"]), 1, "no fleet");
    refused(&home.chorus(&["models", "list"]), 1, "no fleet");
    refused(&home.chorus(&["drain", "w"]), 1, "no fleet");
    let output = home.chorus(&["status", "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["success"], false);
    std::fs::write(home.path("run.json"), r#"{"pid":1,"url":"nats://127.0.0.1:1"}"#).unwrap();
    refused(&home.chorus(&["status"]), 1, "no fleet");
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let home = Home::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("nats://{nobody}");
    refused(&home.chorus(&["say", "hi", "--nats", &url]), 1, &url);
}

#[test]
fn text_that_is_not_utf8_is_refused_by_its_offset() {
    let home = Home::new();
    std::fs::write(home.path("latin1"), b"gr\xfc\xdf").unwrap();
    refused(&home.chorus(&["say", "--file", "latin1"]), 2, "offset 2");
    std::fs::write(home.path("long"), "a".repeat(256 * 1024 + 1)).unwrap();
    refused(&home.chorus(&["say", "--ssml", "--file", "long"]), 2, "262144");
    std::fs::write(home.path("nul"), "a\0b").unwrap();
    refused(&home.chorus(&["say", "--file", "nul"]), 2, "NUL");
}

#[test]
fn help_and_version_are_answers_and_shims_are_their_commands() {
    let home = Home::new();
    let help = home.chorus(&["help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("Exit codes") && text.contains("doctor"), "{text}");
    let shim = home.program(env!("CARGO_BIN_EXE_chorus-worker"), &["--help"]).output().unwrap();
    assert!(String::from_utf8(shim.stdout).unwrap().contains("--model"));
    let shim = home.program(env!("CARGO_BIN_EXE_chorus-manager"), &["--id", "a b"]).output().unwrap();
    refused(&shim, 2, "manager id");
}

#[test]
fn say_speaks_through_a_fleet_of_its_own_and_leaves_nothing() {
    let parts = parts();
    let home = Home::new();
    let mut say =
        home.program(env!("CARGO_BIN_EXE_chorus"), &["say", "--engine", "null", "Hello.", "-o", "a.wav"]);
    let output = say.envs(parts.clone()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("a.wav"));
    let wav = std::fs::read(home.path("a.wav")).unwrap();
    assert_eq!((&wav[..4], wav.len()), (&b"RIFF"[..], 44 + 2 * 22_050));
    assert_eq!(std::fs::read_dir(home.0.path()).unwrap().count(), 1, "the wav alone");
}

#[test]
fn what_sigkill_leaves_of_say_ends_by_itself() {
    let parts = parts();
    let home = Home::new();
    // Nobody reads its stdout: it waits there, its fleet up, with more audio than a pipe holds.
    let text = "One sentence is here. Another sentence is here. A third sentence is here.";
    let mut say = home.program(env!("CARGO_BIN_EXE_chorus"), &["say", "--engine", "null", text, "-o", "-"]);
    let mut say = say.envs(parts).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("nats-server and engine", || guards_of(home.0.path()).len() == 2);
    say.kill().unwrap();
    say.wait().unwrap();
    wait_for("the end of all processes", || guards_of(home.0.path()).is_empty());
}

#[test]
fn what_sigkill_leaves_of_up_ends_by_itself() {
    let parts = parts();
    let home = Home::new();
    std::fs::write(home.path("own.toml"), "[fleet]\nstop_timeout_ms = 1000\n").unwrap();
    let mut up =
        home.program(env!("CARGO_BIN_EXE_chorus"), &["up", "--engine", "null", "--config", "own.toml"]);
    let mut up = up.envs(parts).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("nats-server, worker and engine", || guards_of(home.0.path()).len() == 3);
    up.kill().unwrap();
    up.wait().unwrap();
    wait_for("the end of all processes", || guards_of(home.0.path()).is_empty());
    refused(&home.chorus(&["status"]), 1, "no fleet");
}

#[test]
fn a_model_is_taken_off_the_workers_and_brought_back() {
    let parts = parts();
    let home = Home::new();
    let mut up = home.program(env!("CARGO_BIN_EXE_chorus"), &["up", "--engine", "null"]);
    let mut up = up.envs(parts).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a fleet that can speak", || home.chorus(&["status"]).status.success());
    refused(&home.chorus(&["models", "load", "nobody"]), 1, "nobody");
    let order = |what: &str| {
        let output = home.chorus(&["models", what, "null", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let unloaded = order("unload");
    assert_eq!(unloaded["unloaded"], "null");
    assert!(unloaded["workers"][0]["rssBytes"].as_u64() > Some(0), "{unloaded}");
    assert!(!home.chorus(&["status"]).status.success(), "no model can speak");
    let loaded = order("load");
    assert!(loaded["workers"][0]["loadMs"].as_f64() >= Some(0.0), "{loaded}");
    assert!(home.chorus(&["status"]).status.success());
    up.kill().unwrap();
    up.wait().unwrap();
    wait_for("the end of all processes", || guards_of(home.0.path()).is_empty());
}

/// The parts that the environment names.
fn parts() -> Vec<(&'static str, std::ffi::OsString)> {
    let named = |name| {
        std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: `cargo xtask test` sets it"))
    };
    PARTS.iter().map(|name| (*name, named(name))).collect()
}

fn wait_for(what: &str, mut come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !come() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The guards of children that were started in this home, their working directory: one each for nats-server, a worker, an
/// engine. (Linux; elsewhere none are seen, and the wait for the first one says so.)
fn guards_of(home: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
        String::from_utf8_lossy(&line).contains("\0guard\0--grace-ms\0")
            && place.is_ok_and(|place| place == home)
    };
    numbers.filter(ours).collect()
}
