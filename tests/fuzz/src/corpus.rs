//! What mutation begins with: every message of the wire, committed as golden vectors, a few lines of 1.0 and SSML, and the
//! configurations in `seeds/`, of today and of the old service.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Inputs that are not among the golden vectors.
const LINES: [&str; 9] = [
    r#"{"type":"request","text":"Hello.","outputPath":"out.wav","speed":1.5,"metadata":{"a":[1,null]}}"#,
    r#"{"type":"request","method":"status"}"#,
    r#"{"type":"response","success":true,"outputPath":"out.wav","latencyMs":12.5}"#,
    r#"{"type":"error","success":false,"error":"no such model","code":"MODEL_NOT_FOUND"}"#,
    r#"<speak version="1.0"><p>One <break time="300ms"/> <prosody rate="80%">two</prosody></p></speak>"#,
    r#"<speak><voice name="p225"><s>A &lt; B</s></voice><sub alias="World Wide Web">WWW</sub></speak>"#,
    "tts_models=2Fen=2Fvits",
    "_INBOX.abc.019000000000700080000000000000071.chunk",
    ">=2.0.0, <3.0.0",
];

/// How many vectors a stream of frames has.
const FRAMES: usize = 3;

/// All seeds, the golden vectors in both encodings, and streams of frames made of them.
///
/// # Errors
/// When the vectors or the configurations are not where they are committed.
pub fn corpus() -> anyhow::Result<Vec<Vec<u8>>> {
    let golden = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol/tests/golden"));
    let mut inputs: Vec<Vec<u8>> = LINES.iter().map(|line| line.as_bytes().to_vec()).collect();
    let seeds = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds"));
    for path in files(&seeds)? {
        inputs.push(std::fs::read(&path)?);
    }
    let mut packed = Vec::new();
    for path in files(&golden)?.into_iter().chain(files(&golden.join("lines"))?) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => inputs.push(std::fs::read(&path)?),
            Some("hex") => {
                packed.push(unhex(&std::fs::read_to_string(&path)?).context(path.display().to_string())?);
            }
            _ => {}
        }
    }
    inputs.extend(packed.chunks(FRAMES).map(stream));
    inputs.extend(packed);
    Ok(inputs)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = listed.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Bodies as frames, one after the other.
fn stream(bodies: &[Vec<u8>]) -> Vec<u8> {
    let framed = bodies.iter().map(|body| [&(body.len() as u32).to_be_bytes(), &body[..]].concat());
    framed.collect::<Vec<_>>().concat()
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
