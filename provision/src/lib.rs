//! Fetches, checks and keeps what chorus needs on a machine, so that one command works on a bare one.
//!
//! A [`Provisioner`] is told what is wanted ([`Want`]). If all of it is there, it answers at once from markers in
//! CHORUS_HOME, without starting a process or touching the network. Else it takes the folder's lock and makes what is
//! missing, one step after the other, each telling a [`Progress`]:
//!
//! ```text
//! Python (found, never installed) → uv → nats-server → the engine's source → its environment → the demo voice
//! ```
//! Everything from outside is pinned and checked against hashes that are part of this binary. A step's result counts
//! once its marker is written, as its last act; so whatever interrupts a run, the next goes on from there. Every
//! failure is an [`Error`] that says what to do.

pub mod config;
mod engine;
mod environment;
pub mod error;
mod fault;
mod home;
mod nats;
pub mod progress;
mod python;
mod requirements;
mod steps;
mod tool;
mod uv;
mod version;
mod voice;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chorus_runtime::fs::{FileLock, LockError};
use serde_json::{Value, json};

pub use config::{Config, Profile, Want};
pub use error::Error;
pub use progress::{Finished, Progress, Quiet, Step};
use tool::Context;
pub use voice::{DEMO_VOICE, Voice, voices};

/// An engine ready to be started: `python -m chorus_engine` with `source` as its `PYTHONPATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// What its environment has; at least what was asked for.
    pub profile: Profile,
    /// The environment's Python.
    pub python: PathBuf,
    /// The folder that holds the package.
    pub source: PathBuf,
}

/// What is there. A part that was not wanted is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provided {
    /// CHORUS_HOME.
    pub home: PathBuf,
    /// The server's program.
    pub nats_server: Option<PathBuf>,
    /// The engine.
    pub engine: Option<Engine>,
    /// The demo voice.
    pub voice: Option<Voice>,
}

impl Provided {
    /// The paths for programs, as `chorus setup --json` prints them: `home`, `natsServer`, `profile`, `python`,
    /// `engine`, `voice` (`name`, `path`); null for what was not wanted.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let text = |path: &PathBuf| path.display().to_string();
        let engine = self.engine.as_ref();
        json!({
            "home": text(&self.home),
            "natsServer": self.nats_server.as_ref().map(text),
            "profile": engine.map(|engine| engine.profile.name()),
            "python": engine.map(|engine| text(&engine.python)),
            "engine": engine.map(|engine| text(&engine.source)),
            "voice": self.voice.as_ref().map(|voice| json!({"name": voice.name, "path": text(&voice.path)})),
        })
    }
}

/// Makes, and finds again, what chorus needs.
#[derive(Clone)]
pub struct Provisioner {
    context: Context,
}

impl Provisioner {
    /// A provisioner of `config.home`, observed by `progress`.
    #[must_use]
    pub fn new(config: Config, progress: Arc<dyn Progress>) -> Self {
        Self { context: Context { config: Arc::new(config), progress } }
    }

    /// What is wanted, if all of it is there: a matter of a few reads of small files.
    #[must_use]
    pub fn installed(&self, want: Want) -> Option<Provided> {
        let parts = Parts::found(&self.context.config, want);
        parts.complete(want).then(|| parts.provided(&self.context.config))
    }

    /// Makes what is wanted and not there.
    ///
    /// Dropping the future ends the installer at work; what it had not finished will not count.
    ///
    /// # Errors
    /// Any [`Error`]; what was finished before it stays.
    pub async fn provide(&self, want: Want) -> Result<Provided, Error> {
        if let Some(provided) = self.installed(want) {
            return Ok(provided);
        }
        let _lock = self.lock().await?;
        // The one we waited for may have made it all.
        let mut parts = Parts::found(&self.context.config, want);
        let mut tools = Installers { context: &self.context, found: None };
        if want.nats_server && parts.nats_server.is_none() {
            parts.nats_server = Some(match nats::on_path(&self.context).await? {
                Some(server) => server,
                None => {
                    let (uv, python) = tools.both().await?;
                    nats::provide(&self.context, uv, python).await?
                }
            });
        }
        if let Some(profile) = want.profile() {
            let engine = self.engine(&mut parts, &mut tools, profile).await?;
            if want.voice && parts.voice.is_none() {
                let (uv, _) = tools.both().await?;
                let voice = voice::provide_demo(&self.context, uv, &engine.python, &engine.source).await?;
                parts.voice = Some(voice);
            }
        }
        Ok(parts.provided(&self.context.config))
    }

    /// Imports a Piper voice (`FILE.onnx` with `FILE.onnx.json` beside it) under a name; installs the engine with Coqui first
    /// where it is missing. A voice that was imported from the same file is returned as it is.
    ///
    /// # Errors
    /// [`Error::VoiceRefused`], [`Error::VoiceName`], [`Error::VoiceExists`], and those of [`Provisioner::provide`].
    pub async fn import_voice(&self, onnx: &Path, name: &str) -> Result<Voice, Error> {
        let want = Want { nats_server: false, engine: Some(Profile::Coqui), voice: false };
        let engine = self.provide(want).await?.engine;
        let engine = engine.expect("provide() fulfils the want");
        let _lock = self.lock().await?;
        voice::import(&self.context, (&engine.python, &engine.source), onnx, name).await
    }

    /// The engine's source and environment, made where they are missing.
    async fn engine(
        &self,
        parts: &mut Parts,
        tools: &mut Installers<'_>,
        profile: Profile,
    ) -> Result<Engine, Error> {
        let source = match parts.source.take() {
            Some(source) => source,
            None => engine::provide(&self.context).await?,
        };
        parts.source = Some(source.clone());
        let (profile, python) = match parts.environment.take() {
            Some(found) => found,
            None => {
                let (uv, base) = tools.both().await?;
                (profile, environment::provide(&self.context, profile, (uv, base), &source).await?)
            }
        };
        parts.environment = Some((profile, python.clone()));
        Ok(Engine { profile, python, source })
    }

    /// The lock of CHORUS_HOME; waits for another holder, naming it to the observer.
    async fn lock(&self) -> Result<FileLock, Error> {
        let config = &self.context.config;
        let tools = config.home.join("tools");
        std::fs::create_dir_all(&tools).map_err(|error| Error::io("make the folder", &config.home, error))?;
        // Beside what is guarded: homes may share their folders by links, and then share the lock.
        let shared = tools.canonicalize().map_err(|error| Error::io("find the folder", &tools, error))?;
        let path = shared.with_file_name("provision.lock");
        let note = format!("process {}", std::process::id());
        let mut lock = FileLock::acquire(&path, &note, Duration::ZERO).await;
        if let Err(LockError::Held { holder, .. }) = &lock {
            self.context.progress.waiting(holder);
            lock = FileLock::acquire(&path, &note, config.lock_wait).await;
        }
        lock.map_err(|error| match error {
            LockError::Held { holder, .. } => Error::LockTimeout { holder, waited: config.lock_wait },
            LockError::Io { path, source } => Error::io("lock", path, source),
        })
    }
}

/// What is wanted and there.
struct Parts {
    nats_server: Option<PathBuf>,
    source: Option<PathBuf>,
    environment: Option<(Profile, PathBuf)>,
    voice: Option<Voice>,
}

impl Parts {
    fn found(config: &Config, want: Want) -> Self {
        let profile = want.profile();
        Self {
            nats_server: want.nats_server.then(|| nats::installed(config)).flatten(),
            source: profile.and_then(|_| engine::installed(config)),
            environment: profile.and_then(|profile| environment::installed(config, profile)),
            voice: want.voice.then(|| voice::demo(config)).flatten(),
        }
    }

    fn complete(&self, want: Want) -> bool {
        let engine = self.source.is_some() && self.environment.is_some();
        (!want.nats_server || self.nats_server.is_some())
            && (want.profile().is_none() || engine)
            && (!want.voice || self.voice.is_some())
    }

    fn provided(self, config: &Config) -> Provided {
        let engine = self.environment.zip(self.source);
        Provided {
            home: config.home.clone(),
            nats_server: self.nats_server,
            engine: engine.map(|((profile, python), source)| Engine { profile, python, source }),
            voice: self.voice,
        }
    }
}

/// uv and the base Python, looked for when first needed.
struct Installers<'a> {
    context: &'a Context,
    found: Option<(PathBuf, PathBuf)>,
}

impl Installers<'_> {
    async fn both(&mut self) -> Result<(&Path, &Path), Error> {
        if self.found.is_none() {
            let python = python::find(self.context).await?;
            let uv = uv::provide(self.context, &python).await?;
            self.found = Some((uv, python));
        }
        let (uv, python) = self.found.as_ref().expect("found just now");
        Ok((uv, python))
    }
}
