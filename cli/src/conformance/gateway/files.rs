//! Files that a gateway writes: there when it says so, whole, and nowhere else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chorus_audio::checksum::crc32;
use chorus_protocol::Reason;
use chorus_worker::engine::legacy::audio;
use serde_json::{Value, json};

use super::lab::Lab;
use crate::conformance::common::{audible, typed};
use crate::conformance::message::Dialect;
use crate::conformance::report::{Checked, Trouble, not_applicable, unmet};

/// How often a file is looked at while it is written.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// What stands in a file before it is written anew.
const OLD: &[u8] = b"what was there before";

fn unread(path: &Path) -> impl FnOnce(std::io::Error) -> Trouble {
    let path = path.display().to_string();
    move |error| unmet(format!("a file at {path}"), error.to_string())
}

/// The file is there when the answer comes, and the answer names it.
pub(super) async fn output_path(lab: &mut Lab) -> Checked {
    let (text, within, path) = (lab.text.clone(), lab.patience.answer, lab.file());
    let request = json!({"text": text, "outputPath": path});
    let answer = lab.talk().await?.answer(request, within).await?;
    let named = answer.fields().get("outputPath").and_then(Value::as_str).map(PathBuf::from);
    if answer.failed() || named.as_deref() != Some(&path) {
        return Err(unmet(format!("a result with outputPath {}", path.display()), answer.shown()));
    }
    let bytes = std::fs::read(&path).map_err(unread(&path))?;
    let take = audio::read(&bytes).map_err(|error| unmet("a WAV file", error.message))?;
    audible(&take.samples, take.sample_rate)
}

/// A file that is there is looked at while it is written anew: it is the old one, then the new one, and never anything else.
/// A second name of the old file shows whether it was written over.
pub(super) async fn output_atomic(lab: &mut Lab) -> Checked {
    let (text, within) = (lab.text.clone(), lab.patience.answer);
    let folder = lab.folder().join("atomic");
    let path = folder.join("speech.wav");
    let second_name = lab.file().with_extension("old");
    let prepared = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&path, OLD))
        .and_then(|()| std::fs::hard_link(&path, &second_name));
    prepared.map_err(|error| not_applicable(format!("{} cannot be written: {error}", path.display())))?;
    let talk = lab.talk().await?;
    let asked = talk.ask(json!({"text": format!("{text} {text} {text}"), "outputPath": path}));
    let mut seen = BTreeSet::new();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let open = std::slice::from_ref(&asked);
    let mut gathering = Box::pin(talk.gather(open, within));
    let mut answers = loop {
        tokio::select! {
            answers = &mut gathering => break answers?,
            _ = looks.tick() => { seen.insert(look(&path)); }
        }
    };
    drop(gathering);
    let answer = answers.by_id.remove(&asked.id).ok_or_else(|| unmet("a result", "none"))?;
    if answer.failed() {
        return Err(unmet("a result that says success", answer.shown()));
    }
    let (old, new) = (Some((OLD.len(), crc32(OLD))), look(&path));
    let others = seen.iter().filter(|state| **state != old && **state != new);
    let other =
        others.map(|state| state.map_or("no file".to_owned(), |(len, _)| format!("{len} bytes"))).next();
    if let Some(other) = other {
        return Err(unmet("the old file, then the whole new one", format!("{other} in between")));
    }
    if look(&second_name) != old {
        return Err(unmet("a new file that takes the old one's name", "the old file, written over"));
    }
    let names = std::fs::read_dir(&folder).map_err(unread(&folder))?.flatten().map(|entry| entry.file_name());
    let left: Vec<String> =
        names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "speech.wav").collect();
    if left.is_empty() { Ok(None) } else { Err(unmet("no draft left behind", left.join(", "))) }
}

/// Length and checksum of a file, where there is one.
fn look(path: &Path) -> Option<(usize, u32)> {
    std::fs::read(path).ok().map(|bytes| (bytes.len(), crc32(&bytes)))
}

/// Paths that no file can have.
pub(super) async fn output_refused(lab: &mut Lab) -> Checked {
    let folder = lab.folder().to_owned();
    let file = folder.join("file");
    std::fs::write(&file, OLD).map_err(unread(&folder))?;
    for path in [folder, file.join("speech.wav")] {
        refused(lab, &path).await?;
    }
    Ok(None)
}

async fn refused(lab: &mut Lab, path: &Path) -> Result<(), Trouble> {
    let within = lab.patience.answer;
    let talk = lab.talk().await?;
    let answer = talk.answer(json!({"text": "One.", "outputPath": path}), within).await?;
    let expected = format!("an error about outputPath {}", path.display());
    if !answer.failed() {
        return Err(unmet(expected, answer.shown()));
    }
    typed(&answer, talk.dialect, Reason::Malformed)?;
    let field = answer.error().and_then(|error| Some(error.details?.get("field")?.as_str()?.to_owned()));
    if talk.dialect != Dialect::Bare && field.as_deref() != Some("outputPath") {
        return Err(unmet("details.field outputPath", answer.shown()));
    }
    Ok(())
}

/// Paths that lead out of the folder that the gateway was given: by `..`, by a link, by being elsewhere.
pub(super) async fn output_confined(lab: &mut Lab) -> Checked {
    lab.dialect()?;
    let Some(root) = lab.root.clone() else {
        return Err(not_applicable("no --output-root says which folder the gateway keeps its files in"));
    };
    let no_place = |error: std::io::Error| not_applicable(format!("no place for the check: {error}"));
    let root = root.canonicalize().map_err(no_place)?;
    let outside =
        tempfile::Builder::new().prefix("chorus-conformance-outside-").tempdir().map_err(no_place)?;
    let beyond = outside.path().canonicalize().map_err(no_place)?;
    if beyond.starts_with(&root) {
        return Err(not_applicable("there is no folder outside of --output-root to try"));
    }
    let link = lab.file().with_extension("link");
    std::os::unix::fs::symlink(&beyond, &link).map_err(no_place)?;
    let up: PathBuf = root.components().skip(1).map(|_folder| "..").collect();
    let by_dots = root.join(up).join(beyond.strip_prefix("/").unwrap_or(&beyond));
    for folder in [&beyond, &by_dots, &link] {
        refused(lab, &folder.join("speech.wav")).await?;
    }
    let written = std::fs::read_dir(&beyond).map_err(no_place)?.count();
    if written == 0 { Ok(None) } else { Err(unmet("nothing written outside", format!("{written} files"))) }
}
