//! Lines: where a paragraph or a list item ends, whatever its punctuation.
//!
//! A single line end is only a space, because text is often wrapped by hand. A blank line ends a
//! paragraph; a line that starts with a list marker ends the item before it; a Markdown heading ends
//! with its line. Lines that come before the first letter or digit end nothing: a rule of stars or a
//! lone bullet goes with the sentence that follows.

use super::window::{Window, is_blank};

/// Where the first block of a window ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockEnd {
    /// Here, at the end of its last visible character; a paragraph, or only an item of a list.
    At {
        /// Byte offset in the window.
        end: usize,
        /// Whether a paragraph's rest follows, rather than a sentence's.
        paragraph: bool,
    },
    /// More text is needed to tell whether it ends here.
    Waits(usize),
    /// Not within the window.
    Beyond,
}

/// Finds the end of the block that the window starts with.
pub(super) fn block_end(window: &Window<'_>) -> BlockEnd {
    let text = window.text;
    let Some(first_word) = text.find(char::is_alphanumeric) else { return BlockEnd::Beyond };
    let heading = is_heading(text);
    let numbered = matches!(marker(text), Marker::Number(_));
    let mut from = first_word;
    while let Some(start) = text[from..].find(is_blank).map(|at| from + at) {
        let length = text[start..].find(|character| !is_blank(character));
        let end = length.map_or(text.len(), |length| start + length);
        let lines = count_lines(&text[start..end]);
        if lines >= 2 || (lines == 1 && heading) {
            return BlockEnd::At { end: start, paragraph: true };
        }
        if length.is_none() {
            return if window.closed { BlockEnd::Beyond } else { BlockEnd::Waits(start) };
        }
        if lines == 1 {
            match starts_item(text, start, end, numbered) {
                Some(true) => return BlockEnd::At { end: start, paragraph: false },
                None if !window.closed => return BlockEnd::Waits(start),
                Some(false) | None => {}
            }
        }
        from = end;
    }
    BlockEnd::Beyond
}

/// Line ends in a gap; two for the paragraph separator, one for a carriage return with its line feed.
fn count_lines(gap: &str) -> usize {
    let mut lines = 0;
    let mut after_return = false;
    for character in gap.chars() {
        lines += match character {
            '\n' if after_return => 0,
            '\n' | '\r' | '\u{b}' | '\u{85}' | '\u{2028}' => 1,
            '\u{c}' | '\u{2029}' => 2,
            _ => 0,
        };
        after_return = character == '\r';
    }
    lines
}

fn is_heading(text: &str) -> bool {
    let rest = text.trim_start_matches('#');
    rest.len() < text.len() && text.len() - rest.len() <= 6 && rest.starts_with([' ', '\t'])
}

/// Whether the line at `line_start` is a list item; `None` when its marker is not wholly there.
fn starts_item(text: &str, gap_start: usize, line_start: usize, numbered: bool) -> Option<bool> {
    match marker(&text[line_start..]) {
        Marker::None => Some(false),
        Marker::Cut => None,
        Marker::Sign => Some(true),
        // A number at the start of a wrapped line of prose ("he was\n30. Then") is no list, unless the
        // list began before it, begins with it, or the line before it was complete.
        Marker::Number(number) => {
            let complete = text[..gap_start].ends_with(['.', ':', ';', '!', '?', '。', '：', '；']);
            Some(numbered || number == 1 || complete)
        }
    }
}

/// What a line starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// No list marker.
    None,
    /// Perhaps a marker: the text ends within it.
    Cut,
    /// A bullet, a dash, a heading sign or a lettered marker such as `a)`.
    Sign,
    /// A number with a stop or a bracket.
    Number(u32),
}

/// Reads the list marker at the start of a line.
pub(super) fn marker(line: &str) -> Marker {
    let mut characters = line.chars();
    let Some(first) = characters.next() else { return Marker::Cut };
    if matches!(first, '-' | '*' | '+' | '•' | '‣' | '◦' | '·' | '▪' | '●' | '–' | '—') {
        return followed_by_gap(characters.as_str(), Marker::Sign);
    }
    if first == '#' {
        let rest = line.trim_start_matches('#');
        let within = line.len() - rest.len() <= 6;
        return if within { followed_by_gap(rest, Marker::Sign) } else { Marker::None };
    }
    let inner = line.strip_prefix('(').unwrap_or(line);
    let digits = inner.find(|character: char| !character.is_ascii_digit());
    let Some(digits) = digits else {
        return if inner.len() <= 3 { Marker::Cut } else { Marker::None };
    };
    let bracketed = inner.len() < line.len();
    let after = &inner[digits..];
    if (1..=3).contains(&digits) {
        let number = inner[..digits].parse().unwrap_or(0);
        let stop = after.strip_prefix(')').or_else(|| after.strip_prefix('.').filter(|_| !bracketed));
        return stop.map_or(Marker::None, |rest| followed_by_gap(rest, Marker::Number(number)));
    }
    lettered(inner)
}

fn lettered(inner: &str) -> Marker {
    let mut characters = inner.chars();
    let Some(letter) = characters.next() else { return Marker::Cut };
    if !letter.is_ascii_alphabetic() {
        return Marker::None;
    }
    match characters.next() {
        None => Marker::Cut,
        Some(')') => followed_by_gap(characters.as_str(), Marker::Sign),
        Some(_) => Marker::None,
    }
}

fn followed_by_gap(rest: &str, found: Marker) -> Marker {
    match rest.chars().next() {
        None => Marker::Cut,
        Some(character) if is_blank(character) => found,
        Some(_) => Marker::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(text: &str) -> BlockEnd {
        block_end(&Window::new(text, 400, true))
    }

    #[test]
    fn markers() {
        for sign in ["- a", "* a", "• a", "a) b", "(b) c", "— Oui", "## Title"] {
            assert_eq!(marker(sign), Marker::Sign, "{sign}");
        }
        assert_eq!(marker("12. a"), Marker::Number(12));
        assert_eq!(marker("(3) a"), Marker::Number(3));
        for none in ["-5 degrees", "*bold*", "1990. a", "3.5 m", "a b", "I. Newton", "(a word)", "word"] {
            assert_eq!(marker(none), Marker::None, "{none}");
        }
        for cut in ["-", "1", "12.", "(", "(a", "a", ""] {
            assert_eq!(marker(cut), Marker::Cut, "{cut}");
        }
    }

    #[test]
    fn blank_lines_items_and_headings_end_a_block() {
        assert_eq!(end_of("one\ntwo\n\nthree"), BlockEnd::At { end: 7, paragraph: true });
        assert_eq!(end_of("one\r\n \r\nthree"), BlockEnd::At { end: 3, paragraph: true });
        assert_eq!(end_of("one\n- two"), BlockEnd::At { end: 3, paragraph: false });
        assert_eq!(end_of("# One\ntwo"), BlockEnd::At { end: 5, paragraph: true });
        assert_eq!(end_of("one\r\ntwo"), BlockEnd::Beyond);
        assert_eq!(end_of("***\n\none\ntwo"), BlockEnd::Beyond);
    }

    #[test]
    fn a_number_in_wrapped_prose_is_no_list() {
        assert_eq!(end_of("he was\n30. Then he left"), BlockEnd::Beyond);
        assert_eq!(end_of("2. pears\n3. figs"), BlockEnd::At { end: 8, paragraph: false });
    }

    #[test]
    fn an_undecided_line_waits() {
        assert_eq!(block_end(&Window::new("one\n1", 400, false)), BlockEnd::Waits(3));
        assert_eq!(block_end(&Window::new("one\n", 400, false)), BlockEnd::Waits(3));
        assert_eq!(block_end(&Window::new("one\n1 b", 400, false)), BlockEnd::Beyond);
    }
}
