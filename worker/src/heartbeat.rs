//! Heartbeats: every half second, and at once when a worker turns busy or its models change, all that managers decide by.
//!
//! The newest one is also kept for whoever embeds the worker (see [`crate::WorkerHandle`]).

use std::sync::Arc;
use std::time::Instant;

use chorus_bus::Bus;
use chorus_protocol::fleet::{Device, Heartbeat, WorkerHeartbeat};
use chorus_protocol::{Envelope, Incarnation, names};
use chorus_runtime::clock::SharedClock;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::engine::EngineState;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::pull::Room;
use crate::runs::Runs;
use crate::usage::{self, Usage, UsageMeter};

/// What a heartbeat is made of.
pub(crate) struct Heart {
    pub(crate) config: Arc<WorkerConfig>,
    pub(crate) incarnation: Incarnation,
    pub(crate) bus: Bus,
    pub(crate) clock: SharedClock,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) engine_starts: watch::Receiver<u64>,
    pub(crate) models: watch::Receiver<Arc<Models>>,
    pub(crate) runs: Arc<Runs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) room: Arc<Room>,
    pub(crate) draining: CancellationToken,
    pub(crate) publish: watch::Sender<Option<Arc<WorkerHeartbeat>>>,
    pub(crate) began: Instant,
}

/// What one heartbeat leaves for the next.
struct Memory {
    sequence: u64,
    usage: UsageMeter,
    device: Device,
}

impl Heart {
    /// Beats until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.config.heartbeat_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Memory { sequence: 0, usage: UsageMeter::new(), device: Device::default() };
        let mut draining = false;
        loop {
            self.wait(&mut ticks, draining).await;
            draining = self.draining.is_cancelled();
            let heartbeat = self.beat(&mut memory);
            self.publish.send_replace(Some(Arc::new(heartbeat.clone())));
            let payload = Heartbeat::Worker(Box::new(heartbeat));
            let envelope = Envelope::event(payload, self.clock.unix_ms());
            let subject = names::worker_heartbeat(&self.config.id);
            if let Err(error) = self.bus.publish(&subject, &envelope).await {
                tracing::debug!(%error, "a heartbeat was not sent");
            }
        }
    }

    /// Waits for the time, or for what cannot wait: the worker turns busy, its models change, it begins to leave.
    async fn wait(&mut self, ticks: &mut Interval, was_draining: bool) {
        let idle = self.runs.count() == 0;
        let runs = self.runs.clone();
        tokio::select! {
            _ = ticks.tick() => {}
            () = runs.some(), if idle => {}
            Ok(()) = self.models.changed() => {}
            () = self.draining.cancelled(), if !was_draining => {}
        }
    }

    fn beat(&mut self, memory: &mut Memory) -> WorkerHeartbeat {
        let session = self.engine.borrow().session().cloned();
        let engine_pid = session.as_ref().map(|session| session.hello.pid);
        if let Some(session) = &session {
            memory.device = session.hello.device.clone();
        }
        let pid = std::process::id();
        let now = self.clock.now();
        let engine = engine_pid.into_iter().flat_map(|pid| usage::of_engine(pid, self.config.engine.speaks));
        let Usage { rss_bytes, cpu_percent } = memory.usage.read(std::iter::once(pid).chain(engine), now);
        let (jobs_done, jobs_failed) = self.metrics.counts();
        let models = self.models.borrow_and_update().clone();
        memory.sequence += 1;
        WorkerHeartbeat {
            worker: self.config.id.clone(),
            incarnation: self.incarnation,
            sequence: memory.sequence,
            pid,
            engine_pid,
            host: self.config.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine: self.config.engine.kind.clone(),
            device: memory.device.clone(),
            models: models.states.clone(),
            credits: self.room.credits(),
            in_flight: self.runs.count() as u32,
            jobs_done,
            jobs_failed,
            engine_restarts: self.engine_starts.borrow().saturating_sub(1) as u32,
            rss_bytes,
            cpu_percent,
            gpu_memory_bytes: models.gpu_memory_bytes,
            latency: self.metrics.latency(),
            uptime_ms: (now - self.began).as_millis() as u64,
            draining: self.draining.is_cancelled(),
        }
    }
}
