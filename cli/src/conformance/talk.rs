//! A conversation with a program under test: requests out, answers back to their requests, and what is odd about them.
//!
//! A program that breaks one rule shall fail one check. So what can still be understood is: an answer under an id that
//! nobody gave is taken for the oldest open request, noise is skipped. Both are written down ([`Seen`]) for the checks that
//! are about them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chorus_protocol::{Envelope, MessageId, MessageType};
use chorus_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::message::{Dialect, Message};
use super::report::{Trouble, not_applicable, unmet};
use super::wire::{Heard, Program, Wire};

/// A request that is answered by nothing but progress is given up after so many times its patience.
const PATIENCES: u32 = 20;
/// Oddities of each kind that are kept.
const KEPT: usize = 8;

/// What was odd, over all conversations with one program.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Oddities>>);

/// See [`Seen`].
#[derive(Debug, Default)]
pub struct Oddities {
    /// What was no message.
    pub noise: Vec<String>,
    /// Answers that do not say, or say wrongly, what they answer.
    pub correlation: Vec<String>,
    /// Messages without their end, frames that are none.
    pub framing: Vec<String>,
}

impl Seen {
    /// What is known so far.
    pub fn look(&self) -> MutexGuard<'_, Oddities> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(list: &mut Vec<String>, what: String) {
    if list.len() < KEPT {
        list.push(what);
    }
}

/// A request whose answer is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its id; in 1.0 only its place counts.
    pub id: MessageId,
    /// Whether it may stay without an answer (a line that is no request).
    pub optional: bool,
}

/// What came of requests.
#[derive(Debug, Default)]
pub struct Answers {
    /// By request.
    pub by_id: HashMap<MessageId, Message>,
    /// What came in between.
    pub events: Vec<Message>,
    /// Errors that name no request.
    pub nameless: Vec<Message>,
}

/// See the module.
pub struct Talk {
    /// The program.
    pub wire: Wire,
    /// How it is spoken to.
    pub dialect: Dialect,
    seen: Seen,
    known: HashSet<MessageId>,
    answered: HashSet<MessageId>,
    ids: u32,
    heard_any: bool,
    last_heard: Instant,
    longest_silence: Duration,
}

impl Talk {
    /// Starts a program, to be spoken to in frames on its own descriptors or in lines on its standard streams.
    ///
    /// # Errors
    /// A rule unmet when it cannot be started.
    pub fn start(program: &Program, dialect: Dialect, seen: Seen) -> Result<Self, Trouble> {
        let wire = Wire::start(program, dialect == Dialect::Frames);
        let wire = wire.map_err(|error| unmet("a program that can be started", error.to_string()))?;
        Ok(Self {
            wire,
            dialect,
            seen,
            known: HashSet::new(),
            answered: HashSet::new(),
            ids: 0,
            heard_any: false,
            last_heard: Instant::now(),
            longest_silence: Duration::ZERO,
        })
    }

    /// Whether anything at all has come that was a message.
    pub fn heard_any(&self) -> bool {
        self.heard_any
    }

    /// An id that was not used yet.
    pub fn fresh_id(&mut self) -> MessageId {
        self.ids += 1;
        MessageId::new(format!("check-{}", self.ids)).unwrap_or_else(|_cannot_be| MessageId::fresh())
    }

    /// Asks. `payload` holds the method, unless it is a bare request to speak.
    pub fn ask(&mut self, payload: Value) -> Open {
        let id = self.fresh_id();
        self.ask_as(&id, payload, &Map::new());
        Open { id, optional: false }
    }

    /// Asks under an id, with more fields in the envelope (in 1.0, beside the others).
    pub fn ask_as(&mut self, id: &MessageId, payload: Value, more: &Map<String, Value>) {
        self.known.insert(id.clone());
        let bytes = self.encoded(id, MessageType::Request, payload, more);
        self.wire.send(bytes);
    }

    /// Tells something that has no answer.
    pub fn tell(&mut self, payload: Value) {
        let id = self.fresh_id();
        let bytes = self.encoded(&id, MessageType::Event, payload, &Map::new());
        self.wire.send(bytes);
    }

    /// Sends what is no request, as one line or one frame.
    pub fn send_raw(&mut self, body: &[u8]) -> Open {
        let id = self.fresh_id();
        self.wire.send(ended(self.dialect, body.to_vec()));
        Open { id, optional: true }
    }

    fn encoded(
        &self,
        id: &MessageId,
        kind: MessageType,
        payload: Value,
        more: &Map<String, Value>,
    ) -> Vec<u8> {
        let mut whole = if self.dialect == Dialect::Bare {
            let mut line = Map::new();
            line.insert("type".into(), "request".into());
            line.extend(payload.as_object().cloned().unwrap_or_default());
            line
        } else {
            let mut envelope =
                Envelope::request(payload, SystemClock.unix_ms()).in_version(self.dialect.version());
            (envelope.message_id, envelope.message_type) = (id.clone(), kind);
            match serde_json::to_value(&envelope) {
                Ok(Value::Object(fields)) => fields,
                _ => Map::new(),
            }
        };
        whole.extend(more.clone());
        let body = if self.dialect == Dialect::Frames {
            rmp_serde::to_vec_named(&whole).unwrap_or_default()
        } else {
            Value::Object(whole).to_string().into_bytes()
        };
        ended(self.dialect, body)
    }

    /// Waits for one answer, pinging meanwhile as a worker does; the longest silence before it.
    pub async fn silence_before(
        &mut self,
        open: &Open,
        ping_every: Duration,
        within: Duration,
    ) -> Result<Duration, Trouble> {
        (self.last_heard, self.longest_silence) = (Instant::now(), Duration::ZERO);
        let until = Instant::now() + within * PATIENCES;
        loop {
            let gathering = self.gather(std::slice::from_ref(open), within);
            if let Ok(answers) = tokio::time::timeout(ping_every, gathering).await {
                return answers.map(|_spoken| self.longest_silence);
            }
            if self.last_heard.elapsed() > within || Instant::now() > until {
                return Err(self.silent("an answer", within));
            }
            let _pong_of_no_matter = self.ask(serde_json::json!({"method": "ping"}));
        }
    }

    /// Asks and waits for the answer.
    pub async fn answer(&mut self, payload: Value, within: Duration) -> Result<Message, Trouble> {
        let what = payload.get("method").and_then(Value::as_str).unwrap_or("the request").to_owned();
        let open = self.ask(payload);
        let mut answers = self.gather(std::slice::from_ref(&open), within).await?;
        answers.by_id.remove(&open.id).ok_or_else(|| unmet(format!("an answer to {what}"), "none"))
    }

    /// Whether it is still there: any answer to a ping will do.
    pub async fn alive(&mut self, within: Duration) -> Result<(), Trouble> {
        let ping = serde_json::json!({"method": "ping"});
        self.answer(ping, within).await.map(|_pong| ())
    }

    /// Reads until all that must be is answered. Whatever comes gives it `within` anew.
    pub async fn gather(&mut self, open: &[Open], within: Duration) -> Result<Answers, Trouble> {
        let mut left: Vec<Open> = open.to_vec();
        let mut answers = Answers::default();
        let last_of_all = Instant::now() + within * PATIENCES;
        while left.iter().any(|open| !open.optional) {
            let until = (Instant::now() + within).min(last_of_all);
            let Some(message) = self.next(until).await? else {
                let missing = left.iter().filter(|open| !open.optional).count();
                return Err(self.silent(&format!("{missing} of {} answers", open.len()), within));
            };
            self.take(message, &mut left, &mut answers);
        }
        Ok(answers)
    }

    /// The next message; `None` when none comes in time.
    ///
    /// # Errors
    /// When the conversation is over.
    pub async fn next(&mut self, until: Instant) -> Result<Option<Message>, Trouble> {
        loop {
            match self.wire.hear(until).await {
                None => return Ok(None),
                Some(Heard::Message(message)) => {
                    self.heard_any = true;
                    let now = Instant::now();
                    self.longest_silence = self.longest_silence.max(now.duration_since(self.last_heard));
                    self.last_heard = now;
                    return Ok(Some(message));
                }
                Some(Heard::Noise(noise)) => keep(&mut self.seen.look().noise, noise),
                Some(Heard::Broken(why)) => {
                    keep(&mut self.seen.look().framing, why);
                    return Err(not_applicable("the stream broke: see framing"));
                }
                Some(Heard::End) => return Err(self.over().await),
            }
        }
    }

    /// What a message is to requests that are open.
    fn take(&mut self, message: Message, left: &mut Vec<Open>, answers: &mut Answers) {
        let odd = |what: String| keep(&mut self.seen.look().correlation, what);
        if message.kind == MessageType::Event {
            if message.to.as_ref().is_some_and(|to| !self.known.contains(to)) {
                odd(format!("an event of a request that was never made: {}", message.shown()));
            }
            return answers.events.push(message);
        }
        let at = match &message.to {
            Some(to) => match left.iter().position(|open| open.id == *to) {
                Some(at) => Some(at),
                None if self.answered.contains(to) => {
                    return odd(format!("a second answer to one request: {}", message.shown()));
                }
                None if self.known.contains(to) => None,
                None => {
                    odd(format!("an answer to a request that was never made: {}", message.shown()));
                    left.iter().position(|open| !open.optional)
                }
            },
            None if message.bare => {
                // In order; what may stay unanswered can only have failed.
                if !message.failed() {
                    left.retain(|open| !open.optional);
                }
                (!left.is_empty()).then_some(0)
            }
            None if message.kind == MessageType::Error => return answers.nameless.push(message),
            None => {
                odd(format!("an answer that names no request: {}", message.shown()));
                left.iter().position(|open| !open.optional)
            }
        };
        let Some(at) = at else { return };
        let open = left.remove(at);
        self.answered.insert(open.id.clone());
        answers.by_id.insert(open.id, message);
    }

    /// The trouble of nothing coming in time.
    pub fn silent(&self, expected: &str, within: Duration) -> Trouble {
        match self.wire.unfinished() {
            Some(unfinished) => {
                keep(&mut self.seen.look().framing, unfinished);
                not_applicable("nothing whole came: see framing")
            }
            None => unmet(expected, format!("nothing for {} s", within.as_secs_f64())),
        }
    }

    async fn over(&mut self) -> Trouble {
        let (_, exit) = self.wire.ended(Duration::from_secs(1)).await;
        let how = exit.map_or_else(|| "closed its stream".to_owned(), |exit| format!("ended ({exit})"));
        let words = self.wire.last_words();
        let words = if words.is_empty() { words } else { format!("; it last said: {words}") };
        unmet("the program goes on", format!("it {how}{words}"))
    }

    /// Writes down what came when nothing was asked any more.
    pub fn aftermath(&mut self, heard: Vec<Heard>) {
        let (mut left, mut answers) = (Vec::new(), Answers::default());
        for one in heard {
            match one {
                Heard::Message(message) => self.take(message, &mut left, &mut answers),
                Heard::Noise(noise) => keep(&mut self.seen.look().noise, noise),
                Heard::Broken(why) => keep(&mut self.seen.look().framing, why),
                Heard::End => {}
            }
        }
    }
}

/// A body with what ends or begins it on the wire.
fn ended(dialect: Dialect, mut body: Vec<u8>) -> Vec<u8> {
    if dialect == Dialect::Frames {
        return [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    }
    body.push(b'\n');
    body
}
