//! Jobs off the queue: raw pull requests whose answers all come to one inbox.
//!
//! A pull is a message to the server that names its own answer subject, `<inbox>.<id>`. What comes back is a job (on the
//! job's own subject, with the consumer's name in its ack subject) or a status (on the answer subject). [`Outstanding`]
//! keeps the account of pulls under way and is pure; this file sends, listens and keeps its timers.
//!
//! Every pull ends: with as many jobs as it asked for, with the server's status, or here, when the connection was lost,
//! the heartbeats of a long pull stay away, or the server has been silent for longer than the pull could last.

mod outstanding;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, StatusCode, Subject, Subscriber};
use chorus_protocol::{JobClass, ModelName, names};
use futures::StreamExt;
use tokio::sync::watch;

use self::outstanding::{Outstanding, Pull};
use crate::api;
use crate::bus::{Bus, bounded};
use crate::delivery::{Delivery, parse_ack_subject};
use crate::error::{BusError, BusErrorKind};
use crate::link::ConnectionState;

/// How often the server says that a long pull still waits. A server that was killed says nothing, and who leads the
/// consumer next knows nothing of the pull.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A long pull without a heartbeat for so long is lost.
const SILENCE: Duration = Duration::from_secs(3);
/// From here on a pull is long; a shorter one is over before its silence would tell anything.
const LONG_WAIT: Duration = Duration::from_secs(4);

/// How long a pull waits on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullWait {
    /// Not at all: what is there, now.
    NoWait,
    /// Until the jobs have come, so long at most.
    For(Duration),
}

/// A pull.
#[derive(Debug, Clone, Copy)]
pub struct PullRequest<'a> {
    /// The caller's name for it; unique among the pulls under way.
    pub id: u64,
    /// Whose jobs.
    pub model: &'a ModelName,
    /// Of which class.
    pub class: JobClass,
    /// How many jobs at most.
    pub batch: u32,
    /// How long it waits for them.
    pub wait: PullWait,
}

/// How a pull ended before all its jobs had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEnd {
    /// There was nothing (more) to fetch, and it was not to wait.
    Empty,
    /// Its time is over.
    Expired,
    /// The consumer was deleted: the model is gone, or [`Bus::ensure_consumers`] is needed.
    ConsumerGone,
    /// The server would not: too many pulls waiting, a change of leaders, …
    Conflict(String),
    /// Nobody answers (no such consumer, JetStream off), or the connection was lost.
    Unavailable,
}

/// What came of a pull.
#[derive(Debug)]
pub enum PullEvent {
    /// A job.
    Job {
        /// The pull that it answers.
        id: u64,
        /// The job.
        delivery: Delivery,
    },
    /// No further job will come of this pull. Not told of a pull that got all its jobs.
    Ended {
        /// The pull.
        id: u64,
        /// Why.
        why: PullEnd,
    },
}

/// Pulls jobs. Which of several pulls of one model and class under way at once a job answers is reckoned the way the
/// server serves them, in turn; with one at a time it is certain. A job may come for a pull that has ended already (it was
/// on its way when the connection broke): it carries the id of that queue's last pull.
pub struct Puller {
    bus: Bus,
    inbox: String,
    messages: Subscriber,
    connection: watch::Receiver<ConnectionState>,
    outstanding: Mutex<Outstanding>,
    /// Ends that were found together and are told one by one.
    ended: VecDeque<(u64, PullEnd)>,
}

impl Bus {
    /// A puller with an inbox of its own.
    ///
    /// # Errors
    /// `Disconnected` or `Timeout`.
    pub async fn puller(&self) -> Result<Puller, BusError> {
        let inner = &self.inner;
        inner.ready(inner.request_timeout).await?;
        let inbox = inner.client.new_inbox();
        let subscribing = inner.client.subscribe(format!("{inbox}.*"));
        let messages = match bounded(inner.request_timeout, subscribing).await {
            Some(Ok(messages)) => messages,
            Some(Err(error)) => {
                return Err(BusError::caused(BusErrorKind::Disconnected, "cannot listen for jobs", error));
            }
            None => {
                return Err(BusError::new(BusErrorKind::Timeout, "the connection takes no more messages"));
            }
        };
        Ok(Puller {
            bus: self.clone(),
            inbox,
            messages,
            connection: inner.link.subscribe(),
            outstanding: Mutex::default(),
            ended: VecDeque::new(),
        })
    }
}

impl Puller {
    /// Asks for jobs; they and the end of the pull come from [`Puller::next`].
    ///
    /// # Errors
    /// `Disconnected` (at once: [`Bus::connection_events`] tells when to ask again) or `Timeout`: the pull was not made,
    /// and no event will come of it.
    pub async fn pull(&self, request: PullRequest<'_>) -> Result<(), BusError> {
        let inner = &self.bus.inner;
        if !inner.is_connected() {
            return Err(inner.disconnected());
        }
        let batch = request.batch.max(1);
        let (body, longest) = match request.wait {
            PullWait::NoWait => (format!("{{\"batch\":{batch},\"no_wait\":true}}"), Duration::ZERO),
            PullWait::For(wait) if wait >= LONG_WAIT => {
                let (expires, heartbeat) = (wait.as_nanos(), HEARTBEAT.as_nanos());
                (format!("{{\"batch\":{batch},\"expires\":{expires},\"idle_heartbeat\":{heartbeat}}}"), wait)
            }
            PullWait::For(wait) => (format!("{{\"batch\":{batch},\"expires\":{}}}", wait.as_nanos()), wait),
        };
        let now = Instant::now();
        let last_end = now + longest + inner.request_timeout;
        let consumer = names::job_consumer(request.model, request.class);
        let subject = format!("{}.CONSUMER.MSG.NEXT.{}.{consumer}", api::PREFIX, names::JOBS_STREAM);
        let pull = Pull {
            id: request.id,
            remaining: batch,
            no_wait: request.wait == PullWait::NoWait,
            ends_at: if longest >= LONG_WAIT { last_end.min(now + SILENCE) } else { last_end },
            last_end,
            connection: inner.connects(),
        };
        self.account().opened(&consumer, request.model, pull);
        let reply = Subject::from(format!("{}.{}", self.inbox, request.id));
        let sent = inner.send(Subject::from(subject), Some(reply), body.into()).await;
        if sent.is_err() {
            self.account().ended(request.id);
        }
        sent
    }

    /// The next job or end of a pull; `None` when the connection was closed for good. Cancel-safe: nothing is lost when
    /// the future is dropped.
    pub async fn next(&mut self) -> Option<PullEvent> {
        loop {
            if let Some((id, why)) = self.ended.pop_front() {
                return Some(PullEvent::Ended { id, why });
            }
            let overdue = self.account().next_end();
            let overdue = async {
                match overdue {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.messages.next() => {
                    if let Some(event) = self.read(message?) {
                        return Some(event);
                    }
                }
                changed = self.connection.changed() => {
                    changed.ok()?;
                    self.end_lost();
                }
                () = overdue => self.end_overdue(),
            }
        }
    }

    fn account(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&mut self, message: Message) -> Option<PullEvent> {
        if let Some(status) = message.status.filter(|status| *status != StatusCode::OK) {
            return self.read_status(status, &message);
        }
        let ack_to = message.reply.clone()?;
        let Some(ack) = parse_ack_subject(&ack_to) else {
            tracing::warn!(subject = %message.subject, "a message on the pull inbox that is no job");
            return None;
        };
        let id = self.account().delivered(ack.consumer);
        let (deliveries, seq) = (ack.deliveries, ack.seq);
        let delivery = Delivery::new(self.bus.clone(), message, ack_to, deliveries, seq);
        // Without a consumer of ours nobody waits for it: dropping it gives it back.
        id.map(|id| PullEvent::Job { id, delivery })
    }

    fn read_status(&mut self, status: StatusCode, message: &Message) -> Option<PullEvent> {
        let id = message.subject.rsplit('.').next()?.parse().ok()?;
        let description = message.description.as_deref().unwrap_or_default();
        if status == StatusCode::IDLE_HEARTBEAT {
            self.account().alive(id, Instant::now() + SILENCE);
            return None;
        }
        let ended = self.account().ended(id)?;
        let why = end_of(status.as_u16(), description, ended.no_wait);
        if matches!(why, PullEnd::ConsumerGone | PullEnd::Unavailable) {
            self.bus.inner.ensured_consumers().remove(&ended.model);
        }
        Some(PullEvent::Ended { id, why })
    }

    /// The server forgets waiting pulls with the connection they came over.
    fn end_lost(&mut self) {
        let inner = &self.bus.inner;
        let current = if inner.is_connected() { inner.connects() } else { u64::MAX };
        let lost = self.account().lost_before(current);
        self.ended.extend(lost.into_iter().map(|id| (id, PullEnd::Unavailable)));
    }

    fn end_overdue(&mut self) {
        let overdue = self.account().overdue(Instant::now());
        tracing::warn!(pulls = overdue.len(), "pulls without an answer");
        self.ended.extend(overdue.into_iter().map(|id| (id, PullEnd::Unavailable)));
    }
}

/// What a status message says of the pull it ends (ADR-37 of nats-architecture-and-design).
fn end_of(status: u16, description: &str, no_wait: bool) -> PullEnd {
    match status {
        404 => PullEnd::Empty,
        408 if no_wait => PullEnd::Empty,
        408 => PullEnd::Expired,
        409 if description.contains("Consumer Deleted") => PullEnd::ConsumerGone,
        503 => PullEnd::Unavailable,
        _ => PullEnd::Conflict(format!("{status} {description}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_end_pulls() {
        assert_eq!(end_of(404, "No Messages", true), PullEnd::Empty);
        assert_eq!(end_of(408, "Requests Pending", true), PullEnd::Empty);
        assert_eq!(end_of(408, "Request Timeout", false), PullEnd::Expired);
        assert_eq!(end_of(409, "Consumer Deleted", false), PullEnd::ConsumerGone);
        assert_eq!(
            end_of(409, "Exceeded MaxWaiting", false),
            PullEnd::Conflict("409 Exceeded MaxWaiting".into())
        );
        assert_eq!(end_of(503, "No Responders", false), PullEnd::Unavailable);
    }
}
