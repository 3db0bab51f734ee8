//! A plain NATS request from a stock client: one question, one SynthesisResult.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use chorus_tests::{Fleet, checkable, nats, wav};
use serde_json::{Value, json};

fn code(result: &Value) -> (&str, &str) {
    assert_eq!(result["success"], false, "{result}");
    (result["error"]["code"].as_str().unwrap(), result["error"]["details"]["reason"].as_str().unwrap())
}

/// One fleet serves all cases: they are questions, and none may disturb the next.
#[tokio::test]
async fn a_stock_client_gets_one_reply_to_one_request() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "1"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    bare_json(&client).await;
    envelopes(&client).await;
    large_audio_is_an_object(&client).await;
    bad_input_names_its_field(&client).await;
    unknown_models(&client).await;
    hostile_bytes(&client).await;
    // After all that it still speaks.
    bare_json(&client).await;
    let (exit, home) = fleet.interrupt().await;
    assert_eq!(exit, 130);
    chorus_tests::fleet::nothing_is_left(&home).await;
}

async fn bare_json(client: &async_nats::Client) {
    let reply = nats::ask_json(client, "tts.synthesize", r#"{"text":"hello","novel":{"field":1}}"#).await;
    assert_eq!(reply["success"], true, "{reply}");
    assert_eq!(reply["audio"]["format"], "wav");
    assert_eq!(reply["audio"]["sampleRate"], checkable::SAMPLE_RATE);
    let wav = wav::parse(&nats::audio_of(client, &reply).await);
    checkable::assert_spoken(&wav.samples, &["hello"]);
    let seconds = wav.samples.len() as f64 / f64::from(wav.sample_rate);
    assert!((reply["duration"].as_f64().unwrap() - seconds).abs() < 1e-6);
    assert!(reply["latencyMs"].as_f64().unwrap() > 0.0);
    assert!(!reply["requestId"].as_str().unwrap().is_empty());
    assert!(!reply["metadata"]["workerUsed"].as_str().unwrap().is_empty());
}

async fn envelopes(client: &async_nats::Client) {
    let envelope = json!({
        "version": "2.0.0", "messageId": "m-17", "timestamp": 1, "type": "request",
        "payload": {"text": "First. Second one here."}, "metadata": {"priority": "high"}
    });
    let reply = nats::ask_json(client, "tts.synthesize", envelope.to_string()).await;
    assert_eq!(
        (&reply["type"], &reply["metadata"]["correlationId"]),
        (&json!("response"), &json!("m-17")),
        "{reply}"
    );
    assert_eq!(reply["payload"]["requestId"], "m-17");
    let wav = wav::parse(&nats::audio_of(client, &reply["payload"]).await);
    checkable::assert_spoken(&wav.samples, &["First.", "Second one here."]);

    let packed = rmp_serde::to_vec_named(&envelope).unwrap();
    let reply = nats::ask(client, "tts.synthesize", packed).await;
    let reply: Value =
        rmp_serde::from_slice::<chorus_protocol::Envelope<chorus_protocol::SynthesisResult>>(&reply)
            .map(|e| serde_json::to_value(e).unwrap())
            .unwrap();
    assert_eq!(reply["payload"]["success"], true, "{reply}");

    let newer = json!({"version": "3.0.0", "messageId": "m", "timestamp": 1, "type": "request", "payload": {"text": "a"}});
    let reply = nats::ask_json(client, "tts.synthesize", newer.to_string()).await;
    assert!(reply.to_string().contains("Unsupported protocol version: 3.0.0"), "{reply}");
}

async fn large_audio_is_an_object(client: &async_nats::Client) {
    let sentences: Vec<String> =
        (0..12).map(|i| format!("Sentence number {i} is rather long, so that the sum is large.")).collect();
    let reply =
        nats::ask_json(client, "tts.synthesize", json!({"text": sentences.join(" ")}).to_string()).await;
    assert_eq!(reply["audio"]["bucket"], "tts-audio", "{reply}");
    let wav = wav::parse(&nats::audio_of(client, &reply).await);
    assert!(wav.samples.len() * 2 > 1 << 20);
    let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
    checkable::assert_spoken(&wav.samples, &texts);
}

async fn bad_input_names_its_field(client: &async_nats::Client) {
    let cases = [
        (json!({"text": ""}), "text", "unspeakable"),
        (json!({"text": "  \n "}), "text", "unspeakable"),
        (json!({"text": "a\u{0}b"}), "text", "malformed"),
        (json!({"text": "x".repeat(256 * 1024 + 1)}), "text", "too_large"),
        (json!({"text": 5}), "text", "malformed"),
        (json!({"texts": "a"}), "text", "malformed"),
        (json!({"text": "a", "speed": 9.0}), "speed", "malformed"),
        (json!({"text": "a", "speed": "fast"}), "speed", "malformed"),
        (json!({"text": "a", "pitch": 40}), "pitch", "malformed"),
        (json!({"text": "a", "priority": "asap"}), "priority", "malformed"),
        (json!({"text": "a", "outputFormat": "midi"}), "outputFormat", "malformed"),
        (json!({"text": "a", "outputPath": "/tmp/x.wav"}), "outputPath", "unsupported_option"),
        (json!({"text": "a", "deadlineMs": 0}), "deadlineMs", "malformed"),
    ];
    for (request, field, reason) in cases {
        let reply = nats::ask_json(client, "tts.synthesize", request.to_string()).await;
        assert_eq!(code(&reply), ("INVALID_REQUEST", reason), "{reply}");
        let error = &reply["error"];
        let named = error["details"]["field"] == field || error["message"].as_str().unwrap().contains(field);
        assert!(named, "{field} is not named: {reply}");
        assert_eq!(error["retryable"], false);
    }
}

async fn unknown_models(client: &async_nats::Client) {
    let began = std::time::Instant::now();
    let reply = nats::ask_json(client, "tts.synthesize", r#"{"text":"a","model":"nonesuch"}"#).await;
    assert_eq!(code(&reply), ("MODEL_NOT_FOUND", "unknown_model"));
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.contains("nonesuch") && message.contains("checkable"), "{message}");
    assert!(began.elapsed().as_secs() < 2, "it fails at once, not at its deadline");
}

async fn hostile_bytes(client: &async_nats::Client) {
    let good = rmp_serde::to_vec_named(&json!({
        "version": "2.1.0", "messageId": "m", "timestamp": 1, "type": "request", "payload": {"text": "a"}
    }))
    .unwrap();
    let mut cases: Vec<Vec<u8>> = (1..good.len()).step_by(7).map(|end| good[..end].to_vec()).collect();
    cases.push(Vec::new());
    cases.push(b"{\"text\":\"\xff\xfe\"}".to_vec());
    cases.push(b"[]".to_vec());
    cases.push(b"null".to_vec());
    cases.push(b"{\"text\":".to_vec());
    cases.push(format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500)).into_bytes());
    for case in cases {
        for subject in
            ["tts.synthesize", "tts.open", "tts.advance", "tts.finish", "tts.status", "tts.models.load"]
        {
            let reply = nats::ask(client, subject, case.clone()).await;
            let reply = String::from_utf8_lossy(&reply);
            let is_answer_to_status = subject == "tts.status";
            assert!(reply.contains("INVALID_REQUEST") || is_answer_to_status, "{subject} {case:?}: {reply}");
        }
    }
    let refused = client.publish("tts.synthesize", vec![b'x'; 2 << 20].into()).await;
    assert!(refused.is_err(), "a stock client refuses what the server would: {refused:?}");
}
