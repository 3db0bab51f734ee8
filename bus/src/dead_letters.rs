//! Dead letters: poison and expired durable work, with its whole history, kept for people to look at and to replay.
//!
//! A letter is an envelope around whatever the manager tells of the case; one that this version cannot read is still
//! listed, with the reason, so that it can be deleted. The oldest come first, and a list goes on where another ended.

use std::marker::PhantomData;

use async_nats::HeaderMap;
use chorus_protocol::codec::{self, DecodeError};
use chorus_protocol::{Envelope, ModelName, names};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::bus::Bus;
use crate::confirm::Outgoing;
use crate::error::{BusError, BusErrorKind};
use crate::messages::Subscription;
use crate::stored::StoredMessage;

/// Dead letters about `T`. Cheap to clone.
pub struct DeadLetters<T> {
    bus: Bus,
    /// Letters are made and eaten, never held.
    letters: PhantomData<fn(T) -> T>,
}

impl<T> Clone for DeadLetters<T> {
    fn clone(&self) -> Self {
        Self { bus: self.bus.clone(), letters: PhantomData }
    }
}

/// Which letters to list.
#[derive(Debug, Clone, Copy)]
pub struct DeadQuery<'a> {
    /// So many at most. Each costs a round trip to the broker.
    pub limit: usize,
    /// Those of this model only.
    pub model: Option<&'a ModelName>,
    /// Those that came after this sequence only; 0 for all.
    pub after: u64,
}

/// A letter in the stream.
#[derive(Debug)]
pub struct StoredLetter<T> {
    /// Its sequence: what it is fetched and deleted by.
    pub seq: u64,
    /// What it says, or why it cannot be read.
    pub letter: Result<Envelope<T>, DecodeError>,
}

impl Bus {
    /// The dead letters.
    pub fn dead_letters<T: Serialize + DeserializeOwned>(&self) -> DeadLetters<T> {
        DeadLetters { bus: self.clone(), letters: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> DeadLetters<T> {
    /// Keeps a letter and gives its sequence. The same envelope (by its id) within two minutes is the same letter.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing (see [`Bus::ensure_layout`]), `TooLarge`, `Malformed` (it cannot be
    /// encoded), `Refused`, `Timeout`, `Disconnected`.
    pub async fn publish(&self, model: &ModelName, letter: &Envelope<T>) -> Result<u64, BusError> {
        let payload = self.bus.inner.wire.encode(letter).map_err(|error| {
            BusError::caused(BusErrorKind::Malformed, "the dead letter cannot be encoded", error)
        })?;
        let message = Outgoing {
            stream: names::DEAD_STREAM,
            subject: &names::dead_subject(model),
            id: Some(letter.message_id.as_str()),
            headers: HeaderMap::new(),
            payload: payload.into(),
        };
        let kept = self.bus.inner.confirm(message).await;
        kept.map_err(|error| error.into_bus(&format!("the dead letter of {model}")))
    }

    /// Letters, the oldest first.
    ///
    /// # Errors
    /// `NotFound` when the stream is missing, `Refused`, `Timeout`, `Disconnected`.
    pub async fn list(&self, query: DeadQuery<'_>) -> Result<Vec<StoredLetter<T>>, BusError> {
        let subject = subjects(query.model);
        let mut letters = Vec::new();
        let mut next = query.after.saturating_add(1);
        while letters.len() < query.limit {
            let question = json!({ "seq": next, "next_by_subj": subject });
            let Some(message) = self.bus.inner.stored(names::DEAD_STREAM, &question).await? else { break };
            next = message.seq.saturating_add(1);
            letters.push(self.read(&message));
        }
        Ok(letters)
    }

    /// One letter, if it is there.
    ///
    /// # Errors
    /// As of [`DeadLetters::list`].
    pub async fn get(&self, seq: u64) -> Result<Option<StoredLetter<T>>, BusError> {
        let message = self.bus.inner.stored(names::DEAD_STREAM, &json!({ "seq": seq })).await?;
        Ok(message.map(|message| self.read(&message)))
    }

    /// Deletes a letter; `false` when it was gone already.
    ///
    /// # Errors
    /// As of [`DeadLetters::list`].
    pub async fn delete(&self, seq: u64) -> Result<bool, BusError> {
        self.bus.inner.delete_stored(names::DEAD_STREAM, seq).await
    }

    /// Deletes all letters, or those of one model, and says how many there were.
    ///
    /// # Errors
    /// As of [`DeadLetters::list`].
    pub async fn purge(&self, model: Option<&ModelName>) -> Result<u64, BusError> {
        self.bus.inner.purge_stored(names::DEAD_STREAM, &subjects(model)).await
    }

    /// Letters as they come from now on, to be read with [`Incoming::decode`](crate::Incoming::decode).
    ///
    /// # Errors
    /// As of [`Bus::subscribe`].
    pub async fn subscribe(&self) -> Result<Subscription, BusError> {
        self.bus.subscribe(names::ALL_DEAD, None).await
    }

    fn read(&self, message: &StoredMessage) -> StoredLetter<T> {
        let letter = codec::decode(&message.payload, self.bus.inner.client.max_payload());
        if let Err(error) = &letter {
            tracing::warn!(seq = message.seq, subject = message.subject, %error, "a dead letter that cannot be read");
        }
        StoredLetter { seq: message.seq, letter }
    }
}

fn subjects(model: Option<&ModelName>) -> String {
    model.map_or_else(|| names::ALL_DEAD.to_owned(), names::dead_subject)
}
