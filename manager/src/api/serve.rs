//! From a subscription to an answer.
//!
//! Each endpoint has a loop that hears its messages and starts a task for each, under a bound: plain requests have one of
//! their own, since they last, and so have cancels, since they make room; all other questions share one. A message over the bound is refused at once. When the
//! manager stops, the subscriptions are drained: what was heard is still answered.

use std::future::Future;
use std::sync::Arc;

use chorus_bus::{Incoming, Subscription};
use chorus_client::SessionHost;
use chorus_protocol::codec::MAX_MESSAGE_BYTES;
use chorus_protocol::gateway::CancelRequest;
use chorus_protocol::plan::Cancel;
use chorus_protocol::service::Ask;
use chorus_protocol::{Envelope, Reason, ServiceError, codec, names};
use chorus_runtime::task::{FailureMeans, TaskGroup};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::question::{self, ReplyStyle, Unreadable};
use super::synthesize::PcmBudget;
use super::under_way::UnderWay;
use crate::core::Core;

/// A subject that managers serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Synthesize,
    Open,
    Advance,
    Finish,
    Cancel,
    Status,
    Metrics,
    ModelsList,
    ModelsLoad,
    ModelsUnload,
    CacheClear,
    CacheStatus,
    JobsSubmit,
    JobsStatus,
    JobsFetch,
    JobsCancel,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 16] = [
        Self::Synthesize,
        Self::Open,
        Self::Advance,
        Self::Finish,
        Self::Cancel,
        Self::Status,
        Self::Metrics,
        Self::ModelsList,
        Self::ModelsLoad,
        Self::ModelsUnload,
        Self::CacheClear,
        Self::CacheStatus,
        Self::JobsSubmit,
        Self::JobsStatus,
        Self::JobsFetch,
        Self::JobsCancel,
    ];

    pub(crate) fn subject(self) -> &'static str {
        match self {
            Self::Synthesize => names::SYNTHESIZE,
            Self::Open => names::OPEN,
            Self::Advance => names::ADVANCE,
            Self::Finish => names::FINISH,
            Self::Cancel => names::CANCEL,
            Self::Status => names::STATUS,
            Self::Metrics => names::METRICS,
            Self::ModelsList => names::MODELS_LIST,
            Self::ModelsLoad => names::MODELS_LOAD,
            Self::ModelsUnload => names::MODELS_UNLOAD,
            Self::CacheClear => names::CACHE_CLEAR,
            Self::CacheStatus => names::CACHE_STATUS,
            Self::JobsSubmit => names::JOBS_SUBMIT,
            Self::JobsStatus => names::JOBS_STATUS,
            Self::JobsFetch => names::JOBS_FETCH,
            Self::JobsCancel => names::JOBS_CANCEL,
        }
    }

    /// One manager answers; a cancel is heard by all.
    pub(crate) fn group(self) -> Option<&'static str> {
        (self != Self::Cancel).then_some(names::MANAGERS_GROUP)
    }
}

/// What is given up.
#[derive(Deserialize)]
#[serde(untagged)]
enum CancelOrder {
    Session(Cancel),
    Request(CancelRequest),
}

/// What the loops share.
pub(crate) struct Server {
    pub(crate) core: Arc<Core>,
    pub(crate) sessions: SessionHost,
    pub(crate) pcm: PcmBudget,
    /// Cancelled when plain requests may take no longer.
    pub(crate) hurry: CancellationToken,
    /// Plain requests that are being spoken.
    pub(crate) under_way: UnderWay,
    questions: Arc<Semaphore>,
    plain: Arc<Semaphore>,
    cancels: Arc<Semaphore>,
    tasks: TaskGroup,
}

impl Server {
    pub(crate) fn new(
        core: Arc<Core>,
        sessions: SessionHost,
        hurry: CancellationToken,
        tasks: TaskGroup,
    ) -> Arc<Self> {
        let config = &core.config;
        let pcm = PcmBudget::new(config.max_reply_pcm_bytes, config.max_total_pcm_bytes);
        let room = || Arc::new(Semaphore::new(config.max_questions.min(Semaphore::MAX_PERMITS)));
        let (questions, cancels) = (room(), room());
        let plain = Arc::new(Semaphore::new(config.max_plain_requests.min(Semaphore::MAX_PERMITS)));
        let under_way = UnderWay::default();
        Arc::new(Self { core, sessions, pcm, hurry, under_way, questions, plain, cancels, tasks })
    }

    /// Serves one endpoint until `stop`, then answers what was heard before it.
    pub(crate) async fn serve(
        self: Arc<Self>,
        endpoint: Endpoint,
        mut messages: Subscription,
        stop: CancellationToken,
    ) {
        let mut draining = false;
        loop {
            let incoming = tokio::select! {
                biased;
                () = stop.cancelled(), if !draining => {
                    draining = true;
                    messages.drain().await;
                    continue;
                }
                incoming = messages.next() => incoming,
            };
            let Some(incoming) = incoming else { return };
            self.take(endpoint, incoming).await;
        }
    }

    async fn take(self: &Arc<Self>, endpoint: Endpoint, incoming: Incoming) {
        if incoming.reply().is_none() && endpoint != Endpoint::Cancel {
            tracing::debug!(subject = incoming.subject(), "a question that awaits no answer was left alone");
            return;
        }
        let room = match endpoint {
            Endpoint::Synthesize => &self.plain,
            Endpoint::Cancel => &self.cancels,
            _ => &self.questions,
        };
        let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
            self.refuse(endpoint, &incoming).await;
            return;
        };
        let server = Arc::clone(self);
        self.tasks.spawn_draining("question", FailureMeans::Log, |_token| async move {
            Box::pin(server.answer(endpoint, &incoming)).await;
            drop(permit);
        });
    }

    async fn answer(&self, endpoint: Endpoint, incoming: &Incoming) {
        let core = &self.core;
        match endpoint {
            Endpoint::Synthesize => self.answer_synthesize(incoming).await,
            Endpoint::Cancel => self.hear_cancel(incoming).await,
            Endpoint::Open => self.ask(incoming, |q| core.answer_open(q.payload, q.traceparent)).await,
            Endpoint::Advance => self.ask(incoming, |q| core.answer_advance(q.payload, q.traceparent)).await,
            Endpoint::Finish => self.ask(incoming, |q| core.answer_finish(q.payload)).await,
            Endpoint::Status => self.ask(incoming, |_: Envelope<Ask>| core.answer_status()).await,
            Endpoint::Metrics => self.ask(incoming, |_: Envelope<Ask>| core.answer_metrics()).await,
            Endpoint::ModelsList => self.ask(incoming, |_: Envelope<Ask>| core.answer_models_list()).await,
            Endpoint::ModelsLoad => self.ask(incoming, |q| core.answer_models_load(q.payload)).await,
            Endpoint::ModelsUnload => self.ask(incoming, |q| core.answer_models_unload(q.payload)).await,
            Endpoint::CacheClear => self.ask(incoming, |_: Envelope<Ask>| core.answer_cache_clear()).await,
            Endpoint::CacheStatus => self.ask(incoming, |_: Envelope<Ask>| core.answer_cache_status()).await,
            Endpoint::JobsSubmit => self.ask(incoming, |q| core.answer_jobs_submit(q)).await,
            Endpoint::JobsStatus => self.ask(incoming, |q| core.answer_jobs_status(q.payload)).await,
            Endpoint::JobsFetch => self.ask(incoming, |q| core.answer_jobs_fetch(q.payload)).await,
            Endpoint::JobsCancel => self.ask(incoming, |q| core.answer_jobs_cancel(q.payload)).await,
        }
    }

    async fn ask<Q, A, F>(&self, incoming: &Incoming, handle: impl FnOnce(Envelope<Q>) -> F)
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Future<Output = Result<A, ServiceError>>,
    {
        let (bus, clock) = (&self.core.bus, &self.core.clock);
        match question::read::<Q>(&incoming.payload, MAX_MESSAGE_BYTES) {
            Ok((envelope, style)) => {
                let trace = envelope.traceparent.clone();
                let outcome = handle(envelope).await;
                question::answer(bus, incoming, &style, outcome, trace, clock.unix_ms()).await;
            }
            Err(Unreadable { error, style }) => {
                tracing::debug!(subject = incoming.subject(), %error, "a question cannot be read");
                question::answer::<Ask>(bus, incoming, &style, Err(*error), None, clock.unix_ms()).await;
            }
        }
    }

    /// Of a session, or of a plain request that may be spoken here.
    async fn hear_cancel(&self, incoming: &Incoming) {
        match codec::decode::<CancelOrder>(&incoming.payload, MAX_MESSAGE_BYTES) {
            Ok(Envelope { payload: CancelOrder::Session(cancel), .. }) => self.core.hear_cancel(cancel).await,
            Ok(Envelope { payload: CancelOrder::Request(CancelRequest { message_id }), .. }) => {
                let found = self.under_way.cancel(&message_id);
                tracing::debug!(%message_id, found, "a plain request is given up");
            }
            Err(error) => tracing::warn!(%error, "a cancel cannot be read"),
        }
    }

    async fn refuse(&self, endpoint: Endpoint, incoming: &Incoming) {
        let retry_after_ms = self.core.config.retry_after.as_millis() as u64;
        let message = "this manager answers as many questions as it may already";
        let error = ServiceError::new(Reason::QueueFull, message).retry_after_ms(retry_after_ms);
        match endpoint {
            Endpoint::Synthesize => self.refuse_plain(incoming, error).await,
            Endpoint::Cancel => tracing::warn!("a cancel was left out: too many at once"),
            _ => {
                let style =
                    match question::read::<serde::de::IgnoredAny>(&incoming.payload, MAX_MESSAGE_BYTES) {
                        Ok((_, style)) | Err(Unreadable { style, .. }) => style,
                    };
                self.say(incoming, &style, error).await;
            }
        }
    }

    async fn say(&self, incoming: &Incoming, style: &ReplyStyle, error: ServiceError) {
        let now_ms = self.core.clock.unix_ms();
        question::answer::<Ask>(&self.core.bus, incoming, style, Err(error), None, now_ms).await;
    }
}
