//! `chorus drain`: a worker is told to finish and leave, and is watched until it has left.
//!
//! The order is taken by one start of the worker, its incarnation. It has left when nobody answers its pings any more, or
//! another start does: one that a supervisor has begun anew.

use std::time::{Duration, Instant};

use chorus_bus::{Bus, RequestError, RequestErrorKind};
use chorus_protocol::fleet::{OrderTaken, Ping, Pong, WorkerOrder};
use chorus_protocol::names::{WorkerControl, worker_control};
use chorus_protocol::{Envelope, Incarnation, Reason, ServiceError, WorkerId};
use chorus_runtime::clock::{Clock as _, SystemClock};
use serde_json::json;
use tokio::time::sleep;

use crate::app::Context;
use crate::args::DrainArgs;
use crate::error::CliError;
use crate::locate::{self, unless_stopped};

/// What taking the order may take.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// What leaving may take: a worker's own bounds (10 s to finish, 4 s to hand back, 2 s for its parts), twice.
const LEFT_WITHIN: Duration = Duration::from_secs(32);
/// The pause between two looks whether it is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a worker that is there may take to say so.
const PING_WITHIN: Duration = Duration::from_secs(1);

/// Runs the command.
pub async fn run(context: Context, args: DrainArgs) -> Result<(), CliError> {
    let worker = WorkerId::new(args.worker).map_err(|error| CliError::Usage(error.to_string()))?;
    let draining = async {
        let bus = locate::connect(&context).await?;
        let drained = drain(&bus, &worker).await;
        bus.close().await;
        drained
    };
    let took = unless_stopped(&context.shutdown, draining).await?;
    let left_after_ms = took.as_millis() as u64;
    if context.ui.json() {
        context.ui.json_line(&json!({"worker": worker, "leftAfterMs": left_after_ms}));
    } else {
        context.ui.line(&format!("{worker} has left, after {left_after_ms} ms"));
    }
    Ok(())
}

async fn drain(bus: &Bus, worker: &WorkerId) -> Result<Duration, CliError> {
    let began = Instant::now();
    let order = Envelope::request(WorkerOrder::Drain, SystemClock.unix_ms());
    let subject = worker_control(worker, WorkerControl::Drain);
    let taken: OrderTaken =
        bus.request(&subject, &order, TAKEN_WITHIN).await.map_err(|error| unheard(worker, error))?;
    while is_there(bus, worker, taken.incarnation).await {
        if began.elapsed() >= LEFT_WITHIN {
            let within = LEFT_WITHIN.as_secs();
            let message = format!("{worker} took the order, but is still there after {within} s");
            return Err(ServiceError::new(Reason::Stalled, message).into());
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(began.elapsed())
}

fn unheard(worker: &WorkerId, error: RequestError) -> CliError {
    match error.kind {
        RequestErrorKind::NoResponders => {
            ServiceError::new(Reason::NoWorker, format!("no worker called {worker} is there")).into()
        }
        _ => error.into(),
    }
}

/// Whether this start of the worker is still there. An answer that does not come says nothing: it may be busy leaving.
async fn is_there(bus: &Bus, worker: &WorkerId, incarnation: Incarnation) -> bool {
    let ping = Envelope::request(Ping { incarnation }, SystemClock.unix_ms());
    let subject = worker_control(worker, WorkerControl::Ping);
    match bus.request::<_, Pong>(&subject, &ping, PING_WITHIN).await {
        Ok(pong) => pong.incarnation == incarnation,
        Err(error) => !matches!(error.kind, RequestErrorKind::NoResponders),
    }
}
