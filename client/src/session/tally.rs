//! What a session notes down on its way, for the result.

use std::time::{Duration, Instant};

use chorus_protocol::request::ResultMetadata;
use chorus_protocol::{MessageId, SynthesisResult, Warning, WorkerId};

/// Warnings that a result carries at most.
const MAX_WARNINGS: usize = 32;

/// Figures of one request.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub engine_ms: f64,
    pub samples: u64,
    pub sample_rate: u32,
    pub retries: u32,
    /// Segments that came from the cache.
    pub cached: u32,
    pub first_audio: Option<Instant>,
    workers: Vec<WorkerId>,
    warnings: Vec<Warning>,
}

impl Tally {
    /// Figures of a request of which so much was spoken before.
    pub fn resumed(samples: u64, sample_rate: u32) -> Self {
        Self { samples, sample_rate, ..Self::default() }
    }

    pub fn worker(&mut self, worker: &WorkerId) {
        if !self.workers.contains(worker) {
            self.workers.push(worker.clone());
        }
    }

    pub fn warn(&mut self, warning: Warning) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        }
    }

    /// The result of a request whose audio is complete.
    pub fn success(
        &self,
        request_id: &MessageId,
        model: &str,
        opened: Instant,
        now: Instant,
        segments: u32,
    ) -> SynthesisResult {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let workers: Vec<&str> = self.workers.iter().map(WorkerId::as_str).collect();
        SynthesisResult {
            success: true,
            request_id: request_id.clone(),
            output_path: None,
            duration: Some(self.samples as f64 / f64::from(self.sample_rate.max(1))),
            latency_ms: ms(now - opened),
            error: None,
            metadata: Some(ResultMetadata {
                model_used: model.to_owned(),
                worker_used: workers.join(","),
                cache_hit: self.cached > 0 && self.cached == segments,
                cached_segments: self.cached,
                segments,
                retries: self.retries,
                first_audio_ms: self.first_audio.map(|at| ms(at - opened)),
                engine_ms: self.engine_ms,
                warnings: self.warnings.clone(),
            }),
            audio: None,
        }
    }
}
