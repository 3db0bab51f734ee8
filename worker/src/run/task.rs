//! One run in the world: the effects of the pure [`Run`], one task for each.
//!
//! The task waits for whatever comes first (the engine, the session's answers, a stop order, a timer), hands it to the
//! state machine and does what that asks for. Questions to the session run beside it, never in its way.

mod ask;
mod intake;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chorus_bus::{Bus, Delivery};
use chorus_protocol::job::{
    Failed, Job, Outcome, OutcomeKind, RunChunk, RunOutcome, RunResult, Started, StartedAnswer,
};
use chorus_protocol::names::{SessionSubject, session_subject};
use chorus_protocol::pipe::{EngineRequest, EngineSpeech, SpokenAnswer};
use chorus_protocol::{AudioData, Envelope, Incarnation, Reason, ServiceError};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::process::supervisor::SupervisorHandle;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::turns::Turns;
use super::{Action, Ending, Event, Run};
use crate::clips::{ClipStore, Held};
use crate::config::WorkerConfig;
use crate::engine::{Call, EngineState, Told};
use crate::events::Events;
use crate::gate::Gate;
use crate::health::{self, Finished};
use crate::keep::{Keeper, Keeping};
use crate::metrics::{Metrics, RunFigures};
use crate::models::Models;
use crate::pull::Credit;
use crate::runs::{Registered, Runs};
use crate::voicing::Voicing;
use ask::Question;

/// What all runs of a worker share.
pub(crate) struct RunContext {
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) incarnation: Incarnation,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) events: Events,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) engine_orders: SupervisorHandle,
    pub(crate) models: watch::Receiver<Arc<Models>>,
    pub(crate) runs: Arc<Runs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Gate,
    pub(crate) turns: Turns,
    pub(crate) keeper: Keeper,
    pub(crate) clips: ClipStore,
    /// Room for runs that the engine is done with and the session has not judged yet.
    pub(crate) unjudged: Arc<Semaphore>,
    /// Cancelled when the worker leaves without waiting any longer.
    pub(crate) leaving: CancellationToken,
}

impl RunContext {
    /// Hands a job back to the queue. When the broker does not hear it, ack_wait does the same a second later.
    pub(crate) async fn hand_back(&self, delivery: Delivery, delay: Duration) {
        if !self.config.run.hand_back {
            return delivery.abandon();
        }
        let seq = delivery.seq;
        if let Err(error) = delivery.nak(delay).await {
            tracing::debug!(%error, seq, "a job could not be handed back; its time will run out");
        }
    }
}

/// Runs of a worker that wait for their sessions' verdict without a credit; one more keeps its credit.
pub(crate) const MAX_UNJUDGED: usize = 16;

/// Runs one delivery to its end, and gives the credit back.
pub(crate) async fn run(context: Arc<RunContext>, delivery: Delivery, fresh: bool, credit: Credit) {
    let pulled = context.clock.now();
    let alone = delivery.failures > 0 && context.config.run.isolate;
    if let Some((delivery, job, inbox)) = intake::take_in(&context, delivery).await {
        let mut task = RunTask::new(&context, delivery, job, &inbox, pulled, credit);
        task.fetch_clip().await;
        let (turn, waited) = context.turns.take(alone, &context.leaving).await;
        task.drive(fresh && !waited).await;
        drop(turn);
    }
}

struct RunTask<'a> {
    context: &'a RunContext,
    job: Job,
    registered: Registered,
    delivery: Option<Delivery>,
    deliveries: u64,
    traceparent: Option<String>,
    started_subject: String,
    chunk_subject: String,
    result_subject: String,
    call: Option<Call>,
    /// What is to become of its take.
    keeping: Option<Keeping>,
    questions: FuturesUnordered<BoxFuture<'static, Event>>,
    /// Given back once the engine is done with it, or with the whole.
    credit: Option<Credit>,
    /// In place of the credit, while the verdict is waited for.
    unjudged: Option<OwnedSemaphorePermit>,
    /// Events that follow from what was done.
    pending: VecDeque<Event>,
    pulled: Instant,
    /// What the engine cannot do of what is asked.
    voicing: Voicing,
    /// The clip to speak like, where the job names one, or why there is none.
    clip: Result<Option<Held>, ServiceError>,
}

impl<'a> RunTask<'a> {
    fn new(
        context: &'a RunContext,
        delivery: Delivery,
        job: Job,
        inbox: &str,
        pulled: Instant,
        credit: Credit,
    ) -> Self {
        let run = intake::run_of(&job.id());
        let progress = delivery.progress_handle();
        let keeping = context.keeper.keeping(&job, &context.models.borrow(), run.run);
        let registered = context.runs.begin(run, job.speech.model.clone(), progress, pulled);
        Self {
            context,
            job,
            registered,
            deliveries: delivery.deliveries,
            traceparent: delivery.traceparent.clone(),
            delivery: Some(delivery),
            started_subject: session_subject(inbox, SessionSubject::Started),
            chunk_subject: session_subject(inbox, SessionSubject::Chunk),
            result_subject: session_subject(inbox, SessionSubject::Result),
            call: None,
            keeping,
            questions: FuturesUnordered::new(),
            credit: Some(credit),
            unjudged: None,
            pending: VecDeque::new(),
            pulled,
            voicing: Voicing::default(),
            clip: Ok(None),
        }
    }

    /// Makes sure of the clip that the job is to be spoken with; a job that is given up meanwhile goes on without one, to its
    /// end.
    async fn fetch_clip(&mut self) {
        let Some(id) = self.job.speech.speaker_clip else { return };
        let session = self.context.engine.borrow().session().cloned();
        if session.is_some_and(|session| !session.hello.capabilities.speaker_clip) {
            let message = format!("model {} cannot take on a voice", self.job.speech.model);
            self.clip = Err(ServiceError::field(Reason::UnsupportedOption, "speakerClip", message));
            return;
        }
        let (context, entry) = (self.context, &self.registered.entry);
        let fetching = context.clips.get(&id);
        tokio::pin!(fetching);
        let mut ticks = tokio::time::interval(context.config.in_progress_every);
        self.clip = loop {
            tokio::select! {
                held = &mut fetching => break held.map(Some),
                // It is progress, though not the engine's.
                _ = ticks.tick() => entry.heard(context.clock.now()),
                () = entry.stop.cancelled() => break Err(given_up()),
                () = context.leaving.cancelled() => break Err(given_up()),
            }
        };
    }

    async fn drive(mut self, fresh: bool) {
        let limits = self.context.config.run.clone();
        // Not since the pull: a turn, or a clip, may have been waited for, and the session is only asked now.
        let began = self.context.clock.now();
        let (mut run, mut actions) = Run::start(limits, fresh, self.deliveries, began);
        let (mut stopped, mut leaving) = (false, false);
        loop {
            for action in actions {
                self.act(&mut run, action).await;
            }
            // After the actions: whom it wakes must not get in front of the result.
            if self.credit.is_some() && run.is_spoken() {
                self.give_credit_back();
            }
            if run.is_done() {
                return;
            }
            let event = match self.pending.pop_front() {
                Some(event) => event,
                None => self.wait(&run, stopped, leaving).await,
            };
            if let (Event::Started(Ok(StartedAnswer::Go)), Some(keeping)) = (&event, &mut self.keeping) {
                keeping.claim();
            }
            stopped |= matches!(event, Event::Stop);
            leaving |= matches!(event, Event::HandBack);
            actions = run.on(event, self.context.clock.now());
        }
    }

    /// The engine is done with it. Runs whose sessions are slow to judge hold audio, so there is a bound; and on trial, one
    /// job at a time means judged, not spoken.
    fn give_credit_back(&mut self) {
        if !self.context.gate.lets_all_through() {
            return;
        }
        if let Ok(room) = Arc::clone(&self.context.unjudged).try_acquire_owned() {
            (self.credit, self.unjudged) = (None, Some(room));
        }
    }

    async fn wait(&mut self, run: &Run, stopped: bool, leaving: bool) -> Event {
        let deadline = run.deadline();
        let call = &mut self.call;
        tokio::select! {
            told = async { call.as_mut().expect("only polled with a call").next().await }, if call.is_some() => {
                self.registered.entry.heard(self.context.clock.now());
                self.heard(run, told)
            }
            Some(event) = self.questions.next(), if !self.questions.is_empty() => event,
            () = self.registered.entry.stop.cancelled(), if !stopped => Event::Stop,
            () = self.context.leaving.cancelled(), if !leaving => Event::HandBack,
            () = sleep_until(deadline), if deadline.is_some() => Event::Tick,
        }
    }

    /// What the engine told, as an event; audio that is whole is inspected first.
    fn heard(&mut self, run: &Run, told: Told) -> Event {
        match told {
            Told::Piece { seq, data } => return Event::Piece { seq, data },
            Told::Progress => return Event::Progress,
            _ => self.call = None,
        }
        match told {
            Told::Spoken(answer) => {
                let ill = health::inspect(&Finished {
                    engine: &self.context.config.engine.kind,
                    text: &self.job.text,
                    speed: self.voicing.engine_speed(&self.job.speech),
                    pieces: run.pieces(),
                    last: &answer.data.0,
                    sample_rate: answer.sample_rate,
                });
                if ill.is_some() || self.voicing.is_none() {
                    return Event::Spoken { answer, ill, changed: None };
                }
                self.questions.push(changed(self.voicing, run.pieces(), answer).boxed());
                Event::Progress
            }
            Told::Failed(failed) => Event::EngineFailed(failed),
            _ => engine_failed(Reason::EngineProtocol, "the engine answered with something else than audio"),
        }
    }

    async fn act(&mut self, run: &mut Run, action: Action) {
        match action {
            Action::AskStarted { overlapped } => self.ask_started(overlapped),
            Action::Speak => self.speak(run),
            Action::CancelEngine => {
                if let Some(call) = &self.call {
                    call.cancel();
                }
            }
            Action::SendChunk { seq, ask } => self.send_chunk(run, seq, ask).await,
            Action::AskResult => self.ask_result(run),
            Action::End(ending) => self.end(run, ending).await,
            Action::RestartEngine => {
                self.context.engine_orders.restart("it did not end a request that was cancelled");
                self.call = None;
            }
        }
    }

    fn ask_started(&mut self, overlapped: bool) {
        if !self.context.config.run.ask_started {
            self.pending.push_back(Event::Started(Ok(StartedAnswer::Go)));
            return;
        }
        let question = Started {
            run: self.registered.entry.run.clone(),
            worker: self.context.config.id.clone(),
            incarnation: self.context.incarnation,
            deliveries: self.deliveries,
            overlapped,
        };
        let subject = self.started_subject.clone();
        self.ask(Question::Started { subject, question });
    }

    fn ask_result(&mut self, run: &Run) {
        let Some(outcome) = run.outcome().cloned() else { return };
        let question = RunResult {
            run: self.registered.entry.run.clone(),
            worker: self.context.config.id.clone(),
            outcome,
        };
        let subject = self.result_subject.clone();
        self.ask(Question::Result { subject, question: Box::new(question) });
    }

    fn ask(&mut self, question: Question) {
        let (bus, clock) = (self.context.bus.clone(), self.context.clock.clone());
        let within = self.context.config.run.answer_within;
        let mut asking = ask::ask(bus, clock, question, self.traceparent.clone(), within).boxed();
        // Its first step sends it, so that it goes out in order with the chunks that are only told.
        match (&mut asking).now_or_never() {
            Some(event) => self.pending.push_back(event),
            None => self.questions.push(asking),
        }
    }

    fn speak(&mut self, run: &mut Run) {
        let session = self.context.engine.borrow().session().cloned();
        let speech = &self.job.speech;
        if let Some(session) = &session {
            self.voicing = Voicing::left_by(&session.hello.capabilities, speech);
        }
        if !self.voicing.is_none() {
            run.keep_whole();
        }
        let clip = match &self.clip {
            Ok(clip) => clip.as_ref().map(|held| held.path().display().to_string()),
            Err(error) => {
                let failed = Failed { error: error.clone(), stderr: Vec::new() };
                return self.pending.push_back(Event::EngineFailed(Box::new(failed)));
            }
        };
        let request = EngineSpeech {
            model: speech.model.to_string(),
            text: self.job.text.clone(),
            voice: speech.voice.clone(),
            speaker_clip: clip,
            language: speech.language.clone(),
            speed: self.voicing.engine_speed(speech),
            pitch: self.voicing.engine_pitch(speech),
            seed: speech.seed,
            job: Some(self.registered.entry.run.clone()),
        };
        let request = EngineRequest::Synthesize(Box::new(request));
        let asked = session.as_ref().map(|session| session.link.request(request, self.traceparent.clone()));
        let has_ended = session.is_some_and(|session| session.link.end().is_some());
        match asked {
            Some(Ok(call)) => self.call = Some(call),
            Some(Err(failed)) if !has_ended => self.pending.push_back(Event::EngineFailed(failed)),
            // Whatever ended the engine, it was not this text.
            Some(Err(_)) | None => {
                let error = ServiceError::new(Reason::NoWorker, "the engine is being started again");
                let failed = Failed { error: error.retry_after_ms(0), stderr: Vec::new() };
                self.pending.push_back(Event::EngineFailed(Box::new(failed)));
            }
        }
    }

    async fn send_chunk(&mut self, run: &Run, seq: u32, ask: bool) {
        let Some(data) = run.chunk(seq).cloned() else { return };
        let chunk = RunChunk { run: self.registered.entry.run.clone(), seq, data: AudioData(data) };
        if ask {
            let subject = self.chunk_subject.clone();
            return self.ask(Question::Chunk { subject, question: chunk });
        }
        let envelope = Envelope::event(chunk, self.context.clock.unix_ms());
        if let Err(error) = self.context.bus.publish(&self.chunk_subject, &envelope).await {
            // The session finds it missing, and asks for it again.
            tracing::debug!(%error, seq, "a chunk was not sent");
        }
    }

    async fn end(&mut self, run: &Run, ending: Ending) {
        self.registered.entry.delivery_over();
        let Some(delivery) = self.delivery.take() else { return };
        let seq = delivery.seq;
        let ended = match ending {
            Ending::Ack => delivery.ack().await,
            Ending::Terminate => delivery.terminate().await,
            Ending::Nak(delay) => return self.context.hand_back(delivery, delay).await,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, seq, "the end of a delivery was not told; the session will stop its next run");
        }
        if let (Ending::Ack, Some(RunOutcome::Spoken(spoken))) = (ending, run.outcome())
            && let Some(keeping) = self.keeping.take()
        {
            keeping.store(run.pieces(), spoken);
        }
        match run.verdict(ending) {
            Some(outcome) => self.tell_outcome(outcome).await,
            None => self.context.metrics.failed(),
        }
    }

    async fn tell_outcome(&mut self, outcome: &RunOutcome) {
        let run_ms = (self.context.clock.now() - self.pulled).as_secs_f64() * 1000.0;
        let (kind, spoken, error) = match outcome {
            RunOutcome::Spoken(spoken) => (OutcomeKind::Success, Some(spoken), None),
            RunOutcome::Failed(failed) => (OutcomeKind::of(&failed.error), None, Some(failed.error.clone())),
        };
        if kind == OutcomeKind::WorkerFault {
            self.context.gate.failed();
        }
        let engine_ms = spoken.map_or(0.0, |spoken| spoken.engine_ms);
        match spoken {
            Some(spoken) => {
                let audio_s = spoken.samples as f64 / f64::from(spoken.sample_rate.max(1));
                self.context.metrics.spoken(RunFigures { run_ms, engine_ms, audio_s });
            }
            None => self.context.metrics.failed(),
        }
        let told = Outcome {
            run: self.registered.entry.run.clone(),
            worker: self.context.config.id.clone(),
            model: self.job.speech.model.clone(),
            class: self.job.class,
            outcome: kind,
            engine_ms,
            run_ms,
            text_chars: self.job.text.chars().count() as u32,
            samples: spoken.map_or(0, |spoken| spoken.samples),
            sample_rate: spoken.map_or(0, |spoken| spoken.sample_rate),
            error,
        };
        self.context.events.outcome(told, self.traceparent.clone()).await;
    }
}

/// The audio as it was asked for. It takes a while, and so is made beside the run.
fn changed(
    voicing: Voicing,
    pieces: &[bytes::Bytes],
    answer: Box<SpokenAnswer>,
) -> impl Future<Output = Event> + Send + use<> {
    let mut pcm = pieces.concat();
    pcm.extend_from_slice(&answer.data.0);
    let sample_rate = answer.sample_rate;
    let changing = tokio::task::spawn_blocking(move || voicing.apply(&pcm, sample_rate));
    async move {
        let failed = |error| Event::Spoken { answer: answer.clone(), ill: Some(error), changed: None };
        match changing.await {
            Ok(Ok(pcm)) => Event::Spoken { answer, ill: None, changed: Some(pcm.into()) },
            Ok(Err(error)) => failed(error),
            Err(_panic) => failed(ServiceError::new(Reason::EngineError, "the change of the audio failed")),
        }
    }
}

fn given_up() -> ServiceError {
    ServiceError::new(Reason::Cancelled, "given up while its speaker clip was fetched")
}

fn engine_failed(reason: Reason, message: &str) -> Event {
    let error = ServiceError::new(reason, message);
    Event::EngineFailed(Box::new(Failed { error, stderr: Vec::new() }))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
