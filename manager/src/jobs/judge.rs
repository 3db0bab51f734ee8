//! Decisions about a durable job: when it is due, what a session's end means for it, and how its record changes.
//!
//! Pure: the record and the time go in, the changed record comes out.

use std::time::Duration;

use chorus_audio::checksum::Crc32;
use chorus_client::{AudioPiece, Resume};
use chorus_protocol::audio::AudioRef;
use chorus_protocol::durable::{DurableJob, DurableState, DurableText, JobProgress, Lease};
use chorus_protocol::request::{MAX_DEADLINE_MS, ResultMetadata};
use chorus_protocol::{ErrorCode, Reason, ServiceError, SynthesisRequest, SynthesisResult};

use super::JobsConfig;

/// How long a record has to stay as it is before anybody may take the job; `None` when it is over.
pub(super) fn due_after(job: &DurableJob, config: &JobsConfig) -> Option<Duration> {
    match (job.state.is_over(), &job.lease) {
        (true, _) => None,
        (false, Some(_)) => Some(config.lease),
        (false, None) => Some(rest(job.fruitless, config)),
    }
}

/// The rest after so many fruitless sessions.
fn rest(fruitless: u32, config: &JobsConfig) -> Duration {
    match fruitless.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => config.first_rest.saturating_mul(1 << doublings.min(16)).min(config.longest_rest),
    }
}

/// The record with the lease taken.
pub(super) fn taken(job: &DurableJob, lease: Lease, now_ms: u64) -> DurableJob {
    let (epoch, lease) = (job.epoch + 1, Some(lease));
    DurableJob { state: DurableState::Speaking, lease, epoch, updated_ms: now_ms, ..job.clone() }
}

/// The record with the lease given back.
pub(super) fn released(job: &DurableJob, now_ms: u64) -> DurableJob {
    DurableJob { state: DurableState::Queued, lease: None, updated_ms: now_ms, ..job.clone() }
}

/// The record with one more piece stored. `base_bytes` is where the session's text began.
pub(super) fn stored(job: &DurableJob, piece: &AudioPiece, base_bytes: u64, now_ms: u64) -> DurableJob {
    let mut job = DurableJob { fruitless: 0, updated_ms: now_ms, ..job.clone() };
    let progress = &mut job.progress;
    let mut crc = Crc32::resume(progress.crc32);
    crc.update(&piece.pcm);
    progress.crc32 = crc.value();
    progress.samples += piece.pcm.len() as u64 / 2;
    progress.sample_rate = piece.sample_rate;
    progress.next_segment = piece.segment + 1;
    progress.consumed_bytes = base_bytes + piece.consumed_bytes as u64;
    progress.pause_ms = piece.pause_after_ms;
    progress.add_piece(job.epoch);
    job
}

/// The record of a job that failed or was cancelled.
pub(super) fn ended(job: &DurableJob, error: ServiceError, now_ms: u64) -> DurableJob {
    let state = match error.reason() {
        Some(Reason::Cancelled) => DurableState::Cancelled,
        _ => DurableState::Failed,
    };
    let result = SynthesisResult::failed(job.job.clone(), latency_ms(job, now_ms), error);
    DurableJob { state, lease: None, result: Some(result), updated_ms: now_ms, ..job.clone() }
}

/// The record of a job whose audio is complete. `spoken` is the last session's result, where there was one.
pub(super) fn done(
    job: &DurableJob,
    spoken: Option<SynthesisResult>,
    audio: AudioRef,
    now_ms: u64,
) -> DurableJob {
    let progress = &job.progress;
    let metadata = spoken.and_then(|result| result.metadata).unwrap_or_else(|| ResultMetadata {
        model_used: job.model.as_ref().map(ToString::to_string).unwrap_or_default(),
        segments: progress.next_segment,
        ..ResultMetadata::default()
    });
    let result = SynthesisResult {
        success: true,
        request_id: job.job.clone(),
        output_path: None,
        duration: Some(progress.samples as f64 / f64::from(progress.sample_rate.max(1))),
        latency_ms: latency_ms(job, now_ms),
        error: None,
        metadata: Some(metadata),
        audio: Some(audio),
    };
    let (state, result) = (DurableState::Done, Some(result));
    DurableJob { state, lease: None, result, updated_ms: now_ms, ..job.clone() }
}

fn latency_ms(job: &DurableJob, now_ms: u64) -> f64 {
    now_ms.saturating_sub(job.created_ms) as f64
}

/// The record after a session that ended with an error: to be tried again, or failed for good. Waiting for a worker may go
/// on as long as the job may live; workers' faults without any progress may not.
pub(super) fn after_error(
    job: &DurableJob,
    error: ServiceError,
    config: &JobsConfig,
    now_ms: u64,
) -> DurableJob {
    let fruitless = job.fruitless.saturating_add(1);
    let worn_out = error.code == ErrorCode::SynthesisFailed && fruitless >= config.max_fruitless;
    if !error.retryable || worn_out {
        return ended(job, error, now_ms);
    }
    DurableJob { fruitless, ..released(job, now_ms) }
}

/// The error of a job that is older than it may be.
pub(super) fn too_old(job: &DurableJob, retention: Duration, now_ms: u64) -> Option<ServiceError> {
    let age = Duration::from_millis(now_ms.saturating_sub(job.created_ms));
    let message = || format!("the job was not spoken within {} s", retention.as_secs());
    (age > retention).then(|| ServiceError::new(Reason::Stalled, message()))
}

/// What a session has to say, and from where on; `None` when everything is stored.
pub(super) fn remaining(job: &DurableJob, text: &DurableText) -> Option<(SynthesisRequest, Resume)> {
    let JobProgress { next_segment, consumed_bytes, pause_ms, samples, sample_rate, .. } = job.progress;
    let whole = text.spoken_text(job.progress.pieces());
    let is_document = text.request.is_ssml();
    let planned_bytes = if is_document { usize::try_from(consumed_bytes).unwrap_or(usize::MAX) } else { 0 };
    let from_bytes = if is_document { 0 } else { consumed_bytes };
    let rest = usize::try_from(from_bytes).ok().and_then(|from| whole.get(from..)).unwrap_or_default();
    if job.progress.pieces() > 0 && rest.trim().is_empty() {
        return None;
    }
    let mut request = SynthesisRequest {
        text: rest.to_owned(),
        // The longest that a session takes; when it has passed, another session follows.
        deadline_ms: Some(MAX_DEADLINE_MS),
        ..text.request.clone()
    };
    if next_segment > 0 && request.model.is_none() && request.voice.is_none() {
        // The default may have changed since; one voice speaks all of it.
        request.model = job.model.as_ref().map(ToString::to_string);
    }
    Some((request, Resume { first_segment: next_segment, pause_ms, samples, sample_rate, planned_bytes }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chorus_protocol::{AudioFormat, Incarnation, ManagerId, MessageId};

    use super::*;

    fn job() -> DurableJob {
        DurableJob {
            principal: "default".into(),
            job: MessageId::new("a").unwrap(),
            digest: String::new(),
            format: AudioFormat::Wav,
            text_bytes: 10,
            state: DurableState::Queued,
            lease: None,
            epoch: 0,
            model: None,
            progress: JobProgress::default(),
            fruitless: 0,
            result: None,
            created_ms: 1_000,
            updated_ms: 1_000,
        }
    }

    fn lease() -> Lease {
        Lease { manager: ManagerId::new("m").unwrap(), incarnation: Incarnation::from_u128(1) }
    }

    fn piece(segment: u32, consumed_bytes: usize) -> AudioPiece {
        let pcm = Bytes::from(vec![segment as u8; 4]);
        AudioPiece { pcm, sample_rate: 16_000, segment, pause_after_ms: 300, consumed_bytes }
    }

    #[test]
    fn a_fresh_job_is_due_at_once_a_held_one_after_its_lease_and_an_ended_one_never() {
        let config = JobsConfig::default();
        assert_eq!(due_after(&job(), &config), Some(Duration::ZERO));
        let held = taken(&job(), lease(), 2_000);
        assert_eq!((due_after(&held, &config), held.epoch), (Some(config.lease), 1));
        let error = ServiceError::new(Reason::Cancelled, "no");
        let cancelled = ended(&held, error, 3_000);
        assert_eq!((due_after(&cancelled, &config), cancelled.state), (None, DurableState::Cancelled));
    }

    #[test]
    fn rests_grow_to_a_bound_and_waiting_for_workers_never_ends_a_job() {
        let config = JobsConfig::default();
        let mut waiting = job();
        let mut last = Duration::ZERO;
        for _ in 0..100 {
            waiting = after_error(&waiting, ServiceError::new(Reason::NoWorker, "none"), &config, 2_000);
            let rest = due_after(&waiting, &config).unwrap();
            assert!(rest >= last && rest <= config.longest_rest);
            last = rest;
        }
        assert_eq!(last, config.longest_rest);
        let crashed = after_error(&waiting, ServiceError::new(Reason::EngineCrashed, "x"), &config, 2_000);
        assert_eq!(crashed.state, DurableState::Failed);
        let wrong = after_error(&job(), ServiceError::new(Reason::Unspeakable, "x"), &config, 2_000);
        assert_eq!(wrong.state, DurableState::Failed);
        assert!(too_old(&job(), Duration::from_secs(1), 2_000).is_none());
        assert!(too_old(&job(), Duration::from_secs(1), 2_001).is_some());
    }

    #[test]
    fn a_takeover_goes_on_after_the_last_stored_segment() {
        let request = SynthesisRequest { text: "One. Two. ".into(), ..SynthesisRequest::default() };
        let text = DurableText { request, prepared: Some("Eins. Zwei. ".into()) };
        let (all, from) = remaining(&job(), &text).unwrap();
        assert_eq!((all.text.as_str(), from.first_segment), ("One. Two. ", 0), "hooks see it once more");
        let first = stored(&taken(&job(), lease(), 2_000), &piece(0, 6), 0, 2_500);
        let (rest, from) = remaining(&first, &text).unwrap();
        assert_eq!((rest.text.as_str(), from.first_segment, from.pause_ms), ("Zwei. ", 1, 300));
        let second = stored(&taken(&first, lease(), 3_000), &piece(1, 6), 6, 3_500);
        assert_eq!(second.progress.crc32, chorus_audio::checksum::crc32(&[0, 0, 0, 0, 1, 1, 1, 1]));
        assert_eq!((second.progress.samples, second.progress.takes.len()), (4, 2));
        assert!(remaining(&second, &text).is_none());
    }
}
