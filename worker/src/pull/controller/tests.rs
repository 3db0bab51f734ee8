//! The controller against a model of the broker that loses, refuses and reconnects.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn model(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

fn queue(name: &str, class: JobClass) -> Queue {
    Queue { model: model(name), class }
}

fn controller(credits: u32, models: &[&str]) -> Controller {
    let mut controller = Controller::new(Settings::default());
    controller.set_models(models.iter().map(|name| model(name)));
    controller.set_credits(credits);
    controller.set_open(true);
    controller
}

/// Answers every probe with "empty" until the controller asks no more; the pulls that were made.
fn settle(controller: &mut Controller, now: Instant) -> Vec<Pull> {
    let mut made = Vec::new();
    loop {
        let pulls = controller.next_pulls(now);
        if pulls.is_empty() {
            return made;
        }
        for pull in &pulls {
            if pull.wait.is_none() {
                controller.ended(pull.id, End::Empty, now);
            }
        }
        made.extend(pulls);
    }
}

#[test]
fn an_idle_worker_stands_at_every_queue_and_gets_its_job_in_one_delivery() {
    let now = Instant::now();
    let mut controller = controller(1, &["a"]);
    let made = settle(&mut controller, now);
    let probes: Vec<_> =
        made.iter().filter(|pull| pull.wait.is_none()).map(|pull| pull.queue.class).collect();
    assert_eq!(probes, JobClass::BY_URGENCY);
    let standing: Vec<_> = made.iter().filter(|pull| pull.wait.is_some()).collect();
    assert_eq!(standing.len(), 4);
    assert!(standing.iter().all(|pull| pull.batch == 1));
    assert_eq!(controller.job(standing[2].id), Arrival::Accept { fresh: true });
    assert!(settle(&mut controller, now).is_empty(), "nothing is pulled without a free slot");
    controller.released();
    let again = settle(&mut controller, now);
    let consumed = standing[2].queue.clone();
    assert!(again.iter().all(|pull| pull.queue == consumed), "only what is uncovered is looked at again");
    assert_eq!(again.len(), 2);
}

#[test]
fn a_standing_pull_that_delivers_to_a_busy_worker_is_handed_back() {
    let now = Instant::now();
    let mut controller = controller(1, &["a"]);
    let made = settle(&mut controller, now);
    let standing: Vec<_> = made.iter().filter(|pull| pull.wait.is_some()).map(|pull| pull.id).collect();
    assert_eq!(controller.job(standing[3]), Arrival::Accept { fresh: true });
    assert_eq!(controller.job(standing[0]), Arrival::NoRoom);
    controller.released();
    let classes: Vec<_> = settle(&mut controller, now).iter().map(|pull| pull.queue.class).collect();
    assert_eq!(classes, [JobClass::Urgent, JobClass::Low, JobClass::Urgent, JobClass::Low]);
}

#[test]
fn a_sweep_asks_for_as_many_as_there_are_slots_left() {
    let now = Instant::now();
    let mut controller = controller(3, &["a"]);
    let first = controller.next_pulls(now);
    assert_eq!((first[0].batch, first[0].queue.class), (3, JobClass::Urgent));
    assert_eq!(controller.job(first[0].id), Arrival::Accept { fresh: false });
    assert!(controller.next_pulls(now).is_empty(), "the probe may bring more");
    controller.ended(first[0].id, End::Expired, now);
    assert_eq!(controller.next_pulls(now)[0].batch, 2);
}

#[test]
fn a_standing_pull_is_renewed_without_another_look() {
    let now = Instant::now();
    let mut controller = controller(1, &["a"]);
    let made = settle(&mut controller, now);
    let standing = made.iter().find(|pull| pull.wait.is_some()).unwrap();
    controller.ended(standing.id, End::Expired, now);
    let renewed = controller.next_pulls(now);
    assert_eq!((renewed.len(), &renewed[0].queue), (1, &standing.queue));
    assert!(renewed[0].wait.is_some());
}

#[test]
fn a_queue_that_refuses_rests_ever_longer_and_others_do_not() {
    let mut now = Instant::now();
    let mut controller = controller(1, &["a"]);
    let settings = Settings::default();
    let mut rests = Vec::new();
    for _ in 0..8 {
        let probe = controller.next_pulls(now).remove(0);
        assert_eq!(probe.queue.class, JobClass::Urgent);
        controller.ended(probe.id, End::Refused, now);
        let others = settle(&mut controller, now);
        assert!(others.iter().all(|pull| pull.queue.class != JobClass::Urgent));
        // Meanwhile nothing else moves: what stands is taken away so that only the rest is seen.
        controller.pulls.clear();
        let rest = controller.queues[&queue("a", JobClass::Urgent)].not_before.unwrap() - now;
        rests.push(rest);
        now += rest;
        controller.sweeps = 0;
    }
    assert_eq!(rests[0], settings.first_backoff);
    assert!(rests.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(settings.longest_backoff)));
}

#[test]
fn an_answer_that_never_comes_is_given_up() {
    let now = Instant::now();
    let mut controller = controller(1, &["a"]);
    let probe = controller.next_pulls(now).remove(0);
    let late = controller.deadline().unwrap();
    assert!(controller.next_pulls(late - Duration::from_millis(1)).is_empty());
    assert_eq!(controller.next_pulls(late).len(), 1);
    // What comes of it after all is taken, but nothing is known of its age.
    assert_eq!(controller.job(probe.id), Arrival::Accept { fresh: false });
}

#[test]
fn closed_or_unserved_is_handed_back() {
    let now = Instant::now();
    let mut controller = controller(2, &["a"]);
    let probe = controller.next_pulls(now).remove(0);
    controller.set_models([model("b")]);
    assert_eq!(controller.job(probe.id), Arrival::NotServed);
    controller.set_open(false);
    assert_eq!(controller.job(probe.id), Arrival::NoRoom);
    assert!(controller.next_pulls(now).is_empty());
}

/// However full the other queues are, every queue is served within a bounded number of jobs.
#[test]
fn no_queue_starves() {
    let now = Instant::now();
    let models = ["a", "b", "c"];
    for starving in models.iter().flat_map(|name| JobClass::BY_URGENCY.map(|class| queue(name, class))) {
        let mut controller = controller(1, &models);
        let bound = 8 * AGEING.len() * models.len() + 8;
        let served = (0..bound).any(|_| {
            let pull = controller.next_pulls(now).remove(0);
            assert_eq!(controller.job(pull.id), Arrival::Accept { fresh: false });
            controller.released();
            pull.queue == starving
        });
        assert!(served, "{starving:?} is not served within {bound} jobs");
    }
}

/// A broker in a few lines: queues, and pulls that stand at them.
#[derive(Default)]
struct Broker {
    queues: BTreeMap<Queue, VecDeque<u32>>,
    pulls: Vec<Pull>,
    served: Vec<u32>,
    running: Vec<u32>,
}

impl Broker {
    fn ask(&mut self, controller: &mut Controller, now: Instant) {
        let pulls = controller.next_pulls(now);
        for pull in &pulls {
            assert!(pull.batch >= 1 && pull.batch <= controller.free());
            assert!(pull.wait.is_none() || pull.batch == 1);
            let same = |other: &&Pull| other.queue == pull.queue;
            let tracked = controller.pulls.values().filter(|open| open.queue == pull.queue).count();
            assert_eq!(tracked, 1, "two pulls at one queue: {:?}", self.pulls.iter().find(same));
        }
        self.pulls.extend(pulls);
    }

    /// Moves one pull on: a job, or its end.
    fn serve(&mut self, index: usize, credits: u32, controller: &mut Controller, now: Instant) {
        if self.pulls.is_empty() {
            return;
        }
        let index = index % self.pulls.len();
        let pull = &mut self.pulls[index];
        let (id, key, waits) = (pull.id, pull.queue.clone(), pull.wait.is_some());
        match self.queues.entry(key.clone()).or_default().pop_front() {
            Some(job) => {
                pull.batch -= 1;
                if pull.batch == 0 {
                    self.pulls.remove(index);
                }
                match controller.job(id) {
                    Arrival::Accept { .. } => {
                        self.running.push(job);
                        assert!(self.running.len() as u32 <= credits, "more jobs run than there are credits");
                    }
                    Arrival::NoRoom | Arrival::NotServed => {
                        self.queues.entry(key).or_default().push_front(job);
                    }
                }
            }
            None if !waits => {
                self.pulls.remove(index);
                controller.ended(id, End::Empty, now);
            }
            None => {}
        }
    }

    fn finish(&mut self, index: usize, controller: &mut Controller) {
        if !self.running.is_empty() {
            let job = self.running.remove(index % self.running.len());
            self.served.push(job);
            controller.released();
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Publish(u8, u8),
    Serve(usize),
    Finish(usize),
    Expire(usize),
    Refuse(usize),
    Lose(usize),
    Wait(u16),
    Gate(bool),
    Models(u8),
    Reconnect,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..2, 0u8..4).prop_map(|(model, class)| Op::Publish(model, class)),
        12 => any::<usize>().prop_map(Op::Serve),
        6 => any::<usize>().prop_map(Op::Finish),
        2 => any::<usize>().prop_map(Op::Expire),
        1 => any::<usize>().prop_map(Op::Refuse),
        1 => any::<usize>().prop_map(Op::Lose),
        2 => (0u16..3000).prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Gate),
        1 => (1u8..4).prop_map(Op::Models),
        1 => Just(Op::Reconnect),
    ]
}

fn set_models(controller: &mut Controller, bits: u8) {
    let names = ["a", "b"].iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
    controller.set_models(names.map(|(_, name)| model(name)));
}

proptest! {
    #[test]
    fn credits_hold_and_every_job_is_served_whatever_happens(
        credits in 1u32..5,
        ops in proptest::collection::vec(op(), 0..300),
    ) {
        let mut now = Instant::now();
        let mut controller = controller(credits, &["a", "b"]);
        let mut broker = Broker::default();
        let mut published = 0;
        for op in ops {
            let pick = |index: usize, broker: &mut Broker| {
                (!broker.pulls.is_empty()).then(|| broker.pulls.remove(index % broker.pulls.len()))
            };
            match op {
                Op::Publish(model, class) => {
                    let name = if model == 0 { "a" } else { "b" };
                    let key = queue(name, JobClass::BY_URGENCY[usize::from(class)]);
                    broker.queues.entry(key).or_default().push_back(published);
                    published += 1;
                }
                Op::Serve(index) => broker.serve(index, credits, &mut controller, now),
                Op::Finish(index) => broker.finish(index, &mut controller),
                Op::Expire(index) => if let Some(pull) = pick(index, &mut broker) {
                    controller.ended(pull.id, End::Expired, now);
                },
                Op::Refuse(index) => if let Some(pull) = pick(index, &mut broker) {
                    controller.ended(pull.id, End::Refused, now);
                },
                Op::Lose(index) => drop(pick(index, &mut broker)),
                Op::Wait(ms) => now += Duration::from_millis(ms.into()),
                Op::Gate(open) => controller.set_open(open),
                Op::Models(bits) => set_models(&mut controller, bits),
                Op::Reconnect => controller.reconnected(),
            }
            broker.ask(&mut controller, now);
        }
        // From here on all goes well: every job must be served, in a bounded number of steps.
        controller.set_open(true);
        set_models(&mut controller, 3);
        let mut steps = 0;
        while broker.served.len() < published as usize {
            steps += 1;
            prop_assert!(steps < 20_000, "stuck: {:?}", controller);
            broker.ask(&mut controller, now);
            broker.serve(steps, credits, &mut controller, now);
            broker.finish(steps, &mut controller);
            if steps % 8 == 0 {
                now = controller.deadline().map_or(now, |at| at.max(now));
            }
        }
        let mut served = broker.served.clone();
        served.sort_unstable();
        prop_assert!(served.into_iter().eq(0..published));
    }
}
