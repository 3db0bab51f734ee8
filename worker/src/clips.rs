//! Speaker reference clips on this machine: fetched from the broker before a job is spoken, kept for the next one.
//!
//! An engine is handed a path, so a clip lies in a file: in a folder that this worker alone writes to, and that goes with it.
//! What a killed worker left is swept away by the next one. The clips used last are kept, up to a number and a size; one that
//! is given up stays as long as a run still speaks with it. Of several runs that want the same clip one fetches it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chorus_bus::{BusError, BusErrorKind, Clips};
use chorus_protocol::{ClipId, Reason, ServiceError};
use chorus_runtime::fs::lock::{FileLock, read_if_held};
use tempfile::{TempDir, TempPath};
use tokio::sync::OnceCell;

/// Clips that are kept; as many as an engine keeps what it has heard in.
const MAX_CLIPS: usize = 64;
/// How large they may be together, in bytes.
const MAX_BYTES: usize = 256 << 20;
/// What reading one off the broker may take.
const READ_WITHIN: Duration = Duration::from_secs(8);
/// What all of fetching one may take; less than an attempt may go without progress.
const FETCH_WITHIN: Duration = Duration::from_secs(9);
/// What the folders of workers are called.
const FOLDER_PREFIX: &str = "chorus-clips-";
/// In each folder: held as long as its worker lives.
const LOCK_FILE: &str = "lock";
/// A folder without a lock may be a moment old.
const LEFT_AFTER: Duration = Duration::from_secs(60);

/// A clip that can be spoken with as long as this is held.
pub(crate) type Held = Arc<ClipFile>;

/// A clip on this machine; gone with its last holder.
#[derive(Debug)]
pub(crate) struct ClipFile {
    path: TempPath,
    bytes: usize,
}

impl ClipFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whoever tidies temporary folders may have been here.
    fn is_whole(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|about| about.len() == self.bytes as u64)
    }
}

/// See the module.
pub(crate) struct ClipStore {
    clips: Clips,
    /// Where the folder is made.
    place: PathBuf,
    folder: OnceCell<Folder>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Folder {
    _lock: FileLock,
    dir: TempDir,
}

type Slot = Arc<OnceCell<Held>>;

/// Clips by use. Pure.
#[derive(Debug, Default)]
struct Kept {
    slots: HashMap<ClipId, (Slot, u64)>,
    uses: u64,
}

impl ClipStore {
    /// A store in the system's temporary folder; nothing is written before the first clip.
    pub(crate) fn new(clips: Clips) -> Self {
        Self { clips, place: std::env::temp_dir(), folder: OnceCell::new(), kept: Mutex::default() }
    }

    /// A clip, fetched if it is not here.
    ///
    /// # Errors
    /// INVALID_REQUEST naming `speakerClip` when it is not on the broker (any more), or is another than its name says;
    /// RESOURCE_EXHAUSTED when the broker did not give it in time; SYNTHESIS_FAILED when it cannot be written.
    pub(crate) async fn get(&self, id: &ClipId) -> Result<Held, ServiceError> {
        let slot = self.kept().slot(id);
        let fetching = slot.get_or_try_init(|| self.fetch(id));
        let held = match tokio::time::timeout(FETCH_WITHIN, fetching).await {
            Ok(held) => held.cloned()?,
            Err(_elapsed) => return Err(unfetched("it took too long")),
        };
        if !held.is_whole() {
            self.kept().slots.remove(id);
            return Err(unfetched("it was removed from under the worker"));
        }
        self.kept().tidy(MAX_CLIPS, MAX_BYTES);
        Ok(held)
    }

    async fn fetch(&self, id: &ClipId) -> Result<Held, ServiceError> {
        let clip = self.clips.fetch(id, READ_WITHIN).await.map_err(|error| refused(id, error))?;
        let folder = self.folder.get_or_try_init(|| Folder::make(&self.place)).await;
        let folder = folder.map_err(|why| unwritten(&why))?.dir.path().to_owned();
        let name = id.key();
        let written = tokio::task::spawn_blocking(move || write(&folder, &name, &clip)).await;
        let written = written.map_err(|panicked| unwritten(&panicked.to_string()))?;
        written.map(Arc::new).map_err(|error| unwritten(&error.to_string()))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The place of a clip, which is used now.
    fn slot(&mut self, id: &ClipId) -> Slot {
        self.uses += 1;
        let (slot, used) = self.slots.entry(*id).or_default();
        *used = self.uses;
        Arc::clone(slot)
    }

    /// Gives up those that were used longest ago, and places that were never filled, until the rest fits.
    fn tidy(&mut self, max_clips: usize, max_bytes: usize) {
        let bytes_of = |slot: &Slot| slot.get().map_or(0, |held| held.bytes);
        let mut bytes: usize = self.slots.values().map(|(slot, _)| bytes_of(slot)).sum();
        while self.slots.len() > 1 && (self.slots.len() > max_clips || bytes > max_bytes) {
            let oldest = self.slots.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            let Some((slot, _)) = oldest.and_then(|id| self.slots.remove(&id)) else { return };
            bytes -= bytes_of(&slot);
        }
    }
}

impl Folder {
    async fn make(place: &Path) -> Result<Self, String> {
        let sweeping = place.to_owned();
        if let Err(error) = tokio::task::spawn_blocking(move || sweep(&sweeping)).await {
            tracing::warn!(%error, "what other workers left was not swept");
        }
        let dir = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(place);
        let dir = dir.map_err(|error| error.to_string())?;
        let note = std::process::id().to_string();
        let lock = FileLock::acquire(&dir.path().join(LOCK_FILE), &note, Duration::ZERO).await;
        Ok(Self { _lock: lock.map_err(|error| error.to_string())?, dir })
    }
}

/// Removes folders of workers that are no more.
fn sweep(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX);
        let made = entry.metadata().and_then(|about| about.modified()).ok();
        let is_old = made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > LEFT_AFTER);
        if !is_ours || !is_old || !matches!(read_if_held(&entry.path().join(LOCK_FILE)), Ok(None)) {
            continue;
        }
        match std::fs::remove_dir_all(entry.path()) {
            Ok(()) => tracing::info!(folder = %entry.path().display(), "swept what a killed worker left"),
            Err(error) => tracing::debug!(folder = %entry.path().display(), %error, "was not swept"),
        }
    }
}

/// Under a name of its own each time: a clip that is fetched anew never takes the place of one that is still held.
fn write(folder: &Path, name: &str, clip: &Bytes) -> std::io::Result<ClipFile> {
    use std::io::Write as _;
    let mut file = tempfile::Builder::new().prefix(&format!("{name}-")).tempfile_in(folder)?;
    file.write_all(clip)?;
    Ok(ClipFile { path: file.into_temp_path(), bytes: clip.len() })
}

fn refused(id: &ClipId, error: BusError) -> ServiceError {
    let gone = |reason, why: &str| ServiceError::field(reason, "speakerClip", format!("the clip {id} {why}"));
    match error.kind {
        BusErrorKind::NotFound => {
            gone(Reason::Malformed, "is not on the broker (any more): put it there again")
        }
        BusErrorKind::Malformed => gone(Reason::Malformed, &format!("cannot be used: {error}")),
        BusErrorKind::TooLarge => gone(Reason::TooLarge, &format!("cannot be used: {error}")),
        _ => unfetched(&error.to_string()),
    }
}

fn unfetched(why: &str) -> ServiceError {
    ServiceError::new(Reason::NoBroker, format!("the speaker clip could not be fetched: {why}"))
        .retry_after_ms(500)
}

/// This machine's fault: another may have room.
fn unwritten(why: &str) -> ServiceError {
    ServiceError::new(Reason::EngineError, format!("the speaker clip could not be written: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(folder: &Path, bytes: usize) -> Held {
        Arc::new(write(folder, "clip", &vec![1; bytes].into()).unwrap())
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn those_used_last_are_kept_and_one_that_is_spoken_with_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::default();
        let id = |n: u8| ClipId::of(&[n]);
        for n in 0..4 {
            kept.slot(&id(n)).set(filled(folder.path(), 10)).unwrap();
        }
        let spoken_with = Arc::clone(kept.slot(&id(1)).get().unwrap());
        kept.slot(&id(0));
        kept.tidy(3, 1_000);
        assert_eq!((kept.slots.len(), files(folder.path())), (3, 3));
        assert!(!kept.slots.contains_key(&id(2)));
        kept.tidy(3, 19);
        assert_eq!(kept.slots.keys().copied().collect::<Vec<_>>(), [id(0)]);
        assert_eq!(files(folder.path()), 2, "a run still speaks with one");
        assert!(spoken_with.is_whole());
        drop(spoken_with);
        assert_eq!(files(folder.path()), 1);
        // The last one stays, however large.
        kept.tidy(3, 1);
        assert_eq!(kept.slots.len(), 1);
    }

    #[tokio::test]
    async fn what_a_killed_worker_left_is_swept_and_a_living_one_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let living = Folder::make(place.path()).await.unwrap();
        let folder = |name: &str| place.path().join(name);
        let long_ago = std::time::SystemTime::now() - 2 * LEFT_AFTER;
        for name in ["chorus-clips-dead", "somebody-elses"] {
            std::fs::create_dir(folder(name)).unwrap();
            std::fs::write(folder(name).join("clip"), "speech").unwrap();
        }
        std::fs::create_dir(folder("chorus-clips-young")).unwrap();
        for name in [&folder("chorus-clips-dead"), &folder("somebody-elses"), &living.dir.path().to_owned()] {
            std::fs::File::open(name).unwrap().set_modified(long_ago).unwrap();
        }
        let next = Folder::make(place.path()).await.unwrap();
        assert!(!folder("chorus-clips-dead").exists());
        assert!(folder("somebody-elses").exists() && folder("chorus-clips-young").exists());
        assert!(living.dir.path().exists() && next.dir.path().exists());
        let left = next.dir.path().to_owned();
        drop(next);
        assert!(!left.exists());
    }
}
