//! One run under every order of events.

use std::time::Duration;

use chorus_protocol::AudioData;
use chorus_protocol::job::{RunFault, StopReason};
use proptest::prelude::*;

use super::*;

const PIECE: &[u8] = &[1, 2, 3, 4];

fn start(fresh: bool, deliveries: u64) -> (Run, Vec<Action>, Instant) {
    let now = Instant::now();
    let (run, actions) = Run::start(Limits::default(), fresh, deliveries, now);
    (run, actions, now)
}

fn piece(seq: u32) -> Event {
    Event::Piece { seq, data: Bytes::from_static(PIECE) }
}

/// The true end of a segment of which `sent` pieces came before.
fn spoken(sent: u32) -> Event {
    let whole = PIECE.repeat(sent as usize + 1);
    let answer = SpokenAnswer {
        seq: sent,
        data: AudioData::from(PIECE.to_vec()),
        chunks: sent + 1,
        samples: whole.len() as u64 / 2,
        sample_rate: 16_000,
        crc32: crc32fast::hash(&whole),
        engine_ms: 1.0,
        warnings: Vec::new(),
    };
    Event::Spoken { answer: Box::new(answer), ill: None, changed: None }
}

fn go() -> Event {
    Event::Started(Ok(StartedAnswer::Go))
}

fn reason(run: &Run) -> Option<Reason> {
    match run.outcome()? {
        RunOutcome::Failed(failed) => failed.error.reason(),
        RunOutcome::Spoken(_) => None,
    }
}

#[test]
fn a_fresh_job_is_spoken_while_the_session_is_asked() {
    let (mut run, actions, now) = start(true, 1);
    assert_eq!(actions, [Action::AskStarted { overlapped: true }, Action::Speak]);
    assert_eq!(run.on(piece(0), now), [Action::SendChunk { seq: 0, ask: false }]);
    assert_eq!(run.on(spoken(1), now), []);
    assert_eq!(run.on(go(), now), [Action::AskResult]);
    assert_eq!(run.on(Event::Judged(Ok(ResultAnswer::Accepted)), now), [Action::End(Ending::Ack)]);
    assert!(run.is_done());
}

#[test]
fn a_queued_or_redelivered_job_is_asked_about_first() {
    for (fresh, deliveries) in [(false, 1), (true, 2)] {
        let (mut run, actions, now) = start(fresh, deliveries);
        assert_eq!(actions, [Action::AskStarted { overlapped: false }]);
        assert_eq!(run.on(go(), now), [Action::Speak]);
    }
}

#[test]
fn while_the_engine_works_the_session_is_asked_again_whether_the_run_counts() {
    let (mut run, _, now) = start(true, 1);
    let at = |ms| now + Duration::from_millis(ms);
    assert_eq!(run.on(Event::Progress, at(400)), [], "the first question is not answered yet");
    assert_eq!(run.on(go(), at(410)), []);
    let again = [Action::AskStarted { overlapped: false }];
    assert_eq!(run.on(Event::Progress, at(500)), again);
    assert_eq!(run.on(Event::Progress, at(700)), [], "not more often than need be");
    assert_eq!(run.on(go(), at(710)), []);
    assert_eq!(run.on(Event::Started(Err(Unanswered)), at(720)), [], "the next time will do");
    assert_eq!(run.on(piece(0), at(1_000)), [Action::SendChunk { seq: 0, ask: false }]);
    assert_eq!(run.on(Event::Progress, at(1_400)), [], "audio has told it");
    assert_eq!(run.on(Event::Progress, at(1_500)), again);
    let stop = Event::Started(Ok(StartedAnswer::Stop { reason: StopReason::Superseded }));
    assert_eq!(run.on(stop, at(1_510)), [Action::CancelEngine, Action::End(Ending::Terminate)]);
}

#[test]
fn stop_cancels_and_the_credit_waits_for_the_engine() {
    let (mut run, _, now) = start(true, 1);
    let stop = Event::Started(Ok(StartedAnswer::Stop { reason: StopReason::Superseded }));
    assert_eq!(run.on(stop, now), [Action::CancelEngine, Action::End(Ending::Terminate)]);
    assert!(run.is_over() && !run.is_done());
    let late = run.deadline().unwrap();
    assert_eq!(run.on(Event::Tick, late), [Action::RestartEngine]);
    assert!(run.is_done());
}

#[test]
fn no_session_means_back_to_the_queue_and_in_the_end_out_of_it() {
    let limits = Limits::default();
    let (mut run, _, now) = start(false, 11);
    assert_eq!(run.on(Event::Started(Err(Unanswered)), now), [Action::End(Ending::Nak(limits.retry_after))]);
    let (mut run, _, now) = start(false, 12);
    assert_eq!(run.on(Event::Started(Err(Unanswered)), now), [Action::End(Ending::Terminate)]);
}

#[test]
fn a_result_without_an_answer_is_asked_again_for_a_while() {
    let limits = Limits::default();
    let (mut run, _, mut now) = start(true, 1);
    let began = now;
    run.on(go(), now);
    assert_eq!(run.on(spoken(0), now), [Action::AskResult]);
    let mut asked = 1;
    loop {
        let actions = run.on(Event::Judged(Err(Unanswered)), now);
        if actions == [Action::End(Ending::Terminate)] {
            break;
        }
        assert_eq!(actions, []);
        now = run.deadline().unwrap();
        assert_eq!(run.on(Event::Tick, now), [Action::AskResult]);
        asked += 1;
    }
    assert_eq!(asked, 13, "every 250 ms from 0 to 3 s");
    assert_eq!(now - began, limits.patience);
}

#[test]
fn missing_pieces_go_again_and_then_the_result() {
    let (mut run, _, now) = start(true, 1);
    run.on(go(), now);
    (0..3).for_each(|seq| drop(run.on(piece(seq), now)));
    assert_eq!(run.on(spoken(3), now), [Action::AskResult]);
    let resend = Event::Judged(Ok(ResultAnswer::Resend { from: 1 }));
    let again = [1, 2].map(|seq| Action::SendChunk { seq, ask: false });
    assert_eq!(run.on(resend, now), [again[0].clone(), again[1].clone(), Action::AskResult]);
    for _ in 1..Limits::default().max_resends {
        let beyond = Event::Judged(Ok(ResultAnswer::Resend { from: 9 }));
        assert_eq!(
            run.on(beyond, now),
            [Action::AskResult],
            "only the last piece, in the result, is missing"
        );
    }
    let once_more = Event::Judged(Ok(ResultAnswer::Resend { from: 0 }));
    assert_eq!(run.on(once_more, now), [Action::End(Ending::Terminate)]);
}

#[test]
fn a_fault_that_the_session_found_is_the_outcome_and_being_overtaken_has_none() {
    for fault in [None, Some(RunFault::Corrupt)] {
        let (mut run, _, now) = start(true, 1);
        run.on(go(), now);
        run.on(spoken(0), now);
        let judged = run.on(Event::Judged(Ok(ResultAnswer::Stale { fault })), now);
        assert_eq!(judged, [Action::End(Ending::Terminate)]);
        let told = run.verdict(Ending::Terminate);
        assert_eq!(told.is_some(), fault.is_some());
        assert_eq!(reason(&run), fault.map(|_| Reason::BadAudio));
    }
}

#[test]
fn the_window_holds_until_it_is_widened() {
    let (mut run, _, now) = start(true, 1);
    run.on(go(), now);
    let sent: Vec<Action> = (0..40).flat_map(|seq| run.on(piece(seq), now)).collect();
    let asks = |action: &Action| matches!(action, Action::SendChunk { ask: true, .. });
    assert_eq!((sent.len(), sent.iter().filter(|action| asks(action)).count()), (32, 2));
    let more = run.on(Event::Granted { seq: 15, answer: Ok(ChunkGrant { chunks: 3 }) }, now);
    assert_eq!(more.len(), 3);
    assert!(!more.iter().any(asks), "31 is still asked");
    let more = run.on(Event::Granted { seq: 31, answer: Ok(ChunkGrant { chunks: 2 }) }, now);
    assert!(asks(&more[1]), "the last that is allowed asks, for nothing else does");
}

#[test]
fn a_grant_that_does_not_come_is_asked_for_again_and_ends_the_run() {
    let (mut run, _, mut now) = start(true, 1);
    run.on(go(), now);
    (0..16).for_each(|seq| drop(run.on(piece(seq), now)));
    let began = now;
    let mut asked = 0;
    loop {
        let actions = run.on(Event::Granted { seq: 15, answer: Err(Unanswered) }, now);
        if actions.contains(&Action::End(Ending::Terminate)) {
            break;
        }
        now = run.deadline().unwrap();
        let actions = run.on(Event::Tick, now);
        if actions.contains(&Action::End(Ending::Terminate)) {
            break;
        }
        assert_eq!(actions, [Action::SendChunk { seq: 15, ask: true }]);
        asked += 1;
    }
    assert!((10..13).contains(&asked) && now - began == Limits::default().patience);
}

#[test]
fn an_engine_that_breaks_the_protocol_fails_the_run() {
    let broken: [(&str, Event); 3] = [
        ("order", piece(1)),
        ("odd", Event::Piece { seq: 0, data: Bytes::from_static(&[1]) }),
        ("large", Event::Piece { seq: 0, data: Bytes::from(vec![0; 16 * 1024 + 2]) }),
    ];
    for (what, event) in broken {
        let (mut run, _, now) = start(true, 1);
        run.on(go(), now);
        assert_eq!(run.on(event, now), [Action::CancelEngine, Action::AskResult], "{what}");
        assert_eq!(reason(&run), Some(Reason::EngineProtocol));
    }
    for change in 0..4 {
        let (mut run, _, now) = start(true, 1);
        run.on(go(), now);
        let Event::Spoken { mut answer, ill, .. } = spoken(0) else { unreachable!() };
        match change {
            0 => answer.crc32 ^= 1,
            1 => answer.samples += 1,
            2 => answer.chunks += 1,
            _ => answer.sample_rate = 0,
        }
        assert_eq!(run.on(Event::Spoken { answer, ill, changed: None }, now), [Action::AskResult]);
        assert_eq!(reason(&run), Some(Reason::EngineProtocol));
    }
}

#[test]
fn ill_audio_and_a_silent_engine_fail_the_run() {
    let (mut run, _, now) = start(true, 1);
    run.on(go(), now);
    let Event::Spoken { answer, .. } = spoken(0) else { unreachable!() };
    let ill = Some(ServiceError::new(Reason::BadAudio, "silence"));
    assert_eq!(run.on(Event::Spoken { answer, ill, changed: None }, now), [Action::AskResult]);
    assert_eq!(reason(&run), Some(Reason::BadAudio));
    let (mut run, _, now) = start(true, 1);
    run.on(go(), now);
    let late = run.deadline().unwrap();
    assert_eq!(late - now, Limits::default().silence);
    assert_eq!(run.on(Event::Tick, late), [Action::CancelEngine, Action::AskResult]);
}

#[test]
fn a_leaving_worker_hands_back_what_is_not_begun_and_fails_what_is() {
    let (mut run, _, now) = start(false, 1);
    assert_eq!(run.on(Event::HandBack, now), [Action::End(Ending::Nak(Duration::ZERO))]);
    let (mut run, _, now) = start(true, 1);
    run.on(go(), now);
    assert_eq!(run.on(Event::HandBack, now), [Action::CancelEngine, Action::AskResult]);
    assert_eq!(reason(&run), Some(Reason::WorkerLost));
}

/// What may happen, as the world outside sees it. Answers come only to questions that are asked.
#[derive(Debug, Clone)]
enum Op {
    Started(u8),
    Grant(u8),
    Judge(u8, u32),
    Piece(bool),
    Spoken,
    EngineFails,
    Progress,
    Stop,
    HandBack,
    Wait(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0u8..6).prop_map(Op::Started),
        3 => (0u8..3).prop_map(Op::Grant),
        3 => (0u8..4, 0u32..50).prop_map(|(verdict, from)| Op::Judge(verdict, from)),
        12 => proptest::bool::weighted(0.99).prop_map(Op::Piece),
        2 => Just(Op::Spoken),
        1 => Just(Op::EngineFails),
        1 => Just(Op::Progress),
        1 => Just(Op::Stop),
        1 => Just(Op::HandBack),
        3 => (0u32..2_000).prop_map(Op::Wait),
    ]
}

/// What was asked and not answered yet, and what has been done.
#[derive(Default)]
struct World {
    started: u32,
    results: u32,
    grants: Vec<u32>,
    made: u32,
    speaking: bool,
    spoke: u32,
    went: bool,
    accepted: bool,
    endings: Vec<Ending>,
    allowed: u64,
    sent: u64,
}

impl World {
    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::AskStarted { .. } => self.started += 1,
                Action::Speak => (self.speaking, self.spoke) = (true, self.spoke + 1),
                Action::CancelEngine => assert!(self.speaking, "nothing is there to cancel"),
                Action::SendChunk { seq, ask } => {
                    assert!(seq < self.made && self.endings.is_empty());
                    self.sent += 1;
                    if ask {
                        self.grants.push(seq);
                    }
                }
                Action::AskResult => {
                    assert!(self.went, "a result before go");
                    self.results += 1;
                }
                Action::End(ending) => self.endings.push(ending),
                Action::RestartEngine => self.speaking = false,
            }
        }
        assert!(self.endings.len() <= 1, "the delivery ended twice");
        assert!(self.spoke <= 1, "spoken twice");
        if let Some(Ending::Ack) = self.endings.first() {
            assert!(self.accepted, "acknowledged what nobody accepted");
        }
    }

    fn event(&mut self, op: &Op) -> Option<Event> {
        match op {
            Op::Started(verdict) if self.started > 0 => {
                self.started -= 1;
                self.went |= *verdict > 1;
                Some(match verdict {
                    0 => Event::Started(Ok(StartedAnswer::Stop { reason: StopReason::Expired })),
                    1 => Event::Started(Err(Unanswered)),
                    _ => go(),
                })
            }
            Op::Grant(verdict) if !self.grants.is_empty() => {
                let seq = self.grants.remove(0);
                self.allowed += 16;
                let grant = ChunkGrant { chunks: u32::from(*verdict) * 8 };
                Some(Event::Granted { seq, answer: if *verdict == 0 { Err(Unanswered) } else { Ok(grant) } })
            }
            Op::Judge(verdict, from) if self.results > 0 => {
                self.results -= 1;
                self.accepted |= *verdict == 0;
                self.allowed += 32;
                Some(Event::Judged(match verdict {
                    0 => Ok(ResultAnswer::Accepted),
                    1 => Ok(ResultAnswer::STALE),
                    2 => Ok(ResultAnswer::Resend { from: *from }),
                    _ => Err(Unanswered),
                }))
            }
            Op::Piece(right) if self.speaking => {
                let seq = if *right { self.made } else { self.made + 1 };
                self.made += u32::from(*right);
                Some(piece(seq))
            }
            Op::Spoken if self.speaking => {
                self.speaking = false;
                Some(spoken(self.made))
            }
            Op::EngineFails if self.speaking => {
                self.speaking = false;
                let error = ServiceError::new(Reason::EngineCrashed, "gone");
                Some(Event::EngineFailed(Box::new(Failed { error, stderr: Vec::new() })))
            }
            Op::Progress if self.speaking => Some(Event::Progress),
            Op::Stop => Some(Event::Stop),
            Op::HandBack => Some(Event::HandBack),
            Op::Wait(_) => Some(Event::Tick),
            _ => None,
        }
    }
}

proptest! {
    #[test]
    fn a_run_always_ends_once_and_rightly(
        fresh in any::<bool>(),
        deliveries in 1u64..14,
        ops in proptest::collection::vec(op(), 0..200),
    ) {
        let (mut run, first, mut now) = start(fresh, deliveries);
        let mut world = World { allowed: 32, ..World::default() };
        world.take(first);
        for op in ops {
            if let Op::Wait(ms) = op {
                now += Duration::from_millis(ms.into());
            }
            if let Some(event) = world.event(&op) {
                world.take(run.on(event, now));
            }
            // Asks that are repeated send their piece again; they are bounded by time, not by the window.
            prop_assert!(world.sent <= world.allowed + 64, "{} pieces sent", world.sent);
        }
        // Now everybody falls silent: timers alone must end it.
        let mut ticks = 0;
        while !run.is_done() {
            ticks += 1;
            prop_assert!(ticks < 200, "stuck: {run:?}");
            let Some(at) = run.deadline() else { panic!("waits for nothing: {run:?}") };
            now = now.max(at);
            world.take(run.on(Event::Tick, now));
        }
        prop_assert_eq!(world.endings.len(), 1);
    }
}
