//! The injected clock: where every other part learns what time it is.
//!
//! Pure state machines take an [`Instant`] as an argument. Services that need to produce one hold a
//! [`SharedClock`], so that tests can move time by hand ([`ManualClock`]) or let tokio's paused time move it
//! ([`SystemClock`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of time. `now` never goes backwards; `unix_ms` follows the wall and may jump.
pub trait Clock: Send + Sync + 'static {
    /// A monotonic instant, for durations and deadlines inside this process.
    fn now(&self) -> Instant;

    /// Milliseconds since the Unix epoch, for messages and records. Not for measuring durations.
    fn unix_ms(&self) -> u64;
}

/// A clock shared by the parts of a process.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine, seen through tokio: under paused time both readings stand still and advance with
/// it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The system clock behind the shared type that components take.
    pub fn shared() -> SharedClock {
        Arc::new(SystemClock)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn unix_ms(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let real = Instant::now();
        let seen = self.now();
        // Zero unless tokio's time is paused or was advanced.
        let shifted = match seen.checked_duration_since(real) {
            Some(ahead) => wall + ahead,
            None => wall.saturating_sub(real.duration_since(seen)),
        };
        shifted.as_millis() as u64
    }
}

/// A clock that only moves when it is told to. Clones share the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<(Instant, u64)>>,
}

impl ManualClock {
    /// A clock that stands at `unix_ms` on the wall and at an arbitrary instant.
    pub fn new(unix_ms: u64) -> Self {
        Self { state: Arc::new(Mutex::new((Instant::now(), unix_ms))) }
    }

    /// Moves both readings forward.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += by;
        state.1 += by.as_millis() as u64;
    }

    /// Sets the wall clock alone, as an administrator or a time server might.
    pub fn set_unix_ms(&self, unix_ms: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = unix_ms;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn unix_ms(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn system_clock_follows_paused_time() {
        let (before, wall) = (SystemClock.now(), SystemClock.unix_ms());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(SystemClock.now() - before, Duration::from_secs(3600));
        let moved_ms = SystemClock.unix_ms() - wall;
        assert!((3_599_990..3_600_010).contains(&moved_ms), "{moved_ms}");
    }

    #[test]
    fn manual_clock_moves_when_told() {
        let clock = ManualClock::new(1_000);
        let start = clock.now();
        clock.clone().advance(Duration::from_millis(250));
        assert_eq!(clock.now() - start, Duration::from_millis(250));
        assert_eq!(clock.unix_ms(), 1_250);
        clock.set_unix_ms(7);
        assert_eq!(clock.unix_ms(), 7);
    }
}
