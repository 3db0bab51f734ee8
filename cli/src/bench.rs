//! Measurements against an embedded fleet, on this machine, with everything of the real path in it.
//!
//! Every benchmark speaks through a session in this process, prints a few lines for people, and with `--json` one object on
//! its last line. No text is spoken twice, so that nothing can come from a cache.

pub mod baseline;
pub mod chaos;
pub mod first_audio;
pub mod latency;
pub mod load;
pub mod peer;
pub mod sla;
pub mod stats;
pub mod texts;
pub mod trial;
pub mod tts_server;
