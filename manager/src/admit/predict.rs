//! Would first audio be late? A request that cannot be served in time is refused at once, and told when to come again.
//!
//! Pure. Ahead of a request are the jobs of its class and of those served before it; so the lowest priority is refused
//! first, and what only waits behind a request never counts against it. With a free slot there is no wait and no refusal.
//! Where nothing is known (no worker, no figure of any worker's speed) nothing is refused: the deadline itself decides.

use std::time::Duration;

use chorus_protocol::{JobClass, Reason, ServiceError};

/// The longest time after which a refused client is told to ask again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A worker on which the model is ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seat {
    /// Jobs that it has room for at once.
    pub slots: u32,
    /// Jobs that it had at its last heartbeat.
    pub in_flight: u32,
    /// Milliseconds in which it speaks a job of the usual length, where that is known.
    pub job_ms: Option<f64>,
}

/// What a prediction is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation {
    /// Jobs of the model that wait or are with a worker, in the order of [`JobClass::BY_URGENCY`].
    pub by_class: [u64; 4],
    /// The workers that speak it.
    pub seats: Vec<Seat>,
    /// The length of the first segment in jobs of the usual length.
    pub own_jobs: f64,
}

/// When a new request would be heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Jobs that are served before it.
    pub ahead: u64,
    /// Until a slot is free for it.
    pub wait: Duration,
    /// Until its first audio.
    pub first_audio: Duration,
}

/// Predicts when a request whose first segment is queued in `class` would be heard; `None` where too little is known.
pub fn predict(situation: &Situation, class: JobClass) -> Option<Prediction> {
    let seats = || situation.seats.iter().filter(|seat| seat.slots > 0);
    let slots: u64 = seats().map(|seat| u64::from(seat.slots)).sum();
    let mut known_slots = 0.0;
    let mut known_rate = 0.0;
    for seat in seats() {
        if let Some(job_ms) = seat.job_ms.filter(|ms| ms.is_finite() && *ms > 0.0) {
            known_slots += f64::from(seat.slots);
            known_rate += f64::from(seat.slots) / job_ms;
        }
    }
    if known_slots == 0.0 {
        return None;
    }
    // A worker without a figure is taken to be as fast as the others.
    let rate_per_slot = known_rate / known_slots;
    let ahead = jobs_ahead(situation, class);
    let to_end_first = ahead.saturating_add(1).saturating_sub(slots);
    let wait = milliseconds(to_end_first as f64 / (rate_per_slot * slots as f64));
    let own = milliseconds(situation.own_jobs.max(0.0) / rate_per_slot);
    Some(Prediction { ahead, wait, first_audio: wait.saturating_add(own) })
}

/// Jobs of the class and of those served before it. What workers hold already is not taken from them for a better class:
/// it is ahead of everybody.
fn jobs_ahead(situation: &Situation, class: JobClass) -> u64 {
    let by_class = situation.by_class;
    let served_before = JobClass::BY_URGENCY.iter().zip(by_class).filter(|(c, _)| **c >= class);
    let queued = served_before.fold(0u64, |sum, (_, jobs)| sum.saturating_add(jobs));
    let total = by_class.iter().fold(0u64, |sum, jobs| sum.saturating_add(*jobs));
    let held: u64 = situation.seats.iter().map(|seat| u64::from(seat.in_flight)).sum();
    queued.max(held.min(total))
}

/// Refuses what would be heard after its deadline.
///
/// # Errors
/// RESOURCE_EXHAUSTED/would_be_late, with `retryAfterMs` and what was predicted.
pub fn admit(
    prediction: &Prediction,
    deadline: Duration,
    least_retry_after: Duration,
) -> Result<(), ServiceError> {
    let Prediction { ahead, wait, first_audio } = *prediction;
    if wait.is_zero() || first_audio <= deadline {
        return Ok(());
    }
    let longest = MAX_RETRY_AFTER.max(least_retry_after);
    let retry_after = (first_audio - deadline).clamp(least_retry_after, longest);
    let (first_audio_ms, deadline_ms) = (first_audio.as_millis() as u64, deadline.as_millis() as u64);
    let message = format!(
        "first audio would come after about {first_audio_ms} ms, later than the {deadline_ms} ms asked for: {ahead} jobs are ahead"
    );
    Err(ServiceError::new(Reason::WouldBeLate, message)
        .with("predictedMs", first_audio_ms)
        .with("jobsAhead", ahead)
        .retry_after_ms(retry_after.as_millis() as u64))
}

fn milliseconds(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRY: Duration = Duration::from_millis(500);

    fn seat(slots: u32, job_ms: f64) -> Seat {
        Seat { slots, in_flight: 0, job_ms: Some(job_ms) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_deep_queue_refuses_low_first_and_says_when_to_come_again() {
        let situation = Situation { by_class: [0, 2, 8, 0], seats: vec![seat(1, 1_000.0)], own_jobs: 0.5 };
        let low = predict(&situation, JobClass::Normal).unwrap();
        assert_eq!((low.ahead, low.wait, low.first_audio), (10, ms(10_000), ms(10_500)));
        let error = admit(&low, ms(4_000), RETRY).unwrap_err();
        assert_eq!((error.reason(), error.retryable), (Some(Reason::WouldBeLate), true));
        let details = error.details.unwrap();
        assert_eq!((&details["retryAfterMs"], &details["predictedMs"]), (&6_500.into(), &10_500.into()));
        let high = predict(&situation, JobClass::High).unwrap();
        assert_eq!((high.ahead, high.first_audio), (2, ms(2_500)));
        assert!(admit(&high, ms(4_000), RETRY).is_ok());
    }

    #[test]
    fn no_data_is_no_decision() {
        let unknown = Seat { slots: 4, in_flight: 4, job_ms: None };
        for seats in [vec![], vec![unknown], vec![seat(0, 5.0)], vec![seat(1, f64::NAN)], vec![seat(1, 0.0)]]
        {
            let situation = Situation { by_class: [9_999; 4], seats, own_jobs: 1.0 };
            assert_eq!(predict(&situation, JobClass::Low), None);
        }
        let seats = vec![unknown, seat(4, 100.0)];
        let some = Situation { by_class: [0, 0, 0, 17], seats, own_jobs: 1.0 };
        assert_eq!(predict(&some, JobClass::Low).unwrap().wait, ms(125), "as fast as the one that is known");
    }

    #[test]
    fn what_workers_hold_is_ahead_of_everybody() {
        let holding = Seat { in_flight: 2, ..seat(2, 100.0) };
        let situation = Situation { by_class: [0, 0, 0, 50], seats: vec![holding], own_jobs: 1.0 };
        assert_eq!(predict(&situation, JobClass::Urgent).unwrap().ahead, 2);
        let drained = Situation { by_class: [0; 4], ..situation };
        assert_eq!(predict(&drained, JobClass::Urgent).unwrap().ahead, 0, "the queue is the newer truth");
    }

    fn seats() -> impl Strategy<Value = Vec<Seat>> {
        let one = (1u32..20, 0u32..20, proptest::option::of(0.1f64..20_000.0))
            .prop_map(|(slots, in_flight, job_ms)| Seat { slots, in_flight, job_ms });
        proptest::collection::vec(one, 0..6)
    }

    fn situations() -> impl Strategy<Value = Situation> {
        (proptest::array::uniform4(0u64..5_000), seats(), 0.0f64..50.0)
            .prop_map(|(by_class, seats, own_jobs)| Situation { by_class, seats, own_jobs })
    }

    fn refused(situation: &Situation, class: JobClass, deadline: Duration) -> bool {
        predict(situation, class).is_some_and(|prediction| admit(&prediction, deadline, RETRY).is_err())
    }

    proptest! {
        /// One more job anywhere never makes the wait shorter, and never turns a refusal into an admission.
        #[test]
        fn more_in_the_queue_is_never_sooner(
            before in situations(), place in 0usize..4, more in 1u64..1_000, deadline_ms in 1u64..60_000
        ) {
            let mut after = before.clone();
            after.by_class[place] += more;
            for class in JobClass::BY_URGENCY {
                let wait = |s| predict(s, class).map(|prediction| prediction.first_audio);
                prop_assert!(wait(&after) >= wait(&before));
                prop_assert!(refused(&after, class, ms(deadline_ms)) || !refused(&before, class, ms(deadline_ms)));
            }
        }

        /// With an empty queue nobody is refused, however short the deadline.
        #[test]
        fn an_idle_fleet_refuses_nobody(situation in situations(), deadline_ms in 0u64..100) {
            let idle = Situation { by_class: [0; 4], ..situation };
            for class in JobClass::BY_URGENCY {
                prop_assert!(!refused(&idle, class, ms(deadline_ms)));
            }
        }

        /// Whoever refuses a class refuses every class below it.
        #[test]
        fn the_lowest_goes_first(situation in situations(), deadline_ms in 1u64..60_000) {
            let refusals = JobClass::BY_URGENCY.map(|class| refused(&situation, class, ms(deadline_ms)));
            prop_assert!(refusals.is_sorted(), "{:?}", refusals);
        }

        /// Hostile figures make no panic, and a refusal always says when to come again, within bounds.
        #[test]
        fn any_figures_will_do(
            by_class in proptest::array::uniform4(any::<u64>()),
            seats in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<f64>()), 0..5),
            own_jobs in any::<f64>(),
            deadline_ms in any::<u32>()
        ) {
            let seat = |(slots, in_flight, job_ms)| Seat { slots, in_flight, job_ms: Some(job_ms) };
            let situation = Situation { by_class, seats: seats.into_iter().map(seat).collect(), own_jobs };
            let Some(prediction) = predict(&situation, JobClass::Low) else { return Ok(()) };
            if let Err(error) = admit(&prediction, ms(deadline_ms.into()), RETRY) {
                let after = error.details.unwrap()["retryAfterMs"].as_u64().unwrap();
                prop_assert!((500..=60_000).contains(&after));
            }
        }
    }
}
