//! Keeping takes: what was spoken and accepted is stored for whoever asks for the same words later.
//!
//! A run whose session said go claims its key, so that others may wait for it instead of speaking the same; a run that was
//! accepted stores its audio; a run that came to nothing gives its claim back. All of it happens beside the runs: orders go
//! through bounded queues and are dropped when these are full, audio is counted against a budget, and a store that is slow or
//! away costs nobody anything but the take.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chorus_bus::Takes;
use chorus_protocol::job::{Job, Spoken};
use chorus_protocol::takes::{self, StoredTake};
use chorus_protocol::{RunId, WorkerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::models::Models;

/// How long a claim outlives the worker that made it. Who waits for it has a limit of his own.
const CLAIM_TTL: Duration = Duration::from_secs(15);
/// Claims and their ends that wait for the broker, at most.
const MAX_CLAIMS: usize = 256;
/// Takes that wait to be stored, at most, and how large they may be together.
const MAX_TAKES: usize = 64;
const MAX_WAITING_BYTES: usize = 32 << 20;
/// The largest take that is stored: three minutes at 22 kHz.
const MAX_TAKE_BYTES: usize = 8 << 20;

enum ClaimOrder {
    Claim(RunId, String),
    /// It came to nothing.
    Release(RunId),
    /// It is stored, or about to be: the claim is replaced.
    Forget(RunId),
}

struct StoreOrder {
    key: String,
    pcm: Bytes,
    take: StoredTake,
    _room: OwnedSemaphorePermit,
}

/// Takes orders. A cheap clone.
#[derive(Clone)]
pub(crate) struct Keeper {
    claims: mpsc::Sender<ClaimOrder>,
    takes: mpsc::Sender<StoreOrder>,
    room: Arc<Semaphore>,
}

/// Carries them out.
pub(crate) struct KeeperService {
    claims: mpsc::Receiver<ClaimOrder>,
    takes: mpsc::Receiver<StoreOrder>,
    store: Takes,
    worker: WorkerId,
}

impl Keeper {
    /// A keeper and its service.
    pub(crate) fn new(store: Takes, worker: WorkerId) -> (Self, KeeperService) {
        let (send_claims, claims) = mpsc::channel(MAX_CLAIMS);
        let (send_takes, takes) = mpsc::channel(MAX_TAKES);
        let room = Arc::new(Semaphore::new(MAX_WAITING_BYTES));
        let keeper = Self { claims: send_claims, takes: send_takes, room };
        (keeper, KeeperService { claims, takes, store, worker })
    }

    /// What is to be done about the take of a run; `None` when it is not to be kept, or its model has no identity (yet).
    pub(crate) fn keeping(&self, job: &Job, models: &Models, run: RunId) -> Option<Keeping> {
        if !job.keep {
            return None;
        }
        let model = models.states.iter().find(|model| model.name == job.speech.model)?;
        let key = takes::key(model.identity.as_deref()?, &job.speech, &job.text);
        Some(Keeping { keeper: self.clone(), key, run, claimed: false })
    }

    fn tell(&self, order: ClaimOrder) {
        if self.claims.try_send(order).is_err() {
            tracing::debug!("a claim was left out: too many wait for the broker");
        }
    }
}

/// One run's take. Dropped before it was stored, it gives its claim back.
pub(crate) struct Keeping {
    keeper: Keeper,
    key: String,
    run: RunId,
    claimed: bool,
}

impl Keeping {
    /// The session said go.
    pub(crate) fn claim(&mut self) {
        if !std::mem::replace(&mut self.claimed, true) {
            self.keeper.tell(ClaimOrder::Claim(self.run, self.key.clone()));
        }
    }

    /// It was accepted: stored, if there is room. `pieces` are all but the last, which `spoken` has.
    pub(crate) fn store(mut self, pieces: &[Bytes], spoken: &Spoken) {
        let bytes = pieces.iter().map(Bytes::len).sum::<usize>() + spoken.data.0.len();
        if bytes == 0 || bytes > MAX_TAKE_BYTES {
            return;
        }
        let room = Arc::clone(&self.keeper.room).try_acquire_many_owned(bytes as u32);
        let Ok(_room) = room else {
            return tracing::debug!("a take was not stored: too much waits for the broker");
        };
        let mut pcm = BytesMut::with_capacity(bytes);
        pieces.iter().for_each(|piece| pcm.extend_from_slice(piece));
        pcm.extend_from_slice(&spoken.data.0);
        let order =
            StoreOrder { key: self.key.clone(), pcm: pcm.freeze(), take: StoredTake::of(spoken), _room };
        match self.keeper.takes.try_send(order) {
            Ok(()) if std::mem::take(&mut self.claimed) => self.keeper.tell(ClaimOrder::Forget(self.run)),
            Ok(()) => {}
            Err(_full) => tracing::debug!("a take was not stored: too many wait for the broker"),
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if self.claimed {
            self.keeper.tell(ClaimOrder::Release(self.run));
        }
    }
}

impl KeeperService {
    /// Works until `end`, and then carries out what it was told before.
    pub(crate) async fn run(self, end: CancellationToken) {
        let Self { mut claims, mut takes, store, worker } = self;
        let claiming = async {
            let mut held = HashMap::new();
            while let Some(order) = next(&mut claims, &end).await {
                claim(&store, &worker, &mut held, order).await;
            }
        };
        let storing = async {
            while let Some(StoreOrder { key, pcm, take, _room }) = next(&mut takes, &end).await {
                if let Err(error) = store.store(&key, pcm, take).await {
                    tracing::debug!(key, %error, "a take was not stored");
                }
            }
        };
        tokio::join!(claiming, storing);
    }
}

/// The next order; after `end` only those that wait already.
async fn next<T>(orders: &mut mpsc::Receiver<T>, end: &CancellationToken) -> Option<T> {
    tokio::select! {
        biased;
        order = orders.recv() => order,
        () = end.cancelled() => None,
    }
}

async fn claim(
    store: &Takes,
    worker: &WorkerId,
    held: &mut HashMap<RunId, (String, u64)>,
    order: ClaimOrder,
) {
    let done = match order {
        ClaimOrder::Claim(run, key) => match store.claim(&key, run, worker.clone(), CLAIM_TTL).await {
            Ok(Some(revision)) => {
                // As many as there are runs; a release that was left out must not let it grow.
                if held.len() >= MAX_CLAIMS {
                    held.clear();
                }
                held.insert(run, (key, revision));
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        },
        ClaimOrder::Release(run) => match held.remove(&run) {
            Some((key, revision)) => store.release(&key, revision).await,
            None => Ok(()),
        },
        ClaimOrder::Forget(run) => {
            held.remove(&run);
            Ok(())
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "the broker did not take a claim");
    }
}
