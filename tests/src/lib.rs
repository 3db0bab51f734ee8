//! What the end-to-end tests share: a home of their own, the built `chorus`, a fleet, patience with a deadline.
//!
//! The tests start the real binary with real parts. What a fresh machine downloads is provisioned once (by `cargo xtask
//! test`, or by hand with `chorus setup --profile test`); each test then gets a CHORUS_HOME of its own that links to it,
//! so that run files and stores never meet. Killing `chorus` ends all that it started: the tests lean on that, and check it.

pub mod fleet;
pub mod home;
pub mod nats;
pub mod wav;

use std::future::Future;
use std::time::{Duration, Instant};

pub use chorus_chaos::checkable;
pub use fleet::{Fleet, chorus, chorus_with_stdin};
pub use home::Home;

/// Asks until there is an answer.
///
/// # Panics
/// When there is none by the deadline; `what` is named.
pub async fn poll<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
