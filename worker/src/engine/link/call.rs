//! One request under way, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;
use chorus_protocol::job::Failed;
use chorus_protocol::pipe::{EngineRequest, SpokenAnswer};
use chorus_protocol::{MessageId, Reason, ServiceError};
use tokio::sync::mpsc;

use super::Link;
use crate::engine::wire::What;

/// What an engine tells about a request. Everything but pieces and progress is the last of it.
#[derive(Debug, Clone)]
pub enum Told {
    /// A piece of audio.
    Piece {
        /// Its place.
        seq: u32,
        /// s16le mono samples.
        data: Bytes,
    },
    /// It has moved on.
    Progress,
    /// Spoken to the end.
    Spoken(Box<SpokenAnswer>),
    /// The answer to a request other than to speak: the whole frame.
    Answer(Bytes),
    /// It failed, or the engine died.
    Failed(Box<Failed>),
}

/// A request under way. Dropped before it is over, it is cancelled.
pub struct Call {
    link: Arc<Link>,
    id: MessageId,
    events: mpsc::Receiver<What>,
    over: bool,
}

impl Call {
    pub(super) fn new(link: Arc<Link>, id: MessageId, events: mpsc::Receiver<What>) -> Self {
        Self { link, id, events, over: false }
    }

    /// What the engine tells next. After the last of it, this waits for ever. Cancel-safe.
    pub async fn next(&mut self) -> Told {
        if self.over {
            return std::future::pending().await;
        }
        let told = match self.events.recv().await {
            Some(What::Piece { seq, data }) => return Told::Piece { seq, data },
            Some(What::Progress) => return Told::Progress,
            Some(What::Spoken(answer)) => Told::Spoken(answer),
            Some(What::Answer(frame)) => Told::Answer(frame),
            Some(What::Failed(error)) => Told::Failed(Box::new(Failed { error: *error, stderr: Vec::new() })),
            None => Told::Failed(Box::new(self.cut_off())),
        };
        self.over = true;
        told
    }

    /// Asks the engine to stop. It still ends the request, with an error.
    pub fn cancel(&self) {
        self.link.send_unasked(EngineRequest::Cancel { message_id: self.id.clone() });
    }

    /// Why the channel closed before the request was over.
    fn cut_off(&self) -> Failed {
        match self.link.end() {
            Some(end) => end.failed(),
            None => {
                self.cancel();
                let message = "the engine sent more at once than a request may leave untaken";
                Failed { error: ServiceError::new(Reason::EngineProtocol, message), stderr: Vec::new() }
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over && self.link.router().forget(&self.id) {
            self.cancel();
        }
    }
}
