//! Admission: whether a request is taken at all, and what it means when the queue does not take a segment.
//!
//! ```text
//!   outcomes ─► speeds ─┐
//!   depths ─► backlog ──┼─► predict ─► would first audio be late?
//!   heartbeats ─────────┘
//! ```
//!
//! Pure; `admission` brings the figures. What further retries may cost a class is counted in `retries`. Before anything of a request is queued, back-pressure is an answer: the request is refused, with the time after
//! which asking again is worth it. Once some of it is queued, back-pressure is a wait: the segment is refused, the session
//! keeps its text and asks on. Faults that waiting does not cure fail the request in both cases.

pub mod backlog;
pub mod predict;
pub mod retries;
pub mod speeds;

use std::time::Duration;

use chorus_protocol::{ErrorCode, ServiceError};

/// How far a question has come when a publish fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing of the request is in the queue.
    Opening,
    /// Something of it is.
    UnderWay,
}

/// What the session is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The question fails with this error.
    Fail(ServiceError),
    /// The segment is refused; the session decides when to ask again.
    Refuse(ServiceError),
}

/// The least time after which a refused client is told to come back while breakers are open.
const LEAST_BREAKER_WAIT: Duration = Duration::from_millis(100);

/// Whether nobody would pull: workers can speak it, and the breaker of every one is open. `open_for_ms` is, per worker, how
/// long its breaker stays open (`None`: it is not). Gives the time to the first that is tried again.
pub fn all_open(open_for_ms: impl IntoIterator<Item = Option<u64>>) -> Option<Duration> {
    let open: Option<Vec<u64>> = open_for_ms.into_iter().collect();
    let nearest_ms = open?.into_iter().min()?;
    Some(Duration::from_millis(nearest_ms).max(LEAST_BREAKER_WAIT))
}

/// Judges a failed publish. `retry_after` is named where the error itself names no time.
pub fn judge(error: ServiceError, stage: Stage, retry_after: Duration) -> Verdict {
    let names_a_time = error.details.as_ref().is_some_and(|details| details.contains_key("retryAfterMs"));
    let error = match error.code {
        ErrorCode::ResourceExhausted if !names_a_time => error.retry_after_ms(retry_after.as_millis() as u64),
        _ => error,
    };
    match stage {
        Stage::Opening => Verdict::Fail(error),
        Stage::UnderWay => Verdict::Refuse(error),
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::Reason;

    use super::*;

    #[test]
    fn back_pressure_is_an_answer_at_first_and_a_wait_later() {
        let full = ServiceError::new(Reason::QueueFull, "full");
        let with_time = full.clone().retry_after_ms(500);
        let judged = |stage| judge(full.clone(), stage, Duration::from_millis(500));
        assert_eq!(judged(Stage::Opening), Verdict::Fail(with_time.clone()));
        assert_eq!(judged(Stage::UnderWay), Verdict::Refuse(with_time.clone()));
        let kept = judge(with_time.clone(), Stage::UnderWay, Duration::from_secs(9));
        assert_eq!(kept, Verdict::Refuse(with_time), "a time that is named stays");
    }

    #[test]
    fn open_breakers_refuse_only_when_there_is_no_other_worker() {
        assert_eq!(all_open([]), None, "no worker at all is another matter");
        assert_eq!(all_open([Some(9_000), None]), None);
        assert_eq!(all_open([Some(9_000), Some(4_000)]), Some(Duration::from_secs(4)));
        assert_eq!(all_open([Some(0)]), Some(LEAST_BREAKER_WAIT));
    }

    #[test]
    fn other_faults_get_no_time() {
        let large = ServiceError::new(Reason::TooLarge, "large");
        assert_eq!(judge(large.clone(), Stage::UnderWay, Duration::from_secs(1)), Verdict::Refuse(large));
    }
}
