//! Comparing a message with its committed bytes.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use chorus_protocol::codec::{Encoding, decode, encode};
use chorus_protocol::{Envelope, MessageId};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::schemas;

pub(crate) const NOW_MS: u64 = 1_767_225_600_000;
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) fn file(name: &str, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.{extension}"))
}

pub(crate) fn compare(path: &Path, found: &str) {
    if std::env::var_os("CHORUS_BLESS").is_some() {
        // Tests run at the same time and share schemas: each finds the whole of one or of the other.
        let new = path.with_extension(format!("new-{}", std::process::id()));
        std::fs::write(&new, found).unwrap();
        std::fs::rename(&new, path).unwrap();
    }
    let kept = std::fs::read_to_string(path)
        .unwrap_or_else(|e| panic!("{}: {e}; CHORUS_BLESS=1 writes it", path.display()));
    assert_eq!(found, kept, "{} has changed", path.display());
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>());
    lines.map(|line| line + "\n").collect()
}

/// What is asked of a message: to be written, read and described.
pub(crate) trait Message: Serialize + DeserializeOwned + JsonSchema + PartialEq + Debug {}
impl<T: Serialize + DeserializeOwned + JsonSchema + PartialEq + Debug> Message for T {}

/// An envelope that is always the same.
pub(crate) fn message<T>(envelope: Envelope<T>) -> Envelope<T> {
    let mut envelope = envelope.traced(Some(TRACE.into()));
    envelope.message_id = MessageId::new("6f1e2d3c-0000-4000-8000-000000000001").unwrap();
    envelope
}

/// Compares a payload's envelope with its files, and reads both back.
pub(crate) fn golden<T: Message>(name: &str, payload: T) {
    golden_in(name, Envelope::request(payload, NOW_MS));
}

/// The same of an envelope of any kind.
pub(crate) fn golden_in<T: Message>(name: &str, envelope: Envelope<T>) {
    let envelope = message(envelope);
    let packed = encode(&envelope, Encoding::MessagePack).unwrap();
    compare(&file(name, "hex"), &hex(&packed));
    assert_eq!(decode::<T>(&packed, 1 << 20).unwrap(), envelope, "{name}: MessagePack reads back");
    let text = encode(&envelope, Encoding::Json).unwrap();
    let pretty: serde_json::Value = serde_json::from_slice(&text).unwrap();
    compare(&file(name, "json"), &(serde_json::to_string_pretty(&pretty).unwrap() + "\n"));
    assert_eq!(decode::<T>(&text, 1 << 20).unwrap(), envelope, "{name}: JSON reads back");
    schemas::check::<T>(name, &pretty["payload"]);
    schemas::check_envelope(name, &pretty);
}
