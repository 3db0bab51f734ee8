//! A TCP proxy whose connections can be cut.

use std::sync::Arc;

use chorus_runtime::task::{self, FailureMeans};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A way to a server that can be cut; dropping it ends it.
pub struct Proxy {
    port: u16,
    cuts: Arc<watch::Sender<()>>,
    cancel: CancellationToken,
}

impl Proxy {
    /// To this port of the same machine.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, cancel) = (Arc::new(watch::Sender::new(())), CancellationToken::new());
        task::spawn("proxy", cancel.clone(), FailureMeans::Log, serve(listener, server, cuts.clone()));
        Self { port, cuts, cancel }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Cuts every connection there is. The next one is let through.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn serve(listener: TcpListener, server: u16, cuts: Arc<watch::Sender<()>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut cut = cuts.subscribe();
        connections.spawn(async move {
            let Ok(mut far) = TcpStream::connect(("127.0.0.1", server)).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.changed() => {}
            }
        });
    }
}
