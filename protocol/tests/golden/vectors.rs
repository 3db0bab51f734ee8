//! Comparing a message with its committed bytes.

use std::fmt::Debug;
use std::path::PathBuf;

use chorus_protocol::codec::{Encoding, decode, encode};
use chorus_protocol::{Envelope, MessageId};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const NOW_MS: u64 = 1_767_225_600_000;
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn file(name: &str, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.{extension}"))
}

fn compare(name: &str, extension: &str, found: &str) {
    let path = file(name, extension);
    if std::env::var_os("CHORUS_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let kept = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; CHORUS_BLESS=1 writes it", path.display()));
    assert_eq!(found, kept, "{name}.{extension} has changed");
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>());
    lines.map(|line| line + "\n").collect()
}

/// Compares a payload's envelope with its files, and reads both back.
pub(crate) fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, payload: T) {
    let mut envelope = Envelope::request(payload, NOW_MS).traced(Some(TRACE.into()));
    envelope.message_id = MessageId::new("6f1e2d3c-0000-4000-8000-000000000001").unwrap();
    let packed = encode(&envelope, Encoding::MessagePack).unwrap();
    compare(name, "hex", &hex(&packed));
    assert_eq!(decode::<T>(&packed, 1 << 20).unwrap(), envelope, "{name}: MessagePack reads back");
    let text = encode(&envelope, Encoding::Json).unwrap();
    let pretty: serde_json::Value = serde_json::from_slice(&text).unwrap();
    compare(name, "json", &(serde_json::to_string_pretty(&pretty).unwrap() + "\n"));
    assert_eq!(decode::<T>(&text, 1 << 20).unwrap(), envelope, "{name}: JSON reads back");
}
