//! The first message decides the version, for both directions and for good.

use bytes::Bytes;
use chorus_audio::encode::is_built;
use chorus_protocol::adapt::{self, Fields};
use chorus_protocol::codec::Encoding;
use chorus_protocol::gateway::{
    Asked, GatewayHello, GatewayLimits, GatewayRequest, Heard, Hello, MAX_REQUEST_BYTES, Method, ServerInfo,
    read,
};
use chorus_protocol::version::{self, V1_0, V2_0, V2_1, VersionError};
use chorus_protocol::{AudioFormat, MessageId, Reason, ServiceError};
use semver::Version;
use tokio::io::AsyncRead;

use super::input::{Input, Message};
use super::outbox::{Gone, Speaker};
use super::{Config, End, Shared};

/// What was settled.
pub(super) enum Opened {
    /// 1.0, and the line that showed it, where it was not settled by a hello.
    Legacy(Option<Fields>),
    /// 2.0 or 2.1, and the message that showed it.
    Modern { encoding: Encoding, first: Option<Bytes> },
    /// Nothing: there was no more input, or nobody reads.
    Ended(End),
}

/// Reads until the version is settled.
pub(super) async fn open<R: AsyncRead + Unpin>(shared: &Shared, input: &mut Input<R>) -> Opened {
    loop {
        let message = match input.next().await {
            Ok(Some(message)) => message,
            Ok(None) => return Opened::Ended(End::EndOfInput),
            Err(error) => return Opened::Ended(End::Broken(error.to_string())),
        };
        match first(shared, message).await {
            Ok(Some(opened)) => return opened,
            Ok(None) => {}
            Err(Gone) => return Opened::Ended(End::ParentGone),
        }
    }
}

async fn first(shared: &Shared, message: Message) -> Result<Option<Opened>, Gone> {
    let offered = |version: &Version| shared.config.supported.contains(version);
    let line = match message {
        Message::Whole(line) => line,
        Message::TooLong(len) => {
            shared.outbox.line(adapt::error_fields(&too_long(len))).await?;
            return Ok(None);
        }
    };
    // What is no object at all settles nothing.
    let fields = match adapt::fields(&line, MAX_REQUEST_BYTES) {
        Ok(fields) => fields,
        Err(error) => {
            shared.outbox.line(adapt::error_fields(&error)).await?;
            return Ok(None);
        }
    };
    if !adapt::is_envelope(&fields) {
        if offered(&V1_0) {
            return Ok(Some(Opened::Legacy(Some(fields))));
        }
        let error = unsupported("1.0.0", &shared.config);
        shared.outbox.line(adapt::error_fields(&error)).await?;
        return Ok(None);
    }
    let speaker = Speaker::new(shared.outbox.clone(), Encoding::Json, shared.access.clock().clone());
    match read(&line, MAX_REQUEST_BYTES) {
        Ok(Heard::Asked(asked)) if asked.request.method() == Method::Hello => {
            greet(shared, &speaker, *asked).await
        }
        Err(unreadable) if unreadable.error.reason() == Some(Reason::Version) => {
            speaker.error(unreadable.id.as_ref(), *unreadable.error).await?;
            Ok(None)
        }
        _ if offered(&V2_0) => Ok(Some(Opened::Modern { encoding: Encoding::Json, first: Some(line) })),
        read => {
            let id = match read {
                Ok(Heard::Asked(asked)) => Some(asked.id),
                Ok(_) => None,
                Err(unreadable) => unreadable.id,
            };
            speaker.error(id.as_ref(), unsupported("2.0.0", &shared.config)).await?;
            Ok(None)
        }
    }
}

async fn greet(shared: &Shared, speaker: &Speaker, asked: Asked) -> Result<Option<Opened>, Gone> {
    let (id, envelope_version): (MessageId, Version) = (asked.id, asked.version);
    let GatewayRequest::Hello(Hello { accept, client }) = asked.request else { return Ok(None) };
    let range = accept.unwrap_or_else(|| format!("={envelope_version}"));
    match version::negotiate(&range, &shared.config.supported) {
        Ok(version) => {
            tracing::info!(%version, client = client.as_deref().unwrap_or("unnamed"), "a parent says hello");
            speaker.answer(&id, answer(&shared.config, version.clone())).await?;
            Ok(Some(if version == V1_0 {
                Opened::Legacy(None)
            } else if version == V2_1 {
                Opened::Modern { encoding: Encoding::MessagePack, first: None }
            } else {
                Opened::Modern { encoding: Encoding::Json, first: None }
            }))
        }
        Err(error) => {
            speaker.error(Some(&id), refusal(&error, &shared.config)).await?;
            Ok(None)
        }
    }
}

fn answer(config: &Config, version: Version) -> GatewayHello {
    GatewayHello {
        version,
        supported: config.supported.clone(),
        server: ServerInfo { name: "chorus".into(), version: config.version.clone() },
        pid: std::process::id(),
        formats: AudioFormat::ALL.into_iter().filter(|f| is_built(*f)).map(|f| f.name().into()).collect(),
        methods: Method::ALL.iter().map(|method| method.as_str().into()).collect(),
        limits: GatewayLimits::default(),
        deprecations: version::deprecations(),
    }
}

fn unsupported(offered: &str, config: &Config) -> ServiceError {
    let error = VersionError::Unsupported { offered: offered.into(), supported: config.supported.clone() };
    refusal(&error, config)
}

fn refusal(error: &VersionError, config: &Config) -> ServiceError {
    let supported: Vec<String> = config.supported.iter().map(Version::to_string).collect();
    ServiceError::field(Reason::Version, "accept", error.to_string()).with("supported", supported)
}

/// The error about a message over the limit.
pub(super) fn too_long(len: u64) -> ServiceError {
    let message = format!("the message is {len} bytes; at most {MAX_REQUEST_BYTES} are read");
    ServiceError::new(Reason::TooLarge, message).with("maxBytes", MAX_REQUEST_BYTES)
}
