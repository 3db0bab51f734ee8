//! How a process writes its messages. It reads those of every 2.x, however it writes itself.
//!
//! A fleet is never of one version for long: hosts are upgraded one by one. What that is like can be tried with processes
//! that write as an earlier or a later minor version does.

use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::version::{V2_0, V2_1};
use chorus_protocol::{Envelope, ServiceError};
use serde::Serialize;

/// Which version's way of writing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wire {
    /// 2.1: MessagePack.
    #[default]
    Current,
    /// 2.0: JSON.
    Earlier,
    /// A minor version to come: every payload has a field that nobody knows yet.
    Later,
}

/// A payload of a later version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct More<'a, T> {
    #[serde(flatten)]
    payload: &'a T,
    field_of_a_later_version: [&'static str; 2],
}

impl Wire {
    /// A message that answers nobody.
    pub(crate) fn encode<T: Serialize>(self, envelope: &Envelope<T>) -> Result<Vec<u8>, ServiceError> {
        match self {
            Self::Current => codec::encode(envelope, Encoding::MessagePack),
            Self::Earlier => codec::encode(&envelope.borrowed().in_version(V2_0), Encoding::Json),
            Self::Later => self.encode_in(envelope, Encoding::MessagePack),
        }
    }

    /// A message in the encoding that its reader asked for.
    pub(crate) fn encode_in<T: Serialize>(
        self,
        envelope: &Envelope<T>,
        encoding: Encoding,
    ) -> Result<Vec<u8>, ServiceError> {
        if self != Self::Later {
            return codec::encode(envelope, encoding);
        }
        let mut version = V2_1;
        version.minor += 1;
        let more = |payload| More { payload, field_of_a_later_version: ["not", "known"] };
        let later = codec::encode(&envelope.borrowed().map(more).in_version(version), encoding);
        // A payload that is no map cannot have a further field.
        later.or_else(|_| codec::encode(envelope, encoding))
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::job::{RunChunk, RunRef};
    use chorus_protocol::{AudioData, RunId, SessionId};

    use super::*;

    #[test]
    fn what_any_version_writes_is_read() {
        let run =
            RunRef { session: SessionId::from_u128(1), segment: 2, attempt: 3, run: RunId::from_u128(4) };
        let chunk = RunChunk { run, seq: 5, data: AudioData::from(vec![0, 255, 6]) };
        let envelope = Envelope::event(chunk, 7);
        for (wire, version) in [(Wire::Current, "2.1.0"), (Wire::Earlier, "2.0.0"), (Wire::Later, "2.2.0")] {
            let bytes = wire.encode(&envelope).unwrap();
            let read: Envelope<RunChunk> = codec::decode(&bytes, 10_000).unwrap();
            assert_eq!((&read.payload, read.version.to_string().as_str()), (&envelope.payload, version));
        }
        let answer = Wire::Later.encode_in(&envelope, Encoding::Json).unwrap();
        assert!(String::from_utf8(answer).unwrap().contains("\"fieldOfALaterVersion\":[\"not\",\"known\"]"));
        let number = Envelope::event(7u32, 7);
        let plain: Envelope<u32> = codec::decode(&Wire::Later.encode(&number).unwrap(), 10_000).unwrap();
        assert_eq!(plain.payload, 7);
    }
}
