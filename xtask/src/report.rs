//! Steps, their outcomes, and the summary at the end.
//!
//! Every chore hands its steps to one [`Report`], which announces them, times them, and in the end says what became of
//! each and whether the whole is good.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How a step that did not fail ended.
pub(crate) enum Passed {
    /// It did its work; the text is the closing line of the tool that did it, or empty.
    Done(String),
    /// It could not be done on this machine, and need not be: the text says why.
    Skipped(String),
}

/// What is kept of a finished step.
struct Line {
    name: &'static str,
    took: Duration,
    outcome: anyhow::Result<Passed>,
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Runs one step, whatever became of those before it.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<Passed>) {
        println!("\n── {name}");
        let begun = Instant::now();
        let outcome = work();
        let line = Line { name, took: begun.elapsed(), outcome };
        println!("{line}");
        self.lines.push(line);
    }

    /// Prints the summary and gives the process's exit code.
    pub(crate) fn summary(self) -> ExitCode {
        println!("\n── summary");
        for line in &self.lines {
            println!("{line}");
        }
        let failed = self.lines.iter().filter(|line| line.outcome.is_err()).count();
        let took: Duration = self.lines.iter().map(|line| line.took).sum();
        if failed > 0 {
            println!("{failed} of {} steps failed ({:.1} s)", self.lines.len(), took.as_secs_f64());
            return ExitCode::FAILURE;
        }
        println!("all {} steps are good ({:.1} s)", self.lines.len(), took.as_secs_f64());
        ExitCode::SUCCESS
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mark, note) = match &self.outcome {
            Ok(Passed::Done(closing)) => ("ok     ", closing.clone()),
            Ok(Passed::Skipped(reason)) => ("skipped", reason.clone()),
            Err(error) => ("FAILED ", format!("{error:#}")),
        };
        write!(out, "{mark} {:<12} {:>6.1} s  {note}", self.name, self.took.as_secs_f64())
    }
}
