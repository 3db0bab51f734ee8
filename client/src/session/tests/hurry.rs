//! A listener who plays what it gets, and whose next segment waits behind others.

use super::*;

impl World {
    /// Speaks the segment that is first in the queue, and has it taken.
    fn hear_one(&mut self) {
        let heard = self.heard.len();
        self.pull(0, false);
        for _ in 0..=CHUNKS {
            self.read_mail();
            self.step(0, false);
        }
        assert_eq!(self.heard.len(), heard + 1);
        self.listen();
        self.read_mail();
    }

    fn read_mail(&mut self) {
        while !self.mail.is_empty() {
            let message = self.mail.remove(0);
            self.deliver(message);
        }
    }

    fn attempts(&self, segment: u32) -> Vec<Attempt> {
        self.queue.iter().filter(|(job, _)| job.segment == segment).map(|(job, _)| job.attempt).collect()
    }
}

#[test]
fn the_next_segment_of_a_listener_that_runs_dry_is_queued_anew_once() {
    let mut world = World::new(6);
    let opened = world.mail.remove(0);
    world.deliver(opened);
    world.pass(1_000);
    assert_eq!(world.attempts(0), [1], "nobody listens before first audio");
    world.hear_one();
    world.pass(100);
    assert_eq!(world.attempts(1), [1], "a worker may still begin it by itself");
    world.pass(100);
    assert_eq!((world.attempts(1), world.attempts(2)), (vec![1, 2], vec![1]));
    assert_eq!(world.session.segments[&1].class, JobClass::Urgent);
    world.pass(1_000);
    assert_eq!(world.attempts(1), [1, 2], "and not again");
    world.turn_fair();
    world.check();
    let metadata = world.ended.unwrap().metadata.unwrap();
    assert_eq!((metadata.segments, metadata.retries), (6, 0));
}

#[test]
fn what_has_time_is_not_hurried() {
    let mut world = World::new(6);
    let Some(ToSession::Opened(id, mut opened)) = world.mail.pop() else { panic!("no answer") };
    opened.speech.priority = Priority::Low;
    world.deliver(ToSession::Opened(id, opened));
    world.hear_one();
    world.pass(1_500);
    assert_eq!(world.attempts(1), [1]);
}

#[test]
fn a_question_about_the_queue_says_nothing_about_the_text() {
    let mut world = World::begun(6, 0, true);
    let Some(ToSession::Opened(id, mut opened)) = world.mail.pop() else { panic!("no answer") };
    opened.speech.priority = Priority::Low;
    world.deliver(ToSession::Opened(id, opened));
    world.hear_one();
    // Nobody begins what is queued: a manager is asked whether it is still there, and for nothing else.
    world.pass(2_100);
    world.read_mail();
    (1..6).for_each(|_| world.hear_one());
}
