//! The shutdown path with real signals, in a process of its own.

use std::time::Duration;

use chorus_runtime::shutdown::{Cause, Drained, Shutdown, StopSignal};
use rustix::process::{Signal, getpid, kill_process};

#[tokio::test]
async fn signals_stop_softly_and_then_at_once() {
    let patience = Duration::from_secs(20);
    let shutdown = Shutdown::new();
    let _listener = shutdown.listen().unwrap();
    kill_process(getpid(), Signal::TERM).unwrap();
    tokio::time::timeout(patience, shutdown.requested()).await.unwrap();
    assert_eq!(shutdown.cause(), Some(Cause::Signal(StopSignal::Terminate)));
    assert_eq!(shutdown.exit_code(None), 143);
    assert!(!shutdown.hard_token().is_cancelled());

    let drain = shutdown.drain("stuck work", patience, std::future::pending::<()>());
    let (drained, sent) = tokio::join!(drain, async { kill_process(getpid(), Signal::INT) });
    sent.unwrap();
    assert_eq!(drained, Drained::CutShort);
}
