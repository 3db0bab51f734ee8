//! The plain requests that are being spoken here, by messageId: whom a cancel may mean.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chorus_protocol::MessageId;
use tokio_util::sync::CancellationToken;

/// See the module. As many entries as plain requests are spoken at once.
#[derive(Default)]
pub(crate) struct UnderWay(Mutex<HashMap<MessageId, (usize, CancellationToken)>>);

/// A request under way, until this is dropped.
pub(crate) struct Entered<'a> {
    under_way: &'a UnderWay,
    id: MessageId,
    cancelled: CancellationToken,
}

impl UnderWay {
    /// A request begins. Two of one messageId are given up together.
    pub(crate) fn enter(&self, id: &MessageId) -> Entered<'_> {
        let mut entries = self.lock();
        let (count, token) = entries.entry(id.clone()).or_default();
        *count += 1;
        Entered { under_way: self, id: id.clone(), cancelled: token.clone() }
    }

    /// Gives a request up; whether there is one.
    pub(crate) fn cancel(&self, id: &MessageId) -> bool {
        let entries = self.lock();
        let found = entries.get(id);
        found.inspect(|(_, token)| token.cancel()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MessageId, (usize, CancellationToken)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered<'_> {
    /// What comes of `work`; `None` when the request is given up first.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.cancelled.run_until_cancelled(work).await
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut entries = self.under_way.lock();
        if let Some((count, _)) = entries.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                entries.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancel_finds_what_is_under_way_and_nothing_stays() {
        let under_way = UnderWay::default();
        let id = MessageId::new("r").unwrap();
        assert!(!under_way.cancel(&id));
        let (first, second) = (under_way.enter(&id), under_way.enter(&id));
        assert_eq!(first.unless_cancelled(async { 1 }).await, Some(1));
        drop(first);
        assert!(under_way.cancel(&id));
        assert_eq!(second.unless_cancelled(std::future::pending::<()>()).await, None);
        drop(second);
        assert!(!under_way.cancel(&id) && under_way.lock().is_empty());
    }
}
