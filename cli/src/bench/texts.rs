//! Texts to speak, each another one, all of one sentence.

const NUMBERS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// A sentence of about a second and a half, different for each number.
pub fn short(number: u32) -> String {
    format!("This is request {}.", spoken(number))
}

/// A sentence of exactly 60 characters, different for each number below 100,000.
pub fn of_sixty_characters(number: u32) -> String {
    const CHARS: usize = 60;
    let mut words = format!("Number {:05} walks along the quiet river bank with friends", number % 100_000);
    words.push_str(&"s".repeat((CHARS - 1).saturating_sub(words.len())));
    words.truncate(CHARS - 1);
    words.push('.');
    words
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
        let sixty: HashSet<_> = (0..1000).map(of_sixty_characters).collect();
        assert_eq!((short.len(), sixty.len()), (1000, 1000));
        assert!(sixty.iter().all(|text| text.chars().count() == 60), "{sixty:?}");
    }
}
