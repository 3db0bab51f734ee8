//! `chorus say`: the first command of the README, and what can go wrong with it.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::process::Stdio;
use std::time::Duration;

use chorus_tests::fleet::{Fleet, command, finish, nothing_is_left, signal};
use chorus_tests::{Home, chorus, chorus_with_stdin, poll, wav};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SENTENCE: &str = "The quick brown fox jumps over the lazy dog near the river bank.";

#[tokio::test]
async fn real_coqui_on_a_real_voice_is_understood() {
    let home = Home::provisioned();
    let ran = chorus(&home, &["say", SENTENCE, "-o", "fox.wav", "--json"]).await.ok();
    let result = ran.json();
    assert_eq!(result["success"], true);
    let file = home.file("fox.wav");
    let wav = wav::parse(&std::fs::read(&file).unwrap());
    assert_eq!(wav.sample_rate, 22_050);
    nothing_is_left(&home).await;

    let setup = chorus(&home, &["setup", "--profile", "test", "--json"]).await.ok().json();
    let python = setup["python"].as_str().unwrap_or_else(|| panic!("{setup}")).to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/recognise.py");
    #[allow(clippy::disallowed_methods, reason = "the recogniser is a program of its own")]
    let heard = tokio::process::Command::new(python).arg(script).arg(&file).output().await.unwrap();
    let heard = String::from_utf8(heard.stdout).unwrap();
    let words: Vec<&str> = heard.split_whitespace().collect();
    let mut at = 0;
    let expected = SENTENCE.trim_end_matches('.').to_lowercase();
    let found = expected.split(' ').filter(|word| {
        let place = words[at..].iter().position(|w| w == word);
        at += place.map_or(0, |p| p + 1);
        place.is_some()
    });
    let found = found.count();
    assert!(found >= 10, "only {found} of 13 words: {heard:?}");
}

#[tokio::test]
async fn the_voice_says_what_it_can_and_tells_what_it_cannot() {
    let home = Home::provisioned();
    let nothing = chorus(&home, &["say", "🎉 🎉", "-o", "x.wav", "--json"]).await;
    assert_ne!(nothing.code, 0);
    assert_eq!(nothing.json()["error"]["code"], "INVALID_REQUEST", "{}", nothing.text());
    assert_eq!(nothing.json()["error"]["details"]["reason"], "unspeakable");
    assert!(!home.file("x.wav").exists(), "no file where there is no audio");

    let part = chorus(&home, &["say", "Hello 世界 my friend.", "-o", "part.wav", "--json"]).await.ok().json();
    assert_eq!(part["success"], true);
    assert_eq!(part["metadata"]["warnings"][0]["reason"], "unspeakable", "{part}");

    let fast =
        chorus(&home, &["say", SENTENCE, "-o", "fast.wav", "--speed", "2", "--json"]).await.ok().json();
    let slow =
        chorus(&home, &["say", SENTENCE, "-o", "slow.wav", "--speed", "0.5", "--json"]).await.ok().json();
    let ratio = slow["duration"].as_f64().unwrap() / fast["duration"].as_f64().unwrap();
    assert!((2.0..5.5).contains(&ratio), "speed is honoured: {ratio}");
}

#[tokio::test]
async fn bad_input_is_refused_with_a_reason() {
    let home = Home::provisioned();
    std::fs::write(home.file("long.txt"), "word ".repeat(60_000)).unwrap();
    let cases: [(&[&str], &[u8], &str); 7] = [
        (&["say", ""], b"", "text"),
        (&["say", "-"], b"\xff\xfe", "UTF-8"),
        (&["say", "-"], b"a\0b", "NUL"),
        (&["say", "--ssml", "--file", "long.txt"], b"", "262144"),
        (&["say", "hello", "--speed", "9"], b"", "speed"),
        (&["say", "--file", "missing.txt"], b"", "missing.txt"),
        (&["say", "hello", "-o", "no/such/folder/x.wav"], b"", "no/such/folder"),
    ];
    for (args, input, names) in cases {
        let mut args = args.to_vec();
        args.extend(["--engine", "null"]);
        let ran = chorus_with_stdin(&home, &args, input).await;
        assert!(ran.code == 1 || ran.code == 2, "{args:?}: {} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains(names), "{args:?} does not name {names}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{args:?}: {}", ran.stderr);
    }
    nothing_is_left(&home).await;
}

#[tokio::test]
async fn text_comes_from_a_file_or_standard_input_too() {
    let home = Home::provisioned();
    std::fs::write(home.file("text.txt"), "From a file.").unwrap();
    for args in [["say", "--file", "text.txt"], ["say", "-", "--json"]] {
        let mut args = args.to_vec();
        args.extend(["-o", "out.wav", "--engine", "checkable"]);
        let ran = chorus_with_stdin(&home, &args, b"From a file.").await;
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let wav = wav::parse(&std::fs::read(home.file("out.wav")).unwrap());
        chorus_tests::checkable::assert_spoken(&wav.samples, &["From a file."]);
        std::fs::remove_file(home.file("out.wav")).unwrap();
    }
}

#[tokio::test]
async fn a_file_may_be_longer_than_a_message() {
    let home = Home::provisioned();
    let sentence = format!("A sentence of a book{}. ", " that goes on".repeat(14));
    let book = sentence.repeat(1_400);
    assert!(book.len() > 262_144);
    std::fs::write(home.file("book.txt"), book).unwrap();
    let args = ["say", "--file", "book.txt", "-o", "book.wav", "--engine", "null", "--json"];
    let said = chorus(&home, &args).await.ok().json();
    assert_eq!(said["metadata"]["segments"], 1_400, "{said}");
    std::fs::write(home.file("bad.txt"), b"A good sentence. \xff").unwrap();
    let bad = chorus(&home, &["say", "--file", "bad.txt", "-o", "bad.wav", "--engine", "null"]).await;
    assert!(bad.code != 0 && bad.stderr.contains("bad.txt") && bad.stderr.contains("17"), "{}", bad.stderr);
    assert!(!home.file("bad.wav").exists());
    nothing_is_left(&home).await;
}

#[tokio::test]
async fn a_sentence_is_spoken_as_soon_as_it_is_complete_while_the_text_still_comes() {
    let fleet = Fleet::up(&["--engine", "checkable"]).await;
    let mut say = command(&fleet.home, &["say", "-", "-o", "-", "--format", "pcm"]);
    let mut child = say.stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let sentences = ["The first is complete.", "The second comes in pieces.", "And a third without a stop"];
    let mut heard = Vec::new();
    stdin.write_all(format!("{} The sec", sentences[0]).as_bytes()).await.unwrap();
    stdin.flush().await.unwrap();
    // Its audio is here while nobody knows how the text goes on.
    let first = tokio::time::timeout(Duration::from_secs(60), stdout.read_buf(&mut heard)).await;
    assert!(first.expect("the first sentence is heard before the text ends").unwrap() > 0);
    for piece in ["ond comes in ", "pieces. And a third ", "without a stop"] {
        stdin.write_all(piece.as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }
    drop(stdin);
    stdout.read_to_end(&mut heard).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let samples: Vec<i16> =
        heard.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    chorus_tests::checkable::assert_spoken(&samples, &sentences);
}

#[tokio::test]
async fn a_text_beyond_what_one_message_holds_is_spoken_as_it_comes() {
    let fleet = Fleet::up(&["--engine", "null"]).await;
    let sentence = "This is one of very many sentences, each of which is spoken by itself. ";
    let long = sentence.repeat(16 * 1024 / sentence.len() * 20);
    assert!(long.len() > 256 * 1024);
    let ran =
        chorus_with_stdin(&fleet.home, &["say", "-", "-o", "long.flac", "--json"], long.as_bytes()).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let segments = ran.json()["metadata"]["segments"].as_u64().unwrap();
    assert_eq!(segments, long.matches(". ").count() as u64);
}

#[tokio::test]
async fn ctrl_c_and_sigkill_leave_no_process_behind() {
    for (kill, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::KILL, -1)] {
        let home = Home::provisioned();
        let mut say = command(&home, &["say", "[[slow ms=60000]]hello", "--engine", "checkable"]);
        let mut child = say.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // chorus, and at least a broker and an engine with a guard each.
        poll("a fleet at work", Duration::from_secs(60), || async {
            (home.processes().len() >= 5).then_some(())
        })
        .await;
        signal(child.id().unwrap(), kill);
        let status = tokio::time::timeout(Duration::from_secs(15), child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code().unwrap_or(-1), code, "{kill:?}");
        nothing_is_left(&home).await;
    }
}

#[tokio::test]
async fn a_missing_python_is_named_with_what_to_do() {
    let home = Home::empty();
    let mut say = command(&home, &["say", "hello"]);
    say.env("PATH", home.path());
    let ran = finish(say).await;
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("no Python from 3.10"), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
}
