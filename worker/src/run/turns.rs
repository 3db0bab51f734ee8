//! Who may speak beside whom.
//!
//! What an engine has in hand crashes with it: a job that was prefetched, or shares a batch, fails by its neighbour's
//! words. So a job that an engine has failed before is run alone: it waits until nothing else runs here, and what comes
//! after it waits for its end. Its next failure is then its own, and only so can a segment be called poison. While it
//! waits it is not started: its session's clock stands, and the broker hears that it is worked on.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;

/// Hands out turns, first come, first served.
#[derive(Debug, Default)]
pub(crate) struct Turns(RwLock<()>);

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// Others may speak at the same time.
    Beside(#[allow(dead_code, reason = "held for its drop")] RwLockReadGuard<'a, ()>),
    /// Nobody else does.
    Alone(#[allow(dead_code, reason = "held for its drop")] RwLockWriteGuard<'a, ()>),
}

impl Turns {
    /// The next turn, and whether it had to be waited for; none when the worker leaves before.
    pub(crate) async fn take(&self, alone: bool, leaving: &CancellationToken) -> (Option<Turn<'_>>, bool) {
        let at_once =
            if alone { self.0.try_write().map(Turn::Alone) } else { self.0.try_read().map(Turn::Beside) };
        if let Ok(turn) = at_once {
            return (Some(turn), false);
        }
        let turn = async {
            if alone { Turn::Alone(self.0.write().await) } else { Turn::Beside(self.0.read().await) }
        };
        (leaving.run_until_cancelled(turn).await, true)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_job_that_failed_before_waits_for_others_and_others_for_it() {
        let (turns, leaving) = (Turns::default(), CancellationToken::new());
        let (first, waited) = turns.take(false, &leaving).await;
        let (second, also_waited) = turns.take(false, &leaving).await;
        assert!(first.is_some() && second.is_some() && !waited && !also_waited);
        let mut alone = Box::pin(turns.take(true, &leaving));
        assert!((&mut alone).now_or_never().is_none());
        let mut after = Box::pin(turns.take(false, &leaving));
        assert!((&mut after).now_or_never().is_none(), "first come, first served");
        drop((first, second));
        let (alone, waited) = alone.await;
        assert!(matches!(alone, Some(Turn::Alone(_))) && waited);
        assert!((&mut after).now_or_never().is_none());
        drop(alone);
        assert!(matches!(after.await, (Some(Turn::Beside(_)), true)));
    }

    #[tokio::test]
    async fn a_worker_that_leaves_waits_for_no_turn() {
        let (turns, leaving) = (Turns::default(), CancellationToken::new());
        let _first = turns.take(false, &leaving).await;
        leaving.cancel();
        assert!(matches!(turns.take(true, &leaving).await, (None, true)));
    }
}
