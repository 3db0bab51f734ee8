//! Texts to speak, each another one, all of one sentence.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Common words of each length from 2 to 9.
const WORDS: [&str; 48] = [
    "we",
    "it",
    "on",
    "so",
    "in",
    "at",
    "the",
    "sun",
    "sea",
    "and",
    "our",
    "old",
    "long",
    "rain",
    "tree",
    "ship",
    "then",
    "warm",
    "river",
    "green",
    "house",
    "water",
    "night",
    "stone",
    "winter",
    "garden",
    "little",
    "morning",
    "evening",
    "village",
    "journey",
    "weather",
    "birds",
    "paper",
    "people",
    "window",
    "market",
    "station",
    "harbour",
    "mountain",
    "children",
    "together",
    "bring",
    "walk",
    "letters",
    "listening",
    "yesterday",
    "beautiful",
];
/// Letters of the shortest of them.
const SHORTEST: usize = 2;

const NUMBERS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// A sentence of about a second and a half, different for each number.
pub fn short(number: u32) -> String {
    format!("This is request {}.", spoken(number))
}

/// A sentence of exactly `chars` characters (at least 4) of common words, another one for each number as far as so few
/// characters allow.
pub fn of_characters(chars: usize, number: u32) -> String {
    let mut random = StdRng::seed_from_u64(u64::from(number));
    let mut text = String::with_capacity(chars);
    while text.len() + 1 < chars {
        let left = chars - 1 - text.len();
        // What is left is filled by one word, or by one, a space, and at least the shortest.
        let fitting = |word: &&str| word.len() == left || word.len() + 1 + SHORTEST <= left;
        let words: Vec<&str> = WORDS.iter().copied().filter(fitting).collect();
        let Some(word) = words.choose(&mut random) else {
            // Fewer letters than any word has.
            text.push_str(&"a".repeat(left));
            break;
        };
        text.push_str(word);
        if text.len() + 1 < chars {
            text.push(' ');
        }
    }
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text.push('.');
    text
}

/// The digits, one by one.
fn spoken(number: u32) -> String {
    let digits = number.to_string();
    let words = digits.chars().filter_map(|digit| Some(NUMBERS[digit.to_digit(10)? as usize]));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_text_comes_twice() {
        assert_eq!(short(120), "This is request one two zero.");
        let short: HashSet<_> = (0..1000).map(short).collect();
        let sixty: HashSet<_> = (0..1000).map(|number| of_characters(60, number)).collect();
        assert_eq!((short.len(), sixty.len()), (1000, 1000));
    }

    #[test]
    fn texts_are_as_long_as_asked() {
        for chars in 4..=200 {
            for number in 0..20 {
                let text = of_characters(chars, number);
                assert_eq!(text.chars().count(), chars, "{text:?}");
                assert!(text.ends_with('.') && !text.contains("  ") && !text.contains(" ."), "{text:?}");
            }
        }
    }
}
