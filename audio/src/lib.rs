//! Sound: what is done to samples between an engine and a listener.
//!
//! An engine delivers a segment as 16-bit mono samples in chunks. The session collects them, compares
//! their checksum ([`checksum`]), asks whether they can be speech at all ([`health`]), joins them to the
//! segments before ([`joint`]) and encodes one continuous stream for its client ([`encode`]). Samples
//! are always signed 16-bit, one channel; rates are in Hz and belong to the stream, not to the sample.
//!
//! Everything here is a pure function or a small state machine fed with samples; nothing reads a file, a
//! clock or the network.

pub mod checksum;
pub mod encode;
pub mod health;
pub mod joint;
pub mod pcm;
pub mod resample;
pub mod stretch;
