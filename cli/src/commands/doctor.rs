//! `chorus doctor`: looks at the machine and says what to do.
//!
//! Each check gives one [`Finding`]. Nothing is installed or changed, but for a file that is written to CHORUS_HOME and
//! removed again; a thing that chorus would install by itself is no fault.

mod checks;

use serde::Serialize;
use serde_json::json;

use crate::app::Context;
use crate::error::CliError;
use crate::locate::unless_stopped;
use crate::ui::{Tone, Ui, table};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, but look at it.
    Warning,
    /// Chorus cannot speak with it as it is.
    Fault,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, state: State::Ok, detail: detail.into(), advice: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Warning, detail: detail.into(), advice: Some(advice.into()) }
    }

    fn fault(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Fault, detail: detail.into(), advice: Some(advice.into()) }
    }
}

/// Runs the command.
pub async fn run(context: Context) -> Result<(), CliError> {
    let findings = unless_stopped(&context.shutdown, async { Ok(checks::all(&context).await) }).await?;
    let well = findings.iter().all(|finding| finding.state != State::Fault);
    if context.ui.json() {
        context.ui.json_line(&json!({"ok": well, "checks": findings}));
    } else {
        print(context.ui, &findings);
    }
    if well { Ok(()) } else { Err(CliError::Reported) }
}

fn print(ui: Ui, findings: &[Finding]) {
    let rows: Vec<Vec<String>> =
        findings.iter().map(|finding| vec![finding.name.to_owned(), finding.detail.clone()]).collect();
    for (finding, row) in findings.iter().zip(table(&rows)) {
        let mark = match finding.state {
            State::Ok => ui.paint(Tone::Good, "ok     "),
            State::Warning => ui.paint(Tone::Warn, "look at"),
            State::Fault => ui.paint(Tone::Bad, "fault  "),
        };
        ui.line(&format!("{mark}  {row}"));
        if let Some(advice) = &finding.advice {
            ui.line(&format!("         → {advice}"));
        }
    }
}
