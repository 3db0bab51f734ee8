//! What a session and a manager say to one another: `open`, `advance`, `finish`, `cancel`.
//!
//! A manager keeps nothing between these: each question carries all that the answer needs, so that any manager can take
//! it and any may die.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clip::ClipId;
use crate::error::ServiceError;
use crate::ids::{Attempt, ManagerId, MessageId, ModelName, SegmentIndex, SessionId, WorkerId};
use crate::request::{InputType, JobClass, Priority, SynthesisRequest, SynthesisResult, Warning};

/// How the words are to be spoken: a request after its voice was resolved. The same for all its segments, but for what a
/// segment's [`Manner`] says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Speech {
    /// The model.
    pub model: ModelName,
    /// A speaker of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// A clip whose voice the model takes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker_clip: Option<ClipId>,
    /// A language of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Rate of speech; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Semitones; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pitch: Option<f64>,
    /// Gain as a factor, 0 to 4; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<f64>,
    /// Seed of the take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The request's priority.
    #[serde(default)]
    pub priority: Priority,
    /// A new take is wanted, though there may be a stored one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fresh: bool,
    /// What the request's text is; plain text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_type: Option<InputType>,
}

impl Speech {
    /// How a segment is spoken that has its own manner.
    pub fn with(&self, manner: Option<&Manner>) -> Self {
        let mut speech = self.clone();
        if let Some(Manner { voice, speed, pitch, volume, .. }) = manner {
            if voice.is_some() {
                (speech.voice, speech.speaker_clip) = (voice.clone(), None);
            }
            speech.speed = speed.or(speech.speed);
            speech.pitch = pitch.or(speech.pitch);
            speech.volume = volume.or(speech.volume);
        }
        speech
    }
}

/// What one segment has of its own, by SSML; each field replaces that of the [`Speech`], and a speaker also its clip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Manner {
    /// A speaker of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// Rate of speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Semitones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pitch: Option<f64>,
    /// Gain as a factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<f64>,
    /// Silence before it, in milliseconds: a document may begin with a rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_before_ms: Option<u32>,
}

pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

/// `tts.open`: a session begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// The session, new at every opening.
    pub session: SessionId,
    /// Where workers find it.
    pub inbox: String,
    /// What the client calls the request.
    pub request_id: MessageId,
    /// What is asked for; its text may be a first piece only.
    pub request: SynthesisRequest,
    /// Whether the text ends with this piece.
    pub text_complete: bool,
    /// How many segments may be queued now.
    pub window: u32,
    /// The index of the first segment of this text. Not 0 where an earlier session spoke what comes before it; hooks have
    /// seen the request then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_segment: SegmentIndex,
    /// The session can fetch stored takes: it understands [`Disposition::Stored`] and [`Disposition::Awaited`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub takes: bool,
    /// How much of an SSML document was planned before, as [`PlanPage::consumed_bytes`] has summed up. Its text is always the
    /// whole document.
    #[serde(default, skip_serializing_if = "is_none_planned")]
    pub planned_bytes: usize,
}

fn is_zero(index: &SegmentIndex) -> bool {
    *index == 0
}

fn is_none_planned(bytes: &usize) -> bool {
    *bytes == 0
}

/// The answer to [`Open`]: accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Opened {
    /// The manager that answered.
    pub manager: ManagerId,
    /// How it will be spoken.
    pub speech: Speech,
    /// Milliseconds to first audio, from the opening.
    pub deadline_ms: u64,
    /// Milliseconds an attempt may go without progress, from `started`.
    pub attempt_timeout_ms: u64,
    /// Whether a hook wants to see the result (`tts.finish`).
    pub finish: bool,
    /// The text as `beforeSynthesis` left it, where a hook changed it: what the session goes on with. Only for a text that
    /// was complete when it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Workers that could speak it now: decides whether a deadline passed for want of a worker.
    #[serde(default)]
    pub ready_workers: u32,
    /// The first page of the plan.
    pub page: PlanPage,
}

/// A page of the plan: the segments that were queued, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanPage {
    /// The segments, numbered on from the last page.
    pub segments: Vec<PlannedSegment>,
    /// How many bytes of the text they use up. The session sends the rest with its next question; of an SSML document it sends
    /// the whole and this sum, which then counts in bytes of what is said.
    pub consumed_bytes: usize,
    /// Whether nothing speakable is left of a complete text.
    pub complete: bool,
    /// What went less well than asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// One segment of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSegment {
    /// Its place.
    pub index: SegmentIndex,
    /// What it says: what a retry of it carries.
    pub text: String,
    /// Silence after it, in milliseconds.
    pub pause_after_ms: u32,
    /// What it has of its own: what a retry of it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manner: Option<Manner>,
    /// The class it was queued in.
    pub class: JobClass,
    /// Where it ends, in bytes of the text that the page is of: what a session that goes on after it leaves out.
    #[serde(default)]
    pub end_bytes: usize,
    /// What became of it.
    pub disposition: Disposition,
}

/// What a manager did with a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Disposition {
    /// A job is in the queue.
    Queued {
        /// Its attempt.
        attempt: Attempt,
        /// Its sequence in the stream.
        seq: u64,
    },
    /// The audio is there already. One that turns out to be gone or damaged is asked for again, as a retry.
    Stored {
        /// The object bucket.
        bucket: String,
        /// The object's name.
        key: String,
        /// Its length in samples.
        samples: u64,
        /// CRC-32 of its PCM bytes.
        crc32: u32,
        /// Samples per second.
        #[serde(default)]
        sample_rate: u32,
        /// What the engine left out when it spoke it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<Warning>,
    },
    /// A worker speaks these very words now, for somebody else, and will store them.
    Awaited {
        /// The name under which the take will be stored.
        key: String,
        /// How long to wait for it, in milliseconds, before it is asked for as a retry: no longer than speaking it takes.
        wait_ms: u64,
    },
    /// Not now; `queue_full` in mid-request means wait.
    Refused {
        /// Why, with `retryAfterMs` where waiting helps.
        error: ServiceError,
    },
}

/// `tts.advance`: further text, retries, look-ups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advance {
    /// The session.
    pub session: SessionId,
    /// Where workers find it.
    pub inbox: String,
    /// What the client calls the request.
    pub request_id: MessageId,
    /// How it is spoken.
    pub speech: Speech,
    /// The index that the next new segment gets.
    pub next_segment: SegmentIndex,
    /// Text not yet planned, at most [`crate::MAX_UNPLANNED_BYTES`]; an SSML document as a whole.
    #[serde(default)]
    pub text: String,
    /// How much of an SSML document was planned before.
    #[serde(default, skip_serializing_if = "is_none_planned")]
    pub planned_bytes: usize,
    /// Whether the text ends with this.
    pub text_complete: bool,
    /// How many new segments may be queued now.
    pub window: u32,
    /// The listener is about to run dry.
    #[serde(default)]
    pub urgent: bool,
    /// Segments to be tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<Retry>,
    /// Jobs that nobody has begun: are they still there?
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<Lookup>,
    /// As in [`Open::takes`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub takes: bool,
}

/// A segment to be tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Its place.
    pub segment: SegmentIndex,
    /// What it says.
    pub text: String,
    /// What it has of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manner: Option<Manner>,
    /// The attempt to be made.
    pub attempt: Attempt,
    /// The class to queue it in.
    pub class: JobClass,
    /// Engine failures met so far.
    pub failures: u32,
    /// Workers that have tried it.
    #[serde(default)]
    pub tried: Vec<WorkerId>,
    /// The job it replaces, by sequence, to be deleted from the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<u64>,
}

/// A job that nobody has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// Its segment.
    pub segment: SegmentIndex,
    /// Its attempt.
    pub attempt: Attempt,
    /// Its sequence in the stream.
    pub seq: u64,
}

/// The answer to [`Advance`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advanced {
    /// New segments.
    pub page: PlanPage,
    /// Workers that could speak it now.
    #[serde(default)]
    pub ready_workers: u32,
    /// What became of each retry, in the order asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<RetryAnswer>,
    /// What became of each looked-up job, in the order asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<LookupAnswer>,
}

/// What became of a retry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryAnswer {
    /// Its segment.
    pub segment: SegmentIndex,
    /// Queued under the attempt asked for, or refused.
    pub disposition: Disposition,
}

/// Whether a job is still in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LookupAnswer {
    /// Its segment.
    pub segment: SegmentIndex,
    /// Its attempt.
    pub attempt: Attempt,
    /// Queued or in flight (true), or gone (false).
    pub present: bool,
}

/// `tts.cancel`: every manager hears it; the jobs are deleted by sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    /// The session given up.
    pub session: SessionId,
    /// Its jobs that are not known to be over.
    pub seqs: Vec<u64>,
    /// Runs of it that workers have begun.
    #[serde(default)]
    pub workers: Vec<WorkerId>,
}

/// `tts.finish`: the result, for `afterSynthesis`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finish {
    /// The session.
    pub session: SessionId,
    /// Its result, without audio.
    pub result: SynthesisResult,
}

/// The answer to [`Finish`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// The result as hooks left it.
    pub result: SynthesisResult,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speaker_of_a_document_speaks_in_his_own_voice() {
        let speech = serde_json::json!({"model": "xtts", "speakerClip": ClipId::of(b"speech"), "speed": 2.0});
        let speech: Speech = serde_json::from_value(speech).unwrap();
        let slower = Manner { speed: Some(0.5), ..Manner::default() };
        assert_eq!(speech.with(Some(&slower)).speaker_clip, speech.speaker_clip);
        let named = Manner { voice: Some("ann".into()), ..Manner::default() };
        let spoken = speech.with(Some(&named));
        assert_eq!(
            (spoken.voice.as_deref(), spoken.speaker_clip, spoken.speed),
            (Some("ann"), None, Some(2.0))
        );
    }
}
