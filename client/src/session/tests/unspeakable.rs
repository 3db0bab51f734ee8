//! Words that a voice cannot say: a warning where there are others, an error where there are none.

use super::*;

#[test]
fn unspeakable_parts_are_a_warning_and_an_unspeakable_whole_an_error() {
    for speakable in [true, false] {
        let mut world = World::new(2);
        let opened = world.mail.remove(0);
        world.deliver(opened);
        for number in 0..2 {
            world.pull(number, false);
            let started = world.mail.pop().unwrap();
            world.deliver(started);
        }
        let run = world.runs[0].reference.clone();
        let error = ServiceError::field(Reason::Unspeakable, "text", "nothing that this voice can say");
        let outcome = RunOutcome::Failed(Failed { error, stderr: vec![] });
        let worker = world.runs[0].worker.clone();
        world
            .session
            .on_result(RunResult { run, worker: worker.clone(), outcome: outcome.clone() }, world.now);
        if speakable {
            for chunk in 0..CHUNKS - 1 {
                world.deliver(ToSession::Chunk(1, chunk));
            }
            world.deliver(ToSession::Result(1, false));
            let result = world.ended.unwrap();
            assert!(result.success);
            assert_eq!(result.metadata.unwrap().warnings[0].reason, "unspeakable");
        } else {
            let run = world.runs[1].reference.clone();
            world.session.on_result(RunResult { run, worker, outcome }, world.now);
            world.carry_out();
            assert_eq!(world.ended.unwrap().error.unwrap().reason(), Some(Reason::Unspeakable));
        }
    }
}
