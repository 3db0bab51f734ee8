//! What was checked and how it went: for a person, for a program, and for the shell.

use std::time::{Duration, Instant};

use semver::Version;
use serde_json::{Map, Value, json};

use crate::ui::{Tone, Ui};

/// The page that all rules come from.
pub const PAGE: &str = "docs/protocol.md";

/// One rule of the specification, and the check of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The check's name.
    pub name: &'static str,
    /// What must hold.
    pub about: &'static str,
    /// The heading of [`PAGE`] under which that stands.
    pub section: &'static str,
}

/// A rule under its heading.
pub const fn rule(name: &'static str, about: &'static str, section: &'static str) -> Rule {
    Rule { name, about, section }
}

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The rule is broken.
    Unmet {
        /// What the specification asks for.
        expected: String,
        /// What came instead.
        came: String,
    },
    /// There is nothing to check.
    NotApplicable(String),
}

/// How a check went; what there is to remark where it passed.
pub type Checked = Result<Option<String>, Trouble>;

/// A rule that is broken.
pub fn unmet(expected: impl Into<String>, came: impl Into<String>) -> Trouble {
    Trouble::Unmet { expected: expected.into(), came: came.into() }
}

/// A rule that is not for this peer.
pub fn not_applicable(why: impl Into<String>) -> Trouble {
    Trouble::NotApplicable(why.into())
}

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Of which rule.
    pub rule: &'static Rule,
    /// In which version, where several were tried.
    pub version: Option<Version>,
    /// How it went.
    pub checked: Checked,
    /// How long it took.
    pub took: Duration,
}

/// All that was found out about one program.
#[derive(Debug, Clone)]
pub struct Report {
    /// `engine` or `gateway`.
    pub role: &'static str,
    /// The command that was started.
    pub command: Vec<String>,
    /// What it says that it is.
    pub peer: Option<String>,
    /// The versions that it was spoken to in.
    pub versions: Vec<Version>,
    /// The checks, in the order in which they were made.
    pub checks: Vec<Check>,
    since: Instant,
}

impl Report {
    /// Nothing found out yet.
    pub fn new(role: &'static str, command: Vec<String>) -> Self {
        Self { role, command, peer: None, versions: Vec::new(), checks: Vec::new(), since: Instant::now() }
    }

    /// One more check; its time is what has passed since the one before.
    pub fn put(&mut self, rule: &'static Rule, version: Option<Version>, checked: Checked) {
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.since, now));
        self.checks.push(Check { rule, version, checked, took });
    }

    /// Whether every rule that applies holds, and there was one.
    pub fn conforms(&self) -> bool {
        let [passed, failed, _] = self.counts();
        failed == 0 && passed > 0
    }

    /// Passed, failed, not applicable.
    fn counts(&self) -> [usize; 3] {
        let count = |of: &str| self.checks.iter().filter(|check| check.status() == of).count();
        ["passed", "failed", "notApplicable"].map(count)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let [passed, failed, not_applicable] = self.counts();
        json!({
            "success": self.conforms(), "role": self.role, "command": self.command, "peer": self.peer,
            "versions": self.versions, "passed": passed, "failed": failed, "notApplicable": not_applicable,
            "checks": self.checks.iter().map(Check::to_json).collect::<Vec<_>>(),
        })
    }

    /// For a person.
    pub fn print(&self, ui: Ui) {
        let versions: Vec<String> = self.versions.iter().map(short).collect();
        let peer = self.peer.as_deref().unwrap_or("says nothing of itself");
        ui.line(&format!("{}: {}", ui.paint(Tone::Bold, self.role), self.command.join(" ")));
        let spoken = if versions.is_empty() { "no version agreed on".into() } else { versions.join(", ") };
        ui.line(&format!("{peer}; protocol {spoken}"));
        ui.line("");
        let several = self.versions.len() > 1;
        let width = self.checks.iter().map(|check| check.rule.name.len()).max().unwrap_or_default();
        for check in &self.checks {
            check.print(ui, width, several);
        }
        let [passed, failed, not_applicable] = self.counts();
        ui.line("");
        let verdict = if self.conforms() {
            ui.paint(Tone::Good, "conforms")
        } else {
            ui.paint(Tone::Bad, "does not conform")
        };
        ui.line(&format!("{verdict}: {passed} passed, {failed} failed, {not_applicable} not applicable"));
    }
}

impl Check {
    fn status(&self) -> &'static str {
        match &self.checked {
            Ok(_) => "passed",
            Err(Trouble::Unmet { .. }) => "failed",
            Err(Trouble::NotApplicable(_)) => "notApplicable",
        }
    }

    fn to_json(&self) -> Value {
        let mut told = Map::new();
        let mut tell = |name: &str, value: Value| told.insert(name.to_owned(), value);
        tell("name", self.rule.name.into());
        tell("version", json!(self.version));
        tell("status", self.status().into());
        tell("about", self.rule.about.into());
        tell("section", self.rule.section.into());
        match &self.checked {
            Ok(Some(remark)) => _ = tell("remark", remark.as_str().into()),
            Ok(None) => {}
            Err(Trouble::Unmet { expected, came }) => {
                tell("expected", expected.as_str().into());
                tell("came", came.as_str().into());
            }
            Err(Trouble::NotApplicable(why)) => _ = tell("why", why.as_str().into()),
        }
        tell("tookMs", (self.took.as_millis() as u64).into());
        Value::Object(told)
    }

    fn print(&self, ui: Ui, width: usize, with_version: bool) {
        let version = match (&self.version, with_version) {
            (Some(version), true) => format!("{}  ", short(version)),
            (None, true) => "     ".to_owned(),
            _ => String::new(),
        };
        let named = format!("{version}{:<width$}", self.rule.name);
        let line = |word: String, rest: &str| ui.line(&format!("{word}  {named}  {rest}"));
        match &self.checked {
            Ok(None) => line(ui.paint(Tone::Good, "passed"), self.rule.about),
            Ok(Some(remark)) => {
                line(ui.paint(Tone::Good, "passed"), &format!("{} ({remark})", self.rule.about));
            }
            Err(Trouble::NotApplicable(why)) => line(ui.paint(Tone::Dim, "n/a   "), why),
            Err(Trouble::Unmet { expected, came }) => {
                line(ui.paint(Tone::Bad, "failed"), self.rule.about);
                ui.line(&format!("        expected: {expected}"));
                ui.line(&format!("        came: {came}"));
                ui.line(&format!("        see: {PAGE}, \"{}\"", self.rule.section));
            }
        }
    }
}

/// `2.1` for 2.1.0.
fn short(version: &Version) -> String {
    format!("{}.{}", version.major, version.minor)
}
