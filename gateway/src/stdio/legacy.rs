//! A parent that speaks 1.0: one line asks, one line answers, in the order of the questions.
//!
//! Texts are spoken at once, as many as are asked for, but a file gets its name only when its answer is due: to the parent
//! everything looks as if one were spoken after the other, only sooner.

use chorus_protocol::adapt::client::{Answer, answer_to_v1, request_of};
use chorus_protocol::adapt::{self, Fields};
use chorus_protocol::gateway::{GatewayRequest, MAX_IN_FLIGHT, MAX_REQUEST_BYTES, Method};
use chorus_protocol::service::ServiceStatus;
use chorus_protocol::version::{V1_0, deprecations};
use chorus_protocol::{MessageId, Reason, ServiceError, SynthesisRequest, names};
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use serde_json::{Map, Value, json};
use tokio::io::AsyncRead;

use super::hello::too_long;
use super::input::{Input, Message};
use super::outbox::Gone;
use super::speech::{Into, Recorded, Speech};
use super::{End, Shared};

/// What is to be answered, in its turn.
enum Due {
    /// This line.
    Line(Fields),
    /// A text that was spoken.
    Recorded(Box<Recorded>),
    /// How the fleet is then.
    Status,
    /// The end.
    Shutdown,
}

/// See the module.
pub(super) struct Legacy<R> {
    shared: Shared,
    input: Input<R>,
    due: FuturesOrdered<BoxFuture<'static, Due>>,
}

impl<R: AsyncRead + Unpin> Legacy<R> {
    pub(super) fn new(shared: Shared, input: Input<R>) -> Self {
        let advice = deprecations().into_iter().find(|deprecation| deprecation.version == V1_0);
        if let Some(advice) = advice {
            tracing::info!(version = %advice.version, "{}", advice.message);
        }
        Self { shared, input, due: FuturesOrdered::new() }
    }

    /// Converses until the end.
    pub(super) async fn run(mut self, first: Option<Fields>) -> End {
        // After `shutdown` or the end of the input nothing more is read.
        let mut reading = true;
        if let Some(first) = first {
            reading = self.ask(first);
        }
        loop {
            if !reading && self.due.is_empty() {
                return End::EndOfInput;
            }
            tokio::select! {
                message = self.input.next(), if reading && self.due.len() < MAX_IN_FLIGHT => match message {
                    Ok(Some(message)) => reading = self.take(message),
                    Ok(None) => reading = false,
                    Err(error) => return End::Broken(error.to_string()),
                },
                Some(due) = self.due.next() => match give(&self.shared, due).await {
                    Ok(None) => {}
                    Ok(Some(end)) => return end,
                    Err(Gone) => return End::ParentGone,
                },
                () = self.shared.parent.gone(), if !reading => return End::ParentGone,
            }
        }
    }

    /// Takes a line; whether more may be read.
    fn take(&mut self, message: Message) -> bool {
        let fields = match message {
            Message::Whole(line) => adapt::fields(&line, MAX_REQUEST_BYTES),
            Message::TooLong(len) => Err(too_long(len)),
        };
        match fields {
            Ok(fields) => self.ask(fields),
            Err(error) => self.push(Due::Line(adapt::error_fields(&error))),
        }
    }

    fn ask(&mut self, fields: Fields) -> bool {
        if adapt::is_envelope(&fields) {
            let message =
                "this conversation speaks protocol 1.0.0; a newer version is agreed on by its first message";
            return self.push(Due::Line(adapt::error_fields(&ServiceError::new(Reason::Version, message))));
        }
        match request_of(fields) {
            Ok(GatewayRequest::Synthesize(request)) => {
                self.speak(*request);
                true
            }
            Ok(GatewayRequest::Status) => self.push(Due::Status),
            Ok(GatewayRequest::Shutdown) => {
                self.push(Due::Shutdown);
                false
            }
            Ok(other) => self.push(Due::Line(answer_to_v1(&Answer::Told(other.method(), Map::new())))),
            Err(error) => self.push(Due::Line(adapt::error_fields(&error))),
        }
    }

    fn push(&mut self, due: Due) -> bool {
        self.due.push_back(Box::pin(std::future::ready(due)));
        true
    }

    fn speak(&mut self, request: SynthesisRequest) {
        let shared = self.shared.clone();
        let cancel = shared.tasks.token().child_token();
        let speech = Speech { id: MessageId::fresh(), request, traceparent: None, cancel };
        self.due.push_back(Box::pin(async move {
            // As the old service did.
            if let Some(path) = &speech.request.output_path {
                shared.config.root.make_folder(path);
            }
            Due::Recorded(Box::new(speech.record(&shared, Into::Temporary).await))
        }));
    }
}

async fn give(shared: &Shared, due: Due) -> Result<Option<End>, Gone> {
    let line = match due {
        Due::Line(line) => line,
        Due::Recorded(recorded) => {
            let clock = shared.access.clock();
            let result = tokio::task::block_in_place(|| recorded.deliver(|| clock.now()));
            answer_to_v1(&Answer::Spoken(Box::new(result)))
        }
        Due::Status => status(shared).await,
        Due::Shutdown => {
            shared.outbox.line(answer_to_v1(&Answer::Told(Method::Shutdown, Map::new()))).await?;
            return Ok(Some(End::Shutdown));
        }
    };
    shared.outbox.line(line).await?;
    Ok(None)
}

async fn status(shared: &Shared) -> Fields {
    let status = match shared.access.now() {
        Some(_fleet) => shared.access.ask(names::STATUS, json!({})).await,
        None => Ok(json!(ServiceStatus::starting())),
    };
    match status {
        Ok(status) => answer_to_v1(&Answer::Told(Method::Status, figures(&status))),
        Err(error) => adapt::error_fields(&error),
    }
}

/// A status as 1.0 tells it: a few plain fields.
fn figures(status: &Value) -> Fields {
    let list = |name: &str| status.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let models: Vec<&Value> = list("models").iter().filter_map(|model| model.get("name")).collect();
    let deprecated = deprecations().into_iter().find(|one| one.version == V1_0).map(|one| one.message);
    let fields = json!({
        "status": status.get("state"), "models": models, "workers": list("workers").len(),
        "protocol": V1_0, "deprecated": deprecated});
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
