//! A stock NATS client, as any program on any host would use it.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::AsyncReadExt;

/// A plain request: what is sent is sent as it is, what comes back is the reply.
///
/// # Panics
/// When no reply comes.
pub async fn ask(client: &async_nats::Client, subject: &'static str, payload: impl Into<Bytes>) -> Bytes {
    let request = async_nats::Request::new().payload(payload.into()).timeout(Some(Duration::from_secs(60)));
    client.send_request(subject, request).await.expect("a reply comes").payload
}

/// A plain request whose reply is JSON.
///
/// # Panics
/// When it is not.
pub async fn ask_json(
    client: &async_nats::Client,
    subject: &'static str,
    payload: impl Into<Bytes>,
) -> Value {
    let reply = ask(client, subject, payload).await;
    serde_json::from_slice(&reply).unwrap_or_else(|e| panic!("{e}: {reply:?}"))
}

/// The audio of a SynthesisResult, wherever it is.
///
/// # Panics
/// When it is nowhere.
pub async fn audio_of(client: &async_nats::Client, result: &Value) -> Vec<u8> {
    let audio = &result["audio"];
    if let Some(data) = audio["data"].as_str() {
        return BASE64_STANDARD.decode(data).expect("audio is base64");
    }
    let jetstream = async_nats::jetstream::new(client.clone());
    let bucket = audio["bucket"].as_str().unwrap_or_else(|| panic!("no audio in {result}"));
    let store = jetstream.get_object_store(bucket).await.expect("the bucket is there");
    let mut object = store.get(audio["key"].as_str().expect("a key")).await.expect("the object is there");
    let mut bytes = Vec::new();
    object.read_to_end(&mut bytes).await.expect("the object can be read");
    bytes
}
