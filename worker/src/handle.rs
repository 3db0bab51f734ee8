//! What whoever embeds a worker holds of it.

use std::sync::Arc;
use std::time::Duration;

use chorus_protocol::fleet::{ModelState, WorkerHeartbeat};
use chorus_protocol::{Incarnation, WorkerId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A handle on a worker. Clones share it; dropping it ends nothing.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    pub(crate) id: WorkerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) heartbeat: watch::Receiver<Option<Arc<WorkerHeartbeat>>>,
    pub(crate) drain: CancellationToken,
}

impl WorkerHandle {
    /// Its stable name.
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Which start of it this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Its newest heartbeat, once there is one; also seen as it changes.
    pub fn heartbeats(&self) -> watch::Receiver<Option<Arc<WorkerHeartbeat>>> {
        self.heartbeat.clone()
    }

    /// Waits until a model speaks, `within` at most; whether one does.
    pub async fn ready(&self, within: Duration) -> bool {
        let mut heartbeats = self.heartbeat.clone();
        let speaks = heartbeats.wait_for(|heartbeat| {
            let models = heartbeat.iter().flat_map(|heartbeat| &heartbeat.models);
            models.into_iter().any(|model| model.state == ModelState::Ready)
        });
        matches!(tokio::time::timeout(within, speaks).await, Ok(Ok(_)))
    }

    /// Asks it to finish, hand back what it has not begun, and end.
    pub fn drain(&self) {
        self.drain.cancel();
    }
}
