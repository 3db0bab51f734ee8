//! Who may import what: the layers of the system, kept from both sides.
//!
//! The crate graph, as `cargo metadata` tells it, must stay inside [`LAYERS`]; and some names belong to one place
//! ([`OWNED_NAMES`]), which the sources themselves are searched for. `chorus-tests` may name anything, as may a crate's own
//! `tests/` folder; nothing may import `chorus-tests`.

use serde_json::Value;

use crate::sources::Source;

/// For each crate, the crates of ours that it may depend on, in any section of its manifest.
const LAYERS: &[(&str, &[&str])] = &[
    ("chorus-protocol", &[]),
    ("chorus-text", &["chorus-protocol"]),
    ("chorus-audio", &["chorus-protocol"]),
    ("chorus-runtime", &[]),
    ("chorus-provision", &["chorus-runtime"]),
    ("chorus-bus", &["chorus-protocol", "chorus-runtime"]),
    ("chorus-client", &["chorus-audio", "chorus-bus", "chorus-protocol", "chorus-runtime"]),
    ("chorus-manager", &SERVICE_LAYERS),
    ("chorus-worker", &SERVICE_LAYERS),
    ("chorus-gateway", &SERVICE_LAYERS),
    // Scenarios drive a fleet from outside: processes and the wire, never a service's own code.
    ("chorus-chaos", &["chorus-bus", "chorus-client", "chorus-protocol", "chorus-runtime"]),
    ("chorus-fuzz", &["chorus-cli", "chorus-protocol", "chorus-runtime", "chorus-text"]),
    ("chorus-cli", &EVERYTHING),
    ("chorus-tests", &EVERYTHING),
    ("xtask", &[]),
];

/// What a service may stand on; never another service.
const SERVICE_LAYERS: [&str; 6] =
    ["chorus-audio", "chorus-bus", "chorus-client", "chorus-protocol", "chorus-runtime", "chorus-text"];

/// Everything but the tests. Chaos lies below `tests/` but is a program, not a test: `chorus bench chaos` runs the same
/// scenarios, by the same code, that the tests run.
const EVERYTHING: [&str; 12] = [
    "chorus-audio",
    "chorus-bus",
    "chorus-chaos",
    "chorus-cli",
    "chorus-client",
    "chorus-gateway",
    "chorus-manager",
    "chorus-protocol",
    "chorus-provision",
    "chorus-runtime",
    "chorus-text",
    "chorus-worker",
];

/// Crates that do no input or output, so may not stand on a runtime for it.
const PURE: [&str; 3] = ["chorus-protocol", "chorus-text", "chorus-audio"];

/// A name that belongs to one place, and where that is (the beginnings of paths).
const OWNED_NAMES: &[(&str, &[&str])] = &[
    ("async_nats", &["bus/"]),
    ("axum", &["gateway/"]),
    ("backoff", &["runtime/src/retry.rs"]),
    ("process::Command", &["runtime/src/process.rs", "runtime/src/process/", "xtask/"]),
];

/// Every import in the crate graph (`cargo metadata --no-deps`) that the layers forbid, one line each.
pub(crate) fn faults_of_graph(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    packages.iter().flat_map(faults_of_package).collect()
}

fn faults_of_package(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return vec![format!(
            "{name} is not in the layers of xtask/src/imports.rs: say there what it may import"
        )];
    };
    let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    let names = dependencies.iter().filter_map(|dependency| dependency["name"].as_str());
    names
        .filter(|dependency| {
            let ours = LAYERS.iter().any(|(layer, _)| layer == dependency);
            let outside_its_layers = ours && !allowed.contains(dependency);
            let impure = PURE.contains(&name) && *dependency == "tokio";
            outside_its_layers || impure
        })
        .map(|dependency| format!("{name} may not import {dependency}"))
        .collect()
}

/// Every place in the sources that names what belongs elsewhere, one line each.
pub(crate) fn faults_of_sources(sources: &[Source]) -> Vec<String> {
    let bound = sources.iter().filter(|source| source.is_rust() && !may_name_anything(&source.path));
    bound.flat_map(faults_of_source).collect()
}

fn may_name_anything(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.starts_with("xtask/")
}

fn faults_of_source(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (name, owners) in OWNED_NAMES {
            let owned_here = owners.iter().any(|owner| source.path.starts_with(owner));
            if !owned_here && names(code, name) {
                let owners = owners.join(", ");
                faults.push(format!(
                    "{}:{} names {name}, which belongs to {owners}",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    faults
}

/// Whether a line of code names `name` as a path: `axum::Router`, `use axum;`, `use std::process::{Child, Command};`.
fn names(code: &str, name: &str) -> bool {
    let in_a_list = || match name.rsplit_once("::") {
        Some((module, item)) => code
            .split_once(&format!("{module}::{{"))
            .is_some_and(|(_, list)| list.split(|c: char| !is_word(c)).any(|word| word == item)),
        None => false,
    };
    let mut places = code.match_indices(name);
    places.any(|(at, _)| stands_alone(code, at, name)) || in_a_list()
}

/// Whether the match at `at` is the whole name, and used as a path rather than as a word of its own.
fn stands_alone(code: &str, at: usize, name: &str) -> bool {
    let (before, after) = (&code[..at], &code[at + name.len()..]);
    let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
    let imported = before.trim_end().ends_with("use") || before.trim_end().ends_with("extern crate");
    whole && (name.contains("::") || after.starts_with("::") || imported)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault_count(path: &str, text: &str) -> usize {
        faults_of_sources(&[Source { path: path.into(), text: text.into() }]).len()
    }

    #[test]
    fn names_are_found_where_they_do_not_belong() {
        assert_eq!(fault_count("worker/src/a.rs", "use async_nats::Client;"), 1);
        assert_eq!(fault_count("manager/src/a.rs", "    let r = axum::Router::new();"), 1);
        assert_eq!(fault_count("cli/src/a.rs", "use std::process::{Child, Command};"), 1);
        assert_eq!(fault_count("cli/src/a.rs", "tokio::process::Command::new(x)"), 1);
        assert_eq!(fault_count("runtime/src/other.rs", "use backoff::ExponentialBackoff;"), 1);
    }

    #[test]
    fn owners_tests_comments_and_longer_words_are_left_alone() {
        assert_eq!(fault_count("bus/src/a.rs", "use async_nats::Client;"), 0);
        assert_eq!(fault_count("runtime/src/retry.rs", "use backoff::ExponentialBackoff;"), 0);
        assert_eq!(fault_count("runtime/src/process/child.rs", "use tokio::process::Command;"), 0);
        assert_eq!(fault_count("tests/src/lib.rs", "use async_nats::Client;"), 0);
        assert_eq!(fault_count("worker/tests/a.rs", "std::process::Command::new(x)"), 0);
        assert_eq!(fault_count("worker/src/a.rs", "// as axum::Router does"), 0);
        assert_eq!(
            fault_count("worker/src/a.rs", "let backoff = my_backoff::next(); clap::Command::new()"),
            0
        );
    }

    #[test]
    fn the_graph_is_held_to_its_layers() {
        let graph = |name: &str, dependency: &str| {
            faults_of_graph(&json!({"packages": [{"name": name, "dependencies": [{"name": dependency}]}]}))
                .len()
        };
        assert_eq!(graph("chorus-client", "chorus-bus"), 0);
        assert_eq!(graph("chorus-worker", "serde"), 0);
        assert_eq!(graph("chorus-worker", "chorus-manager"), 1);
        assert_eq!(graph("chorus-bus", "chorus-tests"), 1);
        assert_eq!(graph("chorus-protocol", "tokio"), 1);
        assert_eq!(graph("chorus-unheard-of", "serde"), 1);
    }
}
