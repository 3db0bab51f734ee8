//! Whether the process that started us still lives.
//!
//! The end of stdin alone does not say: a parent may close it and still read the answers. One that is dead has left us to
//! another.

use std::time::Duration;

use rustix::process::{Pid, getppid};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The parent as it was at the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parent(Option<Pid>);

impl Parent {
    /// The present one.
    pub(super) fn now() -> Self {
        Self(getppid())
    }

    /// Waits until it is dead.
    pub(super) async fn gone(self) {
        while getppid() == self.0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
