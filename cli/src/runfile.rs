//! The run file: how other commands find the fleet of `chorus up`.
//!
//! `run.json` in CHORUS_HOME is an advisory lock whose content says where the fleet is. Its holder writes it in two steps,
//! at the start (no address yet) and when the broker is up. The system frees the lock when the holder dies, so a file whose
//! lock is free is stale, whatever it says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chorus_runtime::fs::{FileLock, lock};
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// What the run file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunInfo {
    /// The process that keeps the fleet.
    pub pid: u32,
    /// The broker; absent while it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The broker's token, where it asks for one. The file can be read by its owner alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// How a fleet is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nobody holds the lock.
    Nothing,
    /// Somebody does, but the broker is not up yet.
    Starting {
        /// The holder's process, where the file could be read.
        pid: Option<u32>,
    },
    /// A fleet runs.
    Running(RunInfo),
}

/// A held run file; dropping it lets go.
#[derive(Debug)]
pub struct RunFile {
    lock: FileLock,
}

impl RunFile {
    /// Takes the run file.
    ///
    /// # Errors
    /// [`CliError::FleetRunning`] when another process has it.
    pub async fn take(home: &Path) -> Result<Self, CliError> {
        std::fs::create_dir_all(home).map_err(CliError::io(format!("cannot make {}", home.display())))?;
        let path = path(home);
        restrict(&path)?;
        let starting = note(&RunInfo { pid: std::process::id(), url: None, token: None });
        let lock = FileLock::acquire(&path, &starting, Duration::ZERO).await?;
        Ok(Self { lock })
    }

    /// Says where the broker is.
    pub fn announce(&mut self, url: &str, token: Option<String>) -> Result<(), CliError> {
        let info = RunInfo { pid: std::process::id(), url: Some(url.to_owned()), token };
        self.lock.write_note(&note(&info)).map_err(CliError::io("cannot write the run file"))
    }
}

fn path(home: &Path) -> PathBuf {
    home.join("run.json")
}

fn note(info: &RunInfo) -> String {
    serde_json::to_string(info).expect("numbers and strings can be written as JSON")
}

/// A note as it may be shown: without the token.
pub fn shown(note: &str) -> String {
    match serde_json::from_str::<RunInfo>(note) {
        Ok(RunInfo { pid, url: Some(url), .. }) => format!("process {pid}, {url}"),
        Ok(RunInfo { pid, url: None, .. }) => format!("process {pid}, which is starting"),
        Err(_partial) => "its run file is just being written".to_owned(),
    }
}

/// The file may hold a token: nobody else reads it.
fn restrict(path: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    open.and_then(|file| file.set_permissions(PermissionsExt::from_mode(0o600)))
        .map_err(CliError::io(format!("cannot open {}", path.display())))
}

/// Looks for a fleet.
pub fn find(home: &Path) -> Result<Found, CliError> {
    let held = lock::read_if_held(&path(home)).map_err(CliError::io("cannot read the run file"))?;
    let Some(note) = held else { return Ok(Found::Nothing) };
    // A reader may see a note that is being written: that is a fleet on its way, too.
    Ok(match serde_json::from_str::<RunInfo>(&note) {
        Ok(info) if info.url.is_some() => Found::Running(info),
        Ok(info) => Found::Starting { pid: Some(info.pid) },
        Err(_partial) => Found::Starting { pid: None },
    })
}

/// Looks for a fleet; one that is starting is waited for, `patience` at most.
pub async fn wait(home: &Path, patience: Duration) -> Result<Option<RunInfo>, CliError> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match find(home)? {
            Found::Nothing => return Ok(None),
            Found::Running(info) => return Ok(Some(info)),
            Found::Starting { pid } if tokio::time::Instant::now() >= deadline => {
                let who = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
                let why = format!("the one that was begun here{who} does not come up");
                return Err(CliError::Fleet { part: "fleet", why });
            }
            Found::Starting { .. } => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_file_counts_while_its_lock_is_held() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(find(home.path()).unwrap(), Found::Nothing);
        let mut held = RunFile::take(home.path()).await.unwrap();
        assert_eq!(find(home.path()).unwrap(), Found::Starting { pid: Some(std::process::id()) });
        assert!(matches!(RunFile::take(home.path()).await, Err(CliError::FleetRunning { .. })));
        held.announce("nats://127.0.0.1:1", Some("t".into())).unwrap();
        let found = wait(home.path(), Duration::ZERO).await.unwrap().unwrap();
        assert_eq!((found.url.as_deref(), found.token.as_deref()), (Some("nats://127.0.0.1:1"), Some("t")));
        let taken = RunFile::take(home.path()).await.unwrap_err().to_string();
        assert!(taken.contains("nats://127.0.0.1:1") && !taken.contains("\"t\""), "{taken}");
        drop(held);
        assert_eq!(find(home.path()).unwrap(), Found::Nothing);
    }

    #[tokio::test]
    async fn a_stale_file_is_nothing_whatever_it_says() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(path(home.path()), r#"{"pid":1,"url":"nats://127.0.0.1:1"}"#).unwrap();
        assert_eq!(find(home.path()).unwrap(), Found::Nothing);
        assert_eq!(wait(home.path(), Duration::from_secs(5)).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_does_not_come_up_is_not_waited_for_for_ever() {
        let home = tempfile::tempdir().unwrap();
        let _held = RunFile::take(home.path()).await.unwrap();
        assert!(matches!(wait(home.path(), Duration::from_secs(5)).await, Err(CliError::Fleet { .. })));
    }

    #[tokio::test]
    async fn only_the_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let _held = RunFile::take(home.path()).await.unwrap();
        let mode = path(home.path()).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
