//! The bare pipe: an engine of its own, asked through the worker's engine client with nothing in between.

use std::time::{Duration, Instant};

use chorus_protocol::pipe::{EngineRequest, EngineSpeech, LoadAnswer};
use chorus_protocol::{Incarnation, WorkerId, names};
use chorus_provision::DEMO_VOICE;
use chorus_runtime::clock::SystemClock;
use chorus_worker::engine::{Engine, EngineState, Session, Told};
use tokio_util::sync::CancellationToken;

use crate::app::Context;
use crate::error::CliError;
use crate::fleet::parts::{self, EngineProgram};

/// What a start and a load may take.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The engine beside the fleet.
pub struct BarePipe {
    engine: Engine,
    session: Session,
    model: String,
}

impl BarePipe {
    /// Starts an engine of the configured kind and loads the first of the models that a fleet would serve.
    pub async fn start(
        context: &Context,
        program: &EngineProgram,
        models: &[String],
    ) -> Result<Self, CliError> {
        let failed = |why: String| CliError::Fleet { part: "bare pipe", why };
        let known = parts::known_models(&context.config, &context.environment)?;
        let demo = known.installed.iter().find(|voice| voice.name == DEMO_VOICE);
        let definitions = parts::definitions(&context.config, &known, models, demo)?;
        let definition = definitions.into_iter().next().ok_or(CliError::NoVoice)?;
        let id = names::default_worker_id(&parts::host(), Incarnation::new());
        let id = WorkerId::new(id).map_err(|error| failed(error.to_string()))?;
        let config =
            parts::worker_config(&context.config, &context.environment, program, id.clone(), Vec::new());
        let engine = Engine::start(&config.engine, &id, SystemClock::shared(), &CancellationToken::new());
        let mut state = engine.state();
        let up =
            state.wait_for(|state| state.session().is_some() || matches!(state, EngineState::GaveUp { .. }));
        let up =
            tokio::time::timeout(READY_WITHIN, up).await.map_err(|_| failed("it does not start".into()))?;
        let session = up.ok().and_then(|state| state.session().cloned());
        let session = session.ok_or_else(|| failed("the engine did not start".into()))?;
        let model = definition.name.to_string();
        let load = EngineRequest::Load { model: Box::new(definition) };
        let loaded = session.link.call::<LoadAnswer>(load, READY_WITHIN).await;
        loaded.map_err(|refused| CliError::Service(refused.error))?;
        Ok(Self { engine, session, model })
    }

    /// One text there and its audio back, in milliseconds.
    pub async fn round_trip(&self, text: String) -> Result<f64, CliError> {
        let speech = EngineSpeech::plain(self.model.as_str(), text);
        let begun = Instant::now();
        let asked = self.session.link.request(EngineRequest::Synthesize(Box::new(speech)), None);
        let mut call = asked.map_err(|refused| CliError::Service(refused.error))?;
        loop {
            match call.next().await {
                Told::Progress | Told::Piece { .. } => {}
                Told::Spoken(_) => return Ok(begun.elapsed().as_secs_f64() * 1000.0),
                Told::Failed(failed) => return Err(CliError::Service(failed.error)),
                Told::Answer(_) => {
                    return Err(CliError::Fleet {
                        part: "bare pipe",
                        why: "an answer without audio came".into(),
                    });
                }
            }
        }
    }

    /// Ends the engine.
    pub async fn stop(self) {
        self.engine.stop().await;
    }
}
