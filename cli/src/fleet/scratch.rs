//! A folder for the broker of one command, gone when the command is.
//!
//! Each lies in the system's place for temporary files, with a lock that its owner holds. An owner that was killed leaves
//! the folder but not the lock; the next command clears such folders away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chorus_runtime::fs::FileLock;
use tempfile::TempDir;

use crate::error::CliError;

const PREFIX: &str = "chorus-fleet-";
const LOCK: &str = "held";

/// The folder; dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    _lock: FileLock,
}

impl Scratch {
    /// Makes one below `place`, and clears away what others have left there.
    pub async fn new(place: &Path) -> Result<Self, CliError> {
        clear_stale(place).await;
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place);
        let folder = made.map_err(CliError::io(format!("cannot make a folder in {}", place.display())))?;
        let note = std::process::id().to_string();
        let lock = FileLock::acquire(&folder.path().join(LOCK), &note, Duration::ZERO).await?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

async fn clear_stale(place: &Path) {
    for folder in stale(place) {
        // Taken for the moment of the removal, so that its owner, should it come up just now, is not robbed.
        let Ok(_lock) = FileLock::acquire(&folder.join(LOCK), "", Duration::ZERO).await else { continue };
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::debug!(folder = %folder.display(), %error, "a stale folder was not removed");
        }
    }
}

/// Folders whose lock is there and free: one without a lock file may just be being made.
fn stale(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let left = |folder: &PathBuf| folder.join(LOCK).exists();
    ours.map(|entry| entry.path()).filter(left).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_owner_left_is_cleared_and_a_living_ones_stays() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join("chorus-fleet-left");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join(LOCK), "1").unwrap();
        let foreign = place.path().join("other");
        std::fs::create_dir(&foreign).unwrap();
        let first = Scratch::new(place.path()).await.unwrap();
        assert!(!left.exists() && foreign.exists());
        let second = Scratch::new(place.path()).await.unwrap();
        assert!(first.path().exists() && second.path().exists());
        let gone = first.path().to_path_buf();
        drop(first);
        assert!(!gone.exists() && second.path().exists());
    }
}
