//! A TCP proxy of ours before the broker: its connections can be reset, and what goes through them delayed.

use std::net::SocketAddr;
use std::time::Duration;

use chorus_runtime::task::{self, FailureMeans};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::ChaosError;

const READ_BYTES: usize = 16 * 1024;
/// Pieces under way in one direction of one connection; a full way holds the sender back, as a network does.
const UNDER_WAY: usize = 1024;

/// The proxy; dropping it ends it.
pub(crate) struct Link {
    address: SocketAddr,
    cuts: watch::Sender<()>,
    delay: watch::Sender<Duration>,
    _end: DropGuard,
}

impl Link {
    /// A way from this address to this port of the same machine.
    pub(crate) async fn start(near: &str, server: u16) -> Result<Self, ChaosError> {
        let listener = TcpListener::bind((near, 0)).await.map_err(ChaosError::io(near))?;
        let address = listener.local_addr().map_err(ChaosError::io(near))?;
        let (cuts, delay) = (watch::Sender::new(()), watch::Sender::new(Duration::ZERO));
        let token = CancellationToken::new();
        let serving = serve(listener, server, cuts.clone(), delay.clone());
        // Ends with the token.
        drop(task::spawn("chaos-link", token.clone(), FailureMeans::Log, serving));
        Ok(Self { address, cuts, delay, _end: token.drop_guard() })
    }

    /// Its near end.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Resets every connection there is. The next one is let through.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Holds what comes from now on for so long, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }
}

async fn serve(listener: TcpListener, server: u16, cuts: watch::Sender<()>, delay: watch::Sender<Duration>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (mut cut, delay) = (cuts.subscribe(), delay.subscribe());
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await else { return };
            for side in [&near, &far] {
                // An order to reset rather than to end in peace; where it cannot be given the connection ends all the same.
                let _peaceful = side.set_zero_linger().is_err() || side.set_nodelay(true).is_err();
            }
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = carry(near_in, far_out, delay.clone()) => {}
                () = carry(far_in, near_out, delay) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn carry(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: watch::Receiver<Duration>) {
    let (send, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading = async move {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + *delay.borrow();
            if send.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = under_way.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
