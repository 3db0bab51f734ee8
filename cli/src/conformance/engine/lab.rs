//! One engine under test: started when a check needs it, kept as long as it behaves.

use std::path::PathBuf;

use chorus_protocol::pipe::{EngineRequest, HelloAnswer, LoadAnswer};
use chorus_protocol::{ModelDefinition, ModelName, ModelSource, SynthesisRequest};
use serde_json::json;
use tempfile::TempDir;

use super::greeting::{self, Greeted};
use crate::args::EngineCheckArgs;
use crate::conformance::Patience;
use crate::conformance::message::Dialect;
use crate::conformance::report::{Checked, Report, Rule, Trouble, not_applicable, unmet};
use crate::conformance::talk::{Seen, Talk};
use crate::conformance::wire::Program;
use crate::conformance::{dialect_of, shown};
use crate::error::CliError;

/// Rates that a voice can have, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 8_000..=96_000;
/// The name of a model that nobody named.
const UNNAMED: &str = "conformance";

/// See the module.
pub(super) struct Lab {
    pub(super) program: Program,
    pub(super) patience: Patience,
    pub(super) text: String,
    pub(super) seen: Seen,
    pub(super) report: Report,
    /// How it is spoken to, once that is known, or as it was told.
    pub(super) dialect: Option<Dialect>,
    /// What it has said of itself.
    pub(super) hello: Option<HelloAnswer>,
    /// What it has said of its model.
    pub(super) loaded: Option<LoadAnswer>,
    model: Option<String>,
    folder: TempDir,
    files: u32,
    talk: Option<Talk>,
    /// Whether there was a conversation at all.
    greeted: bool,
}

impl Lab {
    pub(super) fn new(
        args: &EngineCheckArgs,
        program: Program,
        patience: Patience,
    ) -> Result<Self, CliError> {
        let text = args.common.text.clone();
        SynthesisRequest { text: text.clone(), ..SynthesisRequest::default() }.validate()?;
        let folder = tempfile::Builder::new().prefix("chorus-conformance-").tempdir();
        Ok(Self {
            report: Report::new("engine", shown(&program)),
            program,
            patience,
            text,
            seen: Seen::default(),
            dialect: args.common.protocol.map(dialect_of),
            hello: None,
            loaded: None,
            model: args.model.clone(),
            folder: folder.map_err(CliError::io("cannot make a folder for the engine's files"))?,
            files: 0,
            talk: None,
            greeted: false,
        })
    }

    /// Writes down how a check went; an engine that failed it is started anew for the next.
    pub(super) async fn put(&mut self, rule: &'static Rule, checked: Checked) {
        let broke = matches!(&checked, Err(Trouble::Unmet { .. }));
        let version = self.dialect.map(Dialect::version);
        self.report.put(rule, version, checked);
        if (broke || !self.seen.look().framing.is_empty())
            && let Some(talk) = self.talk.take()
        {
            talk.wire.stop().await;
        }
    }

    pub(super) async fn finish(mut self) -> Report {
        if let Some(talk) = self.talk.take() {
            talk.wire.stop().await;
        }
        self.report.versions =
            self.dialect.filter(|_| self.greeted).map(Dialect::version).into_iter().collect();
        self.report
    }

    /// The check of the greeting.
    pub(super) async fn handshake(&mut self) -> Checked {
        let greeted = greeting::greet(self).await?;
        let remark = greeted.remark.clone();
        self.greeted_by(greeted);
        Ok(remark)
    }

    fn greeted_by(&mut self, greeted: Greeted) {
        self.greeted = true;
        self.dialect = Some(greeted.talk.dialect);
        if let Some(hello) = &greeted.hello {
            let library = Some(&hello.engine.library).filter(|library| !library.is_empty());
            let library = library.map_or_else(String::new, |library| format!(" ({library})"));
            self.report.peer = Some(format!("{} {}{library}", hello.engine.name, hello.engine.version));
        }
        self.hello = greeted.hello;
        self.talk = Some(greeted.talk);
    }

    /// The check of `load`, which is also what the others stand on.
    pub(super) async fn load(&mut self) -> Checked {
        self.conversed()?;
        if self.dialect != Some(Dialect::Frames) {
            return Err(not_applicable("an engine of lines brings its model with it"));
        }
        if self.talk.is_none() {
            let greeted = greeting::greet(self).await?;
            self.greeted_by(greeted);
        }
        let load = json!(EngineRequest::Load { model: Box::new(self.definition()?) });
        let within = self.patience.start;
        let Some(talk) = &mut self.talk else { return Err(no_conversation()) };
        let answer = talk.answer(load, within).await?;
        if let Some(error) = answer.error() {
            let hint = "the model is loaded (--model names another)";
            return Err(unmet(hint, format!("{:?}: {error}", error.code)));
        }
        let loaded: LoadAnswer = answer
            .read()
            .map_err(|why| unmet("sampleRate and loadMs", format!("{why}: {}", answer.shown())))?;
        if !RATES.contains(&loaded.sample_rate) {
            return Err(unmet("a sampleRate of 8,000 to 96,000 Hz", loaded.sample_rate.to_string()));
        }
        self.loaded = Some(loaded);
        Ok(None)
    }

    /// The conversation, begun anew where there is none.
    pub(super) async fn talk(&mut self) -> Result<&mut Talk, Trouble> {
        self.conversed()?;
        if self.talk.is_none() {
            let greeted = greeting::greet(self).await.map_err(started_again)?;
            self.greeted_by(greeted);
            if self.dialect == Some(Dialect::Frames) {
                Box::pin(self.load()).await.map_err(started_again)?;
            }
        }
        if self.dialect == Some(Dialect::Frames) && self.loaded.is_none() {
            return Err(not_applicable("no model is loaded: see load"));
        }
        self.talk.as_mut().ok_or_else(no_conversation)
    }

    /// The conversation, to be ended.
    pub(super) async fn take_talk(&mut self) -> Result<Talk, Trouble> {
        self.talk().await?;
        self.talk.take().ok_or_else(no_conversation)
    }

    /// Whether the engine could be spoken to at all.
    pub(super) fn conversed(&self) -> Result<(), Trouble> {
        if self.greeted { Ok(()) } else { Err(no_conversation()) }
    }

    /// The model that is loaded.
    pub(super) fn definition(&self) -> Result<ModelDefinition, Trouble> {
        let kind = self.hello.as_ref().map_or(UNNAMED, |hello| hello.engine.name.as_str()).to_owned();
        let given = self.model.clone().unwrap_or_else(|| kind.clone());
        let (name, source) = match given.split_once('=') {
            Some((name, path)) => {
                (name.to_owned(), ModelSource::Path { path: path.to_owned(), config_path: None })
            }
            None => (given.clone(), ModelSource::Builtin { builtin: given }),
        };
        let name = ModelName::new(name).map_err(|error| not_applicable(error.to_string()))?;
        Ok(ModelDefinition { default: true, ..ModelDefinition::new(name, kind, source) })
    }

    /// A file that is not there yet, for an engine of lines.
    pub(super) fn file(&mut self) -> PathBuf {
        self.files += 1;
        self.folder.path().join(format!("{}.wav", self.files))
    }
}

fn no_conversation() -> Trouble {
    not_applicable("there is no conversation")
}

/// A start that worked before.
fn started_again(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Unmet { expected, came } => unmet(format!("another start of the engine: {expected}"), came),
        other => other,
    }
}
