//! What a request may ask of speech, through the whole fleet: SSML, pauses, joints, speed and pitch, another rate.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use chorus_tests::{Fleet, Home, checkable, chorus, nats, wav};
use serde_json::{Value, json};

const RATE: usize = 16_000;

async fn ask(client: &async_nats::Client, request: Value) -> (Value, Vec<i16>, u32) {
    let reply = nats::ask_json(client, "tts.synthesize", request.to_string()).await;
    if reply["success"] != true {
        return (reply, Vec::new(), 0);
    }
    let wav = wav::parse(&nats::audio_of(client, &reply).await);
    (reply, wav.samples, wav.sample_rate)
}

#[tokio::test]
async fn ssml_is_spoken_with_its_rests_and_its_prosody() {
    let fleet = Fleet::up(&["--engine", "checkable", "--workers", "2"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let ssml = |document: &str| json!({"text": document, "inputType": "ssml"});

    let document =
        "<speak><break time='500ms'/>One is here. Two is here.<break time='2s'/><p>Three.</p>Four.</speak>";
    let (reply, samples, _) = ask(&client, ssml(document)).await;
    assert_eq!(reply["success"], true, "{reply}");
    checkable::assert_spoken(&samples, &["One is here.", "Two is here.", "Three.", "Four."]);
    let spoken = 800 * (12 + 12 + 6 + 5);
    let rests = RATE / 1_000 * (500 + 300 + 2_000 + 600);
    assert_eq!(samples.len(), spoken + rests, "every rest is there, to the sample, and none after the end");

    let louder = "<speak>Aaaaaaaa aaaaaaaa.<prosody rate='200%'>Bbbbbbbb bbbbbbbb.</prosody></speak>";
    let (reply, samples, _) = ask(&client, ssml(louder)).await;
    assert_eq!(reply["success"], true, "{reply}");
    let (first, pause) = (800 * 18, RATE / 1_000 * 300);
    checkable::assert_spoken(&samples[..first], &["Aaaaaaaa aaaaaaaa."]);
    assert_eq!(samples.len(), first + pause + first / 2, "the second is spoken in half its time");

    for (document, names) in [
        ("<speak>no end".to_owned(), "</speak>"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><speak>&a;</speak>".to_owned(), "document type"),
        (format!("<speak>{}", "<p>".repeat(1_000)), "10 deep"),
        ("<speak>a<break time='61s'/></speak>".to_owned(), "60000 ms"),
        ("<speak><audio src='x'/></speak>".to_owned(), "audio"),
        ("<speak><voice name='nobody'>a</voice></speak>".to_owned(), "nobody"),
    ] {
        let (reply, ..) = ask(&client, ssml(&document)).await;
        assert_eq!(reply["error"]["details"]["field"], "text", "{reply}");
        assert!(reply["error"]["message"].as_str().unwrap().contains(names), "{names}: {reply}");
    }
}

#[tokio::test]
async fn speed_pitch_and_rate_are_honoured_where_the_engine_cannot() {
    let fleet = Fleet::up(&["--engine", "null", "--workers", "1"]).await;
    let client = async_nats::connect(&fleet.url).await.unwrap();
    let (_, plain, rate) = ask(&client, json!({"text": "hello"})).await;
    let cases = [
        (json!({"text": "hello", "speed": 0.5}), 2.0, rate),
        (json!({"text": "hello", "speed": 4.0}), 0.25, rate),
        (json!({"text": "hello", "pitch": 7}), 1.0, rate),
        (json!({"text": "hello", "sampleRate": 48_000}), 48_000.0 / f64::from(rate), 48_000),
        (json!({"text": "hello", "speed": 2.0, "sampleRate": 8_000}), 4_000.0 / f64::from(rate), 8_000),
    ];
    for (request, times, at) in cases {
        let (reply, samples, rate) = ask(&client, request.clone()).await;
        assert_eq!((reply["success"].as_bool(), rate), (Some(true), at), "{request}: {reply}");
        let wanted = plain.len() as f64 * times;
        assert!((samples.len() as f64 - wanted).abs() <= 1.0, "{request}: {} for {wanted}", samples.len());
    }
    let (reply, ..) = ask(&client, json!({"text": "hello", "sampleRate": 96_000})).await;
    assert_eq!(reply["error"]["details"]["field"], "sampleRate", "{reply}");
}

/// The largest step between neighbouring samples in a stretch around `at`.
fn step_at(samples: &[i16], at: usize) -> u32 {
    samples[at.saturating_sub(2)..(at + 2).min(samples.len())]
        .windows(2)
        .map(|pair| i32::from(pair[0]).abs_diff(pair[1].into()))
        .max()
        .unwrap_or(0)
}

/// Loudness in LUFS (ITU-R BS.1770), by an implementation that is not ours.
fn loudness(samples: &[i16], rate: u32) -> f64 {
    let mut meter = ebur128::EbuR128::new(1, rate, ebur128::Mode::I).unwrap();
    meter.add_frames_i16(samples).unwrap();
    meter.loudness_global().unwrap()
}

/// The runs of sound between rests of at least `rest` samples of pure zero.
fn passages(samples: &[i16], rest: usize) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut begin, mut zeros) = (Vec::new(), 0, 0);
    for (at, &sample) in samples.iter().enumerate() {
        zeros = if sample == 0 { zeros + 1 } else { 0 };
        if zeros == rest {
            if at + 1 - rest > begin {
                found.push(begin..at + 1 - rest);
            }
            begin = at + 1;
        } else if zeros > rest {
            begin = at + 1;
        }
    }
    if begin < samples.len() {
        found.push(begin..samples.len());
    }
    found
}

#[tokio::test]
async fn joints_of_a_real_voice_neither_click_nor_jump() {
    let home = Home::provisioned();
    let sentences = [
        "The quick brown fox jumps over the lazy dog near the river bank.",
        "A second sentence follows the first one without any hurry at all.",
        "And the third one ends the story as everybody had expected it.",
    ];
    let text = sentences.join(" ");
    chorus(&home, &["say", &text, "-o", "whole.wav", "--json"]).await.ok().json();
    let whole = wav::parse(&std::fs::read(home.file("whole.wav")).unwrap());
    let parts = passages(&whole.samples, whole.sample_rate as usize * 250 / 1_000);
    assert_eq!(parts.len(), 3, "three sentences with their rests: {parts:?}");
    for (part, sentence) in parts.iter().zip(sentences) {
        for joint in [part.start, part.end] {
            let step = step_at(&whole.samples, joint);
            assert!(step <= 400, "a step of {step} at {joint}");
        }
        chorus(&home, &["say", sentence, "-o", "one.wav", "--json"]).await.ok().json();
        let alone = wav::parse(&std::fs::read(home.file("one.wav")).unwrap());
        let heard = loudness(&whole.samples[part.clone()], whole.sample_rate);
        let own = loudness(&alone.samples, alone.sample_rate);
        assert!((heard - own).abs() <= 1.0, "{heard} and {own} LUFS");
    }
}
