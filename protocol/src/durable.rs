//! Durable jobs: asked for once, spoken whatever dies, kept until they are fetched. `tts.jobs.api.*`, and the record.
//!
//! A job is known by who asked (the principal) and by the messageId of the question: asking again under the same id is
//! the same job. `submit` carries a [`SynthesisRequest`](crate::SynthesisRequest); the other questions a [`JobAsk`].
//! `submit`, `status` and `cancel` are answered with a [`JobStatus`], `fetch` with a
//! [`SynthesisResult`](crate::SynthesisResult) whose audio is an object on the broker.
//!
//! The record ([`DurableJob`]) is small and of one size however long the text: what was spoken is counted, and its pieces
//! are objects whose names follow from the counts ([`crate::names::job_piece_key`]). The text has a record of its own
//! ([`DurableText`]), written once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audio::AudioFormat;
use crate::error::ServiceError;
use crate::ids::{Incarnation, ManagerId, MessageId, ModelName, SegmentIndex};
use crate::request::{SynthesisRequest, SynthesisResult};

/// How far a durable job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DurableState {
    /// Nobody speaks it now.
    Queued,
    /// A manager has it spoken.
    Speaking,
    /// Its audio can be fetched.
    Done,
    /// It cannot be spoken.
    Failed,
    /// It was given up.
    Cancelled,
}

impl DurableState {
    /// Whether nothing will change it any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Speaking => "speaking",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Which job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobAsk {
    /// The messageId under which it was submitted.
    pub job: MessageId,
}

/// How a job is, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// The messageId under which it was submitted.
    pub job: MessageId,
    /// How far it is.
    pub state: DurableState,
    /// The manager that has it spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<ManagerId>,
    /// Segments whose audio is stored.
    pub segments: u32,
    /// Seconds of audio that are stored.
    pub audio_seconds: f64,
    /// Bytes of the text that are spoken.
    pub spoken_bytes: u64,
    /// Bytes of the text.
    pub text_bytes: u64,
    /// Milliseconds of Unix time at which it was submitted.
    pub created_ms: u64,
    /// Milliseconds of Unix time of its last change.
    pub updated_ms: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ServiceError>,
}

/// Who has a job spoken. It is renewed by writing the record anew; a manager that sees the same revision for longer than
/// the lease lasts takes the job over. So no two hosts' clocks are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The manager.
    pub manager: ManagerId,
    /// Which start of it.
    pub incarnation: Incarnation,
}

/// Pieces that one holder of the lease stored: consecutive, numbered on from those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Take {
    /// Under which lease; in the objects' names, so that a holder who lost it overwrites nothing.
    pub epoch: u32,
    /// How many pieces.
    pub pieces: u32,
}

/// The record of a plain request, under its messageId: who answers it, and then the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlainReply {
    /// SHA-256 of the request, in hex: another request under the same id is refused.
    pub digest: String,
    /// The manager that speaks it, or did.
    pub holder: Lease,
    /// The answer, with its audio inside or stored; only of a request that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<SynthesisResult>,
    /// Milliseconds of Unix time at which it was claimed.
    pub created_ms: u64,
}

/// What of a job is spoken and stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobProgress {
    /// The stored pieces, in order.
    pub takes: Vec<Take>,
    /// The index of the first segment that is not stored.
    pub next_segment: SegmentIndex,
    /// Bytes of the text that the stored segments use up.
    pub consumed_bytes: u64,
    /// Silence owed before the next audio, in milliseconds.
    pub pause_ms: u32,
    /// Samples stored.
    pub samples: u64,
    /// Samples per second; 0 before the first piece.
    pub sample_rate: u32,
    /// CRC-32 of all PCM bytes stored, in order.
    pub crc32: u32,
}

impl JobProgress {
    /// Pieces stored.
    pub fn pieces(&self) -> u32 {
        self.takes.iter().map(|take| take.pieces).sum()
    }

    /// Each piece's epoch and number, in order.
    pub fn each_piece(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let epochs = self.takes.iter().flat_map(|take| (0..take.pieces).map(|_| take.epoch));
        epochs.zip(0..)
    }

    /// Counts one more piece as stored under `epoch`.
    pub fn add_piece(&mut self, epoch: u32) {
        match self.takes.last_mut() {
            Some(last) if last.epoch == epoch => last.pieces += 1,
            _ => self.takes.push(Take { epoch, pieces: 1 }),
        }
    }
}

/// The record of a durable job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DurableJob {
    /// Who asked for it.
    pub principal: String,
    /// The messageId under which it was submitted.
    pub job: MessageId,
    /// SHA-256 of the request, in hex: another request under the same id is refused.
    pub digest: String,
    /// How the audio is written.
    pub format: AudioFormat,
    /// Bytes of the text.
    pub text_bytes: u64,
    /// How far it is.
    pub state: DurableState,
    /// Who has it spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// How often a lease was taken.
    pub epoch: u32,
    /// The model that speaks it, once one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    /// What is stored.
    pub progress: JobProgress,
    /// Sessions in a row that ended without storing anything.
    pub fruitless: u32,
    /// What came of it: without audio unless it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<SynthesisResult>,
    /// Milliseconds of Unix time at which it was submitted.
    pub created_ms: u64,
    /// Milliseconds of Unix time of its last change.
    pub updated_ms: u64,
}

impl DurableJob {
    /// What clients are told of it.
    pub fn status(&self) -> JobStatus {
        let progress = &self.progress;
        JobStatus {
            job: self.job.clone(),
            state: self.state,
            manager: self.lease.as_ref().map(|lease| lease.manager.clone()),
            segments: progress.next_segment,
            audio_seconds: progress.samples as f64 / f64::from(progress.sample_rate.max(1)),
            spoken_bytes: progress.consumed_bytes,
            text_bytes: self.text_bytes,
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
            error: self.result.as_ref().and_then(|result| result.error.clone()),
        }
    }
}

/// What a durable job says; in a record of its own, since it is large and does not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DurableText {
    /// What was asked for.
    pub request: SynthesisRequest,
    /// The text as `beforeSynthesis` left it, once something of it is being spoken: what a takeover goes on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<String>,
}

impl DurableText {
    /// The text that positions in it mean, once `pieces` are stored.
    pub fn spoken_text(&self, pieces: u32) -> &str {
        match &self.prepared {
            Some(prepared) if pieces > 0 => prepared,
            _ => &self.request.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_numbered_on_through_takeovers() {
        let mut progress = JobProgress::default();
        for epoch in [1, 1, 3] {
            progress.add_piece(epoch);
        }
        assert_eq!(progress.takes, [Take { epoch: 1, pieces: 2 }, Take { epoch: 3, pieces: 1 }]);
        assert_eq!(progress.each_piece().collect::<Vec<_>>(), [(1, 0), (1, 1), (3, 2)]);
        assert_eq!(progress.pieces(), 3);
    }
}
