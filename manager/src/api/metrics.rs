//! `tts.metrics`: what runs came to, and how much waits.

use chorus_bus::QueueDepth;
use chorus_protocol::ServiceError;
use chorus_protocol::fleet::ModelState;
use chorus_protocol::service::ServiceMetrics;

use crate::core::Core;

impl Core {
    /// Figures since this manager's start.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED/no_broker when the broker does not tell the depth of the queues.
    pub async fn answer_metrics(&self) -> Result<ServiceMetrics, ServiceError> {
        let depths = self.depths().await?;
        let counted = self.figures().read();
        let speaks = |models: &[chorus_protocol::fleet::LoadedModel]| {
            models.iter().any(|model| model.state == ModelState::Ready)
        };
        let active_workers = self.fleet().live().filter(|worker| speaks(&worker.models)).count() as u32;
        Ok(ServiceMetrics {
            queue_depth: depths.values().map(QueueDepth::total).sum(),
            active_workers,
            ..counted
        })
    }
}
