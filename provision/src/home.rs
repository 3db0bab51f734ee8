//! The folders below CHORUS_HOME, and what makes one of them count as complete.
//!
//! ```text
//! tools/uv-<version>  tools/nats-<version>   installed tools          engine/<content hash>   our Python package
//! env/<profile>-<lock hash>                  Python environments      voices/<name>           voices
//! cache/uv                                   uv's downloads           provision.lock          held by the one at work
//! ```
//! Each installed folder holds a marker with the pin it was made from. The marker is written last: a folder without it,
//! or with another pin, is no more than rubbish from an interrupted run, and is removed when its turn comes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::Error;

const MARKER: &str = ".complete";

/// Whether a folder was completely made from `pin`.
pub(crate) fn is_complete(folder: &Path, pin: &str) -> bool {
    marker(folder).is_some_and(|marked| marked == pin)
}

/// The pin that a complete folder was made from.
pub(crate) fn marker(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(MARKER)).ok()
}

/// A folder in the making. Dropped before [`Draft::complete`], it is removed; left by a killed process, it is removed
/// when the next one begins.
pub(crate) struct Draft {
    at: PathBuf,
    target: PathBuf,
    completed: bool,
}

impl Draft {
    /// Begins a folder beside its target, to be renamed when it is complete.
    pub(crate) fn beside(target: &Path) -> Result<Self, Error> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        Self::begin(target.with_file_name(format!(".{name}.partial")), target)
    }

    /// Begins a folder in its place, for what cannot be moved (a Python environment knows its own path).
    pub(crate) fn in_place(target: &Path) -> Result<Self, Error> {
        Self::begin(target.to_path_buf(), target)
    }

    fn begin(at: PathBuf, target: &Path) -> Result<Self, Error> {
        // The marker goes first: a removal that is interrupted must not leave a half-empty folder that looks complete.
        remove_file(&at.join(MARKER))?;
        remove(&at)?;
        fs::create_dir_all(&at).map_err(|error| Error::io("make the folder", &at, error))?;
        Ok(Self { at, target: target.to_path_buf(), completed: false })
    }

    /// Where to put the contents.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Writes the marker and puts the folder in its place.
    pub(crate) fn complete(mut self, pin: &str) -> Result<(), Error> {
        write(&self.at.join(MARKER), pin.as_bytes())?;
        if self.at != self.target {
            remove_file(&self.target.join(MARKER))?;
            remove(&self.target)?;
            fs::rename(&self.at, &self.target).map_err(|error| Error::io("rename", &self.at, error))?;
        }
        self.completed = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.completed
            && let Err(error) = remove(&self.at)
        {
            tracing::warn!(folder = %self.at.display(), %error, "cannot remove an unfinished folder");
        }
    }
}

/// Writes a file and waits until it is on the disk. A file cut short does no harm: it lies in a draft, or its reader
/// compares the whole of it.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let written = fs::File::create(path).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    written.map_err(|error| Error::io("write", path, error))
}

/// Removes a folder and all in it, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    absent_is_fine(fs::remove_dir_all(folder)).map_err(|error| Error::io("remove", folder, error))
}

fn remove_file(file: &Path) -> Result<(), Error> {
    absent_is_fine(fs::remove_file(file)).map_err(|error| Error::io("remove", file, error))
}

fn absent_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The bytes that the files below `folder` take; what cannot be read counts nothing.
pub(crate) fn size_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Fails when the file system of `folder` (or of its nearest ancestor that exists) has less than `needed_bytes` free.
pub(crate) fn check_space(what: &'static str, folder: &Path, needed_bytes: u64) -> Result<(), Error> {
    let exists = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let system = rustix::fs::statvfs(exists).map_err(|error| Error::io("measure", exists, error.into()))?;
    let free_bytes = system.f_bavail.saturating_mul(system.f_frsize);
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(Error::DiskFull {
        what,
        at: folder.to_path_buf(),
        needed_bytes: Some(needed_bytes),
        free_bytes: Some(free_bytes),
        detail: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_completed_draft_counts_and_a_dropped_one_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("tool");
        let draft = Draft::beside(&target).unwrap();
        fs::write(draft.path().join("file"), "x").unwrap();
        let partial = draft.path().to_path_buf();
        drop(draft);
        assert!(!partial.exists() && !target.exists());

        let draft = Draft::beside(&target).unwrap();
        fs::write(draft.path().join("file"), "x").unwrap();
        assert!(!is_complete(&target, "pin"));
        draft.complete("pin").unwrap();
        assert!(is_complete(&target, "pin") && !is_complete(&target, "other"));
        assert!(target.join("file").exists());
    }

    #[test]
    fn a_draft_begins_empty_whatever_was_left() {
        let home = tempfile::tempdir().unwrap();
        let target = home.path().join("env");
        fs::create_dir_all(target.join("lib")).unwrap();
        write(&target.join(MARKER), b"old pin").unwrap();
        let draft = Draft::in_place(&target).unwrap();
        assert!(!is_complete(&target, "old pin") && !target.join("lib").exists());
        draft.complete("new pin").unwrap();
        assert!(is_complete(&target, "new pin"));
    }

    #[test]
    fn too_little_space_is_said_beforehand() {
        let home = tempfile::tempdir().unwrap();
        let not_there_yet = home.path().join("a/b");
        check_space("a test", &not_there_yet, 1).unwrap();
        let error = check_space("a test", &not_there_yet, u64::MAX).unwrap_err();
        assert!(matches!(error, Error::DiskFull { needed_bytes: Some(u64::MAX), .. }), "{error}");
        assert!(error.to_string().contains("are free"), "{error}");
    }
}
