//! How long a text can take to say, at the very least and at the very most.
//!
//! The least counts only what is surely spoken: letters, at 50 a second, three times the usual rate.
//! Letters of one script only, the rarer one, since a voice may leave out a script that it cannot say;
//! a letter said on and on ("aaaah") counts twice. Texts of fewer than a dozen letters have no least but
//! 20 ms: an abbreviation may be swallowed. The most allows for everything that a voice may make of a
//! sign: a digit is read as a word, a capital spelled, an emoji called by its name.

use std::time::Duration;

/// Least time for one letter, in seconds.
const LEAST_S_PER_LETTER: f64 = 0.02;
/// Ideographs, kana and hangul are syllables: they take as long as three letters.
const LETTERS_PER_SYLLABLE_SIGN: usize = 3;
/// Fewer letters than this may take next to no time.
const FEW_LETTERS: usize = 12;
/// Least time of any spoken text, in seconds.
const LEAST_S: f64 = 0.02;
/// Most time for a small letter, for a capital, digit or syllable sign, and for any other sign, in
/// seconds; and what silence and hesitation may add.
const MOST_S_PER_LETTER: f64 = 0.25;
const MOST_S_PER_WORD_SIGN: f64 = 0.8;
const MOST_S_PER_OTHER_SIGN: f64 = 1.5;
const MOST_S_EXTRA: f64 = 4.0;

/// Bounds on the duration of a text's speech.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// Whether the text has a letter or a digit at all.
    pub is_speakable: bool,
    /// No voice is faster.
    pub least: Duration,
    /// No voice is slower.
    pub most: Duration,
}

impl Expectation {
    /// The bounds for `text` at `speed`; a speed that is no positive number counts as 1.
    pub fn of(text: &str, speed: f32) -> Self {
        let speed = if speed.is_finite() && speed > 0.0 { f64::from(speed) } else { 1.0 };
        let spoken = without_directives(text);
        let is_speakable = spoken.chars().any(char::is_alphanumeric);
        let letters = surely_spoken_letters(&spoken);
        let least_s = match letters {
            _ if !is_speakable => 0.0,
            few if few < FEW_LETTERS => LEAST_S,
            many => many as f64 * LEAST_S_PER_LETTER,
        };
        let most_s = MOST_S_EXTRA + text.chars().map(most_seconds).sum::<f64>();
        Self {
            is_speakable,
            least: Duration::from_secs_f64(least_s / speed),
            most: Duration::from_secs_f64((most_s / speed).min(1e9)),
        }
    }
}

/// Engines for tests read orders in double brackets, and speak the rest.
fn without_directives(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[[") {
        let Some((_, beyond)) = after.split_once("]]") else { break };
        kept.push_str(before);
        rest = beyond;
    }
    kept.push_str(rest);
    kept
}

fn surely_spoken_letters(text: &str) -> usize {
    let (mut latin, mut other) = (0, 0);
    let mut before = [' ', ' '];
    for letter in text.chars() {
        let goes_on = before == [letter, letter];
        before = [before[1], letter];
        if !letter.is_alphabetic() || goes_on {
            continue;
        }
        if (letter as u32) < 0x250 {
            latin += 1;
        } else if is_syllable_sign(letter) {
            other += LETTERS_PER_SYLLABLE_SIGN;
        } else {
            other += 1;
        }
    }
    if latin == 0 || other == 0 { latin + other } else { latin.min(other) }
}

fn most_seconds(character: char) -> f64 {
    if character.is_whitespace() {
        0.0
    } else if character.is_numeric() || character.is_uppercase() || is_syllable_sign(character) {
        MOST_S_PER_WORD_SIGN
    } else if character.is_alphabetic() {
        MOST_S_PER_LETTER
    } else {
        MOST_S_PER_OTHER_SIGN
    }
}

fn is_syllable_sign(character: char) -> bool {
    matches!(character, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least_ms(text: &str) -> u128 {
        Expectation::of(text, 1.0).least.as_millis()
    }

    #[test]
    fn only_what_is_surely_spoken_counts_for_the_least() {
        assert_eq!(least_ms("Hi."), 20);
        assert_eq!(least_ms("..."), 0);
        assert_eq!(least_ms("abcdefghij klmnopqrst"), 400);
        assert_eq!(least_ms("Ok, 你好你好你好你好你好"), 20);
        assert_eq!(least_ms("Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaah"), 20);
        assert_eq!(least_ms("[[crash attempts=1 and more letters]] Hi"), 20);
    }

    #[test]
    fn speed_scales_both_bounds() {
        let text = "abcdefghij klmnopqrst";
        let (normal, double) = (Expectation::of(text, 1.0), Expectation::of(text, 2.0));
        assert_eq!(normal.least, double.least * 2);
        assert!(normal.most > double.most);
        assert_eq!(Expectation::of(text, f32::NAN), normal);
        assert_eq!(Expectation::of(text, -1.0), normal);
    }
}
