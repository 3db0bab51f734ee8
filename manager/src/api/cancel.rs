//! `tts.cancel`: a session was given up.
//!
//! Every manager hears it, so that it works whichever of them is alive; doing it twice is harmless. What is queued is
//! deleted by sequence, and workers that have begun are told to stop. Whatever escapes both is stopped by the session's
//! own answer when it is started.

use chorus_protocol::fleet::WorkerOrder;
use chorus_protocol::names::{self, WorkerControl};
use chorus_protocol::plan::Cancel;
use chorus_protocol::{Envelope, SessionId, WorkerId};
use futures::{StreamExt, stream};

use crate::core::Core;

/// The most jobs, and the most workers, of one cancel that are acted on; a session has far fewer in flight.
const MAX_ENTRIES: usize = 1024;

/// Jobs that are deleted at once.
const DELETES_AT_ONCE: usize = 16;

impl Core {
    /// Deletes a session's queued jobs and stops its runs.
    pub async fn hear_cancel(&self, cancel: Cancel) {
        let session = cancel.session;
        tracing::debug!(%session, jobs = cancel.seqs.len(), "cancelled");
        if cancel.seqs.len().max(cancel.workers.len()) > MAX_ENTRIES {
            tracing::warn!(%session, jobs = cancel.seqs.len(), "a cancel names too much; acting on a part");
        }
        for worker in cancel.workers.iter().take(MAX_ENTRIES) {
            self.order_stop(worker, session).await;
        }
        let deletes = cancel.seqs.into_iter().take(MAX_ENTRIES).map(|seq| async move {
            if let Err(error) = self.bus.delete_job(seq).await {
                tracing::debug!(%session, seq, %error, "a cancelled job was not deleted; its start is refused");
            }
        });
        stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).collect::<()>().await;
    }

    async fn order_stop(&self, worker: &WorkerId, session: SessionId) {
        let subject = names::worker_control(worker, WorkerControl::Stop);
        let order = Envelope::event(WorkerOrder::Stop { session }, self.clock.unix_ms());
        if let Err(error) = self.bus.publish(&subject, &order).await {
            tracing::debug!(%session, %worker, %error, "a worker was not told to stop; its result is refused");
        }
    }
}
