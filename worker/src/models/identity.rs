//! What the takes of a model depend on, as one digest: the files that it is made of, its options, the engine and its version.
//!
//! Files are read once and remembered by path, size and time of change, because a worker loads its models again whenever
//! its engine is renewed. A model without files (one inside the engine) has no identity, unless its option `cache` asks for
//! one: what test engines say depends on more than the words.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use chorus_protocol::pipe::EngineInfo;
use chorus_protocol::{ModelDefinition, ModelSource, takes};
use sha2::{Digest, Sha256};

/// The option by which a model inside an engine asks for its takes to be stored.
const CACHE_OPTION: &str = "cache";

/// Files whose digests are remembered at most; beyond it all are forgotten.
const MAX_REMEMBERED: usize = 1024;

/// How much of a file is read at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Digests of files that were read before.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    known: Mutex<BTreeMap<(PathBuf, u64, SystemTime), String>>,
}

/// The identity of a model that an engine has loaded from these files; `None` where it has none. Reads the files: not for
/// a thread that others wait for.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn identity(
    digests: &Digests,
    engine: &EngineInfo,
    model: &ModelDefinition,
    files: &[String],
) -> std::io::Result<Option<String>> {
    let inside = matches!(model.source, ModelSource::Builtin { .. });
    let asked = model.options.get(CACHE_OPTION).and_then(serde_json::Value::as_bool).unwrap_or(false);
    if files.is_empty() && !(inside && asked) {
        return Ok(None);
    }
    let options = serde_json::to_string(&model.options).unwrap_or_default();
    let mut parts = vec![engine.name.clone(), engine.version.clone(), engine.library.clone(), options];
    if let ModelSource::Builtin { builtin } = &model.source {
        parts.push(builtin.clone());
    }
    for file in files {
        parts.push(digests.of(Path::new(file))?);
    }
    Ok(Some(takes::digest(parts.iter().map(String::as_str))))
}

impl Digests {
    fn of(&self, file: &Path) -> std::io::Result<String> {
        let about = file.metadata()?;
        let key = (file.to_owned(), about.len(), about.modified()?);
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return Ok(known.clone());
        }
        let digest = read(file)?;
        let mut known = lock();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(key, digest.clone());
        Ok(digest)
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let (mut file, mut digest) = (File::open(file)?, Sha256::new());
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(takes::hex(&digest.finalize())),
            length => digest.update(&block[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn engine(version: &str) -> EngineInfo {
        EngineInfo { name: "coqui".into(), version: version.into(), library: "coqui-tts 1".into() }
    }

    fn model(source: serde_json::Value, options: serde_json::Value) -> ModelDefinition {
        let definition = json!({"name": "m", "engine": "e", "source": source, "options": options});
        serde_json::from_value(definition).unwrap()
    }

    #[test]
    fn it_follows_the_content_the_options_and_the_engine_and_not_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            std::fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name).display().to_string()
        };
        let (one, copy, other) = (write("one", "weights"), write("copy", "weights"), write("other", "w"));
        let digests = Digests::default();
        let of = |version: &str, options: serde_json::Value, file: &String| {
            let model = model(json!({"path": file}), options);
            identity(&digests, &engine(version), &model, std::slice::from_ref(file)).unwrap().unwrap()
        };
        let first = of("1", json!({}), &one);
        assert_eq!(first, of("1", json!({}), &one));
        assert_eq!(first, of("1", json!({}), &copy));
        assert_ne!(first, of("1", json!({}), &other));
        assert_ne!(first, of("2", json!({}), &one));
        assert_ne!(first, of("1", json!({"steps": 2}), &one));
        write("one", "other weights");
        assert_ne!(first, of("1", json!({}), &one), "a changed file is read anew");
        let missing = [folder.path().join("none").display().to_string()];
        let wanted = model(json!({"path": "x"}), json!({}));
        assert!(identity(&digests, &engine("1"), &wanted, &missing).is_err());
    }

    #[test]
    fn a_model_inside_the_engine_has_one_only_when_it_asks() {
        let of = |options| {
            let model = model(json!({"builtin": "null"}), options);
            identity(&Digests::default(), &engine("1"), &model, &[]).unwrap()
        };
        assert_eq!(of(json!({})), None);
        assert_eq!(of(json!({"cache": false})), None);
        assert!(of(json!({"cache": true})).is_some());
    }
}
