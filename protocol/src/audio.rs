//! Audio on the wire.

use std::borrow::Cow;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::MessageId;

/// The sound itself: s16le mono PCM, or an encoded file. Bytes in MessagePack, base64 in JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AudioData(pub Bytes);

impl std::fmt::Debug for AudioData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AudioData({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for AudioData {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Bytes> for AudioData {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Serialize for AudioData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        if serializer.is_human_readable() {
            serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl JsonSchema for AudioData {
    fn schema_name() -> Cow<'static, str> {
        "AudioData".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The sound itself: s16le mono PCM, or an encoded file.",
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

impl<'de> Deserialize<'de> for AudioData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not by `is_human_readable`: bytes behind an internally tagged enum come out of a buffer that has forgotten it.
        deserializer.deserialize_any(AudioVisitor)
    }
}

struct AudioVisitor;

impl serde::de::Visitor<'_> for AudioVisitor {
    type Value = AudioData;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("audio as bytes or base64")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<AudioData, E> {
        Ok(AudioData(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<AudioData, E> {
        Ok(AudioData(bytes.into()))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AudioData, E> {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        BASE64_STANDARD.decode(text).map(AudioData::from).map_err(|e| E::custom(format!("not base64: {e}")))
    }
}

/// How the audio of a result is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AudioFormat {
    /// RIFF, 16 bit PCM.
    #[default]
    Wav,
    /// MPEG layer III.
    Mp3,
    /// Ogg Vorbis.
    Ogg,
    /// Ogg Opus.
    Opus,
    /// FLAC.
    Flac,
    /// s16le mono samples, no header.
    Pcm,
}

impl AudioFormat {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Wav, Self::Mp3, Self::Ogg, Self::Opus, Self::Flac, Self::Pcm];

    /// Its name on the wire, and a file's extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Ogg => "ogg",
            Self::Opus => "opus",
            Self::Flac => "flac",
            Self::Pcm => "pcm",
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::Ogg => "audio/ogg",
            Self::Opus => "audio/ogg; codecs=opus",
            Self::Flac => "audio/flac",
            Self::Pcm => "audio/pcm",
        }
    }
}

impl std::fmt::Display for AudioFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no format has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no audio format; there are wav, mp3, ogg, opus, flac and pcm")]
pub struct UnknownFormat(pub String);

impl std::str::FromStr for AudioFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| UnknownFormat(name.chars().take(32).collect()))
    }
}

/// The audio of a result: inside it (`data`), or an object on the broker (`bucket`, `key`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioRef {
    /// How it is written.
    pub format: AudioFormat,
    /// Samples per second.
    pub sample_rate: u32,
    /// The audio, when it fits into the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<AudioData>,
    /// The object bucket that holds it otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The object's name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A piece of a streamed answer, as plan.md's `synthesizeStream` yields it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioChunk {
    /// The request that it belongs to.
    pub request_id: MessageId,
    /// Its place in the stream, from 0.
    pub sequence: u64,
    /// The sound.
    pub data: AudioData,
    /// How it is written.
    pub format: AudioFormat,
    /// Samples per second.
    pub sample_rate: u32,
    /// Whether it is the last one.
    #[serde(default)]
    pub last: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_is_base64_in_json_and_bytes_in_message_pack() {
        let audio = AudioData::from(vec![1, 2, 3, 0xff]);
        assert_eq!(serde_json::to_string(&audio).unwrap(), "\"AQID/w==\"");
        assert_eq!(serde_json::from_str::<AudioData>("\"AQID/w==\"").unwrap(), audio);
        let packed = rmp_serde::to_vec(&audio).unwrap();
        assert_eq!(packed, [0xc4, 4, 1, 2, 3, 0xff]);
        assert_eq!(rmp_serde::from_slice::<AudioData>(&packed).unwrap(), audio);
        assert!(serde_json::from_str::<AudioData>("\"*\"").is_err());
    }
}
