//! What becomes of the pool when its workers cannot be kept.
//!
//! A worker that ends again and again is given up by its supervisor. With `features.singleWorkerFallback` the fleet goes on
//! with those that are left; when none is, one is begun once more, alone on the machine: often it was too many of them that
//! did not fit into its memory. Without the flag the first one given up ends the fleet. [`Pool`] decides and is pure.

use tokio::sync::mpsc;

use crate::error::CliError;
use crate::fleet::{Fleet, Notice};
use crate::ui::{Tone, Ui};

/// What to do about a worker that was given up.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing: so many are left.
    GoOn(usize),
    /// Begin one worker more, alone.
    Alone,
    /// The fleet cannot go on.
    End,
}

/// The workers that are kept.
#[derive(Debug)]
pub(super) struct Pool {
    left: usize,
    /// Whether one more may be begun when none is left.
    reserve: bool,
    fallback: bool,
}

impl Pool {
    pub(super) fn new(workers: u32, fallback: bool) -> Self {
        // A single one that is given up was alone already.
        Self { left: workers as usize, reserve: workers > 1, fallback }
    }

    fn lost(&mut self) -> Verdict {
        self.left = self.left.saturating_sub(1);
        if !self.fallback {
            return Verdict::End;
        }
        match self.left {
            0 if self.reserve => {
                (self.left, self.reserve) = (1, false);
                Verdict::Alone
            }
            0 => Verdict::End,
            left => Verdict::GoOn(left),
        }
    }
}

/// Tells notices until one says that the fleet cannot go on.
pub(super) async fn keep(
    ui: Ui,
    fleet: &Fleet,
    mut pool: Pool,
    notices: &mut mpsc::Receiver<Notice>,
) -> CliError {
    while let Some(notice) = notices.recv().await {
        let Some((part, why)) = tell(ui, notice) else { continue };
        if part != "worker" {
            return CliError::Fleet { part, why };
        }
        match pool.lost() {
            Verdict::GoOn(left) => warn(ui, &format!("{why}; going on with {left} of the pool")),
            Verdict::Alone => {
                warn(ui, &format!("{why}; the pool cannot form: going on with a single worker"));
                if let Err(error) = fleet.start_alone() {
                    return error;
                }
            }
            Verdict::End => return CliError::Fleet { part, why },
        }
    }
    std::future::pending().await
}

/// Tells a notice; what is fatal comes back.
pub(super) fn tell(ui: Ui, notice: Notice) -> Option<(&'static str, String)> {
    match notice {
        Notice::News(text) => ui.line(&text),
        Notice::Trouble(text) => warn(ui, &text),
        Notice::Fatal { part, why } => return Some((part, why)),
    }
    None
}

fn warn(ui: Ui, text: &str) {
    ui.line(&ui.paint(Tone::Warn, text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_shrinks_to_one_that_is_tried_alone() {
        let mut pool = Pool::new(3, true);
        let verdicts: Vec<_> = (0..4).map(|_| pool.lost()).collect();
        assert_eq!(verdicts, [Verdict::GoOn(2), Verdict::GoOn(1), Verdict::Alone, Verdict::End]);
        assert_eq!(Pool::new(1, true).lost(), Verdict::End, "it was alone already");
    }

    #[test]
    fn without_the_fallback_the_first_loss_ends_it() {
        assert_eq!(Pool::new(3, false).lost(), Verdict::End);
    }
}
