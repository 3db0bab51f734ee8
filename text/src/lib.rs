//! What is said, in which pieces, and with which rests between them.
//!
//! A request's text enters here as one string, as an SSML document, or as a stream of pieces; it leaves
//! as segments: sentence-sized strings with the pause that follows each. Segments are the unit that the
//! fleet queues, speaks, retries, caches and plays, so cutting must be the same on every host, for every
//! page size and however the text arrived. That is why this crate keeps no state between calls: a caller
//! holds the text that was not yet planned and hands it in again, to any process.
//!
//! - [`check_text`] refuses text that no engine should see (NUL bytes, terminal escapes).
//! - [`parse_ssml`] turns a document into spans of plain text with their voice, rate, pitch and volume.
//! - [`Segmenter`] cuts plain text, or each span, into segments.
//!
//! Nothing here reads a file, a clock or the network.

mod check;
mod segment;
mod ssml;

pub use check::{TextError, check_text};
pub use segment::{Page, Segment, Segmenter, SegmenterConfig, SegmenterError, has_speakable};
pub use ssml::{Prosody, Span, SsmlConfig, SsmlError, SsmlErrorKind, parse_ssml};
