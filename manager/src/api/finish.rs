//! `tts.finish`: a session has ended, and `afterSynthesis` hooks may see its result.

use chorus_protocol::ServiceError;
use chorus_protocol::plan::{Finish, Finished};

use crate::core::Core;

impl Core {
    /// Lets hooks see the result, each within its bound.
    ///
    /// # Errors
    /// None of its own: a failing hook is an event, and the result goes on without it.
    pub async fn answer_finish(&self, finish: Finish) -> Result<Finished, ServiceError> {
        let (result, failures) = self.hooks.after(finish.result).await;
        self.tell_hook_failures(failures).await;
        tracing::debug!(session = %finish.session, success = result.success, "finished");
        Ok(Finished { result })
    }
}
