//! The life of an engine that is well, or seems so: canaries, recycling, and the alert that memory runs out.
//!
//! One task looks at the engine again and again. With nothing to do, it lets the engine speak a short text through the real
//! pipe: a process that is alive need not be one that speaks. A canary that fails, is ill or comes late is this worker's
//! fault: the engine is replaced before a listener finds out. When the engine has grown old or large, nothing more is
//! pulled, what runs ends, and a fresh engine takes over; that costs a pause and no work.
//!
//! [`canary`] and [`recycle`] decide, both pure; this file looks and acts.

pub(crate) mod canary;
pub(crate) mod recycle;

use std::sync::Arc;
use std::time::Duration;

use chorus_protocol::job::{OutcomeKind, RunRef};
use chorus_protocol::pipe::{EngineRequest, EngineSpeech, SpokenAnswer};
use chorus_protocol::{ModelName, Reason, RunId, ServiceError, SessionId};
use chorus_runtime::clock::SharedClock;
use serde_json::Map;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::engine::{Call, EngineState, Session, Told};
use crate::events::Events;
use crate::gate::Gate;
use crate::health::{self, Finished};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::runs::Runs;
use crate::usage::{self, UsageMeter};
use canary::Canary;
use recycle::{Alert, Recycler, Sight};

/// The longest time between two looks. Reading the size of a process costs some ten microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the task stands on.
pub(crate) struct Life {
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) clock: SharedClock,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) models: watch::Receiver<Arc<Models>>,
    pub(crate) runs: Arc<Runs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Events,
    pub(crate) gate: Gate,
    /// Whether pulling rests.
    pub(crate) resting: watch::Sender<bool>,
    pub(crate) draining: CancellationToken,
}

/// What became of a canary.
enum Sung {
    /// Spoken, and well.
    Well,
    /// The worker's fault.
    Ill(ServiceError),
    /// Work came first, or the text says nothing about this model.
    Nothing,
}

impl Life {
    /// Looks on until it is dropped, or the worker drains.
    pub(crate) async fn run(self) {
        let every = self.config.canary.every.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = self.clock.now();
        let mut canary = Canary::new(self.config.canary.clone(), now);
        let mut recycler = Recycler::new(self.config.recycle.clone());
        let mut meter = UsageMeter::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.draining.cancelled() => return,
            }
            let Some(session) = self.engine.borrow().session().cloned() else { continue };
            self.look(&session, &mut recycler, &mut meter).await;
            self.listen(&session, &mut canary).await;
        }
    }

    /// Memory, age and requests: tells of the first, and renews the engine when its time has come.
    async fn look(&self, session: &Session, recycler: &mut Recycler, meter: &mut UsageMeter) {
        let now = self.clock.now();
        let (done, failed) = self.metrics.counts();
        let sight = Sight {
            run: session.run,
            rss_bytes: meter
                .read(usage::of_engine(session.hello.pid, self.config.engine.speaks), now)
                .rss_bytes,
            requests: done + failed,
        };
        let seen = recycler.look(&sight, now);
        if let Some(Alert { limit_bytes }) = seen.alert {
            let message = format!("the engine takes {} of {limit_bytes} bytes", sight.rss_bytes);
            tracing::warn!(rss_bytes = sight.rss_bytes, limit_bytes, "memory runs out");
            let mut details = Map::new();
            details.insert("rssBytes".into(), sight.rss_bytes.into());
            details.insert("limitBytes".into(), limit_bytes.into());
            self.events.fleet("memoryAlert", message, details).await;
        }
        if let Some(why) = seen.recycle {
            self.recycle(session, &sight, &why.to_string()).await;
        }
    }

    async fn recycle(&self, session: &Session, sight: &Sight, why: &str) {
        tracing::info!(why, runs = self.runs.count(), "the engine is to be renewed; pulling rests");
        self.resting.send_replace(true);
        let ended = tokio::select! {
            ended = tokio::time::timeout(self.config.recycle.finish_within, self.runs.none()) => ended,
            () = self.draining.cancelled() => return,
        };
        let unfinished = self.runs.count();
        if ended.is_err() {
            tracing::warn!(unfinished, "runs did not end in time; their sessions ask elsewhere");
        }
        session.link.retire(format!("recycled: {why}"));
        // Without a session nothing is pulled either, and the next one is fresh.
        self.resting.send_replace(false);
        let mut details = Map::new();
        details.insert("why".into(), why.into());
        details.insert("rssBytes".into(), sight.rss_bytes.into());
        details.insert("unfinished".into(), unfinished.into());
        self.events.fleet("workerRecycled", format!("the engine was renewed: {why}"), details).await;
    }

    /// A canary, when one is due.
    async fn listen(&self, session: &Session, canary: &mut Canary) {
        let ready = self.models.borrow().ready.clone();
        // A load may hold the interpreter for longer than a canary may take.
        let busy = self.runs.count() > 0 || session.link.is_loading();
        let due = canary.due(&ready, busy, self.clock.now());
        let Some(model) = due else { return };
        let sung = self.sing(session, &model, canary).await;
        let now = self.clock.now();
        match sung {
            Sung::Well => {
                canary.well(&model, now);
                self.judged(Ok(())).await;
            }
            Sung::Nothing => canary.nothing(now),
            Sung::Ill(error) if canary.proven(&model) || error.reason() != Some(Reason::BadAudio) => {
                canary.nothing(now);
                self.judged(Err(&error)).await;
                // Ends what runs, tells everybody, and starts the next one.
                session.link.close(error, Vec::new());
            }
            Sung::Ill(error) => {
                tracing::warn!(%model, %error, "the canary's text does not suit this model, which goes without");
                canary.unsuited(model, now);
            }
        }
    }

    /// Tells what a canary showed: a breaker that is half open finds recovery by it.
    async fn judged(&self, result: Result<(), &ServiceError>) {
        match result {
            Ok(()) => tracing::trace!("the canary was spoken"),
            Err(error) => tracing::warn!(%error, "the canary was not spoken as it should be"),
        }
        self.gate.tell_canary(&self.events, result).await;
    }

    async fn sing(&self, session: &Session, model: &ModelName, canary: &Canary) -> Sung {
        let text = self.config.canary.text.clone();
        let speech = EngineSpeech {
            seed: Some(0),
            job: Some(RunRef {
                session: SessionId::new(),
                segment: 0,
                attempt: canary.number(),
                run: RunId::new(),
            }),
            ..EngineSpeech::plain(model.as_str(), text.as_str())
        };
        let request = EngineRequest::Synthesize(Box::new(speech));
        let mut call = match session.link.request(request, None) {
            Ok(call) => call,
            // The link has just ended, and whoever ended it tells why.
            Err(_ended) => return Sung::Nothing,
        };
        let heard = tokio::select! {
            heard = hear(&mut call) => heard,
            () = tokio::time::sleep(self.config.canary.within) => {
                let ms = self.config.canary.within.as_millis();
                let message = format!("a canary was not spoken within {ms} ms");
                return Sung::Ill(ServiceError::new(Reason::EngineError, message));
            }
            // Work comes first: dropping the call cancels it.
            () = self.runs.some() => return Sung::Nothing,
            () = self.draining.cancelled() => return Sung::Nothing,
        };
        match heard {
            Ok((pieces, answer)) => {
                let finished = Finished {
                    engine: &self.config.engine.kind,
                    text: &text,
                    speed: None,
                    pieces: &pieces,
                    last: &answer.data.0,
                    sample_rate: answer.sample_rate,
                };
                health::inspect(&finished).map_or(Sung::Well, Sung::Ill)
            }
            // Its end has been told already.
            Err(_) if session.link.end().is_some() => Sung::Nothing,
            Err(error) if OutcomeKind::of(&error) == OutcomeKind::WorkerFault => Sung::Ill(error),
            Err(error) => {
                tracing::debug!(%model, %error, "the canary was refused");
                Sung::Nothing
            }
        }
    }
}

/// The audio of a call.
async fn hear(call: &mut Call) -> Result<(Vec<bytes::Bytes>, Box<SpokenAnswer>), ServiceError> {
    let mut pieces = Vec::new();
    loop {
        match call.next().await {
            Told::Piece { data, .. } => pieces.push(data),
            Told::Progress => {}
            Told::Spoken(answer) => return Ok((pieces, answer)),
            Told::Failed(failed) => return Err(failed.error),
            Told::Answer(_) => {
                let message = "the engine answered a canary with something else than audio";
                return Err(ServiceError::new(Reason::EngineProtocol, message));
            }
        }
    }
}
