//! What a worker and its engine say to each other.

use super::*;

#[test]
fn what_goes_through_the_pipe() {
    golden("pipe_hello", EngineRequest::Hello { accept: version::ACCEPT.into(), worker: "w-host-1".into() });
    golden("pipe_load", EngineRequest::Load { model: Box::new(definition()) });
    golden("pipe_unload", EngineRequest::Unload { model: model().to_string() });
    golden(
        "pipe_synthesize",
        EngineRequest::Synthesize(Box::new(EngineSpeech {
            model: model().to_string(),
            text: "Grüße.".into(),
            voice: None,
            speaker_clip: None,
            language: None,
            speed: Some(1.25),
            pitch: None,
            seed: Some(42),
            job: Some(run()),
        })),
    );
    golden("pipe_cancel", EngineRequest::Cancel { message_id: MessageId::new("m").unwrap() });
    golden("pipe_ping", EngineRequest::Ping);
    golden("pipe_shutdown", EngineRequest::Shutdown);
    golden("pipe_chunk", EngineEvent::Chunk { seq: 0, data: AudioData::from(vec![1, 0]) });
    golden("pipe_progress", EngineEvent::Progress { stage: "load".into(), other: serde_json::Map::new() });
    golden(
        "pipe_hello_answer",
        HelloAnswer {
            version: version::V2_1,
            engine: EngineInfo {
                name: "coqui".into(),
                version: "0.1.0".into(),
                library: "coqui-tts 0.28.0".into(),
            },
            pid: 101,
            device: Device { kind: "cpu".into(), name: "cpu".into(), threads: 2, memory_bytes: None },
            capabilities: Capabilities {
                speed: true,
                seed: true,
                cancel: true,
                lanes: 1,
                max_batch: 1,
                ..Default::default()
            },
        },
    );
    let load_answer = LoadAnswer {
        sample_rate: 22_050,
        voices: vec![],
        languages: vec![],
        load_ms: 3_900.0,
        warmup_ms: 120.0,
        max_text_chars: None,
        rss_bytes: 600_000_000,
        gpu_memory_bytes: Some(310_000_000),
        tuning: None,
        files: vec!["/voices/joe/model.pth".into()],
    };
    golden("pipe_load_answer", load_answer.clone());
    golden("pipe_load_answer_tuned", LoadAnswer { tuning: Some(tuning()), ..load_answer });
    golden("pipe_unload_answer", UnloadAnswer { rss_bytes: 400_000_000, gpu_memory_bytes: None });
    golden(
        "pipe_spoken",
        SpokenAnswer {
            seq: 1,
            data: AudioData::from(vec![3, 0]),
            chunks: 2,
            samples: 3,
            sample_rate: 22_050,
            crc32: 7,
            engine_ms: 79.5,
            warnings: vec![EngineWarning {
                reason: "unspeakable".into(),
                message: "left out".into(),
                characters: "🎉".into(),
            }],
        },
    );
}
