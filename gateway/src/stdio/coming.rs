//! Texts that come in pieces: what waits between the parent's words and the session's room for them.
//!
//! A piece is answered once the session has taken it; until then it waits here, under a bound. A text with a hole in it is not
//! spoken: where a piece cannot be taken, the request that it belongs to ends with the same error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use chorus_client::TextInput;
use chorus_protocol::gateway::{Done, MAX_PIECE_BYTES, MAX_PIECES, MAX_WAITING_TEXT_BYTES};
use chorus_protocol::{MessageId, Reason, ServiceError, request};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::outbox::Speaker;

/// What the parent says about a text.
#[derive(Debug)]
pub(super) enum Piece {
    /// More of it.
    More(String),
    /// Speak what there is.
    Flush,
    /// There is no more.
    End,
}

struct Waiting {
    /// The message to be answered; none for the end of the input.
    id: Option<MessageId>,
    piece: Piece,
    _room: Option<OwnedSemaphorePermit>,
}

/// The text of one request, as the parent's side of it sees it. A cheap clone.
#[derive(Clone)]
pub(super) struct Coming(Arc<Inner>);

struct Inner {
    of: MessageId,
    queue: mpsc::Sender<Waiting>,
    waiting: Mutex<mpsc::Receiver<Waiting>>,
    room: Arc<Semaphore>,
    ended: AtomicBool,
    fault: OnceLock<ServiceError>,
    give_up: CancellationToken,
}

impl Coming {
    /// Of the request `of`, which `give_up` ends.
    pub(super) fn new(of: MessageId, give_up: CancellationToken) -> Self {
        // One place more, for the end of the input.
        let (queue, waiting) = mpsc::channel(MAX_PIECES + 1);
        Self(Arc::new(Inner {
            of,
            queue,
            waiting: Mutex::new(waiting),
            room: Arc::new(Semaphore::new(MAX_WAITING_TEXT_BYTES)),
            ended: AtomicBool::new(false),
            fault: OnceLock::new(),
            give_up,
        }))
    }

    /// Takes what the message `id` brings; it is answered when the session has taken it.
    ///
    /// # Errors
    /// INVALID_REQUEST after the end, for a piece that is too long or holds NUL; RESOURCE_EXHAUSTED when too much waits. But
    /// for a piece after the end, the request ends with it.
    pub(super) fn put(&self, id: MessageId, piece: Piece) -> Result<(), ServiceError> {
        if self.0.ended.load(Ordering::Acquire) {
            let message = format!("the text of request {} has ended: nothing can follow", self.0.of);
            return Err(ServiceError::field(Reason::Malformed, "messageId", message));
        }
        self.try_put(id, piece).inspect_err(|error| {
            // Whichever came first is told; it matters little, for there is only one conversation.
            let _first = self.0.fault.set(error.clone());
            self.0.give_up.cancel();
        })
    }

    fn try_put(&self, id: MessageId, piece: Piece) -> Result<(), ServiceError> {
        let room = match &piece {
            Piece::More(text) => Some(self.room_for(text)?),
            Piece::Flush => None,
            Piece::End => {
                self.0.ended.store(true, Ordering::Release);
                None
            }
        };
        if self.0.queue.capacity() <= 1 {
            return Err(too_much());
        }
        self.0.queue.try_send(Waiting { id: Some(id), piece, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => too_much(),
            mpsc::error::TrySendError::Closed(_) => unknown(&self.0.of),
        })
    }

    fn room_for(&self, text: &str) -> Result<OwnedSemaphorePermit, ServiceError> {
        if text.len() > MAX_PIECE_BYTES {
            let message = format!("the piece is {} bytes; at most {MAX_PIECE_BYTES} are taken", text.len());
            return Err(
                ServiceError::field(Reason::TooLarge, "text", message).with("maxBytes", MAX_PIECE_BYTES)
            );
        }
        request::check_text(text)?;
        let room = Arc::clone(&self.0.room).try_acquire_many_owned(text.len() as u32);
        room.map_err(|_none_left| too_much())
    }

    /// Nothing more can come: the parent has closed its end.
    pub(super) fn input_ended(&self) {
        if !self.0.ended.swap(true, Ordering::AcqRel) {
            let end = Waiting { id: None, piece: Piece::End, _room: None };
            if self.0.queue.try_send(end).is_err() {
                tracing::debug!(of = %self.0.of, "the end of a text was not told: the request is over");
            }
        }
    }

    /// Why the request was ended from here, if it was.
    pub(super) fn fault(&self) -> Option<ServiceError> {
        self.0.fault.get().cloned()
    }

    /// Hands on what comes until the text ends. Cancel-safe but for the piece in hand.
    pub(super) async fn feed(&self, input: TextInput, speaker: &Speaker) {
        let mut waiting = self.0.waiting.lock().await;
        while let Some(Waiting { id, piece, _room }) = waiting.recv().await {
            let (taken, last) = match piece {
                Piece::More(text) => (input.push(text).await, false),
                Piece::Flush => (input.flush().await, false),
                Piece::End => (true, true),
            };
            self.answer(id, taken, speaker).await;
            if last {
                return;
            }
        }
    }

    /// The request is over: what still waits is told so, and nothing more is taken.
    pub(super) async fn close(&self, speaker: &Speaker) {
        let mut waiting = self.0.waiting.lock().await;
        waiting.close();
        while let Some(Waiting { id, .. }) = waiting.recv().await {
            self.answer(id, false, speaker).await;
        }
    }

    async fn answer(&self, id: Option<MessageId>, taken: bool, speaker: &Speaker) {
        let Some(id) = id else { return };
        // Where nobody reads, the conversation ends by itself.
        let _unheard = match taken {
            true => speaker.answer(&id, Done {}).await,
            false => speaker.error(Some(&id), unknown(&self.0.of)).await,
        };
    }
}

/// There is no such request, or it is over.
pub(super) fn unknown(of: &MessageId) -> ServiceError {
    let message = format!("no request {of} whose text comes in pieces is under way");
    ServiceError::field(Reason::UnknownRequest, "messageId", message)
}

fn too_much() -> ServiceError {
    let message = format!(
        "more than {MAX_PIECES} pieces or {MAX_WAITING_TEXT_BYTES} bytes of one text wait: wait for the answers to earlier ones"
    );
    ServiceError::new(Reason::RateLimited, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> MessageId {
        MessageId::new(format!("m{n}")).unwrap()
    }

    fn coming() -> (Coming, CancellationToken) {
        let give_up = CancellationToken::new();
        (Coming::new(id(0), give_up.clone()), give_up)
    }

    #[test]
    fn what_waits_is_bounded_and_a_text_with_a_hole_is_given_up() {
        let (text, give_up) = coming();
        for n in 1..=MAX_PIECES {
            text.put(id(n), Piece::Flush).unwrap();
        }
        assert!(!give_up.is_cancelled());
        let error = text.put(id(99), Piece::More("a".into())).unwrap_err();
        assert_eq!((error.reason(), error.retryable), (Some(Reason::RateLimited), true));
        assert!(give_up.is_cancelled() && text.fault() == Some(error));
        // The end of the input has a place of its own.
        text.input_ended();
        assert_eq!(text.0.queue.capacity(), 0);

        let (text, give_up) = coming();
        let piece = "a".repeat(MAX_PIECE_BYTES);
        for n in 0..MAX_WAITING_TEXT_BYTES / MAX_PIECE_BYTES {
            text.put(id(n), Piece::More(piece.clone())).unwrap();
        }
        assert_eq!(text.put(id(9), Piece::More("a".into())).unwrap_err().reason(), Some(Reason::RateLimited));
        assert!(give_up.is_cancelled());
    }

    #[test]
    fn a_piece_that_cannot_be_taken_ends_the_request_and_one_after_the_end_does_not() {
        for (piece, reason) in
            [("a".repeat(MAX_PIECE_BYTES + 1), Reason::TooLarge), ("a\0b".into(), Reason::Malformed)]
        {
            let (text, give_up) = coming();
            let error = text.put(id(1), Piece::More(piece)).unwrap_err();
            assert_eq!((error.reason(), &error.details.unwrap()["field"]), (Some(reason), &"text".into()));
            assert!(give_up.is_cancelled());
        }
        let (text, give_up) = coming();
        text.put(id(1), Piece::End).unwrap();
        for late in [Piece::More("a".into()), Piece::Flush, Piece::End] {
            assert_eq!(text.put(id(2), late).unwrap_err().details.unwrap()["field"], "messageId");
        }
        assert!(!give_up.is_cancelled() && text.fault().is_none());
    }
}
