//! Which request a message of the engine belongs to.
//!
//! Every request has a bounded channel of its own. A message for a request that nobody waits for (any more) is counted
//! and left; a request whose channel overflows is given up, so that one slow taker never holds up the others.

use std::collections::HashMap;

use chorus_protocol::MessageId;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::wire::{Incoming, What};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routed {
    /// Its request has it.
    Delivered,
    /// Nobody waits for it.
    Unknown,
    /// Its request took too little and was given up.
    Overflowed,
}

/// Requests under way.
#[derive(Debug, Default)]
pub(crate) struct Router {
    waiting: HashMap<MessageId, mpsc::Sender<What>>,
}

impl Router {
    /// A request begins; at most `bound` messages wait for their taker.
    pub(crate) fn begin(&mut self, id: MessageId, bound: usize) -> mpsc::Receiver<What> {
        let (sender, receiver) = mpsc::channel(bound);
        self.waiting.insert(id, sender);
        receiver
    }

    /// Nobody waits for this request any more; whether one was under way.
    pub(crate) fn forget(&mut self, id: &MessageId) -> bool {
        self.waiting.remove(id).is_some()
    }

    /// Ends every request: their channels close.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Requests under way.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Hands a message to its request; one that ends the request closes its channel behind it.
    pub(crate) fn route(&mut self, message: Incoming) -> Routed {
        let Some(id) = message.to else { return Routed::Unknown };
        let last = matches!(message.what, What::Spoken(_) | What::Answer(_) | What::Failed(_));
        let Some(sender) = self.waiting.get(&id) else { return Routed::Unknown };
        let sent = sender.try_send(message.what);
        if last || sent.is_err() {
            self.waiting.remove(&id);
        }
        match sent {
            Ok(()) => Routed::Delivered,
            Err(TrySendError::Closed(_)) => Routed::Unknown,
            Err(TrySendError::Full(_)) => Routed::Overflowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(id: &MessageId, what: What) -> Incoming {
        Incoming { to: Some(id.clone()), what }
    }

    #[test]
    fn messages_find_their_request_until_it_ends() {
        let (mut router, id) = (Router::default(), MessageId::fresh());
        let mut events = router.begin(id.clone(), 4);
        assert_eq!(router.route(to(&id, What::Progress)), Routed::Delivered);
        assert_eq!(router.route(to(&MessageId::fresh(), What::Progress)), Routed::Unknown);
        assert_eq!(router.route(Incoming { to: None, what: What::Progress }), Routed::Unknown);
        assert_eq!(router.route(to(&id, What::Answer(bytes::Bytes::new()))), Routed::Delivered);
        assert_eq!(router.len(), 0);
        assert!(matches!(events.try_recv(), Ok(What::Progress)));
        assert!(matches!(events.try_recv(), Ok(What::Answer(_))));
        assert_eq!(router.route(to(&id, What::Progress)), Routed::Unknown);
    }

    #[test]
    fn one_that_takes_too_little_is_given_up() {
        let (mut router, id) = (Router::default(), MessageId::fresh());
        let _events = router.begin(id.clone(), 1);
        assert_eq!(router.route(to(&id, What::Progress)), Routed::Delivered);
        assert_eq!(router.route(to(&id, What::Progress)), Routed::Overflowed);
        assert!(!router.forget(&id));
    }
}
