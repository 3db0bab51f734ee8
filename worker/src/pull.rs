//! Pulling jobs: the loop around the pull [`controller`], the only place that takes credits.
//!
//! Every arrival is either given to a run, with a [`Credit`] that comes back when the run ends however it ends, or handed
//! back to the queue at once. While the worker drains, the loop goes on to hand back what its last pulls still bring.

pub mod controller;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chorus_bus::{Bus, ConnectionState, PullEnd, PullEvent, PullRequest, PullWait, Puller};
use chorus_protocol::fleet::Credits;
use chorus_runtime::task::{FailureMeans, TaskGroup};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::EngineState;
use crate::gate::{Allowance, Passage};
use crate::models::Models;
use crate::run::task::{RunContext, run};
use controller::{Arrival, Controller, End, Pull};

/// Delay of a job whose model does not speak here.
const NOT_SERVED_DELAY: Duration = Duration::from_millis(250);
/// How long the subscription rests before it is made anew.
const PULLER_PAUSE: Duration = Duration::from_millis(250);

/// The room for jobs, as heartbeats tell it.
#[derive(Debug, Default)]
pub(crate) struct Room {
    total: AtomicU32,
    free: AtomicU32,
}

impl Room {
    pub(crate) fn credits(&self) -> Credits {
        Credits { total: self.total.load(Ordering::Relaxed), free: self.free.load(Ordering::Relaxed) }
    }
}

/// One slot taken. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Credit(mpsc::UnboundedSender<()>);

impl Drop for Credit {
    fn drop(&mut self) {
        // Nobody listens any more: the worker has ended.
        let _released = self.0.send(());
    }
}

/// What the loop stands on.
pub(crate) struct PullLoop {
    pub(crate) context: Arc<RunContext>,
    pub(crate) tasks: TaskGroup,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) models: watch::Receiver<Arc<Models>>,
    pub(crate) gate: watch::Receiver<bool>,
    /// While its engine is about to be renewed.
    pub(crate) resting: watch::Receiver<bool>,
    pub(crate) passage: watch::Receiver<Passage>,
    pub(crate) draining: CancellationToken,
    pub(crate) room: Arc<Room>,
}

/// What the loop keeps while it runs.
struct Pulling {
    controller: Controller,
    lanes: u32,
    allowance: Allowance,
    /// At most one message per credit waits here, so it needs no bound of its own.
    release: mpsc::UnboundedSender<()>,
}

impl PullLoop {
    /// Pulls until it is dropped.
    pub(crate) async fn run(mut self) {
        let (release, mut released) = mpsc::unbounded_channel();
        let settings = self.context.config.pull.clone();
        let mut pulling = Pulling {
            controller: Controller::new(settings),
            lanes: 0,
            allowance: Allowance::Nothing,
            release,
        };
        let mut connection = self.context.bus.connection_events();
        let mut puller = new_puller(&self.context.bus).await;
        self.look_around(&mut pulling);
        loop {
            self.ask(&mut pulling, &puller).await;
            let deadline = pulling.controller.deadline();
            tokio::select! {
                event = puller.next() => match event {
                    Some(event) => self.take(&mut pulling, event).await,
                    None => {
                        puller = new_puller(&self.context.bus).await;
                        pulling.controller.reconnected();
                    }
                },
                Some(()) = released.recv() => {
                    pulling.controller.released();
                    self.set_credits(&mut pulling);
                }
                Ok(()) = self.engine.changed() => self.look_around(&mut pulling),
                Ok(()) = self.models.changed() => self.look_around(&mut pulling),
                Ok(()) = self.gate.changed() => self.look_around(&mut pulling),
                Ok(()) = self.resting.changed() => self.look_around(&mut pulling),
                Ok(()) = self.passage.changed() => self.look_around(&mut pulling),
                Ok(()) = connection.changed() => {
                    if *connection.borrow_and_update() == ConnectionState::Connected {
                        pulling.controller.reconnected();
                    }
                }
                () = self.draining.cancelled(), if pulling.controller.is_open() => self.look_around(&mut pulling),
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Reads what engine, models, gate, breaker and drain say now.
    fn look_around(&mut self, pulling: &mut Pulling) {
        let session = self.engine.borrow_and_update().session().cloned();
        let models = self.models.borrow_and_update().clone();
        if let Some(session) = &session {
            let capabilities = &session.hello.capabilities;
            let greeted = capabilities.lanes.max(1).saturating_mul(capabilities.max_batch.max(1));
            // What a model told when it was loaded was measured; the handshake came before any measuring.
            pulling.lanes = models.room.unwrap_or(greeted);
        }
        pulling.controller.set_models(models.ready.iter().cloned());
        pulling.allowance = self.passage.borrow_and_update().allowance();
        let allowed = *self.gate.borrow_and_update() && pulling.allowance != Allowance::Nothing;
        let rests = *self.resting.borrow_and_update() || self.draining.is_cancelled();
        let open = allowed && session.is_some() && !rests;
        pulling.controller.set_open(open);
        self.set_credits(pulling);
    }

    fn set_credits(&self, pulling: &mut Pulling) {
        let context = &self.context;
        let ahead = context.metrics.worth_prefetching().min(context.config.prefetch);
        let credits = match pulling.allowance {
            Allowance::All => pulling.lanes.saturating_add(ahead),
            Allowance::OneAtATime => pulling.lanes.min(1),
            Allowance::Nothing => 0,
        };
        pulling.controller.set_credits(credits);
        self.show_room(pulling);
    }

    fn show_room(&self, pulling: &Pulling) {
        self.room.total.store(pulling.controller.credits(), Ordering::Relaxed);
        self.room.free.store(pulling.controller.free(), Ordering::Relaxed);
    }

    async fn ask(&self, pulling: &mut Pulling, puller: &Puller) {
        loop {
            let pulls = pulling.controller.next_pulls(self.context.clock.now());
            let mut refused = false;
            for pull in pulls {
                if let Err(error) = puller.pull(request(&pull)).await {
                    tracing::debug!(%error, model = %pull.queue.model, "cannot pull");
                    pulling.controller.ended(pull.id, End::Refused, self.context.clock.now());
                    refused = true;
                }
            }
            // Another queue may be next; the refused one rests.
            if !refused {
                return;
            }
        }
    }

    async fn take(&mut self, pulling: &mut Pulling, event: PullEvent) {
        match event {
            PullEvent::Job { id, delivery } => match pulling.controller.job(id) {
                Arrival::Accept { fresh } => {
                    self.context.gate.begun();
                    match pulling.allowance {
                        Allowance::OneAtATime => self.look_around(pulling),
                        Allowance::All | Allowance::Nothing => self.show_room(pulling),
                    }
                    let credit = Credit(pulling.release.clone());
                    let running = run(self.context.clone(), delivery, fresh, credit);
                    self.tasks.spawn_draining("run", FailureMeans::Log, |_token| running);
                }
                Arrival::NoRoom => self.context.hand_back(delivery, Duration::ZERO).await,
                Arrival::NotServed => self.context.hand_back(delivery, NOT_SERVED_DELAY).await,
            },
            PullEvent::Ended { id, why } => {
                let end = match why {
                    PullEnd::Empty => End::Empty,
                    PullEnd::Expired => End::Expired,
                    PullEnd::ConsumerGone | PullEnd::Conflict(_) | PullEnd::Unavailable => {
                        tracing::debug!(?why, "a pull was refused");
                        End::Refused
                    }
                };
                pulling.controller.ended(id, end, self.context.clock.now());
            }
        }
    }
}

fn request(pull: &Pull) -> PullRequest<'_> {
    let wait = pull.wait.map_or(PullWait::NoWait, PullWait::For);
    PullRequest { id: pull.id, model: &pull.queue.model, class: pull.queue.class, batch: pull.batch, wait }
}

async fn new_puller(bus: &Bus) -> Puller {
    loop {
        match bus.puller().await {
            Ok(puller) => return puller,
            Err(error) => tracing::warn!(%error, "cannot listen for jobs yet"),
        }
        tokio::time::sleep(PULLER_PAUSE).await;
    }
}

async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
