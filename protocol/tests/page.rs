//! `docs/protocol.md` is true: its examples are what chorus writes and reads.
//!
//! A fenced block names what it is: `json NAME` is the payload of the golden vector NAME, `json envelope:NAME` and `hex NAME` the
//! whole of one, `json 1.0:…` a bare line, `json gateway:METHOD` a message of a parent. What is no golden vector is held against its schema here.

#![allow(clippy::unwrap_used, reason = "a test: what cannot be made here is a failure of it")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use chorus_protocol::adapt::client::{answer_from_v1, request_from_v1};
use chorus_protocol::adapt::engine::{self, Line};
use chorus_protocol::gateway::{self, Heard, Method};
use serde_json::Value;

const MAX_BYTES: usize = 1 << 20;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of the page: what each says that it is, and what it holds.
fn blocks() -> Vec<(String, String)> {
    let page = read("../docs/protocol.md");
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        open = match (open, line.strip_prefix("```")) {
            (None, Some(info)) => Some((info.to_owned(), String::new())),
            (Some(block), Some(_)) => {
                found.push(block);
                None
            }
            (Some((info, text)), None) => Some((info, text + line + "\n")),
            (None, None) => None,
        };
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// Whether a value is what a schema describes.
fn is(schema: &str, value: &Value) {
    let schema = serde_json::from_str(&read(&format!("schemas/{schema}.json"))).unwrap();
    if let Err(error) = jsonschema::validate(&schema, value) {
        panic!("{value}: {error}");
    }
}

fn golden(name: &str) -> Value {
    serde_json::from_str(&read(&format!("tests/golden/{name}.json"))).unwrap()
}

fn check(info: &str, text: &str) {
    if let Some(name) = info.strip_prefix("hex ") {
        return assert_eq!(text, read(&format!("tests/golden/{name}.hex")), "{info}");
    }
    let name = info.strip_prefix("json ").unwrap_or_else(|| panic!("{info}: of no kind that is known here"));
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{info}: {error}"));
    let method = |name: &str| Method::named(name).unwrap_or_else(|| panic!("{info}: no such method"));
    match name.split(':').collect::<Vec<_>>()[..] {
        ["envelope", name] => assert_eq!(value, golden(name), "{info}"),
        ["1.0", "request", name] => {
            let request = request_from_v1(text.as_bytes(), MAX_BYTES).unwrap();
            assert_eq!(request.method(), method(name), "{text}");
            is("RequestLine", &value);
        }
        ["1.0", "answer", name] => {
            answer_from_v1(method(name), text.as_bytes(), MAX_BYTES).unwrap();
            is("AnswerLine", &value);
        }
        ["1.0", "engine"] => {
            let line = engine::read(text.as_bytes(), MAX_BYTES);
            assert!(matches!(line, Line::Answer { what: Ok(_), .. }), "{line:?}");
            is("AnswerLine", &value);
        }
        ["gateway", "grant"] => {
            let heard = gateway::read(text.as_bytes(), MAX_BYTES).unwrap();
            assert!(matches!(heard, Heard::Granted(_)), "{heard:?}");
            is("Envelope", &value);
            is("GatewayEvent", &value["payload"]);
        }
        ["gateway", name] => match gateway::read(text.as_bytes(), MAX_BYTES).unwrap() {
            Heard::Asked(asked) => {
                assert_eq!(asked.request.method(), method(name));
                is("Envelope", &value);
                let named = value["payload"].get("method").is_some();
                is(if named { "GatewayRequest" } else { "SynthesisRequest" }, &value["payload"]);
            }
            other => panic!("{info}: {other:?}"),
        },
        [name] => assert_eq!(value, golden(name)["payload"], "{info}"),
        _ => panic!("{info}: of no kind that is known here"),
    }
}

#[test]
fn every_example_is_what_chorus_says() {
    for (info, text) in blocks() {
        check(&info, &text);
    }
}

#[test]
fn every_message_is_on_the_page() {
    let shown: BTreeSet<String> =
        blocks().into_iter().filter_map(|(info, _)| info.strip_prefix("json ").map(str::to_owned)).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(shown.contains(&name), "docs/protocol.md does not show {name}");
        }
    }
}

#[test]
fn every_schema_is_linked() {
    let page = read("../docs/protocol.md");
    let linked: BTreeSet<&str> =
        page.split("(../protocol/schemas/").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let files = std::fs::read_dir(folder).unwrap();
    let kept: BTreeSet<String> =
        files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(linked, kept.iter().map(String::as_str).collect());
}
