//! The sessions of a process: one subscription for all of them, one task each.
//!
//! Workers speak to `<inbox>.<session>.{started,chunk,result}`. The dispatcher hands each message to its session's task
//! through a bounded channel; what does not fit is dropped, which is harmless: questions are asked again and missing
//! chunks resent. For a session that is not known here the host itself answers `stop` or `stale`, so that no worker waits.

mod task;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chorus_bus::{Bus, Incoming, Subscription};
use chorus_protocol::codec::Encoding;
use chorus_protocol::fleet::FleetEvent;
use chorus_protocol::job::{ChunkGrant, ResultAnswer, StartedAnswer, StopReason};
use chorus_protocol::names::{self, SessionSubject};
use chorus_protocol::{
    Envelope, Incarnation, MessageId, Reason, ServiceError, SessionId, SynthesisRequest, SynthesisResult,
    WorkerId,
};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::task::{FailureMeans, TaskGroup};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::SessionHostConfig;
use crate::port::ManagerPort;
use crate::session::{Session, SessionStart};
use crate::speaking::{Resume, SpeakAsk, Speaking, SpeechEvent, Taken, TextInput, TextPiece};
use crate::takes::TakeReader;

/// Messages that wait for one session's task at most.
const SESSION_BACKLOG: usize = 256;

/// Pieces of text that wait for one session's task at most; a writer waits when they are more.
const TEXT_BACKLOG: usize = 64;

/// How long sessions may take to end when the host stops.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What the dispatcher hands to a session's task.
#[derive(Debug)]
enum Delivered {
    Message(SessionSubject, Incoming),
    WorkerLost(WorkerId, Incarnation),
}

/// Runs the sessions of a process. A cheap clone.
#[derive(Clone)]
pub struct SessionHost {
    shared: Arc<Shared>,
}

struct Shared {
    bus: Bus,
    port: Arc<dyn ManagerPort>,
    clock: SharedClock,
    config: SessionHostConfig,
    inbox: String,
    takes: TakeReader,
    sessions: Mutex<HashMap<SessionId, mpsc::Sender<Delivered>>>,
    tasks: TaskGroup,
}

impl SessionHost {
    /// Subscribes and begins to serve. Ends when `cancel` is cancelled: open sessions end with `cancelled`.
    ///
    /// # Errors
    /// When the bus takes no subscription.
    pub async fn start(
        bus: Bus,
        port: Arc<dyn ManagerPort>,
        clock: SharedClock,
        config: SessionHostConfig,
        cancel: CancellationToken,
    ) -> Result<Self, ServiceError> {
        let no_broker = |e: chorus_bus::BusError| ServiceError::new(Reason::NoBroker, e.to_string());
        let inbox = bus.new_inbox();
        let answers = bus.subscribe(&names::all_sessions(&inbox), None).await.map_err(no_broker)?;
        let lost = bus.subscribe(&names::event_subject("workerLost"), None).await.map_err(no_broker)?;
        let tasks = TaskGroup::new("sessions", &cancel);
        let sessions = Mutex::default();
        let takes = TakeReader::new(bus.takes(), clock.clone(), &config.takes);
        let shared = Arc::new(Shared { bus, port, clock, config, inbox, takes, sessions, tasks });
        shared.tasks.spawn(
            "session-dispatch",
            FailureMeans::CancelScope,
            dispatch(Arc::clone(&shared), answers),
        );
        shared.tasks.spawn(
            "worker-lost",
            FailureMeans::CancelScope,
            hear_of_losses(Arc::clone(&shared), lost),
        );
        Ok(Self { shared })
    }

    /// Speaks a request. Whatever is wrong comes as the last event.
    pub fn speak(&self, ask: SpeakAsk) -> Speaking {
        self.resume(ask, Resume::default())
    }

    /// Speaks a request whose text comes in pieces, as from a language model: the request's own text is the first of them,
    /// and may be empty. A sentence is spoken as soon as it is complete. Plain text only.
    pub fn speak_coming(&self, ask: SpeakAsk) -> (Speaking, TextInput) {
        let (input, coming) = mpsc::channel(TEXT_BACKLOG);
        (self.begin(ask, Resume::default(), Some(coming)), TextInput(input))
    }

    /// Speaks what an earlier session left of a request.
    pub fn resume(&self, ask: SpeakAsk, from: Resume) -> Speaking {
        self.begin(ask, from, None)
    }

    fn begin(&self, ask: SpeakAsk, from: Resume, coming: Option<mpsc::Receiver<TextPiece>>) -> Speaking {
        let cancel = self.shared.tasks.token().child_token();
        let taken = Arc::new(Taken::default());
        let (send, events) = mpsc::channel(self.shared.config.window as usize + 4);
        let speaking = Speaking {
            events,
            taken: Arc::clone(&taken),
            _cancel_on_drop: cancel.clone().drop_guard(),
            cancel: cancel.clone(),
        };
        if let Err(error) = self.admit(&ask, coming.is_some()) {
            let ended = SpeechEvent::Ended(Box::new(SynthesisResult::failed(ask.request_id, 0.0, error)));
            if send.try_send(ended).is_err() {
                tracing::error!("a fresh channel took no event");
            }
            return speaking;
        }
        let start = SessionStart {
            process_inbox: self.shared.inbox.clone(),
            request_id: ask.request_id,
            request: ask.request,
            whole_reply_deadline: ask.whole_reply_deadline,
            more_to_come: coming.is_some(),
        };
        let session = Session::resume(start, from, self.shared.config.clone(), self.shared.clock.now());
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn_draining("session", FailureMeans::Log, |_| {
            task::SessionTask::new(shared, session, send, taken, cancel, ask.traceparent)
                .with_text(coming)
                .run()
        });
        speaking
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.shared.bus
    }

    fn admit(&self, ask: &SpeakAsk, text_comes: bool) -> Result<(), ServiceError> {
        if text_comes && ask.request.is_ssml() {
            let message = "an SSML document is given as a whole, not in pieces";
            return Err(ServiceError::field(Reason::UnsupportedOption, "inputType", message));
        }
        if text_comes && ask.request.text.trim().is_empty() {
            SynthesisRequest { text: "-".into(), ..ask.request.clone() }.validate()?;
        } else {
            ask.request.validate()?;
        }
        let max = self.shared.config.max_sessions;
        if self.active() >= max {
            let message = format!("{max} requests are being spoken here already");
            return Err(ServiceError::new(Reason::RateLimited, message).retry_after_ms(500));
        }
        Ok(())
    }

    /// Sessions that are open.
    pub fn active(&self) -> usize {
        self.shared.sessions().len()
    }

    /// Cancels all sessions and waits for them to end, within a bound.
    pub async fn stop(&self) {
        self.shared.tasks.token().cancel();
        self.shared.tasks.join(STOP_LIMIT).await;
    }
}

impl Shared {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, mpsc::Sender<Delivered>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits: without a broker that would take seconds, in which a deadline passes and no listener is told. The worker
    /// asks again.
    fn answer<T: Serialize>(&self, to: &Incoming, question: &MessageId, answer: T) {
        let envelope = Envelope::response(question, answer, self.clock.unix_ms());
        if let Err(error) = self.bus.respond_now(to, &envelope, Encoding::MessagePack) {
            tracing::debug!(%error, "an answer to a worker was not sent; it will ask again");
        }
    }

    /// The answer where no session is known: nobody waits for that run.
    fn answer_unknown(&self, kind: SessionSubject, message: &Incoming) {
        if message.reply().is_none() {
            return;
        }
        let Ok(question) = message.decode::<serde::de::IgnoredAny>() else {
            return;
        };
        let id = &question.message_id;
        match kind {
            SessionSubject::Started => {
                self.answer(message, id, StartedAnswer::Stop { reason: StopReason::Unknown });
            }
            SessionSubject::Result => self.answer(message, id, ResultAnswer::STALE),
            SessionSubject::Chunk => self.answer(message, id, ChunkGrant { chunks: 0 }),
        }
    }
}

async fn dispatch(shared: Arc<Shared>, mut answers: Subscription) {
    while let Some(message) = answers.next().await {
        let Some((session, kind)) = names::parse_session_subject(message.subject()) else {
            tracing::debug!(subject = %message.subject(), "a message to no session");
            continue;
        };
        let Some(task) = shared.sessions().get(&session).cloned() else {
            shared.answer_unknown(kind, &message);
            continue;
        };
        if let Err(error) = task.try_send(Delivered::Message(kind, message)) {
            tracing::debug!(%session, %error, "a session is behind; a message to it was dropped");
        }
    }
}

async fn hear_of_losses(shared: Arc<Shared>, mut lost: Subscription) {
    while let Some(message) = lost.next().await {
        let event = match message.decode::<FleetEvent>() {
            Ok(envelope) => envelope.payload,
            Err(error) => {
                tracing::warn!(%error, "a workerLost event cannot be read");
                continue;
            }
        };
        let (Some(worker), Some(incarnation)) = (event.worker_id, event.incarnation) else { continue };
        let tasks: Vec<_> = shared.sessions().values().cloned().collect();
        for task in tasks {
            if task.send(Delivered::WorkerLost(worker.clone(), incarnation)).await.is_err() {
                tracing::trace!("the session has just ended");
            }
        }
    }
}

/// What a listener gets when the process that spoke for it is going away.
pub(crate) fn host_is_gone() -> SynthesisResult {
    let error = ServiceError::new(Reason::Cancelled, "the session host has stopped");
    SynthesisResult::failed(MessageId::fresh(), 0.0, error)
}
