//! What a client asks for and what it gets (plan.md §4.1, with the extensions of DESIGN.md).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::MAX_TEXT_BYTES;
use crate::audio::{AudioFormat, AudioRef};
use crate::clip::ClipId;
use crate::error::{Reason, ServiceError};
use crate::ids::MessageId;

/// How much a client wants it now.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Can wait: books, batches.
    Low,
    /// As it comes.
    #[default]
    Normal,
    /// Somebody is listening for it.
    High,
}

/// The class a job is queued in. `urgent` is the fleet's own: first retries, and streams about to run dry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobClass {
    /// Served last.
    Low,
    /// Served third.
    Normal,
    /// Served second.
    High,
    /// Served first.
    Urgent,
}

impl JobClass {
    /// In the order in which they are served.
    pub const BY_URGENCY: [Self; 4] = [Self::Urgent, Self::High, Self::Normal, Self::Low];

    /// As it stands in a subject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

impl From<Priority> for JobClass {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Normal => Self::Normal,
            Priority::High => Self::High,
        }
    }
}

/// What a request's text is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// Plain text.
    #[default]
    Text,
    /// An SSML document: `speak` with `p`, `s`, `break`, `prosody`, `voice`.
    Ssml,
}

/// What a client asks for. Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SynthesisRequest {
    /// What to say.
    pub text: String,
    /// What the text is; plain text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_type: Option<InputType>,
    /// A voice: a model's alias, or a speaker of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// A model of the catalogue; the default one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Somebody's speech, for models that can take on a voice: a clip in the bucket `tts-clips`, as `sha256:` and the digest of
    /// its bytes in hex. Over stdio also a file on the parent's host. Not beside a speaker in `voice`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker_clip: Option<String>,
    /// A language, for multilingual models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Rate of speech, 0.25 to 4.0; 1 is the voice's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// Semitones, -12 to 12; 0 is the voice's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pitch: Option<f64>,
    /// How the audio shall be written; wav when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_format: Option<AudioFormat>,
    /// Samples per second of the audio, 8,000 to 48,000; the model's own when absent. Opus and mp3 carry certain rates only
    /// and take the next one that they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// A file to write it to, for clients that share the file system (stdio, CLI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<String>,
    /// Low, normal or high; normal when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// The client's own data; comes back in events, is never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Milliseconds to first audio (to the whole reply, for a plain request).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The same seed gives the same take, where the model can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// A new take is wanted: nothing comes from the cache.
    #[serde(default, skip_serializing_if = "crate::plan::is_false")]
    pub fresh: bool,
}

/// Deadline for first audio when the client names none, in milliseconds.
pub const DEFAULT_DEADLINE_MS: u64 = 30_000;
/// The longest deadline that can be asked for, in milliseconds: the jobs' stream forgets what is older.
pub const MAX_DEADLINE_MS: u64 = 600_000;
/// The range of `speed`.
pub const SPEED_RANGE: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// The range of `sampleRate`, in Hz.
pub const SAMPLE_RATE_RANGE: std::ops::RangeInclusive<u32> = 8_000..=48_000;
/// The longest SSML document, in bytes: it is read as a whole for every page of the plan.
pub const MAX_SSML_BYTES: usize = crate::MAX_UNPLANNED_BYTES;
/// The range of `pitch`, in semitones.
pub const PITCH_RANGE: std::ops::RangeInclusive<f64> = -12.0..=12.0;

impl SynthesisRequest {
    /// Checks every field that needs no catalogue.
    ///
    /// # Errors
    /// INVALID_REQUEST naming the first field that is wrong.
    pub fn validate(&self) -> Result<(), ServiceError> {
        check_text(&self.text)?;
        if self.text.trim().is_empty() {
            return Err(ServiceError::field(
                Reason::Unspeakable,
                "text",
                "text is empty: there is nothing to say",
            ));
        }
        if self.is_ssml() && self.text.len() > MAX_SSML_BYTES {
            let bytes = self.text.len();
            let message = format!("the SSML document is {bytes} bytes; at most {MAX_SSML_BYTES} are read");
            return Err(
                ServiceError::field(Reason::TooLarge, "text", message).with("maxBytes", MAX_SSML_BYTES)
            );
        }
        self.validate_options()
    }

    /// Checks every field but the text.
    ///
    /// # Errors
    /// INVALID_REQUEST naming the first field that is wrong.
    pub fn validate_options(&self) -> Result<(), ServiceError> {
        check_range("speed", self.speed, SPEED_RANGE)?;
        check_range("pitch", self.pitch, PITCH_RANGE)?;
        if let Some(rate) = self.sample_rate.filter(|rate| !SAMPLE_RATE_RANGE.contains(rate)) {
            let (least, most) = (SAMPLE_RATE_RANGE.start(), SAMPLE_RATE_RANGE.end());
            let message = format!("sampleRate must be {least} to {most} Hz; it is {rate}");
            return Err(ServiceError::field(Reason::Malformed, "sampleRate", message));
        }
        self.clip()?;
        match self.deadline_ms {
            Some(ms) if !(1..=MAX_DEADLINE_MS).contains(&ms) => Err(ServiceError::field(
                Reason::Malformed,
                "deadlineMs",
                format!("deadlineMs must be 1 to {MAX_DEADLINE_MS}; it is {ms}"),
            )),
            _ => Ok(()),
        }
    }

    /// The clip whose voice is asked for.
    ///
    /// # Errors
    /// INVALID_REQUEST naming `speakerClip` for what is no reference to one.
    pub fn clip(&self) -> Result<Option<ClipId>, ServiceError> {
        let parsed = self.speaker_clip.as_deref().map(str::parse).transpose();
        parsed.map_err(|error| {
            ServiceError::field(Reason::Malformed, "speakerClip", format!("speakerClip {error}"))
        })
    }

    /// Whether the text is an SSML document.
    pub fn is_ssml(&self) -> bool {
        self.input_type == Some(InputType::Ssml)
    }

    /// Milliseconds to first audio.
    pub fn deadline_or_default_ms(&self) -> u64 {
        self.deadline_ms.unwrap_or(DEFAULT_DEADLINE_MS)
    }
}

/// Checks a text's size and characters; it may be empty.
///
/// # Errors
/// INVALID_REQUEST: too_large, or malformed where it holds NUL.
pub fn check_text(text: &str) -> Result<(), ServiceError> {
    if text.len() > MAX_TEXT_BYTES {
        let message = format!(
            "text is {} bytes; at most {MAX_TEXT_BYTES} fit into one message. Send longer texts in pieces.",
            text.len()
        );
        return Err(ServiceError::field(Reason::TooLarge, "text", message).with("maxBytes", MAX_TEXT_BYTES));
    }
    match text.find('\0') {
        Some(at) => {
            Err(ServiceError::field(Reason::Malformed, "text", format!("text holds a NUL byte at {at}")))
        }
        None => Ok(()),
    }
}

fn check_range(
    field: &'static str,
    value: Option<f64>,
    range: std::ops::RangeInclusive<f64>,
) -> Result<(), ServiceError> {
    match value {
        Some(v) if !range.contains(&v) => {
            let message = format!("{field} must be {} to {}; it is {v}", range.start(), range.end());
            Err(ServiceError::field(Reason::Malformed, field, message))
        }
        _ => Ok(()),
    }
}

/// Something that went less well than asked, beside a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    /// One word for a program.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// The segment it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<u32>,
}

/// How a request was served.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultMetadata {
    /// The model that spoke.
    pub model_used: String,
    /// The workers that spoke, comma-separated where there were several.
    pub worker_used: String,
    /// Whether every segment came from the cache.
    pub cache_hit: bool,
    /// How many segments came from the cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_segments: u32,
    /// How many segments it had.
    #[serde(default)]
    pub segments: u32,
    /// How many further attempts its segments needed.
    #[serde(default)]
    pub retries: u32,
    /// Milliseconds from the request to its first audio at the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_audio_ms: Option<f64>,
    /// Milliseconds that engines worked for it, summed over segments.
    #[serde(default)]
    pub engine_ms: f64,
    /// What went less well than asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What a client gets (plan.md §4.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SynthesisResult {
    /// Whether the audio is complete.
    pub success: bool,
    /// The request: the client's messageId, or one made for it.
    pub request_id: MessageId,
    /// The file written, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<String>,
    /// Length of the audio in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// Milliseconds from the request to the complete audio.
    pub latency_ms: f64,
    /// Why not, when it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ServiceError>,
    /// How it was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ResultMetadata>,
    /// The audio, for plain requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioRef>,
}

impl SynthesisResult {
    /// A failed one.
    pub fn failed(request_id: MessageId, latency_ms: f64, error: ServiceError) -> Self {
        Self {
            success: false,
            request_id,
            output_path: None,
            duration: None,
            latency_ms,
            error: Some(error),
            metadata: None,
            audio: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(request: SynthesisRequest) -> String {
        let error = request.validate().unwrap_err();
        assert_eq!(error.code, crate::ErrorCode::InvalidRequest);
        error.details.unwrap()["field"].as_str().unwrap().to_owned()
    }

    fn saying(text: &str) -> SynthesisRequest {
        SynthesisRequest { text: text.into(), ..Default::default() }
    }

    #[test]
    fn every_bad_field_is_named() {
        assert_eq!(field_of(saying("")), "text");
        assert_eq!(field_of(saying(" \n\t")), "text");
        assert_eq!(field_of(saying("a\0b")), "text");
        assert_eq!(field_of(saying(&"a".repeat(MAX_TEXT_BYTES + 1))), "text");
        assert_eq!(field_of(SynthesisRequest { speed: Some(9.0), ..saying("a") }), "speed");
        assert_eq!(field_of(SynthesisRequest { speed: Some(f64::NAN), ..saying("a") }), "speed");
        assert_eq!(field_of(SynthesisRequest { pitch: Some(-13.0), ..saying("a") }), "pitch");
        assert_eq!(field_of(SynthesisRequest { sample_rate: Some(7_999), ..saying("a") }), "sampleRate");
        let ssml = SynthesisRequest { input_type: Some(InputType::Ssml), ..saying(&"a".repeat(70_000)) };
        assert_eq!(field_of(ssml), "text");
        assert_eq!(field_of(SynthesisRequest { deadline_ms: Some(0), ..saying("a") }), "deadlineMs");
        for clip in ["", "/etc/passwd", "sha256:../x"] {
            assert_eq!(
                field_of(SynthesisRequest { speaker_clip: Some(clip.into()), ..saying("a") }),
                "speakerClip"
            );
        }
        assert_eq!(saying("hello").validate(), Ok(()));
    }

    #[test]
    fn the_plans_field_names() {
        let request: SynthesisRequest = serde_json::from_str(
            r#"{"text":"a","outputFormat":"mp3","outputPath":"x","priority":"high","metadata":{"k":[1]},"novel":true}"#,
        )
        .unwrap();
        assert_eq!(request.output_format, Some(AudioFormat::Mp3));
        assert_eq!(request.priority, Some(Priority::High));
    }
}
