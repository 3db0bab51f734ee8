//! The arbiter in a world that loses, doubles, delays and reorders whatever it can.
//!
//! A script of random bytes drives the world; then the world turns fair (nothing is lost any more) and the session must
//! come to an end. Whatever happened, the listener has heard each segment at most once, whole, in order, from one run.

mod ends;
mod faults;
mod hurry;
mod losses;
mod retries;
mod takes;
mod unspeakable;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chorus_protocol::job::*;
use chorus_protocol::plan::*;
use chorus_protocol::*;
use proptest::prelude::*;

use super::*;

mod poison;

const CHUNKS: u32 = 3;

#[derive(Clone)]
enum ToSession {
    Opened(SessionId, Box<Opened>),
    OpenLost(SessionId),
    Advanced(Box<Advanced>),
    AdvanceLost,
    Started(usize),
    Chunk(usize, u32),
    Result(usize, bool),
    Lost(usize),
    Fetched(SessionId, Fetch),
}

struct SimRun {
    reference: RunRef,
    deliveries: u64,
    worker: WorkerId,
    incarnation: Incarnation,
    tag: u8,
    sent: u32,
    over: bool,
}

struct World {
    now: Instant,
    session: Session,
    segments: u32,
    queue: Vec<(JobId, u64)>,
    next_seq: u64,
    mail: Vec<ToSession>,
    runs: Vec<SimRun>,
    heard: Vec<AudioPiece>,
    accepted: HashMap<(SessionId, u32), RunId>,
    ended: Option<SynthesisResult>,
    buried: Vec<DeadLetter>,
    unread: u32,
    /// Two bits for each segment: whether its take is stored, and whether what is there is any good.
    cache: u32,
}

fn request(segments: u32) -> SynthesisRequest {
    SynthesisRequest { text: "x".repeat(segments as usize), deadline_ms: Some(20_000), ..Default::default() }
}

impl World {
    fn new(segments: u32) -> Self {
        Self::with_cache(segments, 0)
    }

    fn with_cache(segments: u32, cache: u32) -> Self {
        Self::begun(segments, cache, false)
    }

    fn begun(segments: u32, cache: u32, more_to_come: bool) -> Self {
        let now = Instant::now();
        let start = SessionStart {
            process_inbox: "_INBOX.test".into(),
            request_id: MessageId::new("r").unwrap(),
            request: request(segments),
            whole_reply_deadline: false,
            more_to_come,
        };
        let config = SessionHostConfig { window: 3, ..Default::default() };
        let mut world = Self {
            now,
            session: Session::start(start, config, now),
            segments,
            queue: Vec::new(),
            next_seq: 1,
            mail: Vec::new(),
            runs: Vec::new(),
            heard: Vec::new(),
            accepted: HashMap::new(),
            ended: None,
            buried: Vec::new(),
            unread: 0,
            cache,
        };
        world.carry_out();
        world
    }

    fn publish(&mut self, job: JobId) -> Disposition {
        let seq = match self.queue.iter().find(|(id, _)| *id == job) {
            Some((_, seq)) => *seq,
            None => {
                self.next_seq += 1;
                self.queue.push((job, self.next_seq));
                self.next_seq
            }
        };
        Disposition::Queued { attempt: job.attempt, seq }
    }

    fn page(&mut self, session: SessionId, first: u32, text: &str, complete: bool, window: u32) -> PlanPage {
        let count = window.min(text.len() as u32);
        let segments = (first..first + count).map(|index| PlannedSegment {
            index,
            text: "x".into(),
            pause_after_ms: 0,
            manner: None,
            class: JobClass::Normal,
            end_bytes: (index - first + 1) as usize,
            disposition: self
                .find(index)
                .unwrap_or_else(|| self.publish(JobId { session, segment: index, attempt: 1 })),
        });
        let segments = segments.collect();
        let all = count as usize == text.len();
        PlanPage { segments, consumed_bytes: count as usize, complete: all && complete, warnings: vec![] }
    }

    fn carry_out(&mut self) {
        for action in self.session.take_actions() {
            assert!(self.ended.is_none(), "nothing follows the end: {action:?}");
            match action {
                Action::Open(open) => {
                    let page =
                        self.page(open.session, 0, &open.request.text, open.text_complete, open.window);
                    let speech = Speech {
                        model: ModelName::new("m").unwrap(),
                        voice: None,
                        speaker_clip: None,
                        language: None,
                        speed: None,
                        pitch: None,
                        seed: None,
                        volume: None,
                        priority: Priority::Normal,
                        fresh: false,
                        input_type: None,
                    };
                    let opened = Opened {
                        manager: ManagerId::new("m").unwrap(),
                        speech,
                        deadline_ms: 20_000,
                        attempt_timeout_ms: 1_000,
                        finish: false,
                        text: None,
                        ready_workers: 1,
                        page,
                    };
                    self.mail.push(ToSession::Opened(open.session, Box::new(opened)));
                }
                Action::Advance(ask) => {
                    let page =
                        self.page(ask.session, ask.next_segment, &ask.text, ask.text_complete, ask.window);
                    let retries = ask.retries.iter().map(|retry| {
                        let job =
                            JobId { session: ask.session, segment: retry.segment, attempt: retry.attempt };
                        RetryAnswer { segment: retry.segment, disposition: self.publish(job) }
                    });
                    let retries = retries.collect();
                    let lookups = ask.lookups.iter().map(|l| LookupAnswer {
                        segment: l.segment,
                        attempt: l.attempt,
                        present: self.queue.iter().any(|(_, seq)| *seq == l.seq),
                    });
                    let lookups = lookups.collect();
                    self.mail.push(ToSession::Advanced(Box::new(Advanced {
                        page,
                        ready_workers: 1,
                        retries,
                        lookups,
                    })));
                }
                Action::Audio(piece) => {
                    self.unread += 1;
                    self.heard.push(piece);
                }
                Action::Fetch(fetch) => self.mail.push(ToSession::Fetched(self.session.id(), fetch)),
                Action::End(result) => self.ended = Some(*result),
                Action::Finish(_) | Action::Cancel(_) | Action::Accepted(..) => {}
                Action::Bury(letter) => self.buried.push(*letter),
            }
        }
    }

    fn pull(&mut self, pick: usize, redeliver: bool) {
        if self.queue.is_empty() {
            return;
        }
        let (job, _) = self.queue[pick % self.queue.len()];
        let before = self.runs.iter().filter(|r| r.reference.job() == job).count() as u64;
        if before > 0 && !redeliver {
            return;
        }
        let number = self.runs.len();
        self.runs.push(SimRun {
            reference: RunRef {
                session: job.session,
                segment: job.segment,
                attempt: job.attempt,
                run: RunId::from_u128(number as u128),
            },
            deliveries: before + 1,
            worker: WorkerId::new(format!("w{}", number % 2)).unwrap(),
            incarnation: Incarnation::from_u128(number as u128),
            tag: number as u8,
            sent: 0,
            over: false,
        });
        self.mail.push(ToSession::Started(number));
    }

    /// A run goes one step on: a chunk, or its result.
    fn step(&mut self, pick: usize, fail: bool) {
        let live: Vec<usize> = (0..self.runs.len()).filter(|&i| !self.runs[i].over).collect();
        if live.is_empty() {
            return;
        }
        let number = live[pick % live.len()];
        let run = &mut self.runs[number];
        if fail || run.sent == CHUNKS - 1 {
            run.over = true;
            self.mail.push(ToSession::Result(number, fail));
        } else {
            self.mail.push(ToSession::Chunk(number, run.sent));
            run.sent += 1;
        }
    }

    // Soft at both ends, so that no joint changes it.
    fn data(&self, number: usize, chunk: u32) -> Vec<u8> {
        vec![self.runs[number].reference.segment as u8, 0, self.runs[number].tag, chunk as u8, 1, 0]
    }

    fn deliver(&mut self, message: ToSession) {
        let now = self.now;
        match message {
            ToSession::Opened(id, opened) if id == self.session.id() => {
                self.session.on_opened(Ok(*opened), now)
            }
            ToSession::OpenLost(id) if id == self.session.id() => {
                self.session.on_opened(Err(ServiceError::new(Reason::NoManager, "lost")), now);
            }
            ToSession::Opened(..) | ToSession::OpenLost(_) => {}
            ToSession::Advanced(advanced) => self.session.on_advanced(Ok(*advanced), now),
            ToSession::AdvanceLost => {
                self.session.on_advanced(Err(ServiceError::new(Reason::NoManager, "lost")), now)
            }
            ToSession::Started(number) => self.deliver_started(number),
            ToSession::Chunk(number, seq) => {
                let data = AudioData::from(self.data(number, seq));
                let run = self.runs[number].reference.clone();
                self.session.on_chunk(RunChunk { run, seq, data }, now);
            }
            ToSession::Result(number, failed) => self.deliver_result(number, failed),
            ToSession::Fetched(id, fetch) if id == self.session.id() => self.deliver_fetched(&fetch),
            ToSession::Fetched(..) => {}
            ToSession::Lost(number) => {
                let run = &self.runs[number];
                let (worker, incarnation) = (run.worker.clone(), run.incarnation);
                self.session.on_worker_lost(&worker, incarnation, now);
            }
        }
        self.carry_out();
    }

    /// Acks and terminations act on the job, whichever delivery they come from: a zombie's takes its successor's job.
    fn terminate(&mut self, job: JobId) {
        self.queue.retain(|(id, _)| *id != job);
    }

    fn deliver_started(&mut self, number: usize) {
        let run = &self.runs[number];
        let started = Started {
            run: run.reference.clone(),
            worker: run.worker.clone(),
            incarnation: run.incarnation,
            deliveries: run.deliveries,
            overlapped: true,
        };
        if let StartedAnswer::Stop { .. } = self.session.on_started(&started, self.now) {
            self.runs[number].over = true;
            self.terminate(started.run.job());
        }
    }

    fn deliver_result(&mut self, number: usize, failed: bool) {
        let run = &self.runs[number];
        let (reference, worker) = (run.reference.clone(), run.worker.clone());
        let outcome = if failed {
            RunOutcome::Failed(Failed {
                error: ServiceError::new(Reason::EngineCrashed, "crash"),
                stderr: vec![],
            })
        } else {
            let whole: Vec<u8> = (0..CHUNKS).flat_map(|c| self.data(number, c)).collect();
            RunOutcome::Spoken(Spoken {
                data: AudioData::from(self.data(number, CHUNKS - 1)),
                chunks: CHUNKS,
                samples: whole.len() as u64 / 2,
                sample_rate: 16_000,
                crc32: crc32fast::hash(&whole),
                engine_ms: 1.0,
                warnings: vec![],
            })
        };
        match self.session.on_result(RunResult { run: reference.clone(), worker, outcome }, self.now) {
            ResultAnswer::Accepted if !failed => {
                let key = (reference.session, reference.segment);
                let first = *self.accepted.entry(key).or_insert(reference.run);
                assert_eq!(first, reference.run, "two accepted runs of segment {}", reference.segment);
                self.terminate(reference.job());
            }
            ResultAnswer::Accepted | ResultAnswer::Stale { .. } => self.terminate(reference.job()),
            ResultAnswer::Resend { from } => {
                for chunk in from..CHUNKS - 1 {
                    self.mail.push(ToSession::Chunk(number, chunk));
                }
                self.mail.push(ToSession::Result(number, false));
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.session.on_tick(self.now);
        self.carry_out();
    }

    fn listen(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        self.session.on_taken(unread, self.now);
        self.carry_out();
    }

    fn act(&mut self, what: u8, pick: usize) {
        match what % 12 {
            0 => self.pull(pick, false),
            1 => self.pull(pick, true),
            2 | 3 => self.step(pick, false),
            4 => self.step(pick, true),
            5 if !self.mail.is_empty() => {
                // Lost: an answer of a manager becomes silence, anything else is just gone.
                let at = pick % self.mail.len();
                match self.mail.remove(at) {
                    ToSession::Opened(id, _) => self.mail.push(ToSession::OpenLost(id)),
                    ToSession::Advanced(_) => self.mail.push(ToSession::AdvanceLost),
                    _ => {}
                }
            }
            6 if !self.mail.is_empty() => {
                let message = self.mail[pick % self.mail.len()].clone();
                if !matches!(message, ToSession::Advanced(_) | ToSession::AdvanceLost) {
                    self.deliver(message);
                }
            }
            7 => self.pass(pick as u64 * 7 % 2_500),
            8 => self.listen(),
            9 if !self.runs.is_empty() => self.mail.push(ToSession::Lost(pick % self.runs.len())),
            10 if !self.queue.is_empty() => {
                self.queue.remove(pick % self.queue.len());
            }
            _ if !self.mail.is_empty() => {
                let message = self.mail.remove(pick % self.mail.len());
                self.deliver(message);
            }
            _ => {}
        }
    }

    /// Nothing is lost any more: every job is pulled anew and spoken, every message arrives, time goes on.
    fn turn_fair(&mut self) {
        for run in &mut self.runs {
            run.over = true;
        }
        for _ in 0..4_000 {
            if self.ended.is_some() {
                return;
            }
            if !self.mail.is_empty() {
                let message = self.mail.remove(0);
                self.deliver(message);
                continue;
            }
            self.listen();
            if !self.mail.is_empty() {
                continue;
            }
            if self.runs.iter().all(|r| r.over) {
                let unpulled = self.queue.iter().position(|(id, _)| id.session == self.session.id());
                if let Some(at) = unpulled {
                    self.pull(at, true);
                    continue;
                }
            }
            if self.runs.iter().any(|r| !r.over) {
                self.step(0, false);
                continue;
            }
            let timer = self.session.timer().expect("a session that has not ended has a timer");
            self.now = self.now.max(timer);
            self.pass(1);
        }
        panic!("stuck: {:?}", self.session);
    }

    fn check(&self) {
        for (place, piece) in self.heard.iter().enumerate() {
            assert_eq!(piece.segment as usize, place, "in order, none twice");
            let tag = piece.pcm[2];
            let whole: Vec<u8> = (0..CHUNKS as u8).flat_map(|c| [place as u8, 0, tag, c, 1, 0]).collect();
            assert_eq!(piece.pcm.as_ref(), whole, "whole, and from one run");
        }
        let result = self.ended.as_ref().expect("it has ended");
        if result.success {
            assert_eq!(self.heard.len(), self.segments as usize, "a success has every segment");
        } else {
            assert!(result.error.is_some());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..Default::default() })]
    #[test]
    fn whatever_happens_each_segment_is_heard_once_and_the_session_ends(
        segments in 1u32..8,
        script in proptest::collection::vec((any::<u8>(), 0usize..64), 0..160),
        cache in prop_oneof![Just(0u32), any::<u32>()],
    ) {
        let mut world = World::with_cache(segments, cache);
        for (what, pick) in script {
            if world.ended.is_some() {
                break;
            }
            world.act(what, pick);
        }
        world.turn_fair();
        world.check();
    }
}

#[test]
fn in_a_fair_world_everything_is_spoken_in_order() {
    let mut world = World::new(7);
    world.turn_fair();
    world.check();
    let result = world.ended.unwrap();
    assert!(result.success);
    let metadata = result.metadata.unwrap();
    assert_eq!((metadata.segments, metadata.retries), (7, 0));
}

#[test]
fn a_listener_that_stops_reading_stops_the_asking() {
    let mut world = World::new(40);
    for _ in 0..200 {
        if world.mail.is_empty() {
            world.pull(0, false);
            world.step(0, false);
        } else {
            let message = world.mail.remove(0);
            world.deliver(message);
        }
    }
    assert_eq!(world.heard.len(), 2, "the window of a listener who has taken nothing, and not one more");
    assert!(world.queue.is_empty());
}

#[test]
fn a_deadline_without_a_worker_says_so() {
    let mut world = World::new(1);
    let ToSession::Opened(id, mut opened) = world.mail.remove(0) else { panic!() };
    opened.ready_workers = 0;
    world.deliver(ToSession::Opened(id, opened));
    world.pass(20_000);
    let error = world.ended.unwrap().error.unwrap();
    assert_eq!(error.reason(), Some(Reason::NoWorker));
    assert!(error.retryable);
}
