//! Real child processes under a real guard: ends, escalation, floods, frames, and no process left behind.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chorus_runtime::process::{
    Child, FrameError, GuardBinary, LogPolicy, Pipes, ProcessSpec, ProgramLimits, RunError, RunLimits,
    SpawnError, descendants, run_to_end,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const FIXTURE: &str = env!("CARGO_BIN_EXE_chorus-runtime-fixture");
const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str) -> ProcessSpec {
    let mut spec =
        ProcessSpec::new("test", "sh").args(["-c", script]).set_env("PATH", "/usr/local/bin:/usr/bin:/bin");
    spec.guard = GuardBinary::Program(FIXTURE.into());
    spec
}

fn unguarded(script: &str) -> ProcessSpec {
    ProcessSpec { guard: GuardBinary::Unguarded, ..shell(script) }
}

/// Polls until `holds`, with a deadline.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The states of the processes of a group, as /proc/PID/stat tells them: `Z` is a zombie.
fn group_states(group: u32) -> Vec<String> {
    let state = |stat: String| {
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.to_owned();
        (fields.nth(1)?.parse() == Ok(group)).then_some(state)
    };
    let entries = std::fs::read_dir("/proc").expect("a /proc").flatten();
    entries.filter_map(|entry| state(std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

/// Whether a process of the group lives; orphaned zombies that wait for init do not count.
fn group_lives(group: u32) -> bool {
    group_states(group).iter().any(|state| state != "Z")
}

async fn said(child: &Child, word: &str) {
    eventually(word, || child.stdout_log().tail().iter().any(|line| line == word)).await;
}

#[tokio::test]
async fn exit_codes_and_signals_come_through_the_guard() {
    let child = Child::spawn(&shell("echo out; echo err >&2; exit 7")).unwrap();
    let exit = child.wait().await;
    assert_eq!((exit.code, exit.signal), (Some(7), None));
    assert_eq!(child.stdout_log().tail(), ["out"]);
    assert_eq!(child.stderr_log().tail(), ["err"]);
    for spec in [shell("kill -SEGV $$"), unguarded("kill -SEGV $$")] {
        assert_eq!(Child::spawn(&spec).unwrap().wait().await.signal, Some(11));
    }
    assert!(group_states(child.pid()).is_empty());
}

#[tokio::test]
async fn the_environment_is_scrubbed() {
    let child = Child::spawn(&shell("env | cut -d= -f1").set_env("ONE", "1")).unwrap();
    assert!(child.wait().await.success());
    let lines = child.stdout_log().tail();
    assert!(lines.contains(&"ONE".to_owned()) && !lines.contains(&"HOME".to_owned()), "{lines:?}");
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a plain child, to compare with")]
async fn descriptors_do_not_leak() {
    let script = "ls /proc/self/fd";
    // What whoever runs this test passes on to every child is not ours to judge.
    let plain = tokio::process::Command::new("/bin/sh").args(["-c", script]).output().await.unwrap();
    let inherited = String::from_utf8(plain.stdout).unwrap();
    let child = Child::spawn(&shell(&format!("readlink /proc/self/fd/3; {script}"))).unwrap();
    assert!(child.wait().await.success());
    let lines = child.stdout_log().tail();
    assert_eq!(lines[0], "/dev/null", "the lifeline is the guard's alone");
    let more = lines[1..].iter().filter(|&fd| !inherited.lines().any(|plain| plain == fd));
    // ls itself opens the folder, one number higher than in the plain child as 3 is taken.
    assert_eq!(more.count(), 1, "{lines:?} against {inherited}");
}

#[tokio::test]
async fn a_missing_program_is_named_at_once() {
    let spec = ProcessSpec { program: "/no/such/program".into(), ..shell("") };
    assert!(matches!(Child::spawn(&spec), Err(SpawnError::NotFound { .. })));
    let spec = ProcessSpec { guard: GuardBinary::Program("/no/guard".into()), ..shell("") };
    assert!(matches!(Child::spawn(&spec), Err(SpawnError::Refused { .. })));
}

#[tokio::test]
async fn terminate_is_heard_by_a_polite_child() {
    let child = Child::spawn(&shell("trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done")).unwrap();
    said(&child, "up").await;
    assert_eq!(child.terminate(PATIENCE).await.code, Some(5));
    eventually("the group is gone", || !group_lives(child.pid())).await;
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed_after_the_grace() {
    for spec in [
        shell("trap '' TERM; echo up; while :; do sleep 9; done"),
        unguarded("trap '' TERM; echo up; while :; do sleep 9; done"),
    ] {
        let child = Child::spawn(&spec).unwrap();
        said(&child, "up").await;
        let asked = Instant::now();
        let exit = child.terminate(Duration::from_millis(200)).await;
        assert!(asked.elapsed() >= Duration::from_millis(200));
        assert_eq!(exit.signal, Some(9));
        eventually("the group is gone", || !group_lives(child.pid())).await;
    }
}

#[tokio::test]
async fn stragglers_end_with_their_leader() {
    let child = Child::spawn(&shell("trap '' TERM; sleep 1000 & sleep 1000 & exit 3")).unwrap();
    assert_eq!(child.wait().await.code, Some(3));
    eventually("the group is gone", || !group_lives(child.pid())).await;
}

#[tokio::test]
async fn dropping_a_child_kills_and_reaps_it() {
    for spec in [shell("sleep 1000"), unguarded("sleep 1000")] {
        let child = Child::spawn(&spec).unwrap();
        let (pid, mut exit) = (child.pid(), child.exit_watch());
        drop(child);
        exit.wait().await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the leader is reaped, not a zombie");
        eventually("the group is gone", || !group_lives(pid)).await;
    }
}

#[test]
fn a_child_does_not_outlive_the_runtime() {
    for spec in [shell("sleep 1000"), unguarded("sleep 1000")] {
        let spec = ProcessSpec { grace: Duration::from_millis(100), ..spec };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let child = runtime.block_on(async { Child::spawn(&spec).unwrap() });
        let pid = child.pid();
        assert!(group_lives(pid));
        drop(runtime);
        let polling = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        polling.block_on(eventually("the group is gone", || !group_lives(pid)));
    }
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "the parent to be killed must not be under our own guard")]
async fn sigkill_of_the_parent_leaves_no_process() {
    let mut parent = tokio::process::Command::new(FIXTURE)
        .arg("trap '' TERM; sleep 1000 & while :; do sleep 1000; done")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let group: u32 = lines.next_line().await.unwrap().unwrap().parse().unwrap();
    assert!(group_lives(group));
    parent.kill().await.unwrap();
    eventually("guard, child and grandchild are gone", || !group_lives(group)).await;
}

#[tokio::test]
async fn a_killed_guard_takes_its_child_along() {
    let child = Child::spawn(&shell("echo up; while :; do sleep 1000; done")).unwrap();
    said(&child, "up").await;
    let guard = rustix::process::Pid::from_raw(child.pid() as i32).unwrap();
    rustix::process::kill_process(guard, rustix::process::Signal::KILL).unwrap();
    assert_eq!(child.wait().await.signal, Some(9));
    eventually("the group is gone", || !group_lives(child.pid())).await;
}

#[tokio::test]
async fn a_guard_limits_its_program_and_still_ends_it() {
    let script = "ulimit -d; ulimit -c; grep -E 'NoNewPrivs|Cpus_allowed_list' /proc/self/status; echo up; \
                  trap '' TERM; sleep 1000 & while :; do sleep 1000; done";
    let limits = ProgramLimits { max_memory_bytes: Some(64 << 20), max_cpus: Some(1) };
    let child = Child::spawn(&ProcessSpec { limits: Some(limits), ..shell(script) }).unwrap();
    said(&child, "up").await;
    let lines = child.stdout_log().tail();
    assert_eq!(lines[..3], ["65536", "0", "NoNewPrivs:\t1"]);
    assert!(lines[3].rsplit('\t').next().unwrap().parse::<u32>().is_ok(), "one processor: {}", lines[3]);
    assert_eq!(child.terminate(Duration::from_millis(50)).await.signal, Some(9));
    eventually("the group is gone", || !group_lives(child.pid())).await;
    // Without limits nothing is taken away.
    let child = Child::spawn(&shell("grep NoNewPrivs /proc/self/status")).unwrap();
    assert!(child.wait().await.success());
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(own.lines().any(|line| line == child.stdout_log().tail()[0]));
}

#[tokio::test]
async fn the_program_and_all_below_it_are_found_behind_the_guard() {
    let script = "sleep 1000 & sh -c 'sleep 1000; true' & echo $$; wait";
    for (spec, guarded) in [(shell(script), true), (unguarded(script), false)] {
        let child = Child::spawn(&spec).unwrap();
        eventually("its word", || child.stdout_log().tail().len() == 1).await;
        let program = child.program().pid();
        assert_eq!(child.stdout_log().tail(), [program.to_string()]);
        assert_eq!(program != child.pid(), guarded);
        eventually("three below it", || descendants(program).len() == 3).await;
        child.kill().await;
        assert!(descendants(program).is_empty());
    }
}

#[tokio::test]
async fn a_flood_on_stderr_is_drained_in_bounded_memory() {
    let heard = Arc::new(Mutex::new(0u32));
    let count = heard.clone();
    let mut spec = shell("yes 'a line of a flood that never seems to end' | head -c 52428800 >&2; echo done");
    spec.logs =
        LogPolicy { sink: Some(Arc::new(move |_, _| *count.lock().unwrap() += 1)), ..LogPolicy::default() };
    let before = resident_bytes();
    let began = Instant::now();
    let child = Child::spawn(&spec).unwrap();
    assert!(child.wait().await.success());
    assert_eq!(child.stderr_log().seen_bytes(), 50 * 1024 * 1024);
    assert_eq!(child.stderr_log().tail().len(), 200);
    assert!(resident_bytes().saturating_sub(before) < 16 * 1024 * 1024, "memory is bounded");
    let windows = began.elapsed().as_secs() as u32 + 2;
    assert!(*heard.lock().unwrap() <= windows * 100 + 1, "forwarding is limited");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a /proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("KiB");
    kib * 1024
}

#[tokio::test]
async fn frames_go_over_descriptors_of_their_own() {
    let noise = "echo noise; echo noise >&2; cat <&4 >&5";
    for spec in [
        ProcessSpec { pipes: Pipes::Fds, ..shell(noise) },
        ProcessSpec { pipes: Pipes::Fds, ..unguarded(noise) },
        ProcessSpec { pipes: Pipes::Stdio, ..shell("cat") },
    ] {
        let mut child = Child::spawn(&spec).unwrap();
        let (mut reader, mut writer) = child.take_frames().unwrap().framed(1 << 20);
        assert!(child.take_frames().is_none());
        let bodies: Vec<Vec<u8>> = (0..200u32).map(|n| vec![n as u8; (n * 97) as usize]).collect();
        let (sent, ()) = tokio::join!(writer.send_all(&bodies), async {
            for body in &bodies {
                assert_eq!(&reader.next().await.unwrap().unwrap()[..], &body[..]);
            }
        });
        sent.unwrap();
        drop(writer);
        assert!(reader.next().await.unwrap().is_none(), "the end of our pipe ends the child");
        assert!(child.wait().await.success());
    }
}

#[tokio::test]
async fn a_child_that_writes_nonsense_is_a_typed_error() {
    let truncated = ProcessSpec { pipes: Pipes::Fds, ..shell(r"printf '\000\000\000\011half' >&5") };
    let mut child = Child::spawn(&truncated).unwrap();
    let (mut reader, _writer) = child.take_frames().unwrap().framed(1 << 20);
    assert!(matches!(reader.next().await, Err(FrameError::Truncated { have: 8, want: 13 })));
    let oversized = ProcessSpec { pipes: Pipes::Fds, ..shell(r"printf '\200\000\000\000' >&5; sleep 1000") };
    let mut child = Child::spawn(&oversized).unwrap();
    let (mut reader, _writer) = child.take_frames().unwrap().framed(1 << 20);
    assert!(matches!(reader.next().await, Err(FrameError::Oversized { len: 0x8000_0000, .. })));
}

#[tokio::test]
async fn writing_to_a_dead_child_is_closed() {
    let mut child = Child::spawn(&ProcessSpec { pipes: Pipes::Fds, ..shell("exit 0") }).unwrap();
    let (_reader, mut writer) = child.take_frames().unwrap().framed(1 << 20);
    child.wait().await;
    assert!(matches!(writer.send(b"anyone?").await, Err(FrameError::Closed)));
}

fn limits(timeout: Duration) -> RunLimits {
    RunLimits { timeout, token: CancellationToken::new() }
}

#[tokio::test]
async fn a_run_streams_its_lines_and_gives_them_back() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let keep = heard.clone();
    let on_line = Arc::new(move |stream, line: &str| keep.lock().unwrap().push(format!("{stream}: {line}")));
    let output = run_to_end(shell("echo one; echo two"), limits(PATIENCE), on_line).await.unwrap();
    assert_eq!(output.stdout, ["one", "two"]);
    assert_eq!(*heard.lock().unwrap(), ["stdout: one", "stdout: two"]);
}

#[tokio::test]
async fn a_run_that_fails_hangs_or_is_cancelled_says_so() {
    let silent = || Arc::new(|_, _: &str| ());
    match run_to_end(shell("echo no space >&2; exit 3"), limits(PATIENCE), silent()).await {
        Err(RunError::Failed { exit, tail, .. }) => {
            assert_eq!((exit.code, tail.as_str()), (Some(3), "no space"))
        }
        other => panic!("{other:?}"),
    }
    let end = run_to_end(shell("sleep 1000"), limits(Duration::from_millis(50)), silent()).await;
    assert!(matches!(end, Err(RunError::TimedOut { .. })), "{end:?}");
    let cancelled = limits(PATIENCE);
    cancelled.token.cancel();
    let end = run_to_end(shell("sleep 1000"), cancelled, silent()).await;
    assert!(matches!(end, Err(RunError::Cancelled { .. })), "{end:?}");
}

#[tokio::test]
async fn the_guard_starts_in_a_few_milliseconds() {
    let mut times = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        assert!(Child::spawn(&shell("exit 0")).unwrap().wait().await.success());
        times.push(began.elapsed());
    }
    times.sort();
    println!("spawn to reaped: fastest {:?}, median {:?}", times[0], times[5]);
    assert!(times[0] < Duration::from_millis(500), "{times:?}");
}
