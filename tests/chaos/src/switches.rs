//! Switches for mechanisms, which exist to show that a scenario fails without each of them.
//!
//! A scenario names the [`Mechanism`] that is off in [`Fleet::off`](crate::scenario::Fleet::off). The fleet's processes are
//! told through [`VARIABLE`], which a process obeys only in a CHORUS_HOME that holds the file [`MARKER`], as only a fleet of
//! this crate has: in production neither is there, and the variable alone is refused. Each mechanism is on by default,
//! in a field of the configuration of the crate that has it.

use std::time::Duration;

use chorus_bus::Wire;
use chorus_client::SessionHostConfig;

/// The variable: names of mechanisms that are off, `clock=±ms`, and `writes=earlier` or
/// `writes=later`, separated by commas.
pub const VARIABLE: &str = "CHORUS_CHAOS_SWITCHES";
/// The file in CHORUS_HOME without which the variable is refused.
pub const MARKER: &str = "chaos-fleet";

/// Longer than any scenario.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Managers' pings of busy workers.
    Pings,
    /// A worker's word to the queue that it still works on a job.
    InProgress,
    /// The worker's question to the session whether its run counts.
    Started,
    /// Counting and checking the audio of a segment, in the worker and in the session.
    AudioCheck,
    /// Another attempt after a worker's fault.
    Retry,
    /// The session's look for jobs that nobody has begun.
    LookUp,
    /// Asking again when no manager answers.
    AskAgain,
    /// Starting an engine again that has ended.
    EngineRestart,
    /// Queueing a retry once more that nobody begins, for it may have gone to a worker that stands still.
    Hedge,
    /// Breakers, and the gates that obey them.
    Breaker,
    /// The id by which the queue knows a job that is published once more.
    JobId,
    /// Handing back to the queue what a worker has no room for, or leaves behind.
    HandBack,
    /// Trying an engine that has nothing to do.
    Canary,
    /// Renewing an engine that has grown large.
    Recycling,
    /// The limit of an engine's memory.
    MemoryLimit,
    /// Refusing at once what would be heard too late.
    Admission,
    /// Giving a text up that fails engines again and again.
    Poison,
    /// Running a job alone that an engine has failed before.
    Isolation,
    /// Giving back what is left of a request whose listener is gone.
    Cancellation,
    /// Serving lower priorities now and then while there is work of higher ones.
    Ageing,
    /// Taking over the durable jobs of a manager that is gone.
    Adoption,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Pings,
        Self::InProgress,
        Self::Started,
        Self::AudioCheck,
        Self::Retry,
        Self::LookUp,
        Self::AskAgain,
        Self::EngineRestart,
        Self::Hedge,
        Self::Breaker,
        Self::JobId,
        Self::HandBack,
        Self::Canary,
        Self::Recycling,
        Self::MemoryLimit,
        Self::Admission,
        Self::Poison,
        Self::Isolation,
        Self::Cancellation,
        Self::Ageing,
        Self::Adoption,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pings => "pings",
            Self::InProgress => "in-progress",
            Self::Started => "started",
            Self::AudioCheck => "audio-check",
            Self::Retry => "retry",
            Self::LookUp => "look-up",
            Self::AskAgain => "ask-again",
            Self::EngineRestart => "engine-restart",
            Self::Hedge => "hedge",
            Self::Breaker => "breaker",
            Self::JobId => "job-id",
            Self::HandBack => "hand-back",
            Self::Canary => "canary",
            Self::Recycling => "recycling",
            Self::MemoryLimit => "memory-limit",
            Self::Admission => "admission",
            Self::Poison => "poison",
            Self::Isolation => "isolation",
            Self::Cancellation => "cancellation",
            Self::Ageing => "ageing",
            Self::Adoption => "adoption",
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    /// With the names there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mechanism| mechanism.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no mechanism {name:?}; there are {names}")
        })
    }

    /// The scenario that must fail without it.
    pub fn scenario(self) -> &'static str {
        match self {
            Self::Pings => "worker-sigstop",
            Self::InProgress => "long-segments",
            Self::Started => "worker-sigkill",
            Self::AudioCheck | Self::Retry => "engine-garbage",
            Self::LookUp => "queue-emptied",
            Self::AskAgain => "managers-away",
            Self::EngineRestart => "lone-engine-sigkill",
            Self::Hedge => "single-stops",
            Self::Breaker => "sick-engine",
            Self::JobId => "managers-far",
            Self::HandBack => "all-classes",
            Self::Canary => "ill-while-idle",
            Self::Recycling => "leaking-engines",
            Self::MemoryLimit => "memory-limit",
            Self::Admission => "too-late",
            Self::Poison => "poison",
            Self::Isolation => "poison-beside-innocents",
            Self::Cancellation => "listeners-leave",
            Self::Ageing => "low-advances",
            Self::Adoption => "durable-managers-sigkill",
        }
    }

    /// Switches off the part of it that sessions have.
    pub fn in_sessions(self, config: &mut SessionHostConfig) {
        match self {
            Self::AudioCheck => config.check_audio = false,
            Self::Retry => config.retry.max_attempts = Some(1),
            Self::LookUp => config.lookup_interval = NEVER,
            Self::AskAgain => config.ask_again.max_attempts = Some(0),
            Self::Hedge => config.max_hedges = 0,
            Self::Poison => config.poison_failures = usize::MAX,
            Self::Cancellation => config.gives_back = false,
            _ => {}
        }
    }
}

/// What a process of a fleet is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches {
    /// What is off.
    pub off: Vec<Mechanism>,
    /// How far the wall clock is off, in milliseconds.
    pub clock_ms: i64,
    /// As which version it writes.
    pub wire: Wire,
}

impl Switches {
    /// Reads [`VARIABLE`].
    ///
    /// # Errors
    /// With the part that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut switches = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            if let Some(offset) = part.strip_prefix("clock=") {
                switches.clock_ms = offset.parse().map_err(|error| format!("{part:?}: {error}"))?;
                continue;
            }
            if let Some(version) = part.strip_prefix("writes=") {
                switches.wire = match version {
                    "earlier" => Wire::Earlier,
                    "later" => Wire::Later,
                    _ => return Err(format!("nobody writes as {version:?}")),
                };
                continue;
            }
            switches.off.push(Mechanism::named(part)?);
        }
        Ok(switches)
    }

    /// As [`Switches::parse`] reads it; empty when everything is on.
    pub fn to_text(&self) -> String {
        let names = self.off.iter().map(|mechanism| mechanism.name().to_owned());
        let clock = (self.clock_ms != 0).then(|| format!("clock={}", self.clock_ms));
        let wire = match self.wire {
            Wire::Current => None,
            Wire::Earlier => Some("writes=earlier".to_owned()),
            Wire::Later => Some("writes=later".to_owned()),
        };
        names.chain(clock).chain(wire).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for switches in [
            Switches::default(),
            Switches { off: Mechanism::ALL.to_vec(), clock_ms: -60_000, wire: Wire::Earlier },
            Switches { off: Vec::new(), clock_ms: 7, wire: Wire::Later },
        ] {
            assert_eq!(Switches::parse(&switches.to_text()), Ok(switches));
        }
        for wrong in ["pongs", "clock=late", "writes=never"] {
            assert!(Switches::parse(wrong).is_err());
        }
    }

    #[test]
    fn every_mechanism_has_a_scenario() {
        for mechanism in Mechanism::ALL {
            assert!(crate::scenarios::named(mechanism.scenario()).is_ok(), "{}", mechanism.name());
        }
    }
}
