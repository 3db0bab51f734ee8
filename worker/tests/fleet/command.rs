//! An engine that is a command line: nobody but its guard and its worker can limit and measure it.

use std::time::Duration;

use chorus_bus::Subscription;
use chorus_protocol::fleet::{FleetEvent, WorkerHeartbeat};
use chorus_protocol::names;
use chorus_runtime::process::GuardBinary;
use chorus_worker::{EngineConfig, WorkerConfig};
use tokio::time::timeout;

use crate::support::*;

/// The size of the script, in bytes; well over that of a guard and a shell.
const SIZE: u64 = 60_000_000;

/// A script of 1.0 that takes SIZE bytes of memory.
const SCRIPT: &str = r#"
import json, sys, wave
held = bytearray(b"x") * int(sys.argv[1])
for line in sys.stdin:
    r = json.loads(line)
    if not r.get("text"):
        print(json.dumps({"type": "error", "success": False, "error": "text is required"}), flush=True)
        continue
    with wave.open(r["outputPath"], "wb") as f:
        f.setnchannels(1); f.setsampwidth(2); f.setframerate(16000)
        f.writeframes(b"\x00\x10\x00\xf0" * 8000)
    print(json.dumps({"type": "response", "success": True, "outputPath": r["outputPath"], "latencyMs": 1}), flush=True)
"#;

/// A worker whose engine is the script behind a shell of its own, under a guard, as commands are in production.
fn scripted(broker: &Broker, folder: &tempfile::TempDir) -> WorkerConfig {
    let mut config = worker_config(broker, "command", plain());
    let file = folder.path().join("script.py");
    std::fs::write(&file, SCRIPT).unwrap();
    let inner = format!("{} {} {SIZE}; true", config.engine.program.display(), file.display());
    let env = config.engine.env;
    config.engine = EngineConfig::command("command", &format!("sh -c '{inner}'"));
    config.engine.env = env;
    config.engine.guard = GuardBinary::Program(env!("CARGO_BIN_EXE_chorus-worker-fixture").into());
    config.engine.grace = Duration::from_millis(300);
    config.heartbeat_every = Duration::from_millis(50);
    config.canary.every = Some(Duration::from_millis(50));
    config
}

async fn beat(worker: &Running, what: &str, holds: impl Fn(&WorkerHeartbeat) -> bool) -> u32 {
    let now = || worker.handle.heartbeats().borrow().clone();
    poll(what, || now().filter(|beat| holds(beat)).and_then(|beat| beat.engine_pid)).await
}

async fn event(events: &mut Subscription) -> FleetEvent {
    let event = timeout(PATIENCE, events.next()).await.expect("no event").unwrap();
    event.decode::<FleetEvent>().unwrap().payload
}

#[tokio::test]
async fn the_memory_of_a_command_behind_guard_and_shell_is_told_and_then_freed() {
    let (broker, folder) = (Broker::start().await, tempfile::tempdir().unwrap());
    let bus = broker.connect().await;
    let mut renewals = bus.subscribe(&names::event_subject("workerRecycled"), None).await.unwrap();
    let mut alerts = bus.subscribe(&names::event_subject("memoryAlert"), None).await.unwrap();
    let mut config = scripted(&broker, &folder);
    config.recycle.rss_bytes = Some(SIZE / 2);
    config.recycle.least_age = Duration::from_millis(500);
    let worker = Running::start(config).await;
    assert!(event(&mut alerts).await.details["rssBytes"].as_u64() > Some(SIZE));
    assert!(event(&mut renewals).await.details["rssBytes"].as_u64() > Some(SIZE));
    beat(&worker, "renewal", |beat| beat.engine_restarts >= 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_command_has_what_it_is_given_and_its_size_is_in_the_heartbeat() {
    let (broker, folder) = (Broker::start().await, tempfile::tempdir().unwrap());
    let mut config = scripted(&broker, &folder);
    config.engine.max_memory_bytes = Some(3_000_000_000);
    config.engine.max_cpus = Some(1);
    let worker = Running::start(config).await;
    let own = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    // The worker is this process, and all that is not its own is its engine's.
    let pid = beat(&worker, "size", |beat| beat.rss_bytes > own() + SIZE / 2).await;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert!(read("cmdline").starts_with("sh\0-c\0"), "the program, not its guard: {}", read("cmdline"));
    assert_limited(pid);
    worker.stop().await;
}
