//! What is to be written, in order and under a bound.
//!
//! The bound is in bytes. Who sends waits for room, so that a parent that does not read holds back those who speak to it.
//! [`Speaker`] puts envelopes into the agreed version.

use std::sync::Arc;

use chorus_protocol::adapt::Fields;
use chorus_protocol::codec::{self, Encoding};
use chorus_protocol::version::{V2_0, V2_1};
use chorus_protocol::{Envelope, MessageId, ServiceError};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::task::{self, FailureMeans, TaskHandle};
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Bytes that may wait; one larger message may wait alone.
const ROOM_BYTES: usize = 1 << 20;
/// Messages that may wait.
const ROOM_MESSAGES: usize = 1024;

/// Nobody reads any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

struct Queued {
    bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
}

/// See the module. A cheap clone; the writer ends with the last.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    gone: CancellationToken,
}

impl Outbox {
    /// Begins to write; the task ends when all is written and no outbox is left, or nobody reads.
    pub(super) fn start<W: AsyncWrite + Unpin + Send + 'static>(writer: W) -> (Self, TaskHandle<()>) {
        let (queue, queued) = mpsc::channel(ROOM_MESSAGES);
        let gone = CancellationToken::new();
        let outbox = Self { queue, room: Arc::new(Semaphore::new(ROOM_BYTES)), gone: gone.clone() };
        let writing = write(writer, queued, gone);
        let task = task::spawn("stdio-writer", CancellationToken::new(), FailureMeans::Log, writing);
        (outbox, task)
    }

    /// Cancelled when nobody reads any more.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Queues a message; waits for room.
    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        let room = Arc::clone(&self.room).acquire_many_owned(units(&bytes)).await.map_err(|_closed| Gone)?;
        self.queue.send(Queued { bytes, room }).await.map_err(|_closed| Gone)
    }

    /// Queues a message if there is room now; whether it did.
    pub(super) fn try_send(&self, bytes: Vec<u8>) -> bool {
        let room = Arc::clone(&self.room).try_acquire_many_owned(units(&bytes));
        room.is_ok_and(|room| self.queue.try_send(Queued { bytes, room }).is_ok())
    }

    /// Queues a 1.0 line.
    pub(super) async fn line(&self, fields: Fields) -> Result<(), Gone> {
        let mut bytes = serde_json::Value::Object(fields).to_string().into_bytes();
        bytes.push(b'\n');
        self.send(bytes).await
    }
}

fn units(bytes: &[u8]) -> u32 {
    bytes.len().clamp(1, ROOM_BYTES) as u32
}

async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queued: mpsc::Receiver<Queued>,
    gone: CancellationToken,
) {
    while let Some(Queued { bytes, room }) = queued.recv().await {
        let written = writer.write_all(&bytes).await;
        drop(room);
        if let Err(error) = written {
            tracing::debug!(%error, "the parent does not read any more");
            return gone.cancel();
        }
    }
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "the end of stdout was not told");
    }
}

/// Speaks 2.0 or 2.1 through an outbox.
#[derive(Clone)]
pub(super) struct Speaker {
    outbox: Outbox,
    encoding: Encoding,
    clock: SharedClock,
}

impl Speaker {
    pub(super) fn new(outbox: Outbox, encoding: Encoding, clock: SharedClock) -> Self {
        Self { outbox, encoding, clock }
    }

    /// A response.
    pub(super) async fn answer<T: Serialize>(&self, to: &MessageId, payload: T) -> Result<(), Gone> {
        let envelope = Envelope::response(to, payload, self.clock.unix_ms());
        match self.encode(envelope) {
            Ok(bytes) => self.outbox.send(bytes).await,
            Err(error) => self.error(Some(to), error).await,
        }
    }

    /// An error.
    pub(super) async fn error(&self, to: Option<&MessageId>, error: ServiceError) -> Result<(), Gone> {
        match self.encode(Envelope::error(to, error, self.clock.unix_ms())) {
            Ok(bytes) => self.outbox.send(bytes).await,
            Err(error) => {
                tracing::error!(%error, "an error could not be said");
                Ok(())
            }
        }
    }

    /// An event of a request; waits for room.
    pub(super) async fn event<T: Serialize>(&self, of: &MessageId, payload: T) -> Result<(), Gone> {
        let envelope = Envelope::event(payload, self.clock.unix_ms()).answering(of);
        match self.encode(envelope) {
            Ok(bytes) => self.outbox.send(bytes).await,
            Err(error) => self.error(Some(of), error).await,
        }
    }

    /// News, if there is room for them now; whether there was.
    pub(super) fn news<T: Serialize>(&self, payload: T) -> bool {
        let encoded = self.encode(Envelope::event(payload, self.clock.unix_ms()));
        encoded.is_ok_and(|bytes| self.outbox.try_send(bytes))
    }

    fn encode<T: Serialize>(&self, envelope: Envelope<T>) -> Result<Vec<u8>, ServiceError> {
        // The range was settled at the handshake.
        let envelope = Envelope { accept: None, ..envelope };
        match self.encoding {
            Encoding::Json => {
                let mut line = codec::encode(&envelope.in_version(V2_0), Encoding::Json)?;
                line.push(b'\n');
                Ok(line)
            }
            Encoding::MessagePack => {
                let body = codec::encode(&envelope.in_version(V2_1), Encoding::MessagePack)?;
                let mut frame = (body.len() as u32).to_be_bytes().to_vec();
                frame.extend_from_slice(&body);
                Ok(frame)
            }
        }
    }
}
