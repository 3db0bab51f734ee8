//! A CHORUS_HOME for one test.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What provisioning makes; everything else in a home is state, which a test must have for itself.
const PROVISIONED: [&str; 5] = ["cache", "engine", "env", "tools", "voices"];

/// A home of its own, which links to what was provisioned.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// A home in which everything that a fresh machine downloads is there.
    ///
    /// # Panics
    /// When nothing is provisioned: run `chorus setup --profile test`.
    pub fn provisioned() -> Self {
        let home = Self::empty();
        let source = provisioned_home();
        for entry in PROVISIONED {
            let there = source.join(entry);
            if there.exists() {
                symlink(&there, home.path().join(entry)).expect("a fresh folder takes a link");
            }
        }
        assert!(
            home.path().join("tools").exists(),
            "{} is not provisioned: run `chorus setup --profile test`",
            source.display()
        );
        home
    }

    /// A home as on a fresh machine.
    pub fn empty() -> Self {
        Self { dir: TempDir::with_prefix("chorus-test-").expect("the temporary folder is writable") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Processes that were started with this home: by their environment or their arguments.
    pub fn processes(&self) -> Vec<u32> {
        let needle = self.path().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc is there").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let mentions = |file: &str| {
                std::fs::read(entry.path().join(file))
                    .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&needle))
            };
            let is_zombie =
                std::fs::read_to_string(entry.path().join("stat")).is_ok_and(|s| s.contains(") Z "));
            if pid != std::process::id() && !is_zombie && (mentions("cmdline") || mentions("environ")) {
                found.push(pid);
            }
        }
        found
    }
}

/// The home that was provisioned: CHORUS_HOME, or the platform's default.
pub fn provisioned_home() -> PathBuf {
    if let Some(home) = std::env::var_os("CHORUS_HOME") {
        return home.into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    data.expect("HOME is set").join("chorus")
}
