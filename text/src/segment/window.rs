//! The stretch of text that one decision may look at.
//!
//! Every cut is decided from a window: the first `max_chars + LOOKAHEAD_CHARS` characters of the text
//! that was not yet planned, from its first visible character on. When the window is *closed* (it is
//! full, or the text has ended) it can never look different to anyone, so every decision made from it is
//! final. While it is open, only decisions that no further character can change may be made; the
//! functions that decide say so by answering "wait".
//!
//! Beside the text itself the window keeps a *scan* copy with the same byte offsets, made to suit the
//! sentence rules of UAX #29: line ends and control characters are spaces (line structure is handled in
//! [`super::blocks`]), the ellipsis character is three dots, and `[[directives]]` are one long word.

use std::ops::Range;

/// Characters looked at beyond the longest segment: enough to see the word after a full stop, a list
/// marker, or the near end of a sentence that is a little too long.
pub(super) const LOOKAHEAD_CHARS: usize = 120;

/// How many letters of an alphabet one ideograph, kana or hangul syllable counts for. The model limits
/// of XTTS (250 characters of English, 82 of Chinese, 71 of Japanese, 95 of Korean) give about three.
const WIDE_WEIGHT: usize = 3;

/// See the module's head.
pub(super) struct Window<'t> {
    /// The text itself, from its first visible character on.
    pub(super) text: &'t str,
    /// The copy that the sentence rules read; byte offsets are those of `text`.
    pub(super) scan: String,
    /// Whether nothing that is still to come can change the window.
    pub(super) closed: bool,
    /// Whether the window ends where the whole text ends.
    pub(super) at_end: bool,
    /// Byte ranges of `[[…]]` in `text`, brackets included.
    pub(super) directives: Vec<Range<usize>>,
    /// Up to here the text may be judged; less than its length only while a `[[` waits for its `]]`.
    pub(super) judged_end: usize,
}

impl<'t> Window<'t> {
    /// Opens the window on `content`, which starts with a visible character.
    pub(super) fn new(content: &'t str, max_chars: usize, is_final: bool) -> Self {
        let cut = content.char_indices().nth(max_chars + LOOKAHEAD_CHARS).map(|(at, _)| at);
        let text = &content[..cut.unwrap_or(content.len())];
        let full = cut.is_some();
        let closed = full || is_final;
        let (directives, waiting) = find_directives(text);
        let scan = scan_copy(text, &directives);
        let judged_end = waiting.filter(|_| !closed).unwrap_or(text.len());
        Self { text, scan, closed, at_end: is_final && !full, directives, judged_end }
    }

    /// Offset of the first character that does not fit into `max_chars`, or the window's length.
    pub(super) fn limit(&self, max_chars: usize) -> usize {
        let mut weight = 0;
        for (at, character) in self.text.char_indices() {
            weight += weight_of(character);
            if weight > max_chars {
                return at;
            }
        }
        self.text.len()
    }

    /// The directive that `at` would cut in two, if any.
    pub(super) fn directive_across(&self, at: usize) -> Option<&Range<usize>> {
        self.directives.iter().find(|range| range.start < at && at < range.end)
    }
}

/// Whether a character is nothing but a gap between words: white space, control characters, byte order
/// marks and zero-width spaces.
pub(super) fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control() || matches!(character, '\u{feff}' | '\u{200b}')
}

/// Length of one character in letters of an alphabet.
fn weight_of(character: char) -> usize {
    let wide = matches!(character,
        '\u{1100}'..='\u{11ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}');
    if wide { WIDE_WEIGHT } else { 1 }
}

/// Finds `[[…]]` on one line; the second value is the start of one whose end is not in `text` yet.
fn find_directives(text: &str) -> (Vec<Range<usize>>, Option<usize>) {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("[[").map(|at| from + at) {
        let after = &text[start..];
        let line_end = after.find(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']);
        match (after.find("]]"), line_end) {
            (Some(close), line) if line.is_none_or(|line| close < line) => {
                found.push(start..start + close + 2);
                from = start + close + 2;
            }
            (_, Some(line)) => from = start + line,
            (_, None) => return (found, Some(start)),
        }
    }
    (found, None)
}

fn scan_copy(text: &str, directives: &[Range<usize>]) -> String {
    let mut scan = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let stand_in = if directives.iter().any(|range| range.contains(&at)) {
            Some("A")
        } else if is_blank(character) {
            Some(" ")
        } else if character == '…' {
            Some(".")
        } else {
            None
        };
        match stand_in {
            Some(byte) => scan.extend(std::iter::repeat_n(byte, character.len_utf8())),
            None => scan.push(character),
        }
    }
    scan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_copy_keeps_every_offset() {
        let window = Window::new("Wait…\u{2029}[[crash ms=5. Now?]] é\u{feff}", 100, true);
        assert_eq!(window.scan.len(), window.text.len());
        assert!(window.scan.starts_with("Wait...   AAAA"));
        assert_eq!(window.directives, vec![10..30]);
    }

    #[test]
    fn a_directive_without_an_end_is_waited_for_only_on_its_line() {
        assert_eq!(Window::new("Hi. [[crash", 100, false).judged_end, 4);
        let text = "Hi. [[crash\nand on";
        assert_eq!(Window::new(text, 100, false).judged_end, text.len());
        assert_eq!(Window::new("Hi. [[crash", 100, true).judged_end, 11);
    }

    #[test]
    fn ideographs_weigh_three_letters() {
        assert_eq!(Window::new("你好abc", 6, true).limit(6), 6);
        assert_eq!(Window::new("abcdef", 6, true).limit(6), 6);
    }
}
