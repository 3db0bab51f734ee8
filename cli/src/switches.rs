//! The switches of chaos fleets, applied to the configurations of their parts ([`chorus_chaos::switches`]).
//!
//! In any other home the variable is refused: nobody runs without a mechanism by accident.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chorus_chaos::switches::{MARKER, Mechanism, Switches, VARIABLE};
use chorus_manager::ManagerConfig;
use chorus_runtime::clock::{Clock, SharedClock, SystemClock};
use chorus_worker::WorkerConfig;

use crate::app::Context;
use crate::error::CliError;

/// Longer than any scenario, and a quarter of what still is a span of time between two moments.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What this process is told; everything is on outside a chaos fleet.
///
/// # Errors
/// When the variable is set in a home that is no chaos fleet's, or cannot be read.
pub fn told(context: &Context) -> Result<Switches, CliError> {
    let Some(text) = context.environment.get(VARIABLE) else { return Ok(Switches::default()) };
    if !context.config.home.join(MARKER).exists() {
        return Err(CliError::Usage(format!(
            "{VARIABLE} is for fleets of `chorus bench chaos` only: unset it"
        )));
    }
    let switches = Switches::parse(&text.to_string_lossy());
    let switches = switches.map_err(|why| CliError::Usage(format!("{VARIABLE}: {why}")))?;
    tracing::warn!(?switches, "this process is part of an experiment");
    Ok(switches)
}

/// Changes a manager accordingly.
pub fn in_manager(switches: &Switches, config: &mut ManagerConfig) {
    config.bus.wire = switches.wire;
    for mechanism in &switches.off {
        mechanism.in_sessions(&mut config.sessions);
        match mechanism {
            Mechanism::Pings => {
                config.liveness.ping_interval = NEVER;
                config.liveness.hang_after = NEVER * 4;
            }
            Mechanism::Breaker => config.breaker_enabled = false,
            Mechanism::JobId => config.bus.job_ids = false,
            Mechanism::Admission => config.refuse_late = false,
            Mechanism::Adoption => config.jobs.lease = NEVER,
            _ => {}
        }
    }
}

/// Changes a worker accordingly.
pub fn in_worker(switches: &Switches, config: &mut WorkerConfig) {
    config.bus.wire = switches.wire;
    for mechanism in &switches.off {
        match mechanism {
            Mechanism::InProgress => config.in_progress_every = NEVER,
            Mechanism::Started => config.run.ask_started = false,
            Mechanism::AudioCheck => config.run.check_audio = false,
            Mechanism::EngineRestart => {
                config.engine.restart.initial_delay = NEVER;
                config.engine.restart.max_delay = NEVER;
            }
            Mechanism::Breaker => config.breaker_enabled = false,
            Mechanism::HandBack => config.run.hand_back = false,
            Mechanism::Canary => config.canary.every = None,
            Mechanism::Recycling => {
                (config.recycle.requests, config.recycle.age, config.recycle.rss_bytes) = (None, None, None);
            }
            Mechanism::MemoryLimit => config.engine.max_memory_bytes = None,
            // A run whose session is gone would otherwise hear of it when it asks again.
            Mechanism::Cancellation => config.run.ask_again_every = NEVER,
            Mechanism::Isolation => config.run.isolate = false,
            Mechanism::Ageing => config.pull.age_every = u64::MAX,
            _ => {}
        }
    }
}

/// The clock of this process.
pub fn clock(switches: &Switches) -> SharedClock {
    match switches.clock_ms {
        0 => SystemClock::shared(),
        ms => Arc::new(WrongClock(ms)),
    }
}

/// A machine whose wall clock was set wrong.
struct WrongClock(i64);

impl Clock for WrongClock {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn unix_ms(&self) -> u64 {
        SystemClock.unix_ms().saturating_add_signed(self.0)
    }
}
