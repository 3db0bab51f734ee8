//! The last check: the code of a worker itself starts the engine, loads, speaks, and ends it.

use std::time::Duration;

use chorus_protocol::WorkerId;
use chorus_protocol::pipe::{EngineRequest, EngineSpeech, LoadAnswer};
use chorus_runtime::clock::SystemClock;
use chorus_worker::EngineConfig;
use chorus_worker::engine::{Engine, EngineState, Session, Told};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::lab::Lab;
use crate::conformance::message::Dialect;
use crate::conformance::report::{Checked, Trouble, not_applicable, unmet};

/// The name of the worker.
const WORKER: &str = "conformance";

/// Runs the check, where nothing has failed so far: what has is known already.
pub(super) async fn check(lab: &mut Lab) -> Checked {
    lab.conversed()?;
    if lab.report.checks.iter().any(|check| matches!(check.checked, Err(Trouble::Unmet { .. }))) {
        return Err(not_applicable("other checks have failed"));
    }
    let worker = WorkerId::new(WORKER).map_err(|error| not_applicable(error.to_string()))?;
    let token = CancellationToken::new();
    let engine = Engine::start(&config(lab), &worker, SystemClock::shared(), &token);
    let checked = served(lab, &engine).await;
    engine.stop().await;
    checked
}

fn config(lab: &Lab) -> EngineConfig {
    let words = lab.program.command.iter().map(|word| quoted(&word.to_string_lossy()));
    let command = words.collect::<Vec<_>>().join(" ");
    let lines = EngineConfig::command(WORKER, &command);
    EngineConfig {
        // The arguments that a worker adds for an engine of frames become the shell's own, which nobody reads.
        speaks: match lab.dialect {
            Some(Dialect::Frames) => chorus_worker::config::Speaks::Frames,
            _ => lines.speaks,
        },
        env: lab.program.environment.iter().cloned().collect(),
        ready_within: lab.patience.start,
        ..lines
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

async fn served(lab: &Lab, engine: &Engine) -> Checked {
    let session = timeout(lab.patience.start, ready(engine)).await;
    let session = session.map_err(|_elapsed| unmet("a worker's handshake", "nothing in time"))??;
    let model = lab.definition()?;
    let name = model.name.to_string();
    let load = EngineRequest::Load { model: Box::new(model) };
    let _longer = session.link.loading();
    let loaded = session.link.call::<LoadAnswer>(load, lab.patience.start).await;
    let loaded = loaded.map_err(|failed| unmet("a worker's load", failed.error.to_string()))?;
    let speech = EngineSpeech::plain(name, lab.text.as_str());
    spoken(&session, speech, lab.patience.answer).await?;
    Ok(Some(format!("{} Hz", loaded.sample_rate)))
}

async fn ready(engine: &Engine) -> Result<Session, Trouble> {
    let mut state = engine.state();
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            EngineState::Ready(session) => return Ok(session),
            EngineState::Starting { last: None } => {}
            EngineState::Starting { last: Some(why) } | EngineState::GaveUp { last: why } => {
                return Err(unmet("a worker's handshake", why.to_string()));
            }
            EngineState::Stopped => return Err(unmet("a worker's handshake", "the engine stopped")),
        }
        if state.changed().await.is_err() {
            return Err(unmet("a worker's handshake", "the engine's supervisor ended"));
        }
    }
}

async fn spoken(session: &Session, speech: EngineSpeech, within: Duration) -> Result<(), Trouble> {
    let asked = session.link.request(EngineRequest::Synthesize(Box::new(speech)), None);
    let mut call = asked.map_err(|failed| unmet("a pipe that takes requests", failed.error.to_string()))?;
    let mut samples = 0_u64;
    loop {
        let told = timeout(within, call.next()).await;
        match told.map_err(|_elapsed| unmet("a worker's segment", "nothing in time"))? {
            Told::Progress => {}
            Told::Piece { data, .. } => samples += data.len() as u64 / 2,
            Told::Answer(_) => return Err(unmet("what was spoken", "an answer without audio")),
            Told::Failed(failed) => return Err(unmet("a worker's segment", failed.error.to_string())),
            Told::Spoken(answer) => {
                samples += answer.data.0.len() as u64 / 2;
                if samples == answer.samples {
                    return Ok(());
                }
                return Err(unmet(format!("{} samples", answer.samples), samples.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
