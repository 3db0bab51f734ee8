//! Cutting plain text into segments.
//!
//! One call answers one question: which segments does the unplanned rest of a text begin with, and how
//! many bytes do they take? The caller drops those bytes, adds what has arrived since, and asks again,
//! from this process or another. Two properties make that safe, and are tested as such:
//!
//! - the first segment depends on nothing but the text from its start on, within a bounded window, so
//!   asking for one segment at a time or for all of them gives the same list;
//! - while more text may come, a segment is only given when no continuation could change it or the pause
//!   after it, so the list does not depend on how the text was cut into pieces.
//!
//! The path of a text: [`window`] takes the stretch that may be looked at, [`blocks`] finds where its
//! first paragraph or list item ends, `unicode-segmentation` proposes sentence ends in it by the rules of
//! Unicode (UAX #29), [`boundary`] judges each, and [`cut`] divides a sentence that is too long.

mod abbreviations;
mod blocks;
mod boundary;
mod cut;
#[cfg(test)]
mod tests;
mod window;

use std::ops::RangeInclusive;

use thiserror::Error;
use unicode_segmentation::UnicodeSegmentation;

use blocks::{BlockEnd, block_end};
use boundary::{Verdict, judge};
use cut::{Cut, cut_long};
use window::{Window, is_blank};

use crate::ssml::Span;

/// Lengths that a segmenter accepts for `max_chars`.
const MAX_CHARS: RangeInclusive<usize> = 20..=10_000;

/// How text is cut and which rests follow the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmenterConfig {
    /// Longest segment, in characters of an alphabet; an ideograph, kana or hangul syllable counts for
    /// three. 20 to 10,000. The default, 250, is the limit of XTTS for English and suits VITS well.
    pub max_chars: usize,
    /// Rest after a sentence and after a list item, in milliseconds.
    pub sentence_pause_ms: u32,
    /// Rest after a clause where a long sentence was cut, in milliseconds. A cut where no mark stands
    /// has no rest.
    pub clause_pause_ms: u32,
    /// Rest after a paragraph or a heading, in milliseconds.
    pub paragraph_pause_ms: u32,
}

impl Default for SegmenterConfig {
    fn default() -> Self {
        Self { max_chars: 250, sentence_pause_ms: 300, clause_pause_ms: 120, paragraph_pause_ms: 600 }
    }
}

/// A configuration that cannot be honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmenterError {
    /// `max_chars` is out of range.
    #[error("max_chars is {0}, but has to be 20 to 10000")]
    MaxChars(usize),
}

/// A piece of text that is spoken in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What is said: trimmed, with every gap a single space; never empty.
    pub text: String,
    /// Rest after it, in milliseconds. The rest after the last segment of a text is there too; whether
    /// it is played is the player's choice.
    pub pause_after_ms: u32,
}

/// The answer of [`Segmenter::next_segments`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The segments, in order.
    pub segments: Vec<Segment>,
    /// How many bytes of the given text they took, with the gaps between and after them. The next call
    /// starts there.
    pub consumed_bytes: usize,
}

/// Cuts text into segments; holds its configuration and nothing else.
#[derive(Debug, Clone)]
pub struct Segmenter {
    config: SegmenterConfig,
}

/// What the beginning of a text turned out to be.
enum First {
    /// A segment, which ends at this byte of the window.
    Found { end: usize, pause_after_ms: u32 },
    /// More text is needed.
    Wait,
}

impl Segmenter {
    /// A segmenter with the given limits and pauses.
    ///
    /// # Errors
    /// [`SegmenterError::MaxChars`] when the length is out of range.
    pub fn new(config: SegmenterConfig) -> Result<Self, SegmenterError> {
        if MAX_CHARS.contains(&config.max_chars) {
            Ok(Self { config })
        } else {
            Err(SegmenterError::MaxChars(config.max_chars))
        }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &SegmenterConfig {
        &self.config
    }

    /// The first segments of `rest`, the text that was not yet planned; at most `limit` of them.
    ///
    /// `is_final` says that no text follows `rest` (or that what is there shall be spoken now: a flush);
    /// then `rest` is used up, unless `limit` is reached first. Otherwise the page holds the segments
    /// that are certain, and what is not certain stays unconsumed.
    pub fn next_segments(&self, rest: &str, is_final: bool, limit: usize) -> Page {
        let mut page = Page::default();
        loop {
            page.consumed_bytes += gap_length(&rest[page.consumed_bytes..]);
            let content = &rest[page.consumed_bytes..];
            if content.is_empty() || page.segments.len() >= limit {
                return page;
            }
            let window = Window::new(content, self.config.max_chars, is_final);
            let First::Found { end, pause_after_ms } = self.first(&window) else { return page };
            page.segments.push(Segment { text: spoken(&content[..end]), pause_after_ms });
            page.consumed_bytes += end;
        }
    }

    /// The segments of one SSML span; the span's rest replaces that after the last of them. A span
    /// without text is only a rest and has none.
    pub fn segments_of_span(&self, span: &Span) -> Vec<Segment> {
        let mut segments = self.next_segments(&span.text, true, usize::MAX).segments;
        if let Some(last) = segments.last_mut() {
            last.pause_after_ms = span.pause_after_ms;
        }
        segments
    }

    /// Finds the segment that a window starts with.
    fn first(&self, window: &Window<'_>) -> First {
        let block = block_end(window);
        let (end, settled, end_pause_ms) = match block {
            BlockEnd::At { end, paragraph: true } => (end, true, self.config.paragraph_pause_ms),
            BlockEnd::At { end, paragraph: false } => (end, true, self.config.sentence_pause_ms),
            BlockEnd::Waits(end) => (end, false, 0),
            BlockEnd::Beyond => (window.text.len(), window.closed, self.config.sentence_pause_ms),
        };
        let settled = settled || window.closed;
        let visible_end = end.min(window.judged_end);
        let limit = window.limit(self.config.max_chars);
        let mut sentence_end = None;
        for (start, sentence) in window.scan[..visible_end].split_sentence_bound_indices() {
            let ended = start + sentence.trim_end_matches(is_blank).len();
            let is_last = start + sentence.len() == visible_end;
            let verdict = match (is_last, settled) {
                (true, true) => Verdict::Ends,
                (true, false) => Verdict::Wait,
                (false, _) => judge(window, ended, visible_end, settled),
            };
            match verdict {
                Verdict::GoesOn => {}
                Verdict::Wait => return First::Wait,
                Verdict::Ends if ended <= limit => {
                    let pause = if is_last { end_pause_ms } else { self.config.sentence_pause_ms };
                    return self.with_tail(window, ended, limit, pause);
                }
                Verdict::Ends => {
                    let in_sight = !is_last || block != BlockEnd::Beyond || window.at_end;
                    sentence_end = Some(ended).filter(|_| in_sight);
                    break;
                }
            }
        }
        if window.closed { self.cut(window, limit, sentence_end) } else { First::Wait }
    }

    /// Ends a segment at `ended`, or at the end of the text when nothing that could be said follows.
    fn with_tail(&self, window: &Window<'_>, ended: usize, limit: usize, pause_after_ms: u32) -> First {
        let whole = window.scan.trim_end_matches(is_blank).len();
        if window.scan[ended..].contains(char::is_alphanumeric) {
            First::Found { end: ended, pause_after_ms }
        } else if !window.closed {
            First::Wait
        } else if window.at_end && whole <= limit {
            First::Found { end: whole, pause_after_ms }
        } else {
            First::Found { end: ended, pause_after_ms }
        }
    }

    fn cut(&self, window: &Window<'_>, limit: usize, sentence_end: Option<usize>) -> First {
        let Cut { at, at_clause } = cut_long(window, limit, sentence_end);
        let pause_after_ms = if at_clause { self.config.clause_pause_ms } else { 0 };
        First::Found { end: at, pause_after_ms }
    }
}

/// Whether there is a letter or a digit in a text: what has none (a rule of stars, a lone emoji) most
/// voices cannot say.
pub fn has_speakable(text: &str) -> bool {
    text.contains(char::is_alphanumeric)
}

/// Bytes of gap that a text starts with.
fn gap_length(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_blank).len()
}

/// The text of a segment: gaps as single spaces, nothing around it.
fn spoken(text: &str) -> String {
    let mut words = text.split(is_blank).filter(|word| !word.is_empty());
    let mut spoken = String::with_capacity(text.len());
    spoken.extend(words.next());
    for word in words {
        spoken.push(' ');
        spoken.push_str(word);
    }
    spoken
}
