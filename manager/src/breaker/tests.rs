//! The breaker by itself: the states in order, and what must hold whatever is heard, however often and in which order.

use proptest::prelude::*;

use super::*;

mod joined;

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::default()
}

fn run(number: u128) -> RunId {
    RunId::from_u128(number)
}

fn ended(number: u128, success: bool, began_ms: u64) -> Heard {
    Heard::Ended { run: run(number), success, began_ms }
}

/// Hears these runs, each begun and ended at `now_ms`.
fn hear_all(record: &mut BreakerRecord, first: u128, outcomes: &[bool], now_ms: u64) {
    for (number, success) in (first..).zip(outcomes) {
        hear(record, &config(), &ended(number, *success, now_ms), now_ms);
    }
}

fn opened_at(now_ms: u64) -> BreakerRecord {
    let mut record = BreakerRecord::default();
    hear_all(&mut record, 1, &[false; 5], now_ms);
    assert_eq!(record.state, BreakerState::Open);
    record
}

fn half_opened(record: &mut BreakerRecord) -> u64 {
    let now_ms = timer_ms(record, &config()).unwrap();
    tick(record, &config(), now_ms - 1);
    assert_eq!(record.state, BreakerState::Open);
    tick(record, &config(), now_ms);
    assert_eq!(record.state, BreakerState::HalfOpen);
    now_ms
}

#[test]
fn it_opens_at_the_rate_once_enough_runs_are_in() {
    let mut record = BreakerRecord::default();
    hear_all(&mut record, 1, &[true, false, false, false], 10);
    assert_eq!(record.state, BreakerState::Closed, "four runs are too few");
    let mut other = record.clone();
    hear_all(&mut other, 5, &[true], 10);
    assert_eq!(other.state, BreakerState::Open, "the rate counts, whatever came last");
    let mut record = BreakerRecord::default();
    hear_all(&mut record, 1, &[true, true, true, false, false], 10);
    assert_eq!((record.state, failure_rate(&record, &config())), (BreakerState::Closed, (0.4, 5)));
    hear_all(&mut record, 10, &[false], 10);
    assert_eq!((record.state, record.openings), (BreakerState::Open, 1));
    assert!((48_000..=60_000).contains(&record.reset_after_ms), "{}", record.reset_after_ms);
    assert_eq!(open_for_ms(&record, 1_010), Some(record.reset_after_ms - 1_000));
}

#[test]
fn old_runs_leave_the_window() {
    let mut record = BreakerRecord::default();
    hear_all(&mut record, 1, &[true, true, true, false, false], 10);
    hear_all(&mut record, 10, &[true; 10], 10);
    hear_all(&mut record, 30, &[false; 4], 10);
    assert_eq!(record.state, BreakerState::Closed, "four of ten");
    assert_eq!(failure_rate(&record, &config()), (0.4, 10));
}

#[test]
fn probes_close_it_and_one_fault_opens_it_for_twice_as_long() {
    let mut record = opened_at(1_000);
    let first = record.reset_after_ms;
    let now_ms = half_opened(&mut record);
    hear_all(&mut record, 100, &[true, true, false], now_ms);
    assert_eq!((record.state, record.openings, record.successes), (BreakerState::Open, 2, 0));
    assert!(record.reset_after_ms > first * 13 / 10, "{first} {}", record.reset_after_ms);
    let now_ms = half_opened(&mut record);
    hear_all(&mut record, 200, &[true, true], now_ms);
    assert_eq!((record.state, record.successes), (BreakerState::HalfOpen, 2));
    hear_all(&mut record, 202, &[true], now_ms);
    assert_eq!((record.state, record.openings), (BreakerState::Closed, 0));
    hear_all(&mut record, 300, &[false; 4], now_ms);
    assert_eq!(record.state, BreakerState::Closed, "what was before is not judged again");
}

#[test]
fn the_reset_time_out_grows_to_its_cap() {
    let longest: Vec<u64> = (1..8).map(|openings| reset_after_ms(&config(), openings, run(7))).collect();
    assert!(longest.windows(2).all(|pair| pair[0] <= pair[1]), "{longest:?}");
    assert!(longest.iter().all(|ms| *ms <= 600_000) && longest[6] >= 480_000, "{longest:?}");
    let spread: std::collections::BTreeSet<u64> =
        (0..50).map(|number| reset_after_ms(&config(), 1, run(number))).collect();
    assert!(spread.len() > 40, "workers do not return together");
    assert!(reset_after_ms(&config(), u32::MAX, run(1)) <= 600_000);
}

#[test]
fn late_outcomes_neither_close_nor_reopen_nor_extend() {
    let mut record = opened_at(1_000);
    let open = record.clone();
    hear(&mut record, &config(), &ended(50, false, 900), 2_000);
    hear(&mut record, &config(), &ended(51, true, 900), 2_000);
    assert_eq!(
        (record.state, record.reset_after_ms, record.since_ms),
        (open.state, open.reset_after_ms, 1_000)
    );
    let now_ms = half_opened(&mut record);
    // Begun before the first opening, ended only now; then told again, as if it had begun just now.
    hear(&mut record, &config(), &ended(52, false, 900), now_ms + 5);
    hear(&mut record, &config(), &ended(52, false, now_ms + 5), now_ms + 5);
    hear(&mut record, &config(), &ended(50, false, now_ms + 5), now_ms + 5);
    hear(&mut record, &config(), &ended(53, true, 900), now_ms + 5);
    assert_eq!((record.state, record.successes), (BreakerState::HalfOpen, 0));
}

#[test]
fn half_open_without_news_gives_fresh_probes() {
    let mut record = opened_at(1_000);
    let began_ms = half_opened(&mut record);
    for renewals in 1..4 {
        let due_ms = timer_ms(&record, &config()).unwrap();
        assert_eq!(due_ms, began_ms + u64::from(renewals) * 60_000);
        tick(&mut record, &config(), due_ms - 1);
        assert_eq!(record.renewals, renewals - 1);
        tick(&mut record, &config(), due_ms);
        assert_eq!((record.state, record.renewals), (BreakerState::HalfOpen, renewals));
    }
    // A probe that took longer than that counts.
    hear(&mut record, &config(), &ended(70, true, began_ms), began_ms + 200_000);
    assert_eq!(record.successes, 1);
}

#[test]
fn poison_is_held_against_nobody() {
    let mut opened = opened_at(1_000);
    hear(&mut opened, &config(), &Heard::TakenBack { run: run(5) }, 1_100);
    assert_eq!((opened.state, opened.openings), (BreakerState::Closed, 0));
    assert_eq!(failure_rate(&opened, &config()), (1.0, 4), "the other faults stay");
    // The other way round: the word of the poison came before the outcome.
    let mut early = BreakerRecord::default();
    hear(&mut early, &config(), &Heard::TakenBack { run: run(5) }, 900);
    hear_all(&mut early, 1, &[false; 5], 1_000);
    assert_eq!(early.state, BreakerState::Closed);

    let mut record = opened_at(1_000);
    let now_ms = half_opened(&mut record);
    hear_all(&mut record, 100, &[true, true, false], now_ms);
    assert_eq!((record.state, record.openings), (BreakerState::Open, 2));
    hear(&mut record, &config(), &Heard::TakenBack { run: run(102) }, now_ms + 1);
    assert_eq!((record.state, record.openings, record.successes), (BreakerState::HalfOpen, 1, 2));
    hear_all(&mut record, 103, &[true], now_ms + 1);
    assert_eq!(record.state, BreakerState::Closed);
}

#[test]
fn a_time_of_another_clock_in_the_future_holds_nothing_up() {
    let mut record = BreakerRecord { since_ms: 10_000_000, ..opened_at(1_000) };
    tick(&mut record, &config(), 5_000);
    assert_eq!((record.state, record.since_ms), (BreakerState::Open, 5_000));
    half_opened(&mut record);
}

#[test]
fn wrong_figures_are_all_named() {
    assert!(faults(&config()).is_empty());
    let wrong = CircuitBreakerConfig {
        failure_threshold: f64::NAN,
        timeout_ms: 0,
        reset_timeout_ms: 0,
        success_threshold: 0,
        sliding_window_size: 4,
        ..config()
    };
    assert_eq!(faults(&wrong).len(), 5, "{:?}", faults(&wrong));
}

#[derive(Debug, Clone)]
enum Step {
    Hear(u128, bool, u64),
    TakeBack(u128),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u128..60, any::<bool>(), 0u64..2_000).prop_map(|(run, ok, lasted)| Step::Hear(run, ok, lasted)),
        1 => (0u128..60).prop_map(Step::TakeBack),
        3 => (0u64..90_000).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..120)
}

/// Carries a step out; the record must know what it heard, and not grow.
fn carry_out(record: &mut BreakerRecord, step: &Step, now_ms: &mut u64) {
    match step {
        Step::Hear(number, success, lasted_ms) => {
            let began_ms = now_ms.saturating_sub(*lasted_ms);
            hear(record, &config(), &ended(*number, *success, began_ms), *now_ms);
        }
        Step::TakeBack(number) => hear(record, &config(), &Heard::TakenBack { run: run(*number) }, *now_ms),
        Step::Pass(ms) => {
            *now_ms += ms;
            tick(record, &config(), *now_ms);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..Default::default() })]

    /// A doubled event changes nothing, whatever the state and however late it comes; the record stays bounded, and only a
    /// closed breaker has no timer.
    #[test]
    fn doubled_events_change_nothing(steps in steps()) {
        let (mut record, mut now_ms) = (BreakerRecord::default(), 100_000);
        let mut heard: Vec<Heard> = Vec::new();
        for step in &steps {
            carry_out(&mut record, step, &mut now_ms);
            match step {
                Step::Hear(number, success, _) => heard.push(ended(*number, *success, now_ms)),
                Step::TakeBack(number) => heard.push(Heard::TakenBack { run: run(*number) }),
                Step::Pass(_) => {}
            }
            // Doubles of whatever was heard of a run that is remembered; it looks as if it had begun just now.
            heard.retain(|heard| record.window.iter().any(|entry| entry.run == heard.run()));
            for double in &heard {
                let mut again = record.clone();
                hear(&mut again, &config(), double, now_ms);
                prop_assert_eq!(&again, &record);
            }
            prop_assert!(record.window.len() <= remembered(&config()));
            prop_assert_eq!(timer_ms(&record, &config()).is_none(), record.state == BreakerState::Closed);
        }
    }

    /// While nothing changes the state, the order in which runs are heard does not matter.
    #[test]
    fn the_order_does_not_matter(
        mut outcomes in proptest::collection::vec(any::<bool>(), 0..10), turn in 0usize..10, taken in 0u128..10,
    ) {
        // So many failures that it opens only when all are in, if at all.
        let failures = outcomes.iter().filter(|ok| !**ok).count();
        prop_assume!(failures * 2 < outcomes.len().max(1) || failures < 5);
        let lenient = CircuitBreakerConfig { minimum_calls: 10, ..config() };
        let numbered: Vec<(u128, bool)> = (0..).zip(outcomes.drain(..)).collect();
        let mut turned = numbered.clone();
        if !turned.is_empty() {
            let middle = turn % turned.len();
            turned.rotate_left(middle);
        }
        let judged = |runs: &[(u128, bool)], taken_first: bool| {
            let mut record = BreakerRecord::default();
            let take = |record: &mut BreakerRecord| {
                hear(record, &lenient, &Heard::TakenBack { run: run(taken) }, 5);
            };
            if taken_first { take(&mut record) }
            for (number, success) in runs {
                hear(&mut record, &lenient, &ended(*number, *success, 5), 5);
            }
            if !taken_first { take(&mut record) }
            (record.state, failure_rate(&record, &lenient))
        };
        prop_assert_eq!(judged(&numbered, true), judged(&turned, false));
    }
}
