//! Messages at rest in a stream: read, deleted and purged by calls of the JetStream API.
//!
//! They are read from the stream's leader, not from whichever replica is near: who has just been told that a record is
//! there must not be told by a follower that it is not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::api::{ApiError, code};
use crate::bus::Inner;
use crate::error::{BusError, BusErrorKind};

/// The header by which a KV entry says that it is a removal, and not a value (ADR-8 of nats-architecture-and-design).
pub(crate) const KV_OPERATION: &str = "KV-Operation";
/// The header by which the server says why it removed a value itself (ADR-43).
pub(crate) const MARKER_REASON: &str = "Nats-Marker-Reason";

/// A message as the stream keeps it.
pub(crate) struct StoredMessage {
    pub(crate) subject: String,
    pub(crate) seq: u64,
    /// As on the wire: a line each, `Name: value`.
    headers: String,
    pub(crate) payload: Vec<u8>,
}

impl StoredMessage {
    /// Whether it stands for a value that is gone.
    pub(crate) fn is_removal(&self) -> bool {
        matches!(self.header(KV_OPERATION), Some("DEL" | "PURGE")) || self.header(MARKER_REASON).is_some()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(known, _)| known.trim() == name).map(|(_, value)| value.trim())
    }
}

#[derive(Deserialize)]
struct Answer {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

fn decode(raw: Raw) -> Result<StoredMessage, base64::DecodeError> {
    let headers = BASE64.decode(raw.hdrs)?;
    Ok(StoredMessage {
        subject: raw.subject,
        seq: raw.seq,
        headers: String::from_utf8_lossy(&headers).into_owned(),
        payload: BASE64.decode(raw.data)?,
    })
}

impl Inner {
    /// The message that `query` names (`seq`, `last_by_subj` or `next_by_subj`, as the API has it), if there is one.
    pub(crate) async fn stored(
        &self,
        stream: &str,
        query: &Value,
    ) -> Result<Option<StoredMessage>, BusError> {
        match self.api::<_, Answer>(&format!("STREAM.MSG.GET.{stream}"), query).await {
            Ok(answer) => decode(answer.message).map(Some).map_err(|error| {
                let message = format!("stream {stream}: a message cannot be read");
                BusError::caused(BusErrorKind::Malformed, message, error)
            }),
            Err(ApiError::Fault(fault)) if fault.err_code == code::MESSAGE_NOT_FOUND => Ok(None),
            Err(error) => Err(error.into_bus(&format!("stream {stream}"))),
        }
    }

    /// Whether a message is there.
    pub(crate) async fn is_stored(&self, stream: &str, seq: u64) -> Result<bool, BusError> {
        match self.api::<_, IgnoredAny>(&format!("STREAM.MSG.GET.{stream}"), &json!({ "seq": seq })).await {
            Ok(_) => Ok(true),
            Err(ApiError::Fault(fault)) if fault.err_code == code::MESSAGE_NOT_FOUND => Ok(false),
            Err(error) => Err(error.into_bus(&format!("stream {stream}"))),
        }
    }

    /// Deletes a message; `false` when it was gone already.
    pub(crate) async fn delete_stored(&self, stream: &str, seq: u64) -> Result<bool, BusError> {
        let body = json!({ "seq": seq, "no_erase": true });
        match self.api::<_, IgnoredAny>(&format!("STREAM.MSG.DELETE.{stream}"), &body).await {
            Ok(_) => Ok(true),
            Err(ApiError::Fault(fault)) if fault.err_code == code::SEQUENCE_NOT_FOUND => Ok(false),
            // The server says in several ways, and in words only, that there was nothing to delete.
            Err(ApiError::Fault(fault))
                if fault.err_code == code::MESSAGE_DELETE_FAILED && !self.is_stored(stream, seq).await? =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into_bus(&format!("stream {stream}"))),
        }
    }

    /// Deletes all messages of these subjects, and says how many there were.
    pub(crate) async fn purge_stored(&self, stream: &str, subjects: &str) -> Result<u64, BusError> {
        #[derive(Deserialize)]
        struct Purged {
            #[serde(default)]
            purged: u64,
        }
        let body = json!({ "filter": subjects });
        let purged = self.api::<_, Purged>(&format!("STREAM.PURGE.{stream}"), &body).await;
        purged.map(|purged| purged.purged).map_err(|error| error.into_bus(&format!("stream {stream}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &str) -> StoredMessage {
        let raw =
            Raw { subject: "s".into(), seq: 1, hdrs: BASE64.encode(headers), data: BASE64.encode("{}") };
        decode(raw).unwrap()
    }

    #[test]
    fn removals_are_known_by_their_headers() {
        for removal in [
            "NATS/1.0\r\nKV-Operation: DEL\r\n\r\n",
            "NATS/1.0\r\nNats-Msg-Id: 1\r\nKV-Operation:PURGE\r\n\r\n",
            "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n",
        ] {
            assert!(message(removal).is_removal(), "{removal}");
        }
        for value in ["", "NATS/1.0\r\nNats-Msg-Id: KV-Operation: DEL\r\n\r\n"] {
            assert!(!message(value).is_removal(), "{value}");
        }
        assert_eq!(message("").payload, b"{}");
    }

    #[test]
    fn rubbish_is_an_error() {
        let raw = Raw { subject: "s".into(), seq: 1, hdrs: String::new(), data: "%".into() };
        assert!(decode(raw).is_err());
    }
}
