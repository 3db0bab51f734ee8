//! Stored takes: by which name audio that was spoken once is found again.
//!
//! The name of a take is a digest of all that it depends on: the model's *identity* (its files, its options, the engine
//! and its version, digested by the worker that loaded it), how it is spoken, and the words. What a take does not depend
//! on (who asks, in which class, whether a stored one would do) is left out; everything else that [`Speech`] may come to
//! hold is in it without further ado, so that no new option can fetch an old take.
//!
//! A request without a seed is served by any take of its words. So takes are of three kinds: those of one seed, those of
//! no seed, and, never stored, those of models without an identity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::ids::{RunId, WorkerId};
use crate::job::Spoken;
use crate::plan::Speech;
use crate::request::Warning;

/// Changes when what is stored under a key does: takes of other versions are not found.
const TAKES_VERSION: &str = "1";

/// Fields of [`Speech`] on which a take does not depend. The model's name is one: its identity says what it is. What the
/// request's text was is another: a segment is plain text.
const LEFT_OUT: [&str; 4] = ["model", "priority", "fresh", "inputType"];

/// Warnings that are stored with a take, at most.
const MAX_WARNINGS: usize = 4;

/// What is known of a take, in [`crate::names::TAKES_BUCKET`] under its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum TakeRecord {
    /// A run that its session let go on speaks it. Vanishes by itself, should the worker not come to store it.
    Claimed {
        /// The run.
        run: RunId,
        /// Who speaks it.
        worker: WorkerId,
    },
    /// It lies in [`crate::names::CACHE_BUCKET`] under the same key.
    Stored(StoredTake),
}

/// A stored take without its audio: what the audio is measured against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredTake {
    /// Its length in samples.
    pub samples: u64,
    /// CRC-32 of its PCM bytes.
    pub crc32: u32,
    /// Samples per second.
    pub sample_rate: u32,
    /// What the engine left out; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

impl StoredTake {
    /// What a worker says of a run that was accepted, as it is stored.
    pub fn of(spoken: &Spoken) -> Self {
        let warnings = spoken.warnings.iter().take(MAX_WARNINGS).cloned().collect();
        let Spoken { samples, crc32, sample_rate, .. } = *spoken;
        Self { samples, crc32, sample_rate, warnings }
    }

    /// Whether these PCM bytes are the take.
    pub fn is(&self, pcm: &[u8]) -> bool {
        let whole = self.samples > 0 && self.sample_rate > 0;
        whole && pcm.len() as u64 == self.samples.saturating_mul(2) && crc32fast::hash(pcm) == self.crc32
    }
}

/// The name of the take of `text`, spoken as `speech` by a model of this identity. Hexadecimal digits.
pub fn key(identity: &str, speech: &Speech, text: &str) -> String {
    let how = match serde_json::to_value(speech) {
        Ok(Value::Object(mut fields)) => {
            for name in LEFT_OUT {
                fields.remove(name);
            }
            drop_defaults(&mut fields);
            Value::Object(fields).to_string()
        }
        // A speech is a map of plain values: this arm is for the compiler.
        Ok(other) => other.to_string(),
        Err(error) => format!("unwritable: {error}"),
    };
    digest([TAKES_VERSION, identity, &how, text])
}

/// A field that says what would be done without it says nothing.
fn drop_defaults(fields: &mut serde_json::Map<String, Value>) {
    let plain = [("speed", 1.0), ("pitch", 0.0), ("volume", 1.0)];
    for (name, default) in plain {
        if fields.get(name).and_then(Value::as_f64) == Some(default) {
            fields.remove(name);
        }
    }
}

/// SHA-256 of several texts, each told apart from the next by its length, in hex.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    hex(&digest.finalize())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "a string takes what is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::clip::ClipId;
    use crate::ids::ModelName;
    use crate::request::{InputType, Priority};

    fn speech() -> Speech {
        Speech {
            model: ModelName::new("joe").unwrap(),
            voice: None,
            speaker_clip: None,
            language: None,
            speed: None,
            pitch: None,
            volume: None,
            seed: None,
            priority: Priority::Normal,
            fresh: false,
            input_type: None,
        }
    }

    #[test]
    fn what_the_take_depends_on_makes_another_key() {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let others = [
            key("other", &speech(), "hello"),
            key("id", &speech(), "hello."),
            key("id", &Speech { voice: text(Some("p1")), ..speech() }, "hello"),
            key("id", &Speech { speaker_clip: Some(ClipId::of(b"one")), ..speech() }, "hello"),
            key("id", &Speech { speaker_clip: Some(ClipId::of(b"two")), ..speech() }, "hello"),
            key("id", &Speech { language: text(Some("p1")), ..speech() }, "hello"),
            key("id", &Speech { speed: Some(1.5), ..speech() }, "hello"),
            key("id", &Speech { pitch: Some(1.5), ..speech() }, "hello"),
            key("id", &Speech { volume: Some(1.5), ..speech() }, "hello"),
            key("id", &Speech { seed: Some(0), ..speech() }, "hello"),
            key("id", &Speech { seed: Some(1), ..speech() }, "hello"),
            key("id", &speech(), "hello"),
        ];
        assert_eq!(others.iter().collect::<HashSet<_>>().len(), others.len());
    }

    #[test]
    fn what_it_does_not_depend_on_makes_no_difference() {
        let same = Speech {
            model: ModelName::new("another-name").unwrap(),
            priority: Priority::High,
            speed: Some(1.0),
            pitch: Some(0.0),
            volume: Some(1.0),
            fresh: true,
            input_type: Some(InputType::Ssml),
            ..speech()
        };
        assert_eq!(key("id", &same, "hello"), key("id", &speech(), "hello"));
    }

    #[test]
    fn a_record_reads_back_and_holds_few_warnings() {
        let warning = Warning { reason: "unspeakable".into(), message: "left out".into(), segment: None };
        let spoken = Spoken {
            data: vec![1, 0].into(),
            chunks: 1,
            samples: 1,
            sample_rate: 22_050,
            crc32: crc32fast::hash(&[1, 0]),
            engine_ms: 1.0,
            warnings: vec![warning; 9],
        };
        let take = StoredTake::of(&spoken);
        assert_eq!(take.warnings.len(), MAX_WARNINGS);
        assert!(take.is(&[1, 0]) && !take.is(&[2, 0]) && !take.is(&[1, 0, 0, 0]) && !take.is(&[]));
        let record = TakeRecord::Stored(take);
        let written = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<TakeRecord>(&written).unwrap(), record);
    }

    proptest! {
        #[test]
        fn parts_do_not_run_together(a in "\\PC{0,8}", b in "\\PC{0,8}", c in "\\PC{0,8}", d in "\\PC{0,8}") {
            let same = digest([&*a, &*b]) == digest([&*c, &*d]);
            prop_assert_eq!(same, (a, b) == (c, d));
        }
    }
}
