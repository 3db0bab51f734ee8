//! What a request asks of a voice and its engine cannot do: speed, pitch and volume, done to the finished audio.
//!
//! Done here, where the engine's abilities are known, so that a fleet of different engines sounds alike, the work is spread
//! over the fleet, and what is cached or stored is what was asked for. A segment that is changed leaves whole: time can only
//! be stretched when its end is known.

use chorus_audio::{pcm, stretch};
use chorus_protocol::pipe::Capabilities;
use chorus_protocol::plan::Speech;
use chorus_protocol::{Reason, ServiceError};

/// What is to be done to the audio.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Voicing {
    speed: Option<f32>,
    semitones: Option<f32>,
    gain: Option<f32>,
}

impl Voicing {
    /// What an engine with these abilities leaves to be done.
    pub(crate) fn left_by(capabilities: &Capabilities, speech: &Speech) -> Self {
        let unless = |native: bool, value: Option<f64>, neutral: f64| {
            value.filter(|v| !native && *v != neutral).map(|v| v as f32)
        };
        Self {
            speed: unless(capabilities.speed, speech.speed, 1.0),
            semitones: unless(capabilities.pitch, speech.pitch, 0.0),
            gain: unless(false, speech.volume, 1.0),
        }
    }

    /// Whether the audio stays as it is.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The speed to ask of the engine.
    pub(crate) fn engine_speed(&self, speech: &Speech) -> Option<f64> {
        speech.speed.filter(|_| self.speed.is_none())
    }

    /// The pitch to ask of the engine.
    pub(crate) fn engine_pitch(&self, speech: &Speech) -> Option<f64> {
        speech.pitch.filter(|semitones| self.semitones.is_none() && *semitones != 0.0)
    }

    /// Changes s16le mono samples.
    ///
    /// # Errors
    /// SYNTHESIS_FAILED when the samples are none, or the change is out of range.
    pub(crate) fn apply(&self, pcm_bytes: &[u8], sample_rate: u32) -> Result<Vec<u8>, ServiceError> {
        let failed = |why: String| ServiceError::new(Reason::EngineProtocol, why);
        let mut samples =
            pcm::from_bytes(pcm_bytes).ok_or_else(|| failed("the audio ends in mid-sample".into()))?;
        let unchangeable = |error: stretch::StretchError| failed(error.to_string());
        if let Some(semitones) = self.semitones {
            samples = stretch::change_pitch(&samples, sample_rate, semitones).map_err(unchangeable)?;
        }
        if let Some(speed) = self.speed {
            samples = stretch::change_speed(&samples, sample_rate, speed).map_err(unchangeable)?;
        }
        if let Some(gain) = self.gain {
            // A float to integer cast stops at the ends of the range: what is too loud is clipped.
            samples.iter_mut().for_each(|sample| *sample = (f32::from(*sample) * gain).round() as i16);
        }
        Ok(pcm::to_bytes(&samples))
    }
}

#[cfg(test)]
mod tests {
    use chorus_protocol::{ModelName, Priority};

    use super::*;

    fn speech() -> Speech {
        Speech {
            model: ModelName::new("m").unwrap(),
            voice: None,
            speaker_clip: None,
            language: None,
            speed: Some(2.0),
            pitch: Some(-3.0),
            volume: Some(0.5),
            seed: None,
            priority: Priority::Normal,
            fresh: false,
            input_type: None,
        }
    }

    #[test]
    fn only_what_the_engine_cannot_do_is_left() {
        let native = Capabilities { speed: true, ..Capabilities::default() };
        let left = Voicing::left_by(&native, &speech());
        assert_eq!(left, Voicing { speed: None, semitones: Some(-3.0), gain: Some(0.5) });
        assert_eq!((left.engine_speed(&speech()), left.engine_pitch(&speech())), (Some(2.0), None));
        let plain = Speech { speed: Some(1.0), pitch: Some(0.0), volume: None, ..speech() };
        assert!(Voicing::left_by(&Capabilities::default(), &plain).is_none());
    }

    #[test]
    fn length_pitch_and_loudness_are_changed() {
        let wave = |at: i32| (f64::from(at) * std::f64::consts::TAU * 220.0 / 22_050.0).sin() * 12_000.0;
        let samples: Vec<i16> = (0..22_050).map(|at| wave(at) as i16).collect();
        let left = Voicing::left_by(&Capabilities::default(), &speech());
        let changed = left.apply(&pcm::to_bytes(&samples), 22_050).unwrap();
        let changed = pcm::from_bytes(&changed).unwrap();
        assert_eq!(changed.len(), 11_025);
        let peak = changed.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        assert!((5_000..7_000).contains(&peak), "{peak}");
        let rises = changed.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert!((87..99).contains(&rises), "three semitones below 110 rises in half a second: {rises}");
        assert!(left.apply(&[1], 22_050).is_err());
    }
}
