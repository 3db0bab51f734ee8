//! One connection to one engine process: requests out, messages back, from the first frame to the end of the pipe.
//!
//! A writer task gathers what is to be sent and writes it together; a reader task hands each message to its request
//! ([`Router`]). When the pipe ends, breaks, or stays silent though pinged, the link has *ended*: every request ends at
//! once with the same [`End`], which carries the last lines of the engine's stderr. A link never comes back; the
//! supervisor makes a new one.

mod call;
mod io;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chorus_protocol::breaker::DETAIL_CRASH;
use chorus_protocol::job::Failed;
use chorus_protocol::pipe::{EngineRequest, MAX_FRAME_BYTES};
use chorus_protocol::{Envelope, Reason, RunId, ServiceError, codec};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::process::{ExitWatch, FrameReader, FrameWriter, LogRing};
use chorus_runtime::task::{self, FailureMeans};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::router::Router;
use super::wire;
pub use call::{Call, Told};
pub(in crate::engine) use io::tail;

/// Requests that may wait to be written. A worker never has as many under way, so a full one means an engine that does
/// not read.
const OUTBOX: usize = 1024;
/// Messages of one request that may wait to be taken: 16 MiB of audio.
const EVENTS: usize = 1024;

/// How a link watches over its engine. A limit is waited out ping by ping, never by the clock alone: a worker that was
/// itself held up (stopped, swapped out) finds one ping unanswered, and no hang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    /// A silent engine is pinged this often.
    pub ping_every: Duration,
    /// An engine that is silent this long on requests, though pinged, hangs.
    pub busy_silence: Duration,
    /// The same with nothing to do: it may still be importing what its first load will need.
    pub idle_silence: Duration,
    /// The same while it loads or unloads a model: imports hold the interpreter for long.
    pub load_silence: Duration,
}

impl Default for Liveness {
    /// Pinged twice a second; hanging after 2 s on requests, 10 s without, 120 s while a model loads. The real
    /// engine, two lanes deep in inference on two cores with four busy loops beside it, answered all of 1,166 pings within
    /// 207 ms (p99 25 ms): torch lets go of the interpreter lock.
    fn default() -> Self {
        Self {
            ping_every: Duration::from_millis(500),
            busy_silence: Duration::from_millis(2000),
            idle_silence: Duration::from_secs(10),
            load_silence: Duration::from_secs(120),
        }
    }
}

/// Why a link has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// `engine_crashed` or `engine_protocol`, with a message that says how. `details.crash` names this end: all requests that
    /// were under way bear it, and breakers count it once.
    pub error: ServiceError,
    /// The last lines of the engine's stderr.
    pub stderr: Vec<String>,
}

impl End {
    /// As a request that was under way sees it.
    pub fn failed(&self) -> Failed {
        Failed { error: self.error.clone(), stderr: self.stderr.clone() }
    }
}

/// The process behind a link: for its last words.
#[derive(Debug, Clone)]
pub struct Behind {
    /// Its end.
    pub exit: ExitWatch,
    /// Its stderr.
    pub stderr: LogRing,
}

/// See the module.
pub struct Link {
    clock: SharedClock,
    router: Mutex<Router>,
    outbox: mpsc::Sender<Vec<u8>>,
    loads: AtomicU32,
    retired: AtomicBool,
    end: OnceLock<End>,
    ended: CancellationToken,
}

impl Link {
    /// Begins to read and write. `behind` is the process, where there is one.
    pub fn open<R, W>(
        ends: (R, W),
        behind: Option<Behind>,
        liveness: Liveness,
        clock: SharedClock,
    ) -> Arc<Self>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let link = Arc::new(Self {
            clock,
            router: Mutex::default(),
            outbox,
            loads: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            end: OnceLock::new(),
            ended: CancellationToken::new(),
        });
        let reader = FrameReader::new(ends.0, MAX_FRAME_BYTES).with_deadline(liveness.idle_silence);
        let writer = FrameWriter::new(ends.1, MAX_FRAME_BYTES);
        let reading = io::read(link.clone(), reader, liveness, behind);
        let token = link.ended.clone();
        drop(task::spawn("engine-reader", token.clone(), FailureMeans::Log, reading));
        let writing = io::write(link.clone(), writer, outgoing);
        drop(task::spawn("engine-writer", token, FailureMeans::Log, writing));
        link
    }

    /// Sends a request; what comes back is taken from the [`Call`].
    ///
    /// # Errors
    /// When the link has ended, or the request is too large.
    pub fn request(
        self: &Arc<Self>,
        request: EngineRequest,
        traceparent: Option<String>,
    ) -> Result<Call, Box<Failed>> {
        let refused = |error| Box::new(Failed { error, stderr: Vec::new() });
        let envelope = Envelope::request(request, self.clock.unix_ms()).traced(traceparent);
        let frame = wire::encode(&envelope).map_err(refused)?;
        let id = envelope.message_id;
        let events = self.router().begin(id.clone(), EVENTS);
        let call = Call::new(self.clone(), id, events);
        // Ended after the request was entered: its channel was closed with the others, or is dropped with the call.
        if let Some(end) = self.end.get() {
            return Err(Box::new(end.failed()));
        }
        match self.outbox.try_send(frame) {
            Ok(()) => Ok(call),
            Err(_full_or_closed) => {
                Err(refused(ServiceError::new(Reason::EngineCrashed, "the engine reads no requests")))
            }
        }
    }

    /// Asks and waits for the answer; each sign of progress gives it `silence` anew.
    ///
    /// # Errors
    /// The engine's error; `engine_crashed` when the link ends, `engine_protocol` for an answer that cannot be read,
    /// TIMEOUT when nothing comes for `silence`.
    pub async fn call<A: DeserializeOwned>(
        self: &Arc<Self>,
        request: EngineRequest,
        silence: Duration,
    ) -> Result<A, Box<Failed>> {
        let refused = |reason, message: String| {
            Box::new(Failed { error: ServiceError::new(reason, message), stderr: Vec::new() })
        };
        let mut call = self.request(request, None)?;
        loop {
            let Ok(what) = tokio::time::timeout(silence, call.next()).await else {
                let message = format!("the engine did not answer for {} s", silence.as_secs_f64());
                return Err(refused(Reason::AttemptTimeout, message));
            };
            match what {
                Told::Progress | Told::Piece { .. } => {}
                Told::Failed(failed) => return Err(failed),
                Told::Spoken(_) => {
                    return Err(refused(
                        Reason::EngineProtocol,
                        "audio came where none was asked for".into(),
                    ));
                }
                Told::Answer(frame) => {
                    let read = codec::decode(&frame, MAX_FRAME_BYTES);
                    return read.map(|envelope| envelope.payload).map_err(|error| {
                        refused(
                            Reason::EngineProtocol,
                            format!("the engine's answer cannot be read: {error}"),
                        )
                    });
                }
            }
        }
    }

    /// A model is being loaded or unloaded while this lives: longer silence is no hang.
    pub fn loading(self: &Arc<Self>) -> Loading {
        self.loads.fetch_add(1, Ordering::Relaxed);
        Loading(self.clone())
    }

    /// Whether a model is being loaded or unloaded.
    pub fn is_loading(&self) -> bool {
        self.loads.load(Ordering::Relaxed) > 0
    }

    /// Waits for the end.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The end, if it has come.
    pub fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.router().len()
    }

    /// Ends the link from our side. The first end stands.
    pub fn close(&self, error: ServiceError, stderr: Vec<String>) {
        let error = error.with(DETAIL_CRASH, RunId::new().to_string());
        if self.end.set(End { error, stderr }).is_ok() {
            self.router().clear();
            self.ended.cancel();
        }
    }

    /// Ends the link because its engine, though well, is to be replaced by a fresh one: no failure.
    pub fn retire(&self, why: impl Into<String>) {
        self.retired.store(true, Ordering::Relaxed);
        self.close(ServiceError::new(Reason::EngineCrashed, why), Vec::new());
    }

    /// Whether it ended by [`Link::retire`].
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_unasked(&self, request: EngineRequest) {
        let envelope = Envelope::request(request, self.clock.unix_ms());
        // A full or closed outbox belongs to an engine that is about to be found dead.
        let _unsent = wire::encode(&envelope).map(|frame| self.outbox.try_send(frame));
    }
}

/// See [`Link::loading`].
pub struct Loading(Arc<Link>);

impl Drop for Loading {
    fn drop(&mut self) {
        self.0.loads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
