//! When a segment is tried again, and in which class.

use super::segment::{Cause, Segment, State};
use super::*;

fn segment(class: JobClass) -> Segment {
    let config = SessionHostConfig::default();
    let mut segment = Segment::queued(Instant::now(), config.lookup_interval, &config.retry);
    segment.class = class;
    segment
}

/// In which class the next attempt is due, and whether at once.
fn next(segment: &mut Segment, cause: Cause, at_least: Duration) -> (JobClass, bool) {
    let now = Instant::now();
    segment.schedule_retry(now, cause, at_least).unwrap();
    let State::Retry { at, class, .. } = segment.state else { panic!("no retry") };
    (class, at == now)
}

#[test]
fn the_first_after_a_loss_or_a_failure_is_immediate_and_urgent_and_later_ones_wait_in_their_class() {
    for cause in [Cause::Loss, Cause::Failure] {
        let mut segment = segment(JobClass::Low);
        assert_eq!(next(&mut segment, cause, Duration::ZERO), (JobClass::Urgent, true));
        for _ in 0..3 {
            assert_eq!(next(&mut segment, cause, Duration::ZERO), (JobClass::Low, false), "{cause:?}");
        }
    }
}

#[test]
fn losses_never_use_up_the_failures_that_are_allowed() {
    let mut segment = segment(JobClass::Normal);
    for _ in 0..20 {
        next(&mut segment, Cause::Loss, Duration::ZERO);
    }
    assert_eq!(segment.schedule_retry(Instant::now(), Cause::Failure, Duration::ZERO), Some(()));
}

#[test]
fn a_place_in_the_queue_that_was_not_to_be_had_puts_nobody_in_front() {
    let mut segment = segment(JobClass::Low);
    let wait = Duration::from_millis(250);
    assert_eq!(next(&mut segment, Cause::Nobody, wait), (JobClass::Low, false));
    assert_eq!(next(&mut segment, Cause::Failure, Duration::ZERO), (JobClass::Urgent, true));
    assert_eq!(next(&mut segment, Cause::Nobody, wait), (JobClass::Urgent, false), "it keeps its place");
}

#[test]
fn a_segment_that_was_hurried_still_has_its_first_retry() {
    let mut segment = segment(JobClass::Normal);
    segment.ask_anew(Instant::now());
    assert_eq!(next(&mut segment, Cause::Failure, Duration::ZERO), (JobClass::Urgent, true));
}

#[test]
fn an_attempt_goes_on_as_long_as_its_worker_says_that_it_is_at_it() {
    let mut world = World::speaking(1);
    for _ in 0..5 {
        world.pass(900);
        world.deliver(ToSession::Started(0));
    }
    assert!(world.mail.is_empty(), "nothing is asked of managers");
    world.pass(1_001);
    assert!(matches!(&world.mail[..], [ToSession::Advanced(a)] if a.retries.len() == 1), "it fell silent");
    world.deliver_started(0);
    assert!(world.runs[0].over, "and is told so when it asks");
}

#[test]
fn a_worker_that_leaves_before_it_has_spoken_is_a_loss_and_no_failure() {
    let mut world = World::speaking(1);
    let error = ServiceError::new(Reason::WorkerLost, "told to leave");
    let run = world.runs[0].reference.clone();
    let outcome = RunOutcome::Failed(Failed { error, stderr: vec![] });
    let result = RunResult { run, worker: world.runs[0].worker.clone(), outcome };
    assert_eq!(world.session.on_result(result, world.now), ResultAnswer::Accepted);
    let segment = &world.session.segments[&0];
    assert_eq!((segment.failures, segment.attempt), (0, 2));
}
