//! What a person sees: results on stdout, everything else on stderr; colour and motion only on a terminal.
//!
//! A [`Ui`] knows which of the two streams is a terminal. Results are whole lines. Progress ([`Ui::progress`] for
//! provisioning, [`Ui::spinner`] for a wait) is drawn on a terminal, told in plain lines when provisioning in a pipe, and
//! left out where a line would be noise. A reader of stdout that has gone away ends nothing.

mod progress;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use chorus_provision::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::config::Environment;
use crate::error::CliError;

/// The streams, and how to write on them.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    json: bool,
    motion: bool,
    color_out: bool,
    color_err: bool,
}

/// How a word is drawn on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It went well.
    Good,
    /// Look at it.
    Warn,
    /// It failed.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

impl Ui {
    /// For this process's streams. `NO_COLOR` and `TERM=dumb` are honoured; with `json`, stdout carries JSON alone.
    pub fn new(environment: &Environment, json: bool) -> Self {
        let plain =
            environment.get("NO_COLOR").is_some() || environment.get("TERM").is_some_and(|t| t == "dumb");
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self { json, motion: err && !json && !plain, color_out: out && !plain, color_err: err && !plain }
    }

    /// Whether stdout carries JSON.
    pub fn json(self) -> bool {
        self.json
    }

    /// A word for stdout, in its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        painted(self.color_out, tone, text)
    }

    /// A line on stdout.
    pub fn line(self, text: &str) {
        write_line(&mut io::stdout().lock(), text);
    }

    /// One JSON object as a line on stdout.
    pub fn json_line(self, value: &Value) {
        self.line(&value.to_string());
    }

    /// A line on stderr that a person at a terminal wants to see, and a pipe does not.
    pub fn note(self, text: &str) {
        if self.motion {
            write_line(&mut io::stderr().lock(), &painted(self.color_err, Tone::Dim, text));
        }
    }

    /// A warning on stderr.
    pub fn warning(self, text: &str) {
        let word = painted(self.color_err, Tone::Warn, "warning:");
        write_line(&mut io::stderr().lock(), &format!("{word} {text}"));
    }

    /// A failure: two lines on stderr, and with `--json` an object on stdout.
    pub fn failure(self, error: &CliError) {
        if matches!(error, CliError::Reported) {
            return;
        }
        if self.json {
            self.json_line(&error.to_json());
        }
        // Whoever sent the signal knows.
        if matches!(error, CliError::Interrupted(_)) {
            return;
        }
        let mut stderr = io::stderr().lock();
        write_line(&mut stderr, &format!("{} {error}", painted(self.color_err, Tone::Bad, "error:")));
        if let Some(hint) = error.hint() {
            write_line(&mut stderr, &format!("{} {hint}", painted(self.color_err, Tone::Good, "hint:")));
        }
    }

    /// An observer of provisioning.
    pub fn progress(self) -> Arc<dyn Progress> {
        if self.motion { Arc::new(progress::Bars::default()) } else { Arc::new(progress::Lines) }
    }

    /// Something that turns while we wait; invisible where stderr is no terminal.
    pub fn spinner(self, message: &str) -> Spinner {
        let target = if self.motion { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(message.to_owned());
        bar.set_style(ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner { bar }
    }
}

/// Turns until it is dropped, and leaves no trace.
#[derive(Debug)]
pub struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    /// What is waited for now.
    pub fn say(&self, message: &str) {
        if self.bar.message() != message {
            self.bar.set_message(message.to_owned());
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn painted(color: bool, tone: Tone, text: &str) -> String {
    if color { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code()) } else { text.to_owned() }
}

pub(crate) fn write_line(stream: &mut impl Write, text: &str) {
    // A closed stream means that nobody reads; the work itself goes on.
    let _unread = writeln!(stream, "{text}").and_then(|()| stream.flush());
}

/// A table with aligned columns; the last column is not padded.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "bb".into()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(table(&rows), ["a    bb", "ccc"]);
        assert!(table(&[]).is_empty());
    }

    #[test]
    fn colour_is_for_terminals() {
        assert_eq!(painted(false, Tone::Good, "ok"), "ok");
        assert_eq!(painted(true, Tone::Good, "ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
