//! Questions to a session: each ends in one event for the run, answered or not.

use std::time::Duration;

use chorus_bus::{Bus, RequestError, RequestErrorKind};
use chorus_protocol::Envelope;
use chorus_protocol::job::{RunChunk, RunResult, Started};
use chorus_runtime::clock::SharedClock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::run::{Event, Unanswered};

/// A question and where it goes.
pub(super) enum Question {
    /// Go, or stop?
    Started { subject: String, question: Started },
    /// A piece of audio; may more come?
    Chunk { subject: String, question: RunChunk },
    /// Does it count?
    Result { subject: String, question: Box<RunResult> },
}

/// Asks, and waits `within` for the answer.
pub(super) async fn ask(
    bus: Bus,
    clock: SharedClock,
    question: Question,
    traceparent: Option<String>,
    within: Duration,
) -> Event {
    let asker = Asker { bus, now_ms: clock.unix_ms(), traceparent, within };
    match question {
        Question::Started { subject, question } => Event::Started(asker.ask(&subject, question).await),
        Question::Chunk { subject, question } => {
            let seq = question.seq;
            Event::Granted { seq, answer: asker.ask(&subject, question).await }
        }
        Question::Result { subject, question } => Event::Judged(asker.ask(&subject, *question).await),
    }
}

struct Asker {
    bus: Bus,
    now_ms: u64,
    traceparent: Option<String>,
    within: Duration,
}

impl Asker {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        self,
        subject: &str,
        question: Q,
    ) -> Result<A, Unanswered> {
        let envelope = Envelope::request(question, self.now_ms).traced(self.traceparent);
        self.bus.request(subject, &envelope, self.within).await.map_err(|error| unanswered(subject, &error))
    }
}

/// A session that refuses or talks nonsense is as good as one that does not answer: none of it is a verdict.
fn unanswered(subject: &str, error: &RequestError) -> Unanswered {
    match error.kind {
        RequestErrorKind::NoResponders | RequestErrorKind::Timeout | RequestErrorKind::Disconnected => {
            tracing::debug!(subject, %error, "a session did not answer");
        }
        RequestErrorKind::TooLarge | RequestErrorKind::Refused(_) | RequestErrorKind::Malformed => {
            tracing::warn!(subject, %error, "a session could not answer");
        }
    }
    Unanswered
}
