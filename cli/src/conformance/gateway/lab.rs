//! One gateway under test: started when a check needs it, in the version that is being tried.

use std::path::{Path, PathBuf};

use chorus_protocol::SynthesisRequest;
use chorus_protocol::gateway::GatewayHello;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::greeting;
use crate::args::GatewayCheckArgs;
use crate::conformance::Patience;
use crate::conformance::message::Dialect;
use crate::conformance::report::{Checked, Report, Rule, Trouble, not_applicable, unmet};
use crate::conformance::talk::{Seen, Talk};
use crate::conformance::wire::Program;
use crate::conformance::{dialect_of, shown};
use crate::error::CliError;

/// See the module.
pub(super) struct Lab {
    pub(super) program: Program,
    pub(super) patience: Patience,
    pub(super) text: String,
    pub(super) at_once: u32,
    /// The folder that the gateway keeps its files in, where that is known.
    pub(super) root: Option<PathBuf>,
    pub(super) seen: Seen,
    /// The only version that is wanted.
    pub(super) forced: Option<Dialect>,
    /// What it speaks, oldest first.
    pub(super) dialects: Vec<Dialect>,
    /// What it has said of itself.
    pub(super) hello: Option<GatewayHello>,
    pub(super) report: Report,
    dialect: Option<Dialect>,
    folder: TempDir,
    files: u32,
    talk: Option<Talk>,
}

impl Lab {
    pub(super) fn new(
        args: &GatewayCheckArgs,
        program: Program,
        patience: Patience,
    ) -> Result<Self, CliError> {
        let text = args.common.text.clone();
        SynthesisRequest { text: text.clone(), ..SynthesisRequest::default() }.validate()?;
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("chorus-conformance-");
        let folder = match &args.output_root {
            Some(root) => folder.tempdir_in(root),
            None => folder.tempdir(),
        };
        Ok(Self {
            report: Report::new("gateway", shown(&program)),
            program,
            patience,
            text,
            at_once: args.in_flight,
            root: args.output_root.clone(),
            seen: Seen::default(),
            forced: args.common.protocol.map(dialect_of),
            dialects: Vec::new(),
            hello: None,
            dialect: None,
            folder: folder.map_err(CliError::io("cannot make a folder for the gateway's files"))?,
            files: 0,
            talk: None,
        })
    }

    /// Writes down how a check went; a gateway that failed it is started anew for the next.
    pub(super) async fn put(&mut self, rule: &'static Rule, checked: Checked) {
        let broke = matches!(&checked, Err(Trouble::Unmet { .. }));
        self.report.put(rule, self.dialect.map(Dialect::version), checked);
        if broke || !self.seen.look().framing.is_empty() {
            self.end().await;
        }
    }

    /// From now on this version is tried.
    pub(super) async fn turn_to(&mut self, dialect: Dialect) {
        self.end().await;
        self.dialect = Some(dialect);
    }

    /// From now on none is.
    pub(super) async fn turn_away(&mut self) {
        self.end().await;
        self.dialect = None;
    }

    async fn end(&mut self) {
        if let Some(talk) = self.talk.take() {
            talk.wire.stop().await;
        }
    }

    pub(super) async fn finish(mut self) -> Report {
        self.end().await;
        self.report.versions = self.dialects.iter().map(|dialect| dialect.version()).collect();
        self.report
    }

    /// How the gateway is spoken to now.
    pub(super) fn dialect(&self) -> Result<Dialect, Trouble> {
        self.dialect.ok_or_else(|| not_applicable("there is no conversation"))
    }

    /// Whether this version has ids, streams and codes.
    pub(super) fn modern(&self) -> Result<(), Trouble> {
        match self.dialect()? {
            Dialect::Bare => Err(not_applicable("1.0 has no words for it")),
            Dialect::Lines | Dialect::Frames => Ok(()),
        }
    }

    /// Whether this version has a word for it, and the gateway says that it can be asked.
    pub(super) fn offers(&self, method: &str) -> Result<(), Trouble> {
        self.modern()?;
        match &self.hello {
            Some(hello) if !hello.methods.iter().any(|offered| offered == method) => {
                Err(not_applicable(format!("{method} is not among its methods")))
            }
            _ => Ok(()),
        }
    }

    /// Whether the gateway could be spoken to at all.
    pub(super) fn conversed(&self) -> Result<(), Trouble> {
        if self.dialects.is_empty() { Err(not_applicable("there is no conversation")) } else { Ok(()) }
    }

    /// The conversation, begun anew where there is none; something was spoken in it already.
    pub(super) async fn talk(&mut self) -> Result<&mut Talk, Trouble> {
        let dialect = self.dialect()?;
        if self.talk.is_none() {
            let mut talk = greeting::begin(self, dialect).await?;
            let request = self.request("Hello.");
            let spoken = talk.answer(request, self.patience.start).await;
            match spoken {
                Ok(answer) if !answer.failed() => self.talk = Some(talk),
                Ok(answer) => {
                    talk.wire.stop().await;
                    return Err(unmet("a first text that is spoken", answer.shown()));
                }
                Err(trouble) => {
                    talk.wire.stop().await;
                    return Err(trouble);
                }
            }
        }
        self.talk.as_mut().ok_or_else(|| not_applicable("there is no conversation"))
    }

    /// The conversation, to be ended.
    pub(super) async fn take_talk(&mut self) -> Result<Talk, Trouble> {
        self.talk().await?;
        self.talk.take().ok_or_else(|| not_applicable("there is no conversation"))
    }

    /// A request to speak into a file that is not there yet.
    pub(super) fn request(&mut self, text: &str) -> Value {
        let path = self.file();
        json!({"text": text, "outputPath": path})
    }

    /// A file that is not there yet.
    pub(super) fn file(&mut self) -> PathBuf {
        self.files += 1;
        self.folder.path().join(format!("{}.wav", self.files))
    }

    /// Where files are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
