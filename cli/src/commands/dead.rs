//! `chorus dead`: what lies in the dead letters, asked again or thrown away.

use chorus_bus::{Bus, DeadLetters, DeadQuery, StoredLetter};
use chorus_protocol::breaker::DeadLetter;
use chorus_protocol::{ModelName, SynthesisRequest};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{say, speak};
use crate::app::Context;
use crate::args::DeadCommand;
use crate::error::CliError;
use crate::locate::{self, unless_stopped};
use crate::output::{Target, Writer};
use crate::ui::{Ui, table};

/// Characters of a text that a table shows.
const TEXT_SHOWN: usize = 40;

/// Runs the command.
pub async fn run(context: Context, command: DeadCommand) -> Result<(), CliError> {
    let asking = async {
        // What cannot be meant is refused before anybody is asked.
        let task = Task::new(command)?;
        let bus = locate::connect(&context).await?;
        let done = task.carry_out(&context, &bus).await;
        bus.close().await;
        done
    };
    unless_stopped(&context.shutdown, asking).await
}

enum Task {
    List { model: Option<ModelName>, after: u64, limit: usize },
    Show { seq: u64 },
    Replay { seq: u64, target: Target, keep: bool },
    Purge { model: Option<ModelName> },
}

impl Task {
    fn new(command: DeadCommand) -> Result<Self, CliError> {
        Ok(match command {
            DeadCommand::List { model, after, limit, .. } => {
                Self::List { model: named(model)?, after, limit }
            }
            DeadCommand::Show { seq, .. } => Self::Show { seq },
            DeadCommand::Replay { seq, output, keep, report } => {
                let target = Target::new(output, None)?;
                if report.json && target.path.is_none() {
                    let why = "--json and audio cannot both go to stdout: name a file with -o";
                    return Err(CliError::Usage(why.into()));
                }
                Self::Replay { seq, target, keep }
            }
            DeadCommand::Purge { model, .. } => Self::Purge { model: named(model)? },
        })
    }

    async fn carry_out(self, context: &Context, bus: &Bus) -> Result<(), CliError> {
        let ui = context.ui;
        let letters = bus.dead_letters::<DeadLetter>();
        match self {
            Self::List { model, after, limit } => {
                let query = DeadQuery { limit, model: model.as_ref(), after };
                list(ui, &letters.list(query).await?);
            }
            Self::Show { seq } => show(ui, seq, &letter(&letters, seq).await?),
            Self::Replay { seq, target, keep } => {
                let letter = letter(&letters, seq).await?;
                replay(context, bus, letter, &target).await?;
                if !keep {
                    letters.delete(seq).await?;
                }
            }
            Self::Purge { model } => {
                let deleted = letters.purge(model.as_ref()).await?;
                if ui.json() {
                    ui.json_line(&json!({ "deleted": deleted }));
                } else {
                    ui.line(&format!("{deleted} dead letters deleted"));
                }
            }
        }
        Ok(())
    }
}

fn named(model: Option<String>) -> Result<Option<ModelName>, CliError> {
    let name = model.map(ModelName::new).transpose();
    name.map_err(|error| CliError::Usage(error.to_string()))
}

async fn letter(letters: &DeadLetters<DeadLetter>, seq: u64) -> Result<DeadLetter, CliError> {
    let Some(stored) = letters.get(seq).await? else {
        return Err(CliError::Usage(format!(
            "there is no dead letter {seq}; `chorus dead list` shows those that are there"
        )));
    };
    match stored.letter {
        Ok(envelope) => Ok(envelope.payload),
        Err(error) => Err(CliError::Service(error.into())),
    }
}

/// Asks for the text as a new request, spoken as the first one was.
async fn replay(context: &Context, bus: &Bus, letter: DeadLetter, target: &Target) -> Result<(), CliError> {
    let speech = letter.speech;
    let request = SynthesisRequest {
        text: letter.text,
        model: Some(speech.model.to_string()),
        voice: speech.voice,
        speaker_clip: speech.speaker_clip.map(|clip| clip.to_string()),
        language: speech.language,
        speed: speech.speed,
        pitch: speech.pitch,
        seed: speech.seed,
        priority: Some(speech.priority),
        // Whether it can be spoken now is what is asked.
        fresh: true,
        ..SynthesisRequest::default()
    };
    let cancel = CancellationToken::new();
    let _sessions_end_with_us = cancel.clone().drop_guard();
    let host = speak::sessions(&context.config, bus, &cancel).await?;
    let result = speak::into_writer(speak::ask(&host, request), Writer::new(target)).await;
    host.stop().await;
    say::report(context.ui, target, result?)
}

fn list(ui: Ui, letters: &[StoredLetter<DeadLetter>]) {
    if ui.json() {
        let letters: Vec<Value> = letters.iter().map(as_json).collect();
        ui.json_line(&json!({ "letters": letters }));
        return;
    }
    let mut rows =
        vec![["SEQ", "MODEL", "FAILURES", "WORKERS", "LAST ERROR", "TEXT"].map(str::to_owned).to_vec()];
    rows.extend(letters.iter().map(row));
    for line in table(&rows) {
        ui.line(&line);
    }
}

fn row(stored: &StoredLetter<DeadLetter>) -> Vec<String> {
    let seq = stored.seq.to_string();
    let letter = match &stored.letter {
        Ok(envelope) => &envelope.payload,
        Err(error) => return vec![seq, "?".into(), "?".into(), "?".into(), error.to_string()],
    };
    let mut workers: Vec<&str> = letter.history.iter().map(|failed| failed.worker.as_str()).collect();
    workers.sort_unstable();
    workers.dedup();
    let reason = letter.history.last().and_then(|failed| failed.error.reason());
    vec![
        seq,
        letter.speech.model.to_string(),
        letter.history.len().to_string(),
        workers.join(", "),
        reason.map_or("?", |reason| reason.as_str()).to_owned(),
        letter.text.replace(char::is_control, " ").chars().take(TEXT_SHOWN).collect(),
    ]
}

fn as_json(stored: &StoredLetter<DeadLetter>) -> Value {
    match &stored.letter {
        Ok(envelope) => json!({ "seq": stored.seq, "letter": envelope.payload }),
        Err(error) => json!({ "seq": stored.seq, "unreadable": error.to_string() }),
    }
}

fn show(ui: Ui, seq: u64, letter: &DeadLetter) {
    if ui.json() {
        ui.json_line(&json!({ "seq": seq, "letter": letter }));
        return;
    }
    let rows = [
        ["letter", &seq.to_string()],
        ["request", letter.request_id.as_str()],
        ["segment", &letter.segment.to_string()],
        ["model", letter.speech.model.as_str()],
        ["text", &letter.text],
    ];
    for line in table(&rows.map(|row| row.map(str::to_owned).to_vec())) {
        ui.line(&line);
    }
    for failed in &letter.history {
        ui.line("");
        ui.line(&format!("attempt {} on {}: {}", failed.attempt, failed.worker, failed.error));
        for line in &failed.stderr {
            ui.line(&format!("  | {line}"));
        }
    }
}
