//! What is wrong with a run is its worker's outcome, whenever the worker asks; being overtaken is nobody's fault.

use super::*;

/// The first run of a session of one segment, which goes.
fn going() -> (World, RunRef, WorkerId) {
    let world = World::speaking(1);
    let run = &world.runs[0];
    let (reference, worker) = (run.reference.clone(), run.worker.clone());
    (world, reference, worker)
}

fn spoken(chunks: u32, crc32: u32) -> RunOutcome {
    RunOutcome::Spoken(Spoken {
        data: AudioData::from(vec![1, 2]),
        chunks,
        samples: u64::from(chunks),
        sample_rate: 16_000,
        crc32,
        engine_ms: 1.0,
        warnings: vec![],
    })
}

fn ask(world: &mut World, run: &RunRef, worker: &WorkerId, outcome: RunOutcome) -> ResultAnswer {
    let result = RunResult { run: run.clone(), worker: worker.clone(), outcome };
    world.session.on_result(result, world.now)
}

const CORRUPT: ResultAnswer = ResultAnswer::Stale { fault: Some(RunFault::Corrupt) };
const INCOMPLETE: ResultAnswer = ResultAnswer::Stale { fault: Some(RunFault::Incomplete) };
const SILENT: ResultAnswer = ResultAnswer::Stale { fault: Some(RunFault::Silent) };

#[test]
fn a_wrong_checksum_is_a_fault_and_counts() {
    let (mut world, run, worker) = going();
    let wrong = || spoken(1, 0);
    assert_eq!(ask(&mut world, &run, &worker, wrong()), CORRUPT);
    assert_eq!(ask(&mut world, &run, &worker, wrong()), CORRUPT, "the same answer to the same question");
    assert_eq!(world.session.segments[&0].failures, 1);
}

#[test]
fn chunks_that_never_come_are_a_fault_that_the_words_have_no_part_in() {
    let (mut world, run, worker) = going();
    let resends = std::iter::from_fn(|| Some(ask(&mut world, &run, &worker, spoken(9, 0))))
        .take_while(|answer| matches!(answer, ResultAnswer::Resend { from: 0 }));
    assert_eq!(resends.count(), 3);
    assert_eq!(ask(&mut world, &run, &worker, spoken(9, 0)), INCOMPLETE);
    assert_eq!(world.session.segments[&0].failures, 0);
}

#[test]
fn a_silent_run_learns_of_its_fault_when_it_speaks_again_and_an_overtaken_one_of_none() {
    let (mut world, run, worker) = going();
    world.pass(1_000);
    assert_eq!(ask(&mut world, &run, &worker, spoken(1, 0)), SILENT);
    let (mut world, run, worker) = going();
    world.session.on_worker_lost(&worker, world.runs[0].incarnation, world.now);
    assert_eq!(ask(&mut world, &run, &worker, spoken(1, 0)), ResultAnswer::STALE);
}
