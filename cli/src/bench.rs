//! Measurements against an embedded fleet, on this machine, with everything of the real path in it.
//!
//! Every benchmark speaks through a session in this process, prints a few lines for people, and with `--json` one object on
//! its last line. No text is spoken twice and there is no cache, but where the cache is what is measured.

pub mod baseline;
pub mod batch;
pub mod beside;
pub mod cache;
pub mod chaos;
pub mod cpu;
pub mod first_audio;
pub mod latency;
pub mod load;
pub mod long_text;
pub mod null;
pub mod peer;
pub mod program;
pub mod sla;
pub mod stats;
pub mod streams;
pub mod texts;
pub mod trial;
pub mod tts_server;
