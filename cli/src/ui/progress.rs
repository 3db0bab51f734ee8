//! Provisioning as a person sees it: a bar per step on a terminal, a line per step in a pipe.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chorus_provision::{Finished, Progress, Step, progress::readable};
use indicatif::{ProgressBar, ProgressStyle};

use super::write_line;

/// A bar for the step at work; finished steps stay as lines.
#[derive(Debug, Default)]
pub(super) struct Bars {
    current: Mutex<Option<ProgressBar>>,
}

impl Bars {
    fn current(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, title: String) {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::default_spinner());
        bar.set_prefix(title.clone());
        bar.set_message(title);
        bar.enable_steady_tick(Duration::from_millis(100));
        if let Some(before) = self.current().replace(bar) {
            before.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn started(&self, step: Step) {
        self.begin(step.title().to_owned());
    }

    fn line(&self, _step: Step, line: &str) {
        if let Some(bar) = self.current().as_ref().filter(|bar| bar.length().is_none()) {
            let shown: String = line.trim().chars().take(80).collect();
            bar.set_message(format!("{}: {shown}", bar.prefix()));
        }
    }

    fn amount(&self, step: Step, done_bytes: u64, known_bytes: u64) {
        let current = self.current();
        let Some(bar) = current.as_ref() else { return };
        if bar.length().is_none() {
            // The template is a constant that the library's own parser takes; without it the default bar is shown.
            let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {bytes}/{total_bytes}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(step.title().to_owned());
        }
        bar.set_length(known_bytes);
        bar.set_position(done_bytes);
    }

    fn finished(&self, step: Step, finished: &Finished) {
        if let Some(bar) = self.current().take() {
            bar.finish_and_clear();
        }
        write_line(&mut io::stderr().lock(), &finished_line(step, finished));
    }

    fn waiting(&self, holder: &str) {
        self.begin(format!("waiting for {holder}, which installs into the same folder"));
    }
}

/// A line when a step ends, and one when it begins if it may take long.
#[derive(Debug)]
pub(super) struct Lines;

impl Progress for Lines {
    fn started(&self, step: Step) {
        if matches!(step, Step::Environment | Step::Voice | Step::NatsServer) {
            write_line(&mut io::stderr().lock(), &format!("installing {} …", step.title()));
        }
    }

    fn finished(&self, step: Step, finished: &Finished) {
        write_line(&mut io::stderr().lock(), &finished_line(step, finished));
    }

    fn waiting(&self, holder: &str) {
        let text = format!("waiting for {holder}, which installs into the same folder");
        write_line(&mut io::stderr().lock(), &text);
    }
}

fn finished_line(step: Step, finished: &Finished) -> String {
    let size = finished.size_bytes.map(|bytes| format!(", {}", readable(bytes))).unwrap_or_default();
    let took = finished.took.as_secs_f64();
    format!("{}: {} ({took:.1} s{size})", step.title(), finished.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_step_is_one_line() {
        let finished = Finished {
            outcome: "2.15.1".into(),
            took: Duration::from_millis(1_250),
            size_bytes: Some(20_000_000),
        };
        assert_eq!(finished_line(Step::NatsServer, &finished), "nats-server: 2.15.1 (1.2 s, 20 MB)");
    }
}
