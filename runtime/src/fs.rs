//! Careful files: whole or not at all, and held by one process at a time.
//!
//! [`write_atomic`] replaces a file so that a reader, or a crash, sees the old content or the new. [`lock`] has the
//! advisory lock whose content says who holds it; a lock file that nobody holds is stale, whatever it says.

pub mod lock;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

pub use lock::{FileLock, LockError};

/// Writes `bytes` to `path` by way of a temporary file in the same folder: write, sync, rename, sync the
/// folder. Blocking; call it from a blocking task when the file is large.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut draft = tempfile::NamedTempFile::new_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|refused| refused.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        write_atomic(&path, b"first, and longer").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomic(&folder.path().join("missing/run.toml"), b"").is_err());
    }
}
