//! The session: the client side of a request, and the arbiter of its segments.
//!
//! [`session`] decides, as a pure state machine: which run of a segment counts, what is asked again and when, when a
//! request has failed. [`host`] runs the sessions of a process: one subscription, one task per session that carries out
//! what the machine says. [`port`] is how a session reaches managers; [`takes`] reads the cache; [`speaking`] is what the
//! listener holds.
//!
//! ```text
//!  listener ── Speaking ── session task ── Session (pure)
//!                              │   ▲ started, chunk, result (from workers, through the host's one subscription)
//!                              ▼
//!                        ManagerPort: open, advance, finish, cancel
//! ```

pub mod clips;
pub mod config;
pub mod host;
pub mod port;
pub mod session;
pub mod speaking;
pub mod takes;

pub use config::{SessionHostConfig, TakesConfig};
pub use host::SessionHost;
pub use port::{BusPort, ManagerPort};
pub use speaking::{AudioPiece, CollectedAudio, Resume, SpeakAsk, Speaking, SpeechEvent, TextInput, collect};
