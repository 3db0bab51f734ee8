//! One session's task: carries out what the state machine says, and tells it what happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use chorus_bus::Incoming;
use chorus_protocol::breaker::DeadLetter;
use chorus_protocol::job::{CHUNKS_PER_GRANT, ChunkGrant, RunChunk, RunResult, Started};
use chorus_protocol::names::SessionSubject;
use chorus_protocol::plan::{Advanced, Finished, Opened};
use chorus_protocol::takes::StoredTake;
use chorus_protocol::{ServiceError, SessionId};
use chorus_runtime::task::FailureMeans;
use chorus_runtime::telemetry::TraceContext;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Delivered, SESSION_BACKLOG, Shared};
use crate::session::{Action, Fetch, Session};
use crate::speaking::{SpeechEvent, Taken, TextPiece};

enum Answer {
    Opened(SessionId, Result<Opened, ServiceError>),
    Advanced(Result<Advanced, ServiceError>),
    Finished(Result<Finished, ServiceError>),
    Fetched(SessionId, Fetch, Option<(StoredTake, Bytes)>),
}

pub(super) struct SessionTask {
    shared: Arc<Shared>,
    session: Session,
    events: mpsc::Sender<SpeechEvent>,
    taken: Arc<Taken>,
    cancel: CancellationToken,
    traceparent: String,
    registered: Option<SessionId>,
    mailbox: mpsc::Receiver<Delivered>,
    mailbox_address: mpsc::Sender<Delivered>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// What is still to come of the text.
    coming: Option<mpsc::Receiver<TextPiece>>,
}

impl SessionTask {
    pub(super) fn new(
        shared: Arc<Shared>,
        session: Session,
        events: mpsc::Sender<SpeechEvent>,
        taken: Arc<Taken>,
        cancel: CancellationToken,
        traceparent: Option<String>,
    ) -> Self {
        let (mailbox_address, mailbox) = mpsc::channel(SESSION_BACKLOG);
        let traceparent = TraceContext::continue_from(traceparent.as_deref()).traceparent();
        let mut task = Self {
            shared,
            session,
            events,
            taken,
            cancel,
            traceparent,
            registered: None,
            mailbox,
            mailbox_address,
            answers: FuturesUnordered::new(),
            coming: None,
        };
        // Before the first await, so that `SessionHost::active` counts it at once.
        task.register();
        task
    }

    /// The same, with a text that comes in pieces.
    pub(super) fn with_text(mut self, coming: Option<mpsc::Receiver<TextPiece>>) -> Self {
        self.coming = coming;
        self
    }

    pub(super) async fn run(mut self) {
        loop {
            self.carry_out().await;
            if self.session.is_ended() {
                return;
            }
            let timer = self.session.timer().map(tokio::time::Instant::from_std);
            let wants_text = self.session.wants_text();
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => self.session.on_cancel(self.now()),
                Some(delivered) = self.mailbox.recv() => self.take(delivered),
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => self.take_answer(answer),
                () = self.taken.changed.notified() => {
                    let segments = self.taken.segments.swap(0, Ordering::AcqRel);
                    self.session.on_taken(segments, self.now());
                }
                piece = next_piece(&mut self.coming), if wants_text => self.take_piece(piece),
                () = sleep_until(timer) => self.session.on_tick(self.now()),
            }
        }
    }

    fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    fn register(&mut self) {
        let id = self.session.id();
        if self.registered == Some(id) {
            return;
        }
        let mut sessions = self.shared.sessions();
        if let Some(old) = self.registered.replace(id) {
            sessions.remove(&old);
        }
        sessions.insert(id, self.mailbox_address.clone());
    }

    async fn carry_out(&mut self) {
        self.register();
        // Told last: without a broker that takes its time-out, and the listener's end must not wait for it.
        let mut cancels = Vec::new();
        for action in self.session.take_actions() {
            match action {
                Action::Open(open) => {
                    let (port, trace) = (Arc::clone(&self.shared.port), self.traceparent.clone());
                    self.answers.push(Box::pin(async move {
                        Answer::Opened(open.session, port.open(*open, Some(trace)).await)
                    }));
                }
                Action::Advance(advance) => {
                    let (port, trace) = (Arc::clone(&self.shared.port), self.traceparent.clone());
                    self.answers.push(Box::pin(async move {
                        Answer::Advanced(port.advance(*advance, Some(trace)).await)
                    }));
                }
                Action::Finish(finish) => {
                    let (port, trace) = (Arc::clone(&self.shared.port), self.traceparent.clone());
                    self.answers.push(Box::pin(async move {
                        Answer::Finished(port.finish(*finish, Some(trace)).await)
                    }));
                }
                Action::Fetch(fetch) => self.fetch(fetch),
                Action::Cancel(cancel) => cancels.push(cancel),
                Action::Accepted(model, text) => self.tell(SpeechEvent::Accepted { model, text }),
                Action::Bury(letter) => self.bury(*letter),
                Action::Audio(piece) => self.tell(SpeechEvent::Audio(piece)),
                Action::End(result) => self.tell(SpeechEvent::Ended(result)),
            }
        }
        for cancel in cancels {
            self.shared.port.cancel(cancel).await;
        }
    }

    fn fetch(&self, fetch: Fetch) {
        let (shared, session) = (Arc::clone(&self.shared), self.session.id());
        self.answers.push(Box::pin(async move {
            let got = shared.takes.get(&fetch.key, fetch.take.clone(), fetch.wait).await;
            Answer::Fetched(session, fetch, got)
        }));
    }

    /// In a task of its own: the listener is not kept waiting for it.
    fn bury(&self, letter: DeadLetter) {
        let letter = DeadLetter { at_ms: self.shared.clock.unix_ms(), ..letter };
        let port = Arc::clone(&self.shared.port);
        self.shared
            .tasks
            .spawn_draining("bury", FailureMeans::Log, |_token| async move { port.bury(letter).await });
    }

    fn tell(&mut self, event: SpeechEvent) {
        match self.events.try_send(event) {
            // The listener is gone; the cancellation that its drop causes is on its way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::error!(session = %self.session.id(), "the listener's channel is full in spite of its reserve");
                self.cancel.cancel();
            }
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        let now = self.now();
        match answer {
            Answer::Opened(id, opened) if id == self.session.id() => self.session.on_opened(opened, now),
            Answer::Opened(id, _) => tracing::debug!(%id, "an answer to an opening that was given up"),
            Answer::Advanced(advanced) => self.session.on_advanced(advanced, now),
            Answer::Finished(finished) => self.session.on_finished(finished),
            Answer::Fetched(id, fetch, got) if id == self.session.id() => {
                self.session.on_fetched(&fetch, got, now)
            }
            Answer::Fetched(id, ..) => tracing::debug!(%id, "a take for an opening that was given up"),
        }
    }

    fn take(&mut self, delivered: Delivered) {
        let now = self.now();
        match delivered {
            Delivered::WorkerLost(worker, incarnation) => {
                self.session.on_worker_lost(&worker, incarnation, now)
            }
            Delivered::Message(SessionSubject::Chunk, message) => self.take_chunk(&message, now),
            Delivered::Message(SessionSubject::Started, message) => {
                if let Some(started) = read::<Started>(&message) {
                    let answer = self.session.on_started(&started.payload, now);
                    self.shared.answer(&message, &started.message_id, answer);
                }
            }
            Delivered::Message(SessionSubject::Result, message) => {
                if let Some(result) = read::<RunResult>(&message) {
                    let answer = self.session.on_result(result.payload, now);
                    self.shared.answer(&message, &result.message_id, answer);
                }
            }
        }
    }

    fn take_piece(&mut self, piece: Option<TextPiece>) {
        let now = self.now();
        match piece {
            Some(TextPiece::More(text)) => self.session.on_text(&text, now),
            Some(TextPiece::Flush) => self.session.on_flush(now),
            None => {
                self.coming = None;
                self.session.on_text_end(now);
            }
        }
    }

    fn take_chunk(&mut self, message: &Incoming, now: Instant) {
        let Some(chunk) = read::<RunChunk>(message) else { return };
        let counts = self.session.on_chunk(chunk.payload, now);
        if message.reply().is_some() {
            let grant = ChunkGrant { chunks: if counts { CHUNKS_PER_GRANT } else { 0 } };
            self.shared.answer(message, &chunk.message_id, grant);
        }
    }
}

impl Drop for SessionTask {
    fn drop(&mut self) {
        if let Some(id) = self.registered {
            self.shared.sessions().remove(&id);
        }
    }
}

fn read<T: DeserializeOwned>(message: &Incoming) -> Option<chorus_protocol::Envelope<T>> {
    match message.decode() {
        Ok(envelope) => Some(envelope),
        Err(error) => {
            tracing::warn!(subject = %message.subject(), %error, "a worker's message cannot be read");
            None
        }
    }
}

/// The next piece of the text; `None` at its end. Never, where none will come.
async fn next_piece(coming: &mut Option<mpsc::Receiver<TextPiece>>) -> Option<TextPiece> {
    match coming {
        Some(coming) => coming.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
