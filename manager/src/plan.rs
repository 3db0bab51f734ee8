//! The plan of a request: from text to segments with an index and a class.
//!
//! Pure and without memory: the same question gives the same segments on every manager, whenever it is asked, so that a
//! question asked twice publishes the same jobs under the same ids. A draft says where in the given text its segment ends;
//! so a page can be cut off after any of its segments when the queue takes no more.

pub mod class;
pub mod ssml;

use chorus_protocol::plan::Manner;
use chorus_protocol::{JobClass, Priority, SegmentIndex, Warning};
use chorus_text::{Segmenter, has_speakable};

pub use class::class_of;

/// How much of a piece that was left out a warning shows, in characters.
const SHOWN_CHARS: usize = 32;

/// What is to be planned.
#[derive(Debug, Clone, Copy)]
pub struct PlanQuestion<'t> {
    /// Text not yet planned.
    pub text: &'t str,
    /// Whether the text ends with it.
    pub text_complete: bool,
    /// The index that the first new segment gets.
    pub first_index: SegmentIndex,
    /// How many segments may be drafted.
    pub window: usize,
    /// The listener is about to run dry.
    pub urgent: bool,
    /// The request's priority.
    pub priority: Priority,
}

/// A segment before it was queued.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its place.
    pub index: SegmentIndex,
    /// What it says.
    pub text: String,
    /// Silence after it, in milliseconds.
    pub pause_after_ms: u32,
    /// What it has of its own.
    pub manner: Option<Manner>,
    /// The class to queue it in.
    pub class: JobClass,
    /// Where the text that it uses up begins, in bytes of the given text.
    pub start_bytes: usize,
}

/// The drafts of one page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The segments, in order.
    pub drafts: Vec<Draft>,
    /// How many bytes of the given text they use up, with what holds nothing speakable.
    pub consumed_bytes: usize,
    /// Whether nothing speakable is left of a complete text.
    pub complete: bool,
    /// What was left out.
    pub warnings: Vec<Warning>,
}

impl Plan {
    /// How much of the text is used up when only the first `queued` drafts were queued.
    pub fn consumed_by(&self, queued: usize) -> usize {
        self.drafts.get(queued).map_or(self.consumed_bytes, |refused| refused.start_bytes)
    }
}

/// Cuts the next segments off plain text. Pieces without a letter or a digit are left out, with one warning for all.
pub fn plan(question: &PlanQuestion<'_>, segmenter: &Segmenter) -> Plan {
    let mut plan = Plan::default();
    let mut left_out = LeftOut::default();
    while plan.drafts.len() < question.window {
        let rest = &question.text[plan.consumed_bytes..];
        let page = segmenter.next_segments(rest, question.text_complete, 1);
        let start_bytes = plan.consumed_bytes;
        plan.consumed_bytes += page.consumed_bytes;
        let Some(segment) = page.segments.into_iter().next() else { break };
        if !has_speakable(&segment.text) {
            left_out.add(&segment.text);
            continue;
        }
        let index = question.first_index.saturating_add(plan.drafts.len() as u32);
        let class = class_of(question.priority, index, question.urgent);
        let (text, pause_after_ms) = (segment.text, segment.pause_after_ms);
        plan.drafts.push(Draft { index, text, pause_after_ms, manner: None, class, start_bytes });
    }
    let rest = &question.text[plan.consumed_bytes..];
    if question.text_complete && !has_speakable(rest) {
        left_out.add(rest.trim());
        plan.consumed_bytes = question.text.len();
        plan.complete = true;
    }
    plan.warnings.extend(left_out.warning());
    plan
}

/// Pieces that hold nothing to say.
#[derive(Debug, Default)]
struct LeftOut {
    pieces: usize,
    first: String,
}

impl LeftOut {
    fn add(&mut self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        if self.pieces == 0 {
            self.first = piece.chars().take(SHOWN_CHARS).collect();
        }
        self.pieces += 1;
    }

    fn warning(self) -> Option<Warning> {
        let message = match self.pieces {
            0 => return None,
            1 => format!("left out {:?}: it holds nothing to say", self.first),
            n => format!("left out {n} pieces that hold nothing to say, the first of them {:?}", self.first),
        };
        Some(Warning { reason: "unspeakable".into(), message, segment: None })
    }
}

#[cfg(test)]
mod tests {
    use chorus_text::SegmenterConfig;
    use proptest::prelude::*;

    use super::*;

    fn segmenter() -> Segmenter {
        Segmenter::new(SegmenterConfig::default()).unwrap()
    }

    fn question(text: &str) -> PlanQuestion<'_> {
        PlanQuestion {
            text,
            text_complete: true,
            first_index: 0,
            window: 64,
            urgent: false,
            priority: Priority::Normal,
        }
    }

    #[test]
    fn a_short_text_is_one_segment_a_class_up() {
        let plan = plan(&question("Hello from chorus."), &segmenter());
        assert_eq!(plan.drafts.len(), 1);
        assert_eq!(plan.drafts[0].text, "Hello from chorus.");
        assert_eq!(plan.drafts[0].class, JobClass::High);
        assert!(plan.complete && plan.warnings.is_empty());
        assert_eq!(plan.consumed_bytes, 18);
    }

    #[test]
    fn the_window_bounds_a_page_and_the_next_one_goes_on() {
        let text = "One is here. Two is here. Three is here.";
        let first = plan(&PlanQuestion { window: 2, ..question(text) }, &segmenter());
        assert_eq!(first.drafts.len(), 2);
        assert!(!first.complete);
        assert_eq!(first.drafts[1].class, JobClass::Normal);
        let rest = &text[first.consumed_bytes..];
        let next = plan(&PlanQuestion { first_index: 2, ..question(rest) }, &segmenter());
        assert_eq!(next.drafts[0].index, 2);
        assert_eq!(next.drafts[0].text, "Three is here.");
        assert!(next.complete);
        assert_eq!(first.consumed_by(0), 0);
        assert_eq!(&text[first.consumed_by(1)..], "Two is here. Three is here.");
    }

    #[test]
    fn what_cannot_be_said_is_left_out_with_one_warning() {
        let stars = "*".repeat(2_000);
        let text = format!("Hello there.\n\n{stars}");
        let planned = plan(&question(&text), &segmenter());
        assert_eq!(planned.drafts.len(), 1);
        assert_eq!((planned.warnings.len(), planned.complete), (1, true));
        assert!(planned.warnings[0].message.contains("nothing to say"), "{:?}", planned.warnings);
        assert!(planned.warnings[0].message.len() < 200);
        assert_eq!(planned.consumed_bytes, text.len());
        let nothing = plan(&question("😀 ***"), &segmenter());
        assert!(nothing.drafts.is_empty() && nothing.complete);
        assert_eq!(nothing.consumed_bytes, "😀 ***".len());
    }

    #[test]
    fn an_open_text_waits_for_its_next_word() {
        let open = PlanQuestion { text_complete: false, ..question("It costs 3.") };
        let waiting = plan(&open, &segmenter());
        assert!(waiting.drafts.is_empty() && !waiting.complete);
        assert_eq!(waiting.consumed_bytes, 0);
        let none_asked = plan(&PlanQuestion { window: 0, ..question("Hello.") }, &segmenter());
        assert!(none_asked.drafts.is_empty() && !none_asked.complete);
    }

    proptest! {
        /// However a text is windowed, the segments are the same, and each is named once.
        #[test]
        fn windows_do_not_change_the_plan(text in "([a-zA-Z ,.!?😀*\n]|[0-9]){0,300}", window in 1usize..5) {
            let whole = plan(&question(&text), &segmenter());
            let mut paged = Vec::new();
            let mut at = 0;
            loop {
                let first_index = paged.len() as u32;
                let asked = PlanQuestion { window, first_index, ..question(&text[at..]) };
                let page = plan(&asked, &segmenter());
                at += page.consumed_bytes;
                paged.extend(page.drafts.into_iter().map(|d| (d.index, d.text, d.class, d.pause_after_ms)));
                if page.complete {
                    break;
                }
            }
            let expected: Vec<_> =
                whole.drafts.iter().map(|d| (d.index, d.text.clone(), d.class, d.pause_after_ms)).collect();
            if expected.len() <= 64 && whole.complete {
                prop_assert_eq!(paged, expected);
                prop_assert_eq!(at, text.len());
            }
        }

        /// When the queue takes only some, asking again from what they used up gives exactly the others.
        #[test]
        fn a_page_can_be_cut_off_anywhere(text in "[a-zA-Z .\n]{0,300}", queued in 0usize..6) {
            let whole = plan(&question(&text), &segmenter());
            let queued = queued.min(whole.drafts.len());
            let rest = &text[whole.consumed_by(queued)..];
            let again = plan(&PlanQuestion { first_index: queued as u32, ..question(rest) }, &segmenter());
            let texts = |drafts: &[Draft]| drafts.iter().map(|d| (d.index, d.text.clone())).collect::<Vec<_>>();
            prop_assert_eq!(texts(&again.drafts), texts(&whole.drafts[queued..]));
        }
    }
}
