//! An advisory file lock that says who holds it.
//!
//! The operating system frees the lock when its holder dies, however it dies; so a lock file whose lock is
//! free is stale. A reader looks with [`read_if_held`], which takes the shared lock for a moment;
//! [`FileLock::acquire`] therefore always tries for a few milliseconds before it calls the lock held.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time between two tries.
const TRY_EVERY: Duration = Duration::from_millis(10);
/// What even an impatient caller waits, so that a reader's glance does not look like a holder.
const LEAST_WAIT: Duration = Duration::from_millis(50);
/// A holder's note is not read beyond this.
const MAX_NOTE_BYTES: u64 = 64 * 1024;

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process (or another handle in this one) holds it; `holder` is the file's content.
    #[error("{path} is held by another process: {holder}", path = path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The file could not be opened, locked or written.
    #[error("cannot lock {path}", path = path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// A held lock; dropping it empties the file and frees the lock. The file itself stays, for removing it would
/// race.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Takes the lock on `path` (made when missing), trying until `wait` has passed, and writes `note` into
    /// it.
    pub async fn acquire(path: &Path, note: &str, wait: Duration) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let file = open(path, true).map_err(failed)?;
        let deadline = Instant::now() + wait.max(LEAST_WAIT);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(TRY_EVERY).await,
                Err(TryLockError::WouldBlock) => {
                    let holder = read_note(&file).map_err(failed)?;
                    return Err(LockError::Held { path: path.to_owned(), holder });
                }
            }
        }
        let mut lock = Self { file, path: path.to_owned() };
        lock.write_note(note).map_err(failed)?;
        Ok(lock)
    }

    /// Replaces what the file says about its holder. A reader at this very moment may see part of it.
    pub fn write_note(&mut self, note: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(note.as_bytes())?;
        self.file.sync_data()
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.set_len(0).and_then(|()| self.file.unlock()) {
            tracing::warn!(path = %self.path.display(), %error, "lock file not cleared; closing it frees the lock");
        }
    }
}

/// The holder's note when somebody holds the lock on `path`; `None` when the file is missing or stale.
pub fn read_if_held(path: &Path) -> io::Result<Option<String>> {
    let file = match open(path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => read_note(&file).map(Some),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(create).create(create).truncate(false).open(path)
}

fn read_note(mut file: &File) -> io::Result<String> {
    let mut note = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(MAX_NOTE_BYTES).read_to_end(&mut note)?;
    Ok(String::from_utf8_lossy(&note).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holder_at_a_time_and_a_freed_file_is_stale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(read_if_held(&path).unwrap(), None);
        let held = FileLock::acquire(&path, "pid 1", Duration::ZERO).await.unwrap();
        assert_eq!(read_if_held(&path).unwrap().as_deref(), Some("pid 1"));
        match FileLock::acquire(&path, "pid 2", Duration::ZERO).await {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, "pid 1"),
            other => panic!("{other:?}"),
        }
        drop(held);
        assert_eq!(read_if_held(&path).unwrap(), None);
        FileLock::acquire(&path, "pid 2", Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn a_patient_caller_gets_the_lock_when_it_is_freed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::acquire(&path, "first", Duration::ZERO).await.unwrap();
        let (second, ()) =
            tokio::join!(FileLock::acquire(&path, "second", Duration::from_secs(10)), async move {
                tokio::task::yield_now().await;
                drop(held);
            });
        assert_eq!(read_if_held(second.unwrap().path()).unwrap().as_deref(), Some("second"));
    }
}
