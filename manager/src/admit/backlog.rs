//! How many jobs are ahead, as far as is known without asking: the last reading of the queue, and what this manager has
//! put there since.
//!
//! Pure. A reading that is too old is none: what was a deep queue a while ago refuses nobody now.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chorus_protocol::{JobClass, ModelName, names};

/// Jobs by class, in the order of [`JobClass::BY_URGENCY`].
type ByClass = [u64; 4];

/// See the module.
#[derive(Debug, Default)]
pub struct Backlog {
    read_at: Option<Instant>,
    /// By the model's subject token.
    jobs: HashMap<String, ByClass>,
}

impl Backlog {
    /// Takes a reading of the queue, by the models' subject tokens.
    pub fn read(&mut self, jobs: HashMap<String, ByClass>, now: Instant) {
        *self = Self { read_at: Some(now), jobs };
    }

    /// This manager has queued a job.
    pub fn add(&mut self, model: &ModelName, class: JobClass) {
        if self.read_at.is_none() {
            return;
        }
        if let Some(place) = JobClass::BY_URGENCY.iter().position(|known| *known == class) {
            let jobs = self.jobs.entry(names::encode_token(model.as_str())).or_default();
            jobs[place] = jobs[place].saturating_add(1);
        }
    }

    /// Jobs of a model, by a reading no older than `max_age`.
    pub fn of(&self, model: &ModelName, max_age: Duration, now: Instant) -> Option<ByClass> {
        let age = now.saturating_duration_since(self.read_at?);
        let jobs = self.jobs.get(&names::encode_token(model.as_str()));
        (age <= max_age).then(|| jobs.copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_grows_by_what_was_queued_and_ages() {
        let (mut backlog, t0) = (Backlog::default(), Instant::now());
        let model = ModelName::new("a/b").unwrap();
        let (second, other) = (Duration::from_secs(1), ModelName::new("c").unwrap());
        backlog.add(&model, JobClass::Low);
        assert_eq!(backlog.of(&model, second, t0), None, "without a reading nothing is known");
        backlog.read([("a=2Fb".to_owned(), [0, 1, 2, 0])].into(), t0);
        backlog.add(&model, JobClass::Low);
        backlog.add(&model, JobClass::High);
        assert_eq!(backlog.of(&model, second, t0 + second), Some([0, 2, 2, 1]));
        assert_eq!(backlog.of(&other, second, t0), Some([0; 4]));
        assert_eq!(backlog.of(&model, second, t0 + second * 2), None);
    }
}
