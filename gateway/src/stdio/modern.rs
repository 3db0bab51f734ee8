//! A parent that speaks 2.0 or 2.1: requests at once, answers by their ids.

use bytes::Bytes;
use chorus_protocol::codec::Encoding;
use chorus_protocol::gateway::{
    Asked, CancelAnswer, Done, GatewayRequest, Heard, LoadModelRequest, MAX_REQUEST_BYTES, Method, ModelArg,
    OfText, StreamRequest, TextPiece, Unreadable, read,
};
use chorus_protocol::service::{ModelList, ServiceStatus};
use chorus_protocol::{MessageId, ModelDefinition, Reason, ServiceError, SynthesisResult, names};
use chorus_runtime::task::{self, FailureMeans, TaskHandle};
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use super::coming::Piece;
use super::flights::{Flights, InFlight, Terms};
use super::hello::too_long;
use super::input::{Input, Message};
use super::outbox::{Gone, Speaker};
use super::speech::{Into, Speech};
use super::{CANCEL_WITHIN, End, Shared, events, stream};

/// See the module.
pub(super) struct Modern<R> {
    shared: Shared,
    input: Input<R>,
    speaker: Speaker,
    flights: Flights,
    subscription: Option<TaskHandle<()>>,
    scope: CancellationToken,
}

impl<R: AsyncRead + Unpin> Modern<R> {
    pub(super) fn new(shared: Shared, input: Input<R>, encoding: Encoding) -> Self {
        let speaker = Speaker::new(shared.outbox.clone(), encoding, shared.access.clock().clone());
        let scope = shared.tasks.token().clone();
        Self { shared, input, speaker, flights: Flights::default(), subscription: None, scope }
    }

    /// Converses until the end.
    pub(super) async fn run(mut self, first: Option<Bytes>) -> End {
        let mut next = first.map(Message::Whole);
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => match self.input.next().await {
                    Ok(Some(message)) => message,
                    Ok(None) => return self.finish().await,
                    Err(error) => {
                        self.flights.cancel_all();
                        return End::Broken(error.to_string());
                    }
                },
            };
            match self.take(message).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(Gone) => return End::ParentGone,
            }
        }
    }

    /// The input has ended: what was asked is still answered, unless nobody is left to hear it.
    async fn finish(self) -> End {
        self.flights.end_texts();
        tokio::select! {
            () = self.flights.all_landed() => End::EndOfInput,
            () = self.shared.parent.gone() => End::ParentGone,
        }
    }

    async fn take(&mut self, message: Message) -> Result<Option<End>, Gone> {
        let bytes = match message {
            Message::Whole(bytes) => bytes,
            Message::TooLong(len) => {
                self.speaker.error(None, too_long(len)).await?;
                return Ok(None);
            }
        };
        match read(&bytes, MAX_REQUEST_BYTES) {
            Ok(Heard::Asked(asked)) => return self.asked(*asked).await,
            Ok(Heard::Granted(grant)) => self.flights.grant(&grant.message_id, grant.chunks),
            Ok(Heard::Nothing) => tracing::debug!("the parent told something that is not known here"),
            Err(unreadable) => self.refuse(unreadable).await?,
        }
        Ok(None)
    }

    async fn asked(&mut self, asked: Asked) -> Result<Option<End>, Gone> {
        let id = asked.id.clone();
        match &asked.request {
            GatewayRequest::Ping => self.speaker.answer(&id, Done {}).await?,
            GatewayRequest::Cancel(cancel) => {
                let cancelled = self.flights.cancel(&cancel.message_id);
                self.speaker.answer(&id, CancelAnswer { cancelled }).await?;
            }
            GatewayRequest::Text(TextPiece { message_id, text }) => {
                self.piece(message_id, id, Piece::More(text.clone())).await?;
            }
            GatewayRequest::Flush(OfText { message_id }) => self.piece(message_id, id, Piece::Flush).await?,
            GatewayRequest::End(OfText { message_id }) => self.piece(message_id, id, Piece::End).await?,
            GatewayRequest::Hello(_) => {
                let message = "hello: the version is settled; hello is the first message or none";
                self.speaker
                    .error(Some(&id), ServiceError::field(Reason::Malformed, "method", message))
                    .await?;
            }
            GatewayRequest::Subscribe(wanted) => {
                self.speaker.answer(&id, Done {}).await?;
                self.subscribe(wanted.events.clone());
            }
            GatewayRequest::Unsubscribe => {
                self.unsubscribe();
                self.speaker.answer(&id, Done {}).await?;
            }
            GatewayRequest::Status if self.shared.access.now().is_none() => {
                self.speaker.answer(&id, ServiceStatus::starting()).await?;
            }
            GatewayRequest::Shutdown => {
                self.wind_down().await;
                self.speaker.answer(&id, Done {}).await?;
                return Ok(Some(End::Shutdown));
            }
            _ => self.begin(asked).await?,
        }
        Ok(None)
    }

    /// Hands a piece of a text to its request, which answers it; what cannot be taken is answered here.
    async fn piece(&self, of: &MessageId, id: MessageId, piece: Piece) -> Result<(), Gone> {
        match self.flights.put(of, id.clone(), piece) {
            Ok(()) => Ok(()),
            Err(error) => self.speaker.error(Some(&id), error).await,
        }
    }

    /// Begins what takes its time, in a task of its own.
    async fn begin(&mut self, asked: Asked) -> Result<(), Gone> {
        let terms = match &asked.request {
            GatewayRequest::SynthesizeStream(stream) => {
                Terms { window: stream.window, text_comes: stream.text_comes }
            }
            _ => Terms::default(),
        };
        let flight = match self.flights.begin(&asked.id, terms, &self.scope) {
            Ok(flight) => flight,
            Err(error) => {
                let method = Some(asked.request.method());
                return self.refuse(Unreadable { id: Some(asked.id), method, error: Box::new(error) }).await;
            }
        };
        let (shared, speaker) = (self.shared.clone(), self.speaker.clone());
        self.shared.tasks.spawn_draining("stdio-request", FailureMeans::Log, |_scope| {
            Box::pin(async move {
                // Nobody reads any more: the conversation ends by itself.
                let _unheard = work(&shared, &speaker, asked, &flight).await;
                drop(flight);
            })
        });
        Ok(())
    }

    async fn refuse(&self, unreadable: Unreadable) -> Result<(), Gone> {
        let speech = matches!(unreadable.method, Some(Method::Synthesize | Method::SynthesizeStream));
        match unreadable.id {
            // A request to speak is always answered by a result.
            Some(id) if speech && unreadable.error.reason() != Some(Reason::IdReused) => {
                self.speaker.answer(&id, SynthesisResult::failed(id.clone(), 0.0, *unreadable.error)).await
            }
            id => self.speaker.error(id.as_ref(), *unreadable.error).await,
        }
    }

    fn subscribe(&mut self, kinds: Option<Vec<String>>) {
        self.unsubscribe();
        let relay = events::relay(self.shared.access.clone(), self.speaker.clone(), kinds);
        self.subscription = Some(task::spawn("stdio-events", self.scope.clone(), FailureMeans::Log, relay));
    }

    fn unsubscribe(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            subscription.abort();
        }
    }

    async fn wind_down(&mut self) {
        self.unsubscribe();
        self.flights.end_texts();
        let within = self.shared.config.finish_within;
        if tokio::time::timeout(within, self.flights.all_landed()).await.is_err() {
            self.flights.cancel_all();
            let _in_time = tokio::time::timeout(CANCEL_WITHIN, self.flights.all_landed()).await;
        }
    }
}

impl<R> Drop for Modern<R> {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            subscription.abort();
        }
    }
}

async fn work(shared: &Shared, speaker: &Speaker, asked: Asked, flight: &InFlight) -> Result<(), Gone> {
    let Asked { id, request, traceparent, .. } = asked;
    let cancel = flight.cancel.clone();
    match request {
        GatewayRequest::Synthesize(request) => {
            let speech = Speech { id: id.clone(), request: *request, traceparent, cancel };
            let recorded = speech.record(shared, Into::Result).await;
            let clock = shared.access.clock();
            let result = tokio::task::block_in_place(|| recorded.deliver(|| clock.now()));
            speaker.answer(&id, result).await
        }
        GatewayRequest::SynthesizeStream(wanted) => {
            let StreamRequest { request, .. } = *wanted;
            let speech = Speech { id: id.clone(), request, traceparent, cancel };
            let result = stream::speak(shared, &speech, flight, speaker).await;
            speaker.answer(&id, result).await
        }
        other => {
            let answered = tokio::select! {
                answered = question(shared, other) => answered,
                () = flight.cancel.cancelled() => Err(super::speech::cancelled()),
            };
            match answered {
                Ok(answer) => speaker.answer(&id, answer).await,
                Err(error) => speaker.error(Some(&id), error).await,
            }
        }
    }
}

/// A question that a manager answers.
async fn question(shared: &Shared, request: GatewayRequest) -> Result<Value, ServiceError> {
    let ask = |subject: &'static str, question: Value| shared.access.ask(subject, question);
    match request {
        GatewayRequest::Status => ask(names::STATUS, json!({})).await,
        GatewayRequest::Metrics => ask(names::METRICS, json!({})).await,
        GatewayRequest::ListModels => ask(names::MODELS_LIST, json!({})).await,
        GatewayRequest::ClearCache => ask(names::CACHE_CLEAR, json!({})).await,
        GatewayRequest::UnloadModel(unload) => ask(names::MODELS_UNLOAD, json!(unload)).await,
        GatewayRequest::LoadModel(load) => {
            let LoadModelRequest { model } = *load;
            let model = definition(shared, model).await?;
            ask(names::MODELS_LOAD, json!({"model": model})).await
        }
        other => {
            let message = format!("{} is not answered by the fleet", other.method().as_str());
            Err(ServiceError::new(Reason::UnknownMethod, message))
        }
    }
}

/// A model as the fleet knows it: of its catalogue, else of this machine.
async fn definition(shared: &Shared, model: ModelArg) -> Result<ModelDefinition, ServiceError> {
    let name = match model {
        ModelArg::Defined(model) => return Ok(*model),
        ModelArg::Named(name) => name,
    };
    let catalogue = shared.access.ask(names::MODELS_LIST, json!({})).await?;
    let catalogue: ModelList = serde_json::from_value(catalogue).map_err(|error| {
        ServiceError::new(Reason::NoManager, format!("the catalogue cannot be read: {error}"))
    })?;
    let known = |model: &ModelDefinition| model.name.as_str() == name || model.aliases.contains(&name);
    match catalogue.models.into_iter().find(known) {
        Some(model) => Ok(model),
        None => shared.access.resolve(&name),
    }
}
