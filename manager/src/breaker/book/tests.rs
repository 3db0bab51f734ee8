//! Managers that hear the same events, late, doubled and in any order, and write one KV by compare-and-set.

use chorus_protocol::RunId;
use proptest::prelude::*;

use super::*;

const FORGET: Duration = Duration::from_secs(3_600);

fn worker() -> WorkerId {
    WorkerId::new("w").unwrap()
}

fn ended(number: u128, success: bool) -> Heard {
    Heard::Ended { run: RunId::from_u128(number), success, began_ms: 1_000 }
}

fn book() -> Book {
    Book::new(CircuitBreakerConfig::default(), FORGET)
}

/// The bucket: one record under compare-and-set, and its history for those who watch.
#[derive(Default)]
struct Kv {
    told: Vec<BreakerRecord>,
}

impl Kv {
    fn carry_out(&mut self, book: &mut Book, write: Write, now: Instant) {
        let Write::Put { worker, revision, record, .. } = write else { panic!("{write:?}") };
        if revision == self.told.len() as u64 {
            self.told.push(record.clone());
            book.written(&worker, record, self.told.len() as u64, now);
            return;
        }
        let latest = self.told.last().unwrap().clone();
        book.told(&worker, latest, self.told.len() as u64, now);
        book.not_written(&worker, false, now);
    }
}

#[test]
fn only_the_owner_writes_and_the_next_one_has_what_it_had_not_written() {
    let (mut first, mut second, mut kv) = (book(), book(), Kv::default());
    let now = Instant::now();
    for number in 0..5 {
        first.hear(&worker(), ended(number, false), Some("no".into()), now);
        second.hear(&worker(), ended(number, false), Some("no".into()), now);
    }
    assert!(second.due(now, 2_000, |_| false).is_empty());
    // The owner has died before it wrote.
    let writes = second.due(now, 2_000, |_| true);
    let [Write::Put { before, fault, record, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((*before, record.state), (BreakerState::Closed, BreakerState::Open));
    assert_eq!(fault.as_deref(), Some("no"));
    assert!(second.due(now, 2_000, |_| true).is_empty(), "one write of a worker at a time");
    kv.carry_out(&mut second, writes.into_iter().next().unwrap(), now);
    assert!(second.due(now, 2_000, |_| true).is_empty());
    // It was only slow: it comes second, reads, and has nothing to add.
    let late = first.due(now, 2_000, |_| true).remove(0);
    kv.carry_out(&mut first, late, now);
    assert!(first.due(now, 2_000, |_| true).is_empty());
    assert_eq!(first.record(&worker()), second.record(&worker()));
    assert_eq!(kv.told.len(), 1);
    assert_eq!(first.open_for_ms(&worker(), 2_000), Some(kv.told[0].reset_after_ms));
}

#[test]
fn a_healthy_worker_costs_no_writes() {
    let (mut book, mut kv, now) = (book(), Kv::default(), Instant::now());
    for number in 0..10 {
        book.hear(&worker(), ended(number, true), None, now);
    }
    assert!(book.due(now, 2_000, |_| true).is_empty(), "successes wait for each other");
    let writes = book.due(now + LAZY, 2_000, |_| true);
    kv.carry_out(&mut book, writes.into_iter().next().unwrap(), now);
    for number in 10..2_000 {
        book.hear(&worker(), ended(number, true), None, now);
        assert!(book.due(now + LAZY * 3, 2_000, |_| true).is_empty());
    }
    book.hear(&worker(), ended(5_000, false), None, now);
    let writes = book.due(now, 2_000, |_| true);
    assert_eq!(writes.len(), 1, "a fault is written at once");
    let Write::Put { record, .. } = &writes[0] else { panic!() };
    assert_eq!(failure_rate(record, &CircuitBreakerConfig::default()), (0.1, 10));
}

#[test]
fn a_write_that_failed_rests_and_comes_again() {
    let (mut book, now) = (book(), Instant::now());
    book.hear(&worker(), ended(1, false), None, now);
    let first = book.due(now, 2_000, |_| true);
    book.not_written(&worker(), true, now);
    assert!(book.due(now, 2_000, |_| true).is_empty());
    assert_eq!(book.due(now + AFTER_FAILURE, 2_000, |_| true), first);
}

#[test]
fn a_worker_that_is_long_gone_is_forgotten() {
    let (mut book, mut kv, now) = (book(), Kv::default(), Instant::now());
    book.hear(&worker(), ended(1, false), None, now);
    let write = book.due(now, 2_000, |_| true).remove(0);
    kv.carry_out(&mut book, write, now);
    book.alive(&worker(), now + FORGET);
    assert!(book.due(now + FORGET, 2_000, |_| true).is_empty(), "it lives");
    let gone = Write::Remove { worker: worker(), revision: 1 };
    assert!(book.due(now + FORGET * 2, 2_000, |_| false).is_empty(), "the owner does it");
    assert_eq!(book.due(now + FORGET * 2, 2_000, |_| true), [gone]);
    book.removed(&worker());
    assert_eq!(book.record(&worker()), None);
}

#[test]
fn canaries_count_in_half_open_only() {
    let (mut book, now) = (book(), Instant::now());
    let half_open =
        BreakerRecord { state: BreakerState::HalfOpen, since_ms: 500, ..BreakerRecord::default() };
    book.hear_canary(&worker(), ended(1, true), None, now);
    assert_eq!(book.record(&worker()), None);
    book.told(&worker(), half_open, 1, now);
    book.hear_canary(&worker(), ended(2, true), None, now);
    let writes = book.due(now, 1_000, |_| true);
    let [Write::Put { record, .. }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(record.successes, 1);
}

#[derive(Debug, Clone)]
enum Step {
    /// A manager hears of a run; the rest of them will, some time.
    Hear(usize, usize),
    /// A manager is told the latest or an older record.
    Watch(usize, usize),
    /// A manager thinks that it is the owner, and decides what to write.
    Decide(usize),
    /// What it decided reaches the bucket.
    Write(usize),
    /// A manager dies and starts again with what the bucket has.
    Restart(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let manager = 0usize..3;
    prop_oneof![
        6 => (manager.clone(), 0usize..24).prop_map(|(manager, event)| Step::Hear(manager, event)),
        2 => (manager.clone(), 0usize..8).prop_map(|(manager, back)| Step::Watch(manager, back)),
        3 => manager.clone().prop_map(Step::Decide),
        3 => manager.clone().prop_map(Step::Write),
        1 => manager.prop_map(Step::Restart),
        2 => (0u64..40_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..Default::default() })]

    /// Whoever hears what when, and whoever writes: in the end all managers know the same record, it is the one in KV, and
    /// it holds every run exactly once.
    #[test]
    fn all_managers_agree(
        successes in proptest::collection::vec(any::<bool>(), 24),
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let mut kv = Kv::default();
        let mut managers = [book(), book(), book()];
        let mut decided: [Vec<Write>; 3] = Default::default();
        let (mut now, mut now_ms) = (Instant::now(), 1_000);
        let event = |number: usize| ended(number as u128, successes[number]);
        for step in steps {
            match step {
                Step::Hear(manager, number) => managers[manager].hear(&worker(), event(number), None, now),
                Step::Watch(manager, back) => {
                    let revision = kv.told.len().saturating_sub(back);
                    if revision > 0 {
                        managers[manager].told(&worker(), kv.told[revision - 1].clone(), revision as u64, now);
                    }
                }
                Step::Decide(manager) => decided[manager].extend(managers[manager].due(now, now_ms, |_| true)),
                Step::Write(manager) => {
                    if let Some(write) = decided[manager].pop() {
                        kv.carry_out(&mut managers[manager], write, now);
                    }
                }
                Step::Restart(manager) => {
                    managers[manager] = book();
                    decided[manager].clear();
                    if let Some(record) = kv.told.last() {
                        managers[manager].told(&worker(), record.clone(), kv.told.len() as u64, now);
                    }
                }
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    now_ms += ms;
                }
            }
        }
        // The world turns fair: everybody hears everything, and what is due is written.
        for (manager, decided) in managers.iter_mut().zip(&mut decided) {
            decided.drain(..).for_each(|write| kv.carry_out(manager, write, now));
            (0..24).for_each(|number| manager.hear(&worker(), event(number), None, now));
        }
        for round in 0..20 {
            now += LAZY;
            let manager = &mut managers[round % 3];
            for write in manager.due(now, now_ms, |_| true) {
                kv.carry_out(manager, write, now);
            }
            if let Some(record) = kv.told.last() {
                let revision = kv.told.len() as u64;
                managers.iter_mut().for_each(|manager| manager.told(&worker(), record.clone(), revision, now));
            }
        }
        let last = kv.told.last().expect("there was something to write");
        for manager in &managers {
            prop_assert_eq!(manager.record(&worker()), Some(last));
        }
        let mut runs: Vec<RunId> = last.window.iter().map(|entry| entry.run).collect();
        runs.sort();
        let all: Vec<RunId> = (0..24).map(RunId::from_u128).collect();
        // A window that is full of successes is not written for one more.
        let healthy = is_full_of_successes(last, &CircuitBreakerConfig::default());
        prop_assert!(runs == all || healthy, "{runs:?}");
    }
}
