//! What a ward makes of workers that answer, fall silent, vanish or come back.

use chorus_protocol::fleet::RunProgress;
use chorus_protocol::{JobId, RunId, SessionId};
use proptest::prelude::*;

use super::pulse::MAX_UNDER_WAY;
use super::*;

const STEP: Duration = Duration::from_millis(50);

fn w(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn start(n: u128) -> Incarnation {
    Incarnation::from_u128(n)
}

fn busy(sequence: u64) -> Vec<Busy> {
    vec![Busy { worker: w("w"), incarnation: start(5), sequence }]
}

fn pong(incarnation: u128, idle_ms: &[u64]) -> Answer {
    let job = JobId { session: SessionId::from_u128(1), segment: 0, attempt: 1 };
    let progress = |(n, &idle_ms)| RunProgress { run: RunId::from_u128(n as u128), job, frames: 1, idle_ms };
    let runs = idle_ms.iter().enumerate().map(progress).collect();
    Answer::Pong(Pong { incarnation: start(incarnation), runs })
}

/// A ward with one busy worker, and the time.
struct Scene {
    ward: Ward,
    now: Instant,
    sequence: u64,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        let mut scene = Self {
            ward: Ward::new(LivenessConfig::default(), Duration::from_secs(10), now),
            now,
            sequence: 1,
        };
        assert_eq!(scene.tick(Duration::ZERO).pings.len(), 1);
        scene
    }

    fn tick(&mut self, after: Duration) -> Round {
        self.now += after;
        self.ward.tick(&busy(self.sequence), self.now)
    }

    /// A tick with a broker that answers when it is tried.
    fn tick_with_broker(&mut self) -> Round {
        let round = self.tick(STEP);
        if round.try_broker {
            self.ward.broker_speaks(self.now);
        }
        round
    }

    fn heard(&mut self, answer: &Answer) -> Option<Death> {
        self.ward.heard(&w("w"), start(5), answer, self.now).map(|loss| loss.death)
    }
}

#[test]
fn nobody_listening_is_a_crash_at_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.heard(&Answer::NoResponders), Some(Death::Crashed));
    assert_eq!(scene.heard(&Answer::NoResponders), None, "one death, one mourning");
}

#[test]
fn silence_is_a_hang_only_after_its_time() {
    let mut scene = Scene::new();
    assert_eq!(scene.heard(&pong(5, &[0])), None);
    let mut waited = Duration::ZERO;
    let losses = loop {
        let round = scene.tick_with_broker();
        waited += STEP;
        if !round.losses.is_empty() {
            break round.losses;
        }
        assert!(waited < Duration::from_secs(1));
    };
    assert_eq!(waited, LivenessConfig::default().hang_after);
    assert!(matches!(losses[0].death, Death::Hung { .. }), "{losses:?}");
}

#[test]
fn a_worker_that_comes_back_is_watched_again() {
    let mut scene = Scene::new();
    assert_eq!(scene.heard(&Answer::NoResponders), Some(Death::Crashed));
    scene.sequence += 1;
    assert_eq!(scene.tick(STEP).pings, [(w("w"), start(5))]);
    assert_eq!(scene.heard(&pong(5, &[0])), None);
    let none = scene.ward.tick(&[], scene.now + STEP);
    assert_eq!(none, Round::default(), "an idle worker is left alone");
    assert_eq!(scene.heard(&Answer::NoResponders), None);
}

#[test]
fn a_later_start_means_the_end_of_the_earlier() {
    let mut scene = Scene::new();
    assert_eq!(scene.heard(&pong(4, &[])), None, "a zombie answers for nobody");
    assert_eq!(scene.heard(&pong(6, &[])), Some(Death::Replaced));
}

#[test]
fn an_engine_hangs_when_none_of_its_runs_moves_and_is_told_of_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.heard(&pong(5, &[60_000, 3])), None);
    let idle = Duration::from_millis(11_000);
    assert_eq!(scene.heard(&pong(5, &[60_000, 11_000])), Some(Death::EngineHung { idle }));
    assert_eq!(scene.heard(&pong(5, &[60_050, 11_050])), None);
    assert_eq!(scene.tick(STEP).pings.len(), 1, "its worker is still watched");
    assert_eq!(scene.heard(&pong(5, &[10])), None);
    assert!(scene.heard(&pong(5, &[11_000])).is_some());
}

#[test]
fn a_broker_that_says_nothing_kills_nobody() {
    let mut scene = Scene::new();
    for _ in 0..2_000 {
        assert_eq!(scene.tick(STEP).losses, []);
    }
}

#[test]
fn a_broken_connection_kills_nobody_until_workers_had_time_to_come_back() {
    let mut scene = Scene::new();
    scene.ward.on_link(false, scene.now);
    assert_eq!(scene.heard(&Answer::NoResponders), None);
    for _ in 0..1_200 {
        assert_eq!(scene.tick(STEP).losses, []);
    }
    scene.ward.on_link(true, scene.now);
    assert_eq!(scene.heard(&Answer::NoResponders), None);
    let grace = LivenessConfig::default().reconnect_grace;
    for _ in 0..grace.as_millis() / STEP.as_millis() {
        assert_eq!(scene.tick_with_broker().losses, []);
    }
    assert_eq!(scene.heard(&Answer::NoResponders), Some(Death::Crashed));
}

#[test]
fn faults_of_a_configuration_are_named() {
    assert_eq!(LivenessConfig::default().faults(), Vec::<&str>::new());
    let none = Duration::ZERO;
    let bad = LivenessConfig { ping_interval: none, manager_timeout: none, ..LivenessConfig::default() };
    assert_eq!(bad.faults().len(), 2);
}

/// What happens between two ticks.
#[derive(Debug, Clone)]
enum Step {
    Pong,
    Heartbeat,
    Timeout,
    Zombie,
}

fn steps() -> impl Strategy<Value = Vec<(Vec<Step>, u64)>> {
    let step = prop_oneof![Just(Step::Pong), Just(Step::Heartbeat), Just(Step::Timeout), Just(Step::Zombie)];
    proptest::collection::vec((proptest::collection::vec(step, 0..4), 40u64..120), 1..200)
}

proptest! {
    /// A worker that shows a sign of life before its time is over is never lost, whatever else happens; and pings stay
    /// bounded.
    #[test]
    fn the_living_are_never_lost(steps in steps()) {
        let mut scene = Scene::new();
        let mut silent = Duration::ZERO;
        let mut under_way = 1u32;
        for (mut signs, after_ms) in steps {
            let after = Duration::from_millis(after_ms);
            if silent + after * 2 >= LivenessConfig::default().hang_after {
                signs.insert(0, Step::Pong);
            }
            for sign in signs {
                match sign {
                    Step::Heartbeat => scene.sequence += 1,
                    _ if under_way == 0 => continue,
                    Step::Pong => { prop_assert_eq!(scene.heard(&pong(5, &[1])), None); under_way -= 1; }
                    Step::Timeout => { prop_assert_eq!(scene.heard(&Answer::Nothing), None); under_way -= 1; }
                    Step::Zombie => { prop_assert_eq!(scene.heard(&pong(1, &[])), None); under_way -= 1; }
                }
                if !matches!(sign, Step::Timeout | Step::Zombie) {
                    silent = Duration::ZERO;
                }
            }
            let round = scene.tick(after);
            scene.ward.broker_speaks(scene.now);
            silent += after;
            prop_assert_eq!(&round.losses, &[]);
            under_way += round.pings.len() as u32;
            prop_assert!(under_way <= MAX_UNDER_WAY);
        }
    }

    /// A manager that is stopped and goes on kills nobody who answers as soon as it listens again.
    #[test]
    fn a_stopped_manager_blames_itself(stops in proptest::collection::vec(1u64..100_000, 1..50)) {
        let mut scene = Scene::new();
        for stop_ms in stops {
            prop_assert_eq!(scene.tick(Duration::from_millis(stop_ms)).losses, []);
            prop_assert_eq!(scene.heard(&Answer::Nothing), None);
            prop_assert_eq!(scene.heard(&pong(5, &[0])), None);
        }
    }

    /// Whenever a worker falls silent, it is lost exactly once, within its time and two ticks more.
    #[test]
    fn the_silent_are_lost_in_time(answers in 0usize..40, ticks_ms in proptest::collection::vec(50u64..100, 40)) {
        let mut scene = Scene::new();
        for _ in 0..answers {
            scene.heard(&pong(5, &[0]));
            prop_assert_eq!(scene.tick_with_broker().losses, []);
        }
        scene.heard(&pong(5, &[0]));
        let silent_since = scene.now;
        let mut lost = Vec::new();
        for after_ms in ticks_ms {
            let round = scene.tick(Duration::from_millis(after_ms));
            scene.ward.broker_speaks(scene.now);
            if !round.losses.is_empty() {
                lost.push(scene.now - silent_since);
                break;
            }
        }
        let limit = LivenessConfig::default().hang_after + Duration::from_millis(200);
        prop_assert!(lost.len() == 1 && lost[0] <= limit, "{:?}", lost);
    }
}
