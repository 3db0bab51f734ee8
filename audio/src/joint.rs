//! Joining segments into one stream without clicks.
//!
//! Segments are spoken apart, by different workers, and may begin or end in the middle of a wave. A step
//! between neighbouring samples is heard as a click. The joint lets a segment through untouched when it
//! begins and ends near zero, as most do; otherwise it fades the few milliseconds beside the step. Rests
//! are put in between, and only between: the one after the last segment is left out, and so is any
//! before a segment that never comes.
//!
//! It holds back one fade's length of samples, because only the end of a segment shows whether its tail
//! has to fade. What comes out depends on the samples alone, not on how they were cut into chunks.

use std::collections::VecDeque;

use crate::pcm;

/// How segments are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JointConfig {
    /// Rate of all segments, in Hz.
    pub sample_rate: u32,
    /// Largest step allowed from the last sample of a segment to the first of the next, of 32,768. The
    /// default, 400, is -38 dBFS: well under the steps inside speech.
    pub most_step: u16,
    /// Length of a fade, in milliseconds. The default, 4, is shorter than any speech sound.
    pub fade_ms: u32,
}

impl JointConfig {
    /// The default joint at a rate in Hz.
    pub fn at(sample_rate: u32) -> Self {
        Self { sample_rate, most_step: 400, fade_ms: 4 }
    }
}

/// Joins segments; see the module's head.
#[derive(Debug)]
pub struct Joint {
    config: JointConfig,
    fade_samples: usize,
    /// The newest samples of the segment under way, at most one fade's length.
    held: VecDeque<i16>,
    /// Position in a fade-in, while one is under way.
    fade_in_at: Option<usize>,
    /// Whether a segment is under way.
    is_inside: bool,
    /// Rest to put in before the next segment.
    pending_samples: usize,
}

impl Joint {
    /// A joint before its first segment.
    pub fn new(config: JointConfig) -> Self {
        let fade_samples = pcm::samples_in_ms(config.fade_ms, config.sample_rate).max(1);
        let held = VecDeque::with_capacity(fade_samples);
        Self { config, fade_samples, held, fade_in_at: None, is_inside: false, pending_samples: 0 }
    }

    /// Takes samples of the segment under way (the first ones begin it) and appends to `output` what is
    /// ready.
    pub fn push(&mut self, samples: &[i16], output: &mut Vec<i16>) {
        let Some(&first) = samples.first() else { return };
        if !self.is_inside {
            self.is_inside = true;
            output.extend(std::iter::repeat_n(0, std::mem::take(&mut self.pending_samples)));
            self.fade_in_at = self.is_step(first).then_some(0);
        }
        output.reserve(samples.len());
        for &sample in samples {
            let sample = self.faded_in(sample);
            self.held.push_back(sample);
            if self.held.len() > self.fade_samples {
                output.extend(self.held.pop_front());
            }
        }
    }

    /// Ends the segment under way; `pause_after_ms` comes before the next one, if there is one. A segment
    /// without samples only adds its rest.
    pub fn end_segment(&mut self, pause_after_ms: u32, output: &mut Vec<i16>) {
        if self.held.back().is_some_and(|&last| self.is_step(last)) {
            let length = self.held.len();
            for (at, sample) in self.held.iter_mut().enumerate() {
                *sample = scaled(*sample, length - 1 - at, length);
            }
        }
        output.extend(self.held.drain(..));
        self.is_inside = false;
        self.fade_in_at = None;
        let pause = pcm::samples_in_ms(pause_after_ms, self.config.sample_rate);
        self.pending_samples = self.pending_samples.saturating_add(pause);
    }

    /// Half the step is allowed on either side of a joint, so the whole is never more than it.
    fn is_step(&self, sample: i16) -> bool {
        sample.unsigned_abs() > self.config.most_step / 2
    }

    fn faded_in(&mut self, sample: i16) -> i16 {
        let Some(at) = self.fade_in_at else { return sample };
        self.fade_in_at = Some(at + 1).filter(|&next| next < self.fade_samples);
        scaled(sample, at, self.fade_samples)
    }
}

/// One whole segment (s16le) with soft ends; `None` where they are soft already, or the bytes are no samples.
pub fn softened(pcm_bytes: &[u8], config: &JointConfig) -> Option<Vec<u8>> {
    let at = |place: usize| Some(i16::from_le_bytes([*pcm_bytes.get(place)?, *pcm_bytes.get(place + 1)?]));
    let joint = Joint::new(config.clone());
    let ends = [at(0)?, at(pcm_bytes.len().checked_sub(pcm::SAMPLE_BYTES)?)?];
    if !ends.into_iter().any(|sample| joint.is_step(sample)) {
        return None;
    }
    let samples = pcm::from_bytes(pcm_bytes)?;
    let mut joint = joint;
    let mut soft = Vec::with_capacity(samples.len());
    joint.push(&samples, &mut soft);
    joint.end_segment(0, &mut soft);
    Some(pcm::to_bytes(&soft))
}

/// A sample at `part / whole` of its value.
fn scaled(sample: i16, part: usize, whole: usize) -> i16 {
    (i64::from(sample) * part as i64 / whole.max(1) as i64) as i16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn join(segments: &[(Vec<i16>, u32)], size: usize, config: &JointConfig) -> Vec<i16> {
        let mut joint = Joint::new(config.clone());
        let mut output = Vec::new();
        for (samples, pause_ms) in segments {
            samples.chunks(size).for_each(|chunk| joint.push(chunk, &mut output));
            joint.end_segment(*pause_ms, &mut output);
        }
        output
    }

    #[test]
    fn segments_that_begin_and_end_softly_are_not_touched() {
        let wave = |at: i32| (2_000.0 * (f64::from(at) * std::f64::consts::TAU / 100.0).sin()) as i16;
        let soft: Vec<i16> = (0..500).map(wave).collect();
        let output = join(&[(soft.clone(), 10), (soft.clone(), 70)], 64, &JointConfig::at(10_000));
        assert_eq!(output, [soft.clone(), vec![0; 100], soft].concat());
    }

    #[test]
    fn a_step_is_faded_and_the_rest_after_the_end_is_left_out() {
        let loud = vec![20_000; 300];
        let output = join(&[(loud, 1_000)], 7, &JointConfig::at(10_000));
        assert_eq!(output.len(), 300);
        assert_eq!((output[0], output[150], output[299]), (0, 20_000, 0));
    }

    /// Loudness in LUFS (ITU-R BS.1770), measured by an implementation that is not ours.
    fn loudness(samples: &[i16], rate: u32) -> f64 {
        let mut meter = ebur128::EbuR128::new(1, rate, ebur128::Mode::I).unwrap();
        meter.add_frames_i16(samples).unwrap();
        meter.loudness_global().unwrap()
    }

    #[test]
    fn a_whole_segment_is_softened_as_a_stream_is() {
        let config = JointConfig::at(10_000);
        for segment in [vec![20_000; 300], vec![9_000; 10], vec![-3_000]] {
            let soft = softened(&pcm::to_bytes(&segment), &config).unwrap();
            assert_eq!(pcm::from_bytes(&soft).unwrap(), join(&[(segment, 0)], 64, &config));
        }
        assert_eq!(softened(&pcm::to_bytes(&[100, 30_000, -200]), &config), None);
        assert_eq!((softened(&[], &config), softened(&[1], &config)), (None, None));
    }

    #[test]
    fn a_segment_keeps_its_loudness() {
        let wave = |at: i32| (9_000.0 * (f64::from(at) * 0.1 + 1.0).sin()) as i16;
        let segment: Vec<i16> = (0..22_050).map(wave).collect();
        let output = join(&[(segment.clone(), 0)], 1_000, &JointConfig::at(22_050));
        let (before, after) = (loudness(&segment, 22_050), loudness(&output, 22_050));
        assert!((before - after).abs() < 0.1, "{before} and {after} LUFS");
    }

    proptest! {
        #[test]
        fn no_step_at_joints_and_no_trace_of_chunks(
            segments in prop::collection::vec((prop::collection::vec(any::<i16>(), 0..120), 0u32..4), 1..6),
            size in 1usize..50,
        ) {
            let config = JointConfig { sample_rate: 8_000, most_step: 400, fade_ms: 4 };
            let whole = join(&segments, usize::MAX, &config);
            prop_assert_eq!(&join(&segments, size, &config), &whole);
            let mut at = 0;
            let mut rest = 0;
            for (samples, pause_ms) in segments {
                if !samples.is_empty() {
                    at += rest;
                    rest = 0;
                    let before = if at == 0 { 0 } else { whole[at - 1] };
                    prop_assert!(i32::from(before).abs_diff(i32::from(whole[at])) <= 400);
                    at += samples.len();
                }
                rest += pcm::samples_in_ms(pause_ms, 8_000);
            }
            prop_assert_eq!(at, whole.len());
            prop_assert!(whole.last().is_none_or(|last| last.unsigned_abs() <= 200));
        }
    }
}
