//! The end of a session: what it is told as, and what comes after it.

use super::*;

#[test]
fn a_run_that_begins_after_the_end_is_stopped() {
    let mut world = World::new(1);
    let opened = world.mail.remove(0);
    world.deliver(opened);
    world.session.on_cancel(world.now);
    world.carry_out();
    assert!(world.ended.is_some());
    // What is queued by then may be pulled all the same.
    world.pull(0, false);
    let started = world.mail.pop().unwrap();
    world.deliver(started);
    assert!(world.runs[0].over, "it was told to stop");
    assert!(world.queue.is_empty());
}

#[test]
fn a_listener_who_waits_in_vain_after_first_audio_is_told_that_it_stalled() {
    let mut world = World::speaking(2);
    for _ in 0..CHUNKS {
        world.step(0, false);
        let message = world.mail.remove(0);
        world.deliver(message);
    }
    assert_eq!(world.heard.len(), 1);
    // Past the deadline of first audio, which is kept.
    let stall_ms = SessionHostConfig::default().stall_timeout.as_millis() as u64;
    world.pass(stall_ms + 1_000);
    assert!(world.ended.is_none(), "the listener has not taken it yet: nobody waits");
    world.session.on_taken(1, world.now);
    world.carry_out();
    world.pass(stall_ms - 1);
    assert!(world.ended.is_none());
    world.pass(1);
    let error = world.ended.as_ref().unwrap().error.clone().unwrap();
    assert_eq!(
        (error.reason(), error.code, error.retryable),
        (Some(Reason::Stalled), ErrorCode::Timeout, true)
    );
}
