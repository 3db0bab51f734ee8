//! Two at once, one cancelled, one killed: whatever happens in the middle, only finished work counts.

use std::path::PathBuf;
use std::process::Stdio;

use chorus_provision::{Provided, Provisioner, Quiet};

use crate::support::{self, LIGHT, Machine, Memory, until};

/// The folder of the machine on which [`provisions_in_a_process_of_its_own`] works; absent in an ordinary run.
const MACHINE: &str = "CHORUS_TEST_MACHINE";

/// Makes uv say that it is at work, and stay so until its parent is gone.
fn stay_at_work(machine: &Machine) {
    let pid = machine.path("uv.pid").display().to_string();
    machine.uv(&format!(
        "echo $$ > {pid}.draft; mv {pid}.draft {pid}; while kill -0 $PPID; do sleep 0.02; done"
    ));
}

async fn pid_of_uv(machine: &Machine) -> u32 {
    let file = machine.path("uv.pid");
    until("uv is at work", || file.exists()).await;
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Whether a process runs; one that ended and was not waited for does not.
fn runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z')))
}

/// Lets the first do the work while the second waits for it; what each was given.
async fn at_once(
    machine: &Machine,
    first: &Provisioner,
    second: &Provisioner,
    memory: &Memory,
) -> [Provided; 2] {
    let go = machine.path("go");
    machine.uv(&format!(": > {0}.at-work; while ! [ -e {0} ]; do sleep 0.02; done", go.display()));
    let second_waits = async {
        until("uv is at work", || machine.path("go.at-work").exists()).await;
        let (provided, ()) = tokio::join!(second.provide(LIGHT), async {
            until("the second waits", || memory.heard("waiting for")).await;
            std::fs::write(&go, "").unwrap();
        });
        provided.unwrap()
    };
    let (one, other) = tokio::join!(first.provide(LIGHT), second_waits);
    assert_eq!(machine.uv_runs("pip sync"), 1);
    [one.unwrap(), other]
}

#[tokio::test]
async fn two_at_once_do_the_work_once_and_the_second_says_for_whom_it_waits() {
    let machine = Machine::new();
    let ((first, _), (second, memory)) = (machine.provisioner(), machine.provisioner());
    let [one, other] = at_once(&machine, &first, &second, &memory).await;
    assert_eq!(one, other);
    assert!(memory.heard(&format!("waiting for process {}", std::process::id())));
}

#[tokio::test]
async fn homes_that_share_their_folders_by_links_wait_for_each_other() {
    let machine = Machine::new();
    let ((first, _), (second, memory)) = (machine.provisioner(), machine.linked_provisioner());
    at_once(&machine, &first, &second, &memory).await;
}

#[tokio::test]
async fn a_cancelled_run_ends_its_installer_and_leaves_nothing_that_counts() {
    let machine = Machine::new();
    stay_at_work(&machine);
    let (provisioner, _) = machine.provisioner();
    let pid = tokio::select! {
        _ = provisioner.provide(LIGHT) => panic!("uv is not done"),
        pid = pid_of_uv(&machine) => pid,
    };
    until("uv is gone", || !runs(pid)).await;
    assert_eq!(provisioner.installed(LIGHT), None);
    machine.uv("true");
    provisioner.provide(LIGHT).await.unwrap();
}

#[tokio::test]
async fn a_killed_run_frees_the_lock_and_leaves_nothing_that_counts() {
    let machine = Machine::new();
    stay_at_work(&machine);
    #[allow(clippy::disallowed_methods, reason = "this test program again, to be killed")]
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["interruption::provisions_in_a_process_of_its_own", "--exact"])
        .env(MACHINE, machine.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = pid_of_uv(&machine).await;
    child.kill().await.unwrap();
    until("uv is gone", || !runs(pid)).await;

    machine.uv("true");
    let (provisioner, memory) = machine.provisioner();
    assert!(machine.path("home/env").exists(), "it was in the middle");
    assert_eq!(provisioner.installed(LIGHT), None);
    provisioner.provide(LIGHT).await.unwrap();
    assert!(!memory.heard("waiting for"), "the lock of the dead is free");
}

/// Does nothing in an ordinary run; it is the process that the test above starts and kills.
#[tokio::test]
async fn provisions_in_a_process_of_its_own() {
    if let Some(root) = std::env::var_os(MACHINE).map(PathBuf::from) {
        let provisioner = Provisioner::new(support::config(&root), std::sync::Arc::new(Quiet));
        provisioner.provide(LIGHT).await.unwrap();
    }
}
