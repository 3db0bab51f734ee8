//! Pinging the busy workers that are ours: the effects behind [`crate::liveness`].
//!
//! One task. Every tick it looks which busy incarnations rendezvous hashing gives to this manager, sends the pings that
//! the ward asks for, and tells of those that are lost before anything else is done about them: a listener waits. Pings
//! are requests under way at once, a few per worker. While somebody is suspected, the broker itself is asked something
//! that it alone answers, so that its silence is not taken for a worker's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chorus_bus::{ConnectionState, RequestErrorKind};
use chorus_protocol::fleet::{Ping, Pong};
use chorus_protocol::names::{self, WorkerControl};
use chorus_protocol::{Envelope, Incarnation, WorkerId};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::core::Core;
use crate::events::WorkerLost;
use crate::fleet::{FleetChange, LossCause};
use crate::listen::hand_on;
use crate::liveness::{Answer, Busy, Death, Loss, Round, Ward};
use crate::rendezvous;

/// A question under way has ended.
enum Ended {
    Ping { worker: WorkerId, incarnation: Incarnation, answer: Answer },
    Broker { spoke: bool },
}

type Asked = FuturesUnordered<BoxFuture<'static, Ended>>;

/// Watches over this manager's share of the busy workers.
pub(crate) async fn watch_over(core: Arc<Core>, changes: mpsc::Sender<FleetChange>) {
    let attempt_timeout = Duration::from_millis(core.config.breaker.timeout_ms);
    let mut ward = Ward::new(core.config.liveness.clone(), attempt_timeout, core.clock.now());
    let mut link = core.bus.connection_events();
    let mut ticks = interval(core.config.liveness.ping_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = Asked::new();
    let mut trying_broker = false;
    loop {
        tokio::select! {
            // A broken connection comes before what it made of the answers, and answers come before the judgement.
            biased;
            Ok(()) = link.changed() => {
                let connected = *link.borrow_and_update() == ConnectionState::Connected;
                ward.on_link(connected, core.clock.now());
            }
            Some(ended) = asked.next() => {
                let now = core.clock.now();
                let loss = match ended {
                    Ended::Ping { worker, incarnation, answer } => ward.heard(&worker, incarnation, &answer, now),
                    Ended::Broker { spoke } => {
                        trying_broker = false;
                        if spoke {
                            ward.broker_speaks(now);
                        }
                        None
                    }
                };
                mourn(&core, loss, &changes).await;
            }
            _ = ticks.tick() => {
                let now = core.clock.now();
                let Round { pings, losses, try_broker } = ward.tick(&our_busy(&core, now), now);
                mourn(&core, losses, &changes).await;
                asked.extend(pings.into_iter().map(|(worker, incarnation)| ping(&core, worker, incarnation)));
                if try_broker && !trying_broker {
                    trying_broker = true;
                    asked.push(ask_broker(&core));
                }
            }
        }
    }
}

/// The busy workers that no other living manager looks after.
fn our_busy(core: &Core, now: Instant) -> Vec<Busy> {
    let fleet = core.fleet();
    let limit = core.config.liveness.manager_timeout;
    let others = || fleet.managers_within(limit, now).filter(|manager| **manager != core.id);
    let is_ours = |worker| rendezvous::owner(worker, others().chain([&core.id])) == Some(&core.id);
    fleet
        .busy()
        .filter(|beat| is_ours(&beat.worker))
        .map(|beat| Busy {
            worker: beat.worker.clone(),
            incarnation: beat.incarnation,
            sequence: beat.sequence,
        })
        .collect()
}

fn ping(core: &Arc<Core>, worker: WorkerId, incarnation: Incarnation) -> BoxFuture<'static, Ended> {
    let core = Arc::clone(core);
    async move {
        let subject = names::worker_control(&worker, WorkerControl::Ping);
        let question = Envelope::request(Ping { incarnation }, core.clock.unix_ms());
        let limit = core.config.liveness.hang_after;
        let answer = match core.bus.request::<_, Pong>(&subject, &question, limit).await {
            Ok(pong) => Answer::Pong(pong),
            Err(error) if error.kind == RequestErrorKind::NoResponders => Answer::NoResponders,
            Err(error) => {
                tracing::debug!(%worker, %incarnation, %error, "a ping without an answer");
                Answer::Nothing
            }
        };
        Ended::Ping { worker, incarnation, answer }
    }
    .boxed()
}

/// Asks where nobody listens, which only the broker can say.
fn ask_broker(core: &Arc<Core>) -> BoxFuture<'static, Ended> {
    let core = Arc::clone(core);
    async move {
        let subject = core.bus.new_inbox();
        let limit = core.config.liveness.hang_after;
        let asked = core.bus.request_raw(&subject, bytes::Bytes::new(), limit).await;
        let spoke = asked.is_err_and(|error| error.kind == RequestErrorKind::NoResponders);
        Ended::Broker { spoke }
    }
    .boxed()
}

/// Tells of losses, takes the lost out of view, and lets the hooks know in their own time.
async fn mourn(core: &Core, losses: impl IntoIterator<Item = Loss>, changes: &mpsc::Sender<FleetChange>) {
    for Loss { worker, incarnation, death, runs } in losses {
        let (cause, silent) = match death {
            Death::Crashed => (LossCause::Crashed, Duration::ZERO),
            Death::Replaced => (LossCause::Replaced, Duration::ZERO),
            Death::Hung { silent } => (LossCause::Hung, silent),
            Death::EngineHung { idle } => (LossCause::EngineHung, idle),
        };
        let (in_flight, is_out) = match death {
            Death::EngineHung { .. } => (core.fleet().in_flight(&worker), false),
            _ => (core.fleet().lose(&worker, incarnation), true),
        };
        // Out of view already: whoever took it out has told.
        let Some(in_flight) = in_flight else { continue };
        let lost = WorkerLost { worker: &worker, incarnation, in_flight, cause, silent, runs: &runs };
        core.tell_worker_lost(lost).await;
        if is_out {
            hand_on(changes, vec![FleetChange::WorkerStopped { worker, incarnation }]);
        }
    }
}
