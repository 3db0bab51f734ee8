//! Embeds the engine's Python package, so that one binary carries all that is ours.
//!
//! It lists `worker/engine` (the package, `pyproject.toml`, `uv.lock`; no tests, nothing that Python compiled) into
//! `engine_files.rs` as `(path, include_bytes!(…))` pairs, with a hash of all of it that names the folder it
//! is unpacked to, and a hash of the lock that names the environments built from it.
#![allow(clippy::print_stdout, reason = "a build script speaks to cargo through stdout")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn main() {
    let manifest_dir = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out_dir = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets it"));
    let engine =
        manifest_dir.join("../worker/engine").canonicalize().expect("worker/engine is in the checkout");

    let mut files = vec![engine.join("pyproject.toml"), engine.join("uv.lock")];
    list(&engine.join("chorus_engine"), &mut files);
    files.sort();

    let mut content = Sha256::new();
    let mut source = String::from("pub(crate) const FILES: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let path =
            file.strip_prefix(&engine).expect("listed below it").to_str().expect("our names are ASCII");
        let bytes = std::fs::read(file).expect("listed just now");
        content.update((path.len() as u64).to_be_bytes());
        content.update(path);
        content.update((bytes.len() as u64).to_be_bytes());
        content.update(&bytes);
        writeln!(source, "    ({path:?}, include_bytes!({file:?})),").expect("a String takes all");
    }
    let mut lock = Sha256::new();
    lock.update(std::fs::read(engine.join("pyproject.toml")).expect("listed above"));
    lock.update(std::fs::read(engine.join("uv.lock")).expect("listed above"));
    writeln!(source, "];").expect("a String takes all");
    writeln!(source, "pub(crate) const CONTENT_HASH: &str = {:?};", short_hex(content))
        .expect("a String takes all");
    writeln!(source, "pub(crate) const LOCK_HASH: &str = {:?};", short_hex(lock))
        .expect("a String takes all");
    std::fs::write(out_dir.join("engine_files.rs"), source).expect("cargo made the folder");

    for watched in ["chorus_engine", "pyproject.toml", "uv.lock"] {
        println!("cargo::rerun-if-changed={}", engine.join(watched).display());
    }
}

/// Every file of the package below `folder`, without what Python compiled.
fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the checkout") {
        let path = entry.expect("a folder of the checkout").path();
        let name = path.file_name().expect("listed by name").to_string_lossy().into_owned();
        if name == "__pycache__" || name.starts_with('.') || name.ends_with(".pyc") {
            continue;
        }
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The first 16 hexadecimal digits: enough to name a folder.
fn short_hex(hash: Sha256) -> String {
    hash.finalize().iter().take(8).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
