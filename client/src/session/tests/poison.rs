//! Segments that fail again and again: which are poison, and what is told of them.

use super::*;

/// Tries the one segment on these workers; each run fails with `reason`, or, without one, falls silent.
fn fail_on(world: &mut World, tries: &[(&str, Option<Reason>)]) {
    for (worker, reason) in tries {
        while let Some(message) = world.mail.pop() {
            world.deliver(message);
        }
        for _ in 0..50 {
            if !world.queue.is_empty() || world.ended.is_some() {
                break;
            }
            world.pass(500);
            while let Some(message) = world.mail.pop() {
                world.deliver(message);
            }
        }
        if world.ended.is_some() {
            return;
        }
        world.pull(0, false);
        let number = world.runs.len() - 1;
        world.runs[number].worker = WorkerId::new(*worker).unwrap();
        let started = world.mail.pop().unwrap();
        world.deliver(started);
        let (run, worker) = (world.runs[number].reference.clone(), world.runs[number].worker.clone());
        world.terminate(run.job());
        match reason {
            Some(reason) => {
                let stderr = (0..100).map(|line| format!("{line} {}", "x".repeat(1_000))).collect();
                let outcome =
                    RunOutcome::Failed(Failed { error: ServiceError::new(*reason, "it died"), stderr });
                world.session.on_result(RunResult { run, worker, outcome }, world.now);
                world.carry_out();
            }
            None => world.pass(1_000),
        }
    }
}

#[test]
fn three_engine_failures_on_two_workers_are_poison_and_buried_with_their_history() {
    let crash = Some(Reason::EngineCrashed);
    let mut world = World::new(1);
    fail_on(&mut world, &[("a", crash), ("b", crash)]);
    assert!(world.buried.is_empty() && world.ended.is_none());
    fail_on(&mut world, &[("a", Some(Reason::BadAudio))]);
    let error = world.ended.as_ref().unwrap().error.clone().unwrap();
    assert_eq!((error.reason(), error.retryable), (Some(Reason::Poison), false));
    let [letter] = world.buried.as_slice() else { panic!("{:?}", world.buried) };
    assert_eq!((letter.text.as_str(), letter.segment, letter.session), ("x", 0, world.session.id()));
    let history: Vec<(u32, &str)> =
        letter.history.iter().map(|failed| (failed.attempt, failed.worker.as_str())).collect();
    assert_eq!(history, [(1, "a"), (2, "b"), (3, "a")]);
    assert_eq!(letter.history[2].error.reason(), Some(Reason::BadAudio));
    assert_eq!(letter.history[0].run, world.runs[0].reference.run);
    let stderr = &letter.history[0].stderr;
    assert_eq!((stderr.len(), stderr[19].len()), (20, 400), "bounded");
    assert!(stderr[19].starts_with("99 "), "the last lines");
}

#[test]
fn lost_and_silent_workers_make_no_poison() {
    let crash = Some(Reason::EngineCrashed);
    let mut world = World::new(1);
    fail_on(&mut world, &[("a", None), ("b", None), ("a", crash), ("b", crash)]);
    assert!(world.ended.is_none() && world.buried.is_empty(), "{:?}", world.ended);
    // Counted all the same: the fifth failure ends the request, with its own words.
    fail_on(&mut world, &[("b", None)]);
    let error = world.ended.unwrap().error.unwrap();
    assert_eq!(error.reason(), Some(Reason::AttemptTimeout));
    assert!(world.buried.is_empty());
}

#[test]
fn a_single_worker_fails_a_request_with_its_last_error() {
    let mut world = World::new(1);
    fail_on(&mut world, &[("a", Some(Reason::EngineCrashed)); 5]);
    let error = world.ended.unwrap().error.unwrap();
    assert_eq!(error.reason(), Some(Reason::EngineCrashed));
    assert_eq!(error.details.unwrap()["failures"], 5);
    assert!(world.buried.is_empty());
}

/// Tries the one segment on this worker, which is lost with it.
fn lose_on(world: &mut World, worker: &str) {
    for _ in 0..50 {
        while let Some(message) = world.mail.pop() {
            world.deliver(message);
        }
        if !world.queue.is_empty() {
            break;
        }
        world.pass(500);
    }
    world.pull(0, false);
    let number = world.runs.len() - 1;
    world.runs[number].worker = WorkerId::new(worker).unwrap();
    let started = world.mail.pop().unwrap();
    world.deliver(started);
    world.terminate(world.runs[number].reference.job());
    world.deliver(ToSession::Lost(number));
}

#[test]
fn a_worker_that_is_lost_between_failures_makes_no_poison() {
    let crash = Some(Reason::EngineCrashed);
    // Neither as the second worker of the three failures …
    let mut world = World::new(1);
    fail_on(&mut world, &[("a", crash)]);
    lose_on(&mut world, "b");
    fail_on(&mut world, &[("a", crash), ("a", crash)]);
    assert_eq!(world.runs.len(), 4);
    assert!(world.ended.is_none() && world.buried.is_empty(), "{:?}", world.ended);
    // … nor as the third failure of two workers.
    let mut world = World::new(1);
    fail_on(&mut world, &[("a", crash), ("b", crash)]);
    lose_on(&mut world, "a");
    assert_eq!(world.runs.len(), 3);
    assert!(world.ended.is_none() && world.buried.is_empty(), "{:?}", world.ended);
    // The third engine that fails makes it one, and the letter names engines only.
    fail_on(&mut world, &[("a", crash)]);
    let [letter] = world.buried.as_slice() else { panic!("{:?}", world.ended) };
    assert_eq!(letter.history.iter().map(|failed| failed.attempt).collect::<Vec<_>>(), [1, 2, 4]);
}
