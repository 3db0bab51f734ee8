//! What admission is decided by, brought together: the effects beside [`crate::admit`].
//!
//! The queue's depth is read in the background: soon after somebody asked, and while workers are busy; never while a
//! request waits for its answer.

use std::sync::Arc;
use std::time::Duration;

use chorus_protocol::{ModelName, ServiceError};

use crate::admit::predict::{Seat, Situation, admit, predict};
use crate::core::Core;
use crate::plan::Draft;

/// The least time between two readings of the queue's depth.
const READ_PAUSE: Duration = Duration::from_millis(200);

/// How often the depth is read when nobody asks and workers are busy.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The age over which a reading tells nothing: one that was left out, and the next.
const READING_MAX_AGE: Duration = Duration::from_millis(1_500);

/// Reads the depth of the queue when it is wanted, and forgets the speeds of workers that are gone.
pub(crate) async fn follow_queue(core: Arc<Core>) {
    loop {
        let asked = tokio::time::timeout(READ_EVERY, core.depth_wanted.notified()).await.is_ok();
        if !asked && core.fleet().busy().next().is_none() {
            continue;
        }
        match core.bus.queue_depths().await {
            Ok(depths) => {
                let jobs = depths.into_iter().map(|(token, depth)| (token, depth.by_class)).collect();
                core.backlog().read(jobs, core.clock.now());
            }
            Err(error) => tracing::debug!(%error, "the queue's depth is not known"),
        }
        core.forget_speeds();
        tokio::time::sleep(READ_PAUSE).await;
    }
}

impl Core {
    /// Whether a request with this first segment would be heard in time, as far as that is known.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED/would_be_late.
    pub(crate) fn admit_first(
        &self,
        model: &ModelName,
        first: &Draft,
        deadline: Duration,
    ) -> Result<(), ServiceError> {
        self.depth_wanted.notify_one();
        let Some(by_class) = self.backlog().of(model, READING_MAX_AGE, self.clock.now()) else {
            return Ok(());
        };
        if by_class == [0; 4] || !self.config.refuse_late {
            return Ok(());
        }
        let situation = self.situation(model, by_class, first);
        let Some(prediction) = predict(&situation, first.class) else { return Ok(()) };
        admit(&prediction, deadline, self.config.retry_after).map_err(|error| {
            match self.speeds().job_audio_seconds(model) {
                Some(seconds) => error.with("audioSecondsAhead", seconds * prediction.ahead as f64),
                None => error,
            }
        })
    }

    /// How long it would take until a segment is spoken, were it queued now; `None` where too little is known.
    pub(crate) fn time_to_speak(&self, model: &ModelName, draft: &Draft) -> Option<Duration> {
        let by_class = self.backlog().of(model, READING_MAX_AGE, self.clock.now()).unwrap_or([0; 4]);
        let situation = self.situation(model, by_class, draft);
        predict(&situation, draft.class).map(|prediction| prediction.first_audio)
    }

    fn situation(&self, model: &ModelName, by_class: [u64; 4], first: &Draft) -> Situation {
        let (fleet, speeds) = (self.fleet(), self.speeds());
        let seats = fleet
            .ready_for(model)
            .map(|beat| Seat {
                slots: beat.credits.total,
                in_flight: beat.in_flight,
                job_ms: speeds.job_ms(model, &beat.worker, &beat.latency),
            })
            .collect();
        let chars = first.text.chars().count() as f64;
        let own_jobs = speeds.job_chars(model).map_or(1.0, |usual| chars / usual);
        Situation { by_class, seats, own_jobs }
    }

    fn forget_speeds(&self) {
        let fleet = self.fleet();
        self.speeds().retain(|worker| fleet.knows(worker));
    }
}
