//! The values of SSML attributes as numbers.
//!
//! The standard leaves the named steps to each engine. The rests and rates are those that Microsoft
//! documents for its speech service, so that documents written for it sound alike; pitches are their
//! percentages in semitones. Every function gives `None` for a value that it does not understand or that
//! leaves the range the engines honour.

use std::ops::RangeInclusive;

const RATES: RangeInclusive<f32> = 0.25..=4.0;
const PITCHES: RangeInclusive<f32> = -12.0..=12.0;
const VOLUMES: RangeInclusive<f32> = 0.0..=4.0;

/// Rest of a `break`'s strength, in milliseconds.
pub(super) fn pause_of_strength(value: &str) -> Option<u32> {
    match value {
        "none" => Some(0),
        "x-weak" => Some(250),
        "weak" => Some(500),
        "medium" => Some(750),
        "strong" => Some(1000),
        "x-strong" => Some(1250),
        _ => None,
    }
}

/// Rest of a `break`'s time ("500ms", "1.5s"), in milliseconds.
pub(super) fn pause_of_time(value: &str) -> Option<u32> {
    let value = value.trim();
    let (digits, factor) = match value.strip_suffix("ms") {
        Some(digits) => (digits, 1.0),
        None => (value.strip_suffix('s')?, 1000.0),
    };
    let milliseconds = plain_number(digits)? * factor;
    // A float to integer cast stops at the largest value, which is over any limit.
    Some(milliseconds.round() as u32)
}

/// Speed within an element, given the one around it.
pub(super) fn rate(value: &str, around: f32) -> Option<f32> {
    let factor = match value.trim() {
        "x-slow" => 0.5,
        "slow" => 0.64,
        "medium" | "default" => 1.0,
        "fast" => 1.55,
        "x-fast" => 2.0,
        value => ratio(value).or_else(|| plain_number(value).map(|number| number as f32))?,
    };
    within(around * factor, &RATES)
}

/// Shift of pitch in semitones within an element, given the one around it.
pub(super) fn pitch(value: &str, around: f32) -> Option<f32> {
    let semitones = match value.trim() {
        "x-low" => semitones_of(0.55),
        "low" => semitones_of(0.8),
        "medium" | "default" => 0.0,
        "high" => semitones_of(1.2),
        "x-high" => semitones_of(1.45),
        value => match value.strip_suffix("st") {
            Some(number) => signed_number(number)? as f32,
            None => semitones_of(ratio(value)?),
        },
    };
    within(around + semitones, &PITCHES)
}

/// Gain within an element, given the one around it.
pub(super) fn volume(value: &str, around: f32) -> Option<f32> {
    let factor = match value.trim() {
        "silent" => 0.0,
        "x-soft" => 0.25,
        "soft" => 0.5,
        "medium" | "default" => 1.0,
        "loud" => 1.5,
        "x-loud" => 2.0,
        value => match value.strip_suffix("dB") {
            Some(number) => 10_f32.powf(signed_number(number)? as f32 / 20.0),
            None => {
                ratio(value).or_else(|| Some(plain_number(value).filter(|n| *n <= 100.0)? as f32 / 100.0))?
            }
        },
    };
    within(around * factor, &VOLUMES)
}

/// "120%" and "+20%" are both 1.2; "-20%" is 0.8.
fn ratio(value: &str) -> Option<f32> {
    let number = value.strip_suffix('%')?;
    let relative = number.starts_with(['+', '-']);
    let percent = signed_number(number)? as f32;
    Some(if relative { 1.0 + percent / 100.0 } else { percent / 100.0 })
}

fn semitones_of(ratio: f32) -> f32 {
    12.0 * ratio.log2()
}

/// A decimal number without exponent, sign or special value.
fn plain_number(value: &str) -> Option<f64> {
    let decimal = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    value.parse().ok().filter(|_| decimal)
}

fn signed_number(value: &str) -> Option<f64> {
    match value.strip_prefix('-') {
        Some(number) => plain_number(number).map(|number| -number),
        None => plain_number(value.strip_prefix('+').unwrap_or(value)),
    }
}

fn within(value: f32, range: &RangeInclusive<f32>) -> Option<f32> {
    range.contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_strengths() {
        assert_eq!(pause_of_time("500ms"), Some(500));
        assert_eq!(pause_of_time("1.5s"), Some(1500));
        assert_eq!(pause_of_time("99999999999999s"), Some(u32::MAX));
        for wrong in ["", "5", "-1s", "1e9s", "infs", "NaNms", "s"] {
            assert_eq!(pause_of_time(wrong), None, "{wrong}");
        }
        assert_eq!(pause_of_strength("strong"), Some(1000));
        assert_eq!(pause_of_strength("huge"), None);
    }

    #[test]
    fn prosody_is_relative_to_what_is_around() {
        assert_eq!(rate("200%", 1.5), Some(3.0));
        assert_eq!(rate("+50%", 1.0), Some(1.5));
        assert_eq!(rate("5", 1.0), None);
        assert_eq!(pitch("+2st", 1.0), Some(3.0));
        assert_eq!(pitch("+100%", 0.0), Some(12.0));
        assert_eq!(pitch("-200%", 0.0), None);
        assert_eq!(pitch("440Hz", 0.0), None);
        assert_eq!(volume("-6dB", 1.0).map(|gain| (gain * 100.0).round()), Some(50.0));
        assert_eq!(volume("50", 1.0), Some(0.5));
        assert_eq!(volume("+99dB", 1.0), None);
    }
}
