//! The supervisor with real children: readiness, restarts, crash loops, hangs, stops.

use std::time::Duration;

use chorus_runtime::process::supervisor::{
    Ended, Event, HandshakeError, Launch, RestartPolicy, Supervisor, SupervisorConfig, supervise,
};
use chorus_runtime::process::{Child, GuardBinary, ProcessSpec, SpawnError};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a shell that is ready once it has written `r` on fd 5.
struct Shell {
    script: &'static str,
}

impl Launch for Shell {
    type Ready = u64;

    fn start(&mut self, run: u64) -> Result<Child, SpawnError> {
        let mut spec = ProcessSpec::new("test", "/bin/sh")
            .args(["-c", self.script])
            .set_env("PATH", "/usr/bin:/bin")
            .set_env("RUN", run.to_string());
        spec.pipes = chorus_runtime::process::Pipes::Fds;
        spec.guard = GuardBinary::Program(env!("CARGO_BIN_EXE_chorus-runtime-fixture").into());
        Child::spawn(&spec)
    }

    async fn handshake(&mut self, mut child: Child) -> Result<(Child, u64), HandshakeError> {
        let mut pipe = child.take_frames().ok_or("no pipe")?;
        match pipe.reader.read_u8().await? {
            b'r' => Ok((child, 42)),
            other => Err(format!("unexpected {other}").into()),
        }
    }
}

fn start(script: &'static str, crash_limit: u32, token: &CancellationToken) -> Supervisor<u64> {
    start_with(script, quick(crash_limit), token)
}

fn quick(crash_limit: u32) -> RestartPolicy {
    RestartPolicy {
        initial_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
        crash_limit: Some(crash_limit),
        ..RestartPolicy::default()
    }
}

fn start_with(script: &'static str, restart: RestartPolicy, token: &CancellationToken) -> Supervisor<u64> {
    let ready_within = if script.contains("never ready") { Duration::from_millis(50) } else { PATIENCE };
    let grace = Duration::from_millis(500);
    supervise(
        SupervisorConfig { name: "test".to_owned(), restart, ready_within, grace },
        token.clone(),
        Shell { script },
    )
}

async fn next(supervisor: &mut Supervisor<u64>) -> Event<u64> {
    tokio::time::timeout(PATIENCE, supervisor.events.recv()).await.expect("in time").expect("an event")
}

/// Skips to the end of a run.
async fn next_end(supervisor: &mut Supervisor<u64>) -> (u64, Option<i32>, Ended, Vec<String>) {
    loop {
        if let Event::Exited { run, exit, ended, stderr_tail } = next(supervisor).await {
            return (run, exit.and_then(|exit| exit.code), ended, stderr_tail);
        }
    }
}

#[tokio::test]
async fn a_child_that_dies_is_started_again_with_its_last_words_told() {
    let token = CancellationToken::new();
    let script =
        "printf r >&5; if [ $RUN = 1 ]; then echo dying >&2; exit 9; fi; while :; do sleep 1000; done";
    let mut supervisor = start(script, 5, &token);
    assert!(matches!(next(&mut supervisor).await, Event::Started { run: 1, .. }));
    assert!(matches!(next(&mut supervisor).await, Event::Ready { run: 1, ready: 42 }));
    let (run, code, ended, tail) = next_end(&mut supervisor).await;
    assert!(matches!(ended, Ended::Exited), "{ended:?}");
    assert_eq!((run, code, tail), (1, Some(9), vec!["dying".to_owned()]));
    assert!(matches!(next(&mut supervisor).await, Event::Restarting { .. }));
    assert!(matches!(next(&mut supervisor).await, Event::Started { run: 2, .. }));
    assert!(matches!(next(&mut supervisor).await, Event::Ready { run: 2, .. }));
    supervisor.handle.restart("it hangs");
    let (run, _, ended, _) = next_end(&mut supervisor).await;
    assert!(matches!((run, ended), (2, Ended::Replaced(reason)) if reason == "it hangs"));
    token.cancel();
    tokio::time::timeout(PATIENCE, supervisor.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_renewal_is_no_failure() {
    let token = CancellationToken::new();
    let mut supervisor = start("printf r >&5; while :; do sleep 0.01; done", 1, &token);
    for expected in 1..4 {
        while !matches!(next(&mut supervisor).await, Event::Ready { .. }) {}
        supervisor.handle.renew("it is old");
        let (run, _, ended, _) = next_end(&mut supervisor).await;
        assert!(matches!(ended, Ended::Renewed(why) if why == "it is old"));
        assert_eq!(run, expected, "the crash limit of 1 does not count it");
    }
    token.cancel();
    tokio::time::timeout(PATIENCE, supervisor.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_child_that_has_done_what_it_was_told_can_be_left_so() {
    let mut supervisor = start("printf r >&5; exit 0", 5, &CancellationToken::new());
    let (run, code, ..) = next_end(&mut supervisor).await;
    assert_eq!((run, code), (1, Some(0)));
    assert!(matches!(next(&mut supervisor).await, Event::Restarting { .. }), "the policy does not say so");
    let policy = RestartPolicy { success_is_final: true, ..quick(5) };
    let mut supervisor = start_with("printf r >&5; exit 0", policy, &CancellationToken::new());
    next_end(&mut supervisor).await;
    assert!(tokio::time::timeout(PATIENCE, supervisor.events.recv()).await.unwrap().is_none());
    supervisor.task.await.unwrap();
}

#[tokio::test]
async fn a_crash_loop_is_given_up() {
    let token = CancellationToken::new();
    let mut supervisor = start("exit 1", 3, &token);
    for _ in 0..3 {
        next_end(&mut supervisor).await;
    }
    assert!(matches!(next(&mut supervisor).await, Event::GaveUp { failures: 3 }));
    supervisor.task.await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_lies_or_lasts_is_a_failed_run() {
    let token = CancellationToken::new();
    let mut lying = start("printf x >&5; sleep 1000", 1, &token);
    assert!(matches!(next_end(&mut lying).await.2, Ended::HandshakeFailed(_)));
    let mut lasting = start(": never ready; sleep 1000", 1, &token);
    assert!(matches!(next_end(&mut lasting).await.2, Ended::HandshakeTimedOut));
}

#[tokio::test]
async fn a_stop_ends_the_child_and_then_the_supervisor() {
    let token = CancellationToken::new();
    let mut supervisor = start("trap 'exit 4' TERM; printf r >&5; while :; do sleep 0.01; done", 5, &token);
    while !matches!(next(&mut supervisor).await, Event::Ready { .. }) {}
    token.cancel();
    let (_, code, ended, _) = next_end(&mut supervisor).await;
    assert!(matches!((code, ended), (Some(4), Ended::Stopped)));
    supervisor.task.await.unwrap();
}

#[tokio::test]
async fn nobody_listening_stops_the_child() {
    let supervisor = start("printf r >&5; while :; do sleep 1000; done", 5, &CancellationToken::new());
    drop(supervisor.events);
    tokio::time::timeout(PATIENCE, supervisor.task).await.unwrap().unwrap();
}
