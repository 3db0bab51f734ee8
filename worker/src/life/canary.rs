//! When a canary is due, and of which model. Pure: the time comes in.
//!
//! One text cannot suit every model: a voice of another script may say nothing of it. So ill audio counts against an engine
//! only once the same model has spoken the text well under this worker; a model that never did goes without canaries.
//! Its jobs are inspected all the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chorus_protocol::ModelName;

/// How canaries are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryConfig {
    /// The rest before a canary, since the last one or the last work; `None`: there are none.
    pub every: Option<Duration>,
    /// What is spoken. A job that comes meanwhile waits for it at most, so it is short.
    pub text: String,
    /// What speaking it may take.
    pub within: Duration,
}

impl Default for CanaryConfig {
    /// One word after 5 s of rest, within 10 s, the `timeoutMs` of an attempt.
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(5)), text: "Yes.".to_owned(), within: Duration::from_secs(10) }
    }
}

/// The canaries of a worker so far.
#[derive(Debug)]
pub(crate) struct Canary {
    config: CanaryConfig,
    /// When the worker last had anything to do.
    active: Instant,
    /// Whose turn it was last.
    last: Option<ModelName>,
    sent: u32,
    proven: BTreeSet<ModelName>,
    unsuited: BTreeSet<ModelName>,
}

impl Canary {
    pub(crate) fn new(config: CanaryConfig, now: Instant) -> Self {
        let (proven, unsuited) = (BTreeSet::new(), BTreeSet::new());
        Self { config, active: now, last: None, sent: 0, proven, unsuited }
    }

    /// The model whose turn it is now. `ready` are those that speak; `busy`: jobs are worked on.
    pub(crate) fn due(&mut self, ready: &BTreeSet<ModelName>, busy: bool, now: Instant) -> Option<ModelName> {
        let every = self.config.every?;
        if busy || ready.is_empty() {
            self.active = now;
            return None;
        }
        if now.saturating_duration_since(self.active) < every {
            return None;
        }
        let suited = || ready.iter().filter(|model| !self.unsuited.contains(*model));
        let after_last = suited().find(|model| self.last.as_ref().is_none_or(|last| *model > last));
        let model = after_last.or_else(|| suited().next())?.clone();
        self.last = Some(model.clone());
        self.sent = self.sent.wrapping_add(1).max(1);
        Some(model)
    }

    /// Which canary the present one is, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.sent
    }

    /// It was spoken as it should be.
    pub(crate) fn well(&mut self, model: &ModelName, now: Instant) {
        self.proven.insert(model.clone());
        self.active = now;
    }

    /// It says nothing about the model.
    pub(crate) fn nothing(&mut self, now: Instant) {
        self.active = now;
    }

    /// The model cannot speak the text well.
    pub(crate) fn unsuited(&mut self, model: ModelName, now: Instant) {
        self.unsuited.insert(model);
        self.active = now;
    }

    /// Whether the model has spoken the text well.
    pub(crate) fn proven(&self, model: &ModelName) -> bool {
        self.proven.contains(model)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn models(names: &[&str]) -> BTreeSet<ModelName> {
        names.iter().map(|name| ModelName::new(*name).unwrap()).collect()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn models_take_turns_when_there_is_nothing_else_to_do() {
        let start = Instant::now();
        let mut canary = Canary::new(CanaryConfig::default(), start);
        let both = models(&["a", "b"]);
        assert_eq!(canary.due(&both, false, at(start, 4)), None, "too early");
        assert_eq!(canary.due(&both, true, at(start, 6)), None, "busy");
        assert_eq!(canary.due(&both, false, at(start, 10)), None, "busy a moment ago");
        let mut turns = Vec::new();
        for turn in 0..4 {
            let now = at(start, 20 + 5 * turn);
            let model = canary.due(&both, false, now).unwrap();
            canary.well(&model, now);
            turns.push(model.to_string());
        }
        assert_eq!((turns.join(" "), canary.number()), ("a b a b".to_owned(), 4));
        canary.unsuited(ModelName::new("a").unwrap(), at(start, 40));
        assert_eq!(canary.due(&both, false, at(start, 45)).unwrap().as_str(), "b");
        assert_eq!(canary.due(&models(&["a"]), false, at(start, 99)), None);
    }

    #[test]
    fn they_can_be_left_out() {
        let start = Instant::now();
        let mut canary = Canary::new(CanaryConfig { every: None, ..CanaryConfig::default() }, start);
        assert_eq!(canary.due(&models(&["a"]), false, at(start, 99)), None);
    }

    proptest! {
        #[test]
        fn never_more_often_than_asked_and_never_beside_work(
            steps in proptest::collection::vec((0u64..4_000, any::<bool>()), 1..80),
        ) {
            let start = Instant::now();
            let mut canary = Canary::new(CanaryConfig::default(), start);
            let (mut now, mut active) = (start, start);
            for (pause_ms, busy) in steps {
                now += Duration::from_millis(pause_ms);
                let due = canary.due(&models(&["a", "b", "c"]), busy, now);
                prop_assert_eq!(due.is_some(), !busy && now - active >= Duration::from_secs(5));
                if due.is_some() || busy {
                    canary.nothing(now);
                    active = now;
                }
            }
        }
    }
}
