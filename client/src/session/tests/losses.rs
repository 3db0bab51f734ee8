//! Workers that are lost: what is asked again, how soon, and how often.

use super::*;

impl World {
    /// A session of so many segments, of which a worker has begun the first.
    pub(super) fn speaking(segments: u32) -> Self {
        let mut world = Self::new(segments);
        let opened = world.mail.remove(0);
        world.deliver(opened);
        world.pull(0, false);
        let started = world.mail.remove(0);
        world.deliver(started);
        world
    }
}

#[test]
fn a_first_retry_is_immediate_and_urgent_and_names_what_was_tried() {
    let mut world = World::speaking(1);
    world.session.on_worker_lost(&WorkerId::new("w0").unwrap(), Incarnation::from_u128(0), world.now);
    let actions = world.session.take_actions();
    let [Action::Advance(ask)] = actions.as_slice() else { panic!("{actions:?}") };
    let retry = &ask.retries[0];
    assert_eq!((retry.attempt, retry.class, retry.failures), (2, JobClass::Urgent, 0));
    assert_eq!(retry.tried, [WorkerId::new("w0").unwrap()]);
    assert!(retry.supersedes.is_some());
}

#[test]
fn a_retry_that_nobody_begins_after_a_loss_is_queued_anew() {
    let mut world = World::speaking(1);
    world.deliver(ToSession::Lost(0));
    for attempt in 2..=5 {
        let answer = world.mail.remove(0);
        assert!(
            matches!(&answer, ToSession::Advanced(a) if a.retries.len() == 1),
            "attempt {attempt} is queued"
        );
        world.deliver(answer);
        world.pass(if attempt == 5 { 1_990 } else { 150 << (attempt - 2) });
    }
    assert!(world.mail.is_empty(), "after three times it waits for the look-up");
}
