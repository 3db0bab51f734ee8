//! How fast workers speak, as outcomes tell: moving averages per model and worker, of fixed size.
//!
//! Pure. Every manager hears every outcome, so all of them know about the same. What is not a figure (zero, negative, not
//! a number) teaches nothing, and where nothing was learned nothing is answered.

use std::collections::BTreeMap;

use chorus_protocol::fleet::LatencyFigures;
use chorus_protocol::job::{Outcome, OutcomeKind};
use chorus_protocol::{ModelName, WorkerId};

/// The weight of the newest run in an average: about the last ten runs count.
const NEWEST_SHARE: f64 = 0.2;

/// The most models, and the most workers of each, that averages are kept of: outcomes are open to anyone on the broker.
const MAX_ENTRIES: usize = 4096;

/// An exponentially weighted moving average; nothing before the first figure.
#[derive(Debug, Clone, Copy, Default)]
struct Average(Option<f64>);

impl Average {
    fn learn(&mut self, figure: f64) {
        if let Some(figure) = measured(figure) {
            let before = self.0.unwrap_or(figure);
            self.0 = Some(before + NEWEST_SHARE * (figure - before));
        }
    }
}

/// A figure that may have come from anywhere, where it is one.
fn measured(figure: f64) -> Option<f64> {
    (figure.is_finite() && figure > 0.0).then_some(figure)
}

#[derive(Debug, Default)]
struct ModelSpeed {
    job_chars: Average,
    audio_ms_per_char: Average,
    engine_ms_per_char: BTreeMap<WorkerId, Average>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Speeds {
    models: BTreeMap<ModelName, ModelSpeed>,
}

impl Speeds {
    /// Learns from one run; only what was spoken tells a speed.
    pub fn count(&mut self, outcome: &Outcome) {
        if outcome.outcome != OutcomeKind::Success || outcome.text_chars == 0 {
            return;
        }
        let is_new = !self.models.contains_key(&outcome.model);
        if is_new && self.models.len() >= MAX_ENTRIES {
            return;
        }
        let chars = f64::from(outcome.text_chars);
        let speed = self.models.entry(outcome.model.clone()).or_default();
        speed.job_chars.learn(chars);
        if outcome.sample_rate > 0 {
            let audio_ms = outcome.samples as f64 * 1000.0 / f64::from(outcome.sample_rate);
            speed.audio_ms_per_char.learn(audio_ms / chars);
        }
        let workers = &mut speed.engine_ms_per_char;
        if workers.contains_key(&outcome.worker) || workers.len() < MAX_ENTRIES {
            workers.entry(outcome.worker.clone()).or_default().learn(outcome.engine_ms / chars);
        }
    }

    /// Forgets workers that are not there any more, and models that nobody has spoken since.
    pub fn retain(&mut self, is_there: impl Fn(&WorkerId) -> bool) {
        for speed in self.models.values_mut() {
            speed.engine_ms_per_char.retain(|worker, _| is_there(worker));
        }
        self.models.retain(|_, speed| !speed.engine_ms_per_char.is_empty());
    }

    /// Milliseconds in which `worker` speaks a job of the usual length: by the runs heard of; before the first of them by
    /// its own figures, which are of all its models.
    pub fn job_ms(&self, model: &ModelName, worker: &WorkerId, own: &LatencyFigures) -> Option<f64> {
        let speed = self.models.get(model);
        let by_runs = speed.and_then(|speed| {
            let per_char = speed.engine_ms_per_char.get(worker).and_then(|average| average.0);
            let by_factor = || Some(measured(own.real_time_factor)? * speed.audio_ms_per_char.0?);
            Some(per_char.or_else(by_factor)? * speed.job_chars.0?)
        });
        by_runs.or_else(|| measured(own.p50_ms))
    }

    /// Characters of a job of the usual length.
    pub fn job_chars(&self, model: &ModelName) -> Option<f64> {
        self.models.get(model)?.job_chars.0
    }

    /// Seconds of audio in a job of the usual length.
    pub fn job_audio_seconds(&self, model: &ModelName) -> Option<f64> {
        let speed = self.models.get(model)?;
        Some(speed.job_chars.0? * speed.audio_ms_per_char.0? / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::job::RunRef;
    use chorus_protocol::{JobClass, RunId, SessionId};

    use super::*;

    fn joe() -> ModelName {
        ModelName::new("joe").unwrap()
    }

    fn w(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }

    fn spoken(worker: &str, engine_ms: f64, text_chars: u32) -> Outcome {
        let run =
            RunRef { session: SessionId::from_u128(1), segment: 0, attempt: 1, run: RunId::from_u128(1) };
        Outcome {
            run,
            worker: w(worker),
            model: joe(),
            class: JobClass::Normal,
            outcome: OutcomeKind::Success,
            engine_ms,
            run_ms: engine_ms,
            text_chars,
            samples: 22_050 * u64::from(text_chars) / 10,
            sample_rate: 22_050,
            error: None,
        }
    }

    #[test]
    fn runs_teach_and_rubbish_does_not() {
        let mut speeds = Speeds::default();
        let none = LatencyFigures::default();
        assert_eq!(speeds.job_ms(&joe(), &w("a"), &none), None);
        for _ in 0..5 {
            speeds.count(&spoken("a", 100.0, 50));
            speeds.count(&spoken("a", f64::NAN, 50));
            speeds.count(&spoken("a", -1.0, 0));
            speeds.count(&Outcome { outcome: OutcomeKind::WorkerFault, ..spoken("a", 9e9, 50) });
        }
        assert_eq!(speeds.job_ms(&joe(), &w("a"), &none), Some(100.0));
        assert_eq!((speeds.job_chars(&joe()), speeds.job_audio_seconds(&joe())), (Some(50.0), Some(5.0)));
        for _ in 0..60 {
            speeds.count(&spoken("a", 400.0, 50));
        }
        let now = speeds.job_ms(&joe(), &w("a"), &none).unwrap();
        assert!((399.0..=400.0).contains(&now), "{now}");
    }

    #[test]
    fn an_unheard_worker_is_judged_by_its_own_figures() {
        let mut speeds = Speeds::default();
        let own = LatencyFigures { p50_ms: 80.0, real_time_factor: 0.1, ..LatencyFigures::default() };
        assert_eq!(speeds.job_ms(&joe(), &w("b"), &own), Some(80.0), "nothing is known of the model");
        speeds.count(&spoken("a", 100.0, 50));
        assert_eq!(speeds.job_ms(&joe(), &w("b"), &own), Some(500.0), "a tenth of five seconds of audio");
        let broken = LatencyFigures { p50_ms: f64::NAN, real_time_factor: -1.0, ..own };
        assert_eq!(speeds.job_ms(&joe(), &w("b"), &broken), None);
    }

    #[test]
    fn the_gone_are_forgotten() {
        let mut speeds = Speeds::default();
        speeds.count(&spoken("a", 100.0, 50));
        speeds.count(&spoken("b", 100.0, 50));
        speeds.retain(|worker| *worker == w("b"));
        assert_eq!(speeds.job_ms(&joe(), &w("a"), &LatencyFigures::default()), None);
        assert!(speeds.job_chars(&joe()).is_some());
        speeds.retain(|_| false);
        assert_eq!((speeds.job_chars(&joe()), speeds.models.len()), (None, 0));
    }
}
