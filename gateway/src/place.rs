//! Where a client's files may lie: inside one folder, whatever the path says.
//!
//! The folder of the file is resolved with all its links before it is compared, so neither `..` nor a link leads out. The
//! file itself is made by a rename, which replaces a link instead of following it.

use std::path::{Component, Path, PathBuf};

use chorus_protocol::{AudioFormat, Reason, ServiceError};

/// The folder that files must lie in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// This folder, its links resolved.
    ///
    /// # Errors
    /// When it is not there.
    pub fn new(folder: &Path) -> std::io::Result<Self> {
        folder.canonicalize().map(Self)
    }

    /// The place that `path` means, absolute and inside the root. A relative one starts in the working directory.
    ///
    /// # Errors
    /// INVALID_REQUEST naming `outputPath`: outside, no folder there, or a folder itself.
    pub fn place(&self, path: &str) -> Result<PathBuf, ServiceError> {
        let refused = |why: String| {
            ServiceError::field(
                Reason::Malformed,
                "outputPath",
                format!("outputPath {path:?} cannot be used: {why}"),
            )
        };
        if path.is_empty() || path.contains('\0') {
            return Err(refused("it is no path".into()));
        }
        let given = std::path::absolute(path).map_err(|error| refused(error.to_string()))?;
        let (Some(folder), Some(name)) = (given.parent(), given.file_name()) else {
            return Err(refused("it names no file".into()));
        };
        let folder = folder.canonicalize().map_err(|error| refused(format!("its folder: {error}")))?;
        if !folder.starts_with(&self.0) {
            return Err(refused(format!("files must lie in {}", self.0.display())));
        }
        if !folder.is_dir() {
            return Err(refused("its folder is a file".into()));
        }
        let place = folder.join(name);
        if path.ends_with('/') || place.is_dir() { Err(refused("it is a folder".into())) } else { Ok(place) }
    }

    /// Makes the folder of `path` where it is missing, inside the root: nothing where it would lie outside, or cannot be
    /// made. [`Root::place`] says what is wrong then.
    pub fn make_folder(&self, path: &str) {
        let Ok(given) = std::path::absolute(path) else { return };
        let Some(folder) = given.parent() else { return };
        // What is there decides where the rest lies: a part that is missing is no link.
        let Some(there) = folder.ancestors().find(|part| part.exists()) else { return };
        let plain = |rest: &Path| rest.components().all(|part| matches!(part, Component::Normal(_)));
        let inside = there.canonicalize().is_ok_and(|there| there.starts_with(&self.0));
        if inside
            && folder.strip_prefix(there).is_ok_and(plain)
            && let Err(error) = std::fs::create_dir_all(folder)
        {
            tracing::debug!(folder = %folder.display(), %error, "was not made");
        }
    }

    /// The file that `path` means and that is there already, its links resolved. A relative one starts in the working directory.
    ///
    /// # Errors
    /// INVALID_REQUEST naming `speakerClip`: outside, or not there.
    pub fn existing(&self, path: &str) -> Result<PathBuf, ServiceError> {
        let refused = |why: String| {
            let message = format!("speakerClip {path:?} cannot be used: {why}");
            ServiceError::field(Reason::Malformed, "speakerClip", message)
        };
        if path.is_empty() || path.contains('\0') {
            return Err(refused("it is no path".into()));
        }
        let place = Path::new(path).canonicalize().map_err(|error| refused(error.to_string()))?;
        if place.starts_with(&self.0) {
            Ok(place)
        } else {
            Err(refused(format!("files must lie in {}", self.0.display())))
        }
    }
}

/// How the audio is written: as asked, else as the file's extension says, else wav.
pub fn format(asked: Option<AudioFormat>, place: Option<&Path>) -> AudioFormat {
    let named = || place?.extension()?.to_str()?.parse().ok();
    asked.or_else(named).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_in_the_root_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir_all(inside.join("deep")).unwrap();
        std::os::unix::fs::symlink(dir.path(), inside.join("out")).unwrap();
        std::fs::write(inside.join("file"), "").unwrap();
        let root = Root::new(&inside).unwrap();
        let place = |name: &str| root.place(inside.join(name).to_str().unwrap());
        assert_eq!(place("a.wav").unwrap(), inside.canonicalize().unwrap().join("a.wav"));
        assert!(place("deep/../a.wav").is_ok());
        for wrong in
            ["../a.wav", "out/a.wav", "deep", "deep/", "none/a.wav", "file/a.wav", "deep/../../a.wav", "a\0b"]
        {
            let error = place(wrong).unwrap_err();
            assert_eq!(error.details.unwrap()["field"], "outputPath", "{wrong}");
        }
        assert!(root.place("").is_err());
        assert!(root.place("/").is_err());
        assert!(Root::new(Path::new("/")).unwrap().place(inside.join("a").to_str().unwrap()).is_ok());
    }

    #[test]
    fn folders_are_made_inside_only() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(dir.path(), inside.join("link")).unwrap();
        let root = Root::new(&inside).unwrap();
        for outside in ["../a/x.wav", "link/a/x.wav", "a/../../b/x.wav", "a/../b/x.wav"] {
            root.make_folder(inside.join(outside).to_str().unwrap());
        }
        root.make_folder(dir.path().join("c/x.wav").to_str().unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), 1, "and what is not plain is not made");
        let path = inside.join("a/b/x.wav");
        root.make_folder(path.to_str().unwrap());
        assert_eq!(
            root.place(path.to_str().unwrap()).unwrap(),
            inside.canonicalize().unwrap().join("a/b/x.wav")
        );
    }

    #[test]
    fn files_that_are_read_lie_there_too() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        for file in [inside.join("a.wav"), dir.path().join("b.wav")] {
            std::fs::write(file, "speech").unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("b.wav"), inside.join("link.wav")).unwrap();
        let root = Root::new(&inside).unwrap();
        let file = |name: &str| root.existing(inside.join(name).to_str().unwrap());
        assert_eq!(file("a.wav").unwrap(), inside.canonicalize().unwrap().join("a.wav"));
        for wrong in ["../b.wav", "link.wav", "none.wav", "a\0b"] {
            assert_eq!(file(wrong).unwrap_err().details.unwrap()["field"], "speakerClip", "{wrong}");
        }
        assert!(root.existing("").is_err());
    }

    #[test]
    fn the_format_is_asked_for_or_named() {
        let mp3 = Path::new("/x/a.mp3");
        assert_eq!(format(Some(AudioFormat::Ogg), Some(mp3)), AudioFormat::Ogg);
        assert_eq!(format(None, Some(mp3)), AudioFormat::Mp3);
        assert_eq!(format(None, Some(Path::new("/x/a.audio"))), AudioFormat::Wav);
        assert_eq!(format(None, None), AudioFormat::Wav);
    }
}
