//! Cutting a sentence that is longer than an engine takes.
//!
//! In order of preference: after a clause mark, at a space, between words (scripts without spaces),
//! between grapheme clusters, and only for a single cluster longer than the limit between characters.
//! When the end of the sentence is in sight the cut nearest its middle is taken, so that no tiny rest is
//! left; otherwise the latest one that fits.

use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

use super::window::{Window, is_blank};

/// A place to cut, and whether a clause mark is there to pause at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Byte offset in the window.
    pub(super) at: usize,
    /// Whether it follows a clause mark.
    pub(super) at_clause: bool,
}

/// Cuts the window at or before `limit`, the offset of the first character that does not fit;
/// `sentence_end` is where the sentence ends, when that is in sight. A directive is never cut: a longer
/// one makes a longer segment.
pub(super) fn cut_long(window: &Window<'_>, limit: usize, sentence_end: Option<usize>) -> Cut {
    let search = Search { window, limit, target: sentence_end.map_or(limit, |end| (end / 2).min(limit)) };
    let earliest = (limit / 4).max(1);
    let scan = &window.scan[..];
    if let Some(at) = search.nearest(clause_ends(scan), earliest) {
        return Cut { at, at_clause: true };
    }
    let at = search
        .nearest(gaps(scan), earliest)
        .or_else(|| search.nearest(gaps(scan), 1))
        .or_else(|| search.nearest(window.text.split_word_bound_indices().map(|(at, _)| at), earliest))
        .or_else(|| search.nearest(window.text.grapheme_indices(true).map(|(at, _)| at), 1));
    let at = at.unwrap_or_else(|| window.directive_across(limit).map_or(limit, |range| range.end));
    Cut { at, at_clause: false }
}

/// What all the searches for a place have in common.
struct Search<'w, 't> {
    window: &'w Window<'t>,
    limit: usize,
    target: usize,
}

impl Search<'_, '_> {
    /// The place nearest the target, at `earliest` or later, that cuts neither a directive nor a
    /// grapheme cluster; the later of two.
    fn nearest(&self, places: impl Iterator<Item = usize>, earliest: usize) -> Option<usize> {
        let mut best: Option<usize> = None;
        for at in places.skip_while(|&at| at < earliest).take_while(|&at| at <= self.limit) {
            let nearer = best.is_none_or(|best| at.abs_diff(self.target) <= best.abs_diff(self.target));
            if nearer && self.is_whole(at) {
                best = Some(at);
            }
        }
        best
    }

    fn is_whole(&self, at: usize) -> bool {
        let text = self.window.text;
        if !text.is_char_boundary(at) {
            return false; // The scan copy has several spaces for one wide gap.
        }
        // The whole text is one chunk, so the cursor never lacks context.
        let cluster = GraphemeCursor::new(at, text.len(), true).is_boundary(text, 0);
        self.window.directive_across(at).is_none() && cluster.unwrap_or(true)
    }
}

/// Places just after a clause mark: one that a gap follows, or a full-width one.
fn clause_ends(scan: &str) -> impl Iterator<Item = usize> + '_ {
    scan.char_indices().filter_map(|(at, character)| {
        let end = at + character.len_utf8();
        let gap_follows = scan[end..].starts_with(is_blank);
        let is_clause_end = match character {
            ',' | ';' | ':' | '،' | '؛' | '–' | '—' | '·' => gap_follows,
            '，' | '、' | '；' | '：' => true,
            _ => false,
        };
        is_clause_end.then_some(end)
    })
}

/// Places just before a gap.
fn gaps(scan: &str) -> impl Iterator<Item = usize> + '_ {
    scan.char_indices().filter(|&(_, character)| is_blank(character)).map(|(at, _)| at)
}
