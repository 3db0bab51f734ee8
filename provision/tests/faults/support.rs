//! A machine in a folder: a PATH with a scripted Python and a scripted uv, a CHORUS_HOME, and an observer that remembers.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chorus_provision::{Config, Finished, Profile, Progress, Provisioner, Step, Want};
use chorus_runtime::process::GuardBinary;

/// The light engine, and no more.
pub(crate) const LIGHT: Want = Want { nats_server: false, engine: Some(Profile::Light), voice: false };

/// A Python 3.12 that can do nothing but say so.
const PYTHON: &str = r#"#!/bin/sh
case "$*" in
  "-I -c "*) echo 3.12; echo "$0" ;;
  *) echo "No module named pip" >&2; exit 1 ;;
esac
"#;

/// A uv that makes what it is asked for, with `@FAULT@` in the place where it would download.
const UV: &str = r#"#!/bin/sh
PATH=/bin:/usr/bin
echo "$1 $2" >> "@ROOT@/uv.log"
for last; do :; done
case "$1 $2" in
  "--version ") echo "uv 0.9.1" ;;
  "venv "*) mkdir -p "$last/bin" && cp "@ROOT@/engine-python" "$last/bin/python" ;;
  "export "*) echo "msgpack==1.1.2" > "$last" ;;
  "pip "*) @FAULT@ ;;
esac
"#;

/// The machine.
pub(crate) struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    /// A machine with a Python and a working uv.
    pub(crate) fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(machine.path("bin")).unwrap();
        machine.program("bin/python3", PYTHON);
        machine.program("engine-python", "#!/bin/sh\n");
        machine.uv("true");
        machine
    }

    /// Replaces uv by one that runs `fault` (a line of shell) instead of installing.
    pub(crate) fn uv(&self, fault: &str) {
        let script = UV.replace("@FAULT@", fault).replace("@ROOT@", &self.path("").display().to_string());
        self.program("bin/uv", &script);
    }

    /// Writes a program.
    pub(crate) fn program(&self, name: &str, script: &str) {
        // Renamed into place: a script that is open for writing cannot be executed.
        let (draft, path) = (self.path(&format!("{name}.draft")), self.path(name));
        fs::write(&draft, script).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(draft, path).unwrap();
    }

    /// Takes a program away.
    pub(crate) fn without(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// A path on the machine.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// How often uv was run with these words first.
    pub(crate) fn uv_runs(&self, words: &str) -> usize {
        let log = fs::read_to_string(self.path("uv.log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with(words)).count()
    }

    /// The machine's configuration.
    pub(crate) fn config(&self) -> Config {
        config(self.root.path())
    }

    /// A provisioner and what it says.
    pub(crate) fn provisioner(&self) -> (Provisioner, Arc<Memory>) {
        let memory = Arc::new(Memory::default());
        (Provisioner::new(self.config(), memory.clone()), memory)
    }

    /// The same with a home of its own, whose folders are links to the first one's.
    pub(crate) fn linked_provisioner(&self) -> (Provisioner, Arc<Memory>) {
        let (home, linked) = (self.path("home"), self.path("linked-home"));
        std::fs::create_dir_all(&linked).unwrap();
        for folder in ["tools", "engine", "env"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
            std::os::unix::fs::symlink(home.join(folder), linked.join(folder)).unwrap();
        }
        let memory = Arc::new(Memory::default());
        let config = Config { home: linked, ..self.config() };
        (Provisioner::new(config, memory.clone()), memory)
    }
}

/// The configuration of the machine in `root`.
pub(crate) fn config(root: &Path) -> Config {
    let variables = [("CHORUS_HOME", root.join("home")), ("PATH", root.join("bin"))];
    let variables = variables.map(|(name, path)| (OsString::from(name), path.into_os_string()));
    Config { guard: GuardBinary::Unguarded, ..Config::from_environment(variables).unwrap() }
}

/// An observer that remembers.
#[derive(Default)]
pub(crate) struct Memory {
    events: Mutex<Vec<String>>,
}

impl Memory {
    /// Whether it heard something that contains `words`.
    pub(crate) fn heard(&self, words: &str) -> bool {
        self.events.lock().unwrap().iter().any(|event| event.contains(words))
    }

    fn note(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }
}

impl Progress for Memory {
    fn line(&self, _: Step, line: &str) {
        self.note(format!("line {line}"));
    }
    fn finished(&self, step: Step, _: &Finished) {
        self.note(format!("finished {step:?}"));
    }
    fn waiting(&self, holder: &str) {
        self.note(format!("waiting for {holder}"));
    }
}

/// Polls until `condition` holds; fails the test after 20 s.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
