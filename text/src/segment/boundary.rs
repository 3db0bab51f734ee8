//! Judging one sentence boundary that UAX #29 proposes.
//!
//! `unicode-segmentation` finds the places where a sentence may end, in any script. What it cannot know
//! is language: abbreviations, initials, the lowercase word after a quoted question. Each proposal is
//! therefore judged here, from the window alone, with one of three answers. A judgement is only given
//! when no further text could change it; otherwise the answer is to wait.

use unicode_segmentation::UnicodeSegmentation;

use super::abbreviations::{Kind, is_month_after_ordinal, is_starter, kind_of};
use super::blocks::{Marker, marker};
use super::window::{Window, is_blank};

/// The answer about one proposed boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A sentence ends here.
    Ends,
    /// The sentence goes on.
    GoesOn,
    /// More text is needed to tell.
    Wait,
}

/// Judges the boundary whose sentence ends (trimmed) at `end`; `visible_end` is how far may be looked.
/// `settled` says that text beyond `visible_end` cannot matter.
pub(super) fn judge(window: &Window<'_>, end: usize, visible_end: usize, settled: bool) -> Verdict {
    let head = &window.scan[..end];
    if !head.contains(char::is_alphanumeric) || is_bare_marker(head) {
        return Verdict::GoesOn;
    }
    let next = window.scan[end..visible_end].trim_start_matches(is_blank);
    let unquoted = head.trim_end_matches(is_closer);
    let closed_by_quote = unquoted.len() < head.len();
    let full_stop = unquoted.ends_with(is_full_stop);
    if !settled && !is_decided(next, unquoted.ends_with(is_strong_mark)) {
        return Verdict::Wait;
    }
    if unquoted.ends_with(['.', '!', '?']) && window.scan[end..visible_end].starts_with(is_glued) {
        return Verdict::GoesOn;
    }
    if !full_stop {
        let goes_on = closed_by_quote && next.starts_with(continues_quote);
        return if goes_on { Verdict::GoesOn } else { Verdict::Ends };
    }
    let word = last_word(unquoted);
    match word.map_or(Kind::Plain, kind_of) {
        Kind::Plain => Verdict::Ends,
        Kind::Always => Verdict::GoesOn,
        Kind::BeforeNumber if next.starts_with(char::is_numeric) => Verdict::GoesOn,
        Kind::BeforeNumber if word.is_some_and(|word| word.chars().all(char::is_uppercase)) => {
            by_next_word(next, settled, is_starter)
        }
        Kind::BeforeNumber => Verdict::Ends,
        Kind::UnlessStarter => by_next_word(next, settled, is_starter),
        Kind::Ordinal => by_next_word(next, settled, |word| !is_month_after_ordinal(word)),
    }
}

/// Decides by the whole next word, which has to be there; initials ("J. A. Smith") never start a
/// sentence.
fn by_next_word(next: &str, settled: bool, starts: impl Fn(&str) -> bool) -> Verdict {
    let from_word = next.trim_start_matches(|character: char| !character.is_alphanumeric());
    let word_end = from_word.find(|character: char| !character.is_alphanumeric());
    match word_end {
        None if !settled => Verdict::Wait,
        None if from_word.is_empty() => Verdict::Ends,
        _ => {
            let word = &from_word[..word_end.unwrap_or(from_word.len())];
            let dotted = word.chars().count() == 1 && from_word[word.len()..].starts_with('.');
            if starts(word) && !dotted { Verdict::Ends } else { Verdict::GoesOn }
        }
    }
}

/// A list marker alone is no sentence: "1." belongs to what it numbers.
fn is_bare_marker(head: &str) -> bool {
    matches!(marker(head), Marker::Cut) && head.chars().count() <= 5
}

/// The word before exactly one full stop; `None` for an ellipsis.
fn last_word(unquoted: &str) -> Option<&str> {
    let before = unquoted.strip_suffix(is_full_stop)?;
    let start = before.rfind(|character: char| is_blank(character) || is_opener(character));
    let start = start.map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = &before[start..];
    (!word.ends_with(is_full_stop)).then_some(word)
}

/// Whether what follows a stop is known well enough. After a full stop UAX #29 (its rule SB8) and the
/// rules here read on to the next letter, past digits and signs; after a mark that always ends a
/// sentence any word will do. Vowel signs count with the letter before them.
fn is_decided(next: &str, strong: bool) -> bool {
    let mut leading = next.graphemes(true).filter_map(|cluster| cluster.chars().next());
    leading.any(|character| if strong { character.is_alphanumeric() } else { character.is_alphabetic() })
}

/// Marks that end a sentence whatever follows.
fn is_strong_mark(character: char) -> bool {
    matches!(character, '!' | '?' | '。' | '！' | '？' | '।' | '॥' | '؟' | '‽' | '⁇' | '⁈' | '⁉' | '｡' | '۔')
}

/// "Stop!" he said; 「やめて。」と言った.
fn continues_quote(character: char) -> bool {
    character.is_lowercase() || matches!(character, 'と' | 'っ' | ',' | '，' | '、')
}

/// Right behind an ASCII stop, these go on with a web address ("b?c=d") or close an emphasis ("**Yes.**").
fn is_glued(character: char) -> bool {
    character.is_ascii() && !is_blank(character)
}

fn is_full_stop(character: char) -> bool {
    matches!(character, '.' | '․' | '﹒' | '．')
}

fn is_closer(character: char) -> bool {
    matches!(
        character,
        '"' | '\''
            | ')'
            | ']'
            | '}'
            | '”'
            | '’'
            | '»'
            | '›'
            | '“'
            | '‘'
            | '」'
            | '』'
            | '】'
            | '〉'
            | '》'
            | '）'
            | '］'
    )
}

fn is_opener(character: char) -> bool {
    matches!(
        character,
        '"' | '\''
            | '('
            | '['
            | '{'
            | '“'
            | '‘'
            | '„'
            | '‚'
            | '«'
            | '‹'
            | '「'
            | '『'
            | '-'
            | '/'
            | '–'
            | '—'
            | '¿'
            | '¡'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(head: &str, rest: &str, settled: bool) -> Verdict {
        let text = format!("{head}{rest}");
        let window = Window::new(&text, 400, settled);
        judge(&window, head.len(), text.len(), settled)
    }

    #[test]
    fn abbreviations_go_on() {
        for (head, rest) in [
            ("I met Dr.", " Smith today"),
            ("See No.", " 5 there"),
            ("The U.S.", " Army left"),
            ("It was J.", " A. Smith"),
            ("1.", " Apples"),
            ("(a)", " Apples"),
            ("am 3.", " Oktober war"),
            ("\"Stop!\"", " he said"),
            ("\"", " Then"),
        ] {
            assert_eq!(verdict(head, rest, false), Verdict::GoesOn, "{head}|{rest}");
        }
    }

    #[test]
    fn sentences_end() {
        for (head, rest) in [
            ("I said no.", " Then I left"),
            ("He lives in the U.S.", " The house is"),
            ("We met at 5 p.m.", " It was late"),
            ("\"Stop!\"", " He ran"),
            ("In 1990.", " Then"),
            ("你好。", "再见"),
        ] {
            assert_eq!(verdict(head, rest, false), Verdict::Ends, "{head}|{rest}");
        }
    }

    #[test]
    fn an_undecided_end_waits() {
        for (head, rest) in [("Hi.", ""), ("Hi.", " "), ("Hi.", " 5"), ("the U.S.", " The"), ("Oh!", " \"")] {
            assert_eq!(verdict(head, rest, false), Verdict::Wait, "{head}|{rest}");
        }
        assert_eq!(verdict("the U.S.", " The", true), Verdict::Ends);
    }
}
