//! Durable jobs: a manager is killed in the middle, another goes on, and no stored segment is spoken twice.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use chorus_protocol::durable::DurableJob;
use chorus_protocol::job::Outcome;
use chorus_protocol::{codec, names};
use chorus_tests::fleet::{command, signal};
use chorus_tests::{Home, checkable, chorus, poll, wav};
use futures::StreamExt;
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Child;

const LIMIT: Duration = Duration::from_secs(60);
const SEGMENTS: usize = 12;

/// A broker, two managers and a worker, each a process of its own. All end when it is dropped.
struct Parts {
    home: Home,
    url: String,
    managers: Vec<(String, Child)>,
    _others: Vec<Child>,
}

impl Parts {
    async fn start() -> Self {
        let home = Home::provisioned();
        let setup = chorus(&home, &["setup", "--profile", "light", "--json"]).await.ok().json();
        let (broker, url) = broker(&home, setup["natsServer"].as_str().unwrap()).await;
        let part = |args: &[&str]| {
            let log = std::fs::File::create(home.file(&format!("{}.log", args.join("-")))).unwrap();
            let mut part = command(&home, args);
            part.args(["--nats", &url]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
        };
        let managers = ["m1", "m2"].map(|id| (id.to_owned(), part(&["manager", "--id", id]))).into();
        let worker = part(&["worker", "--id", "w1", "--engine", "checkable"]);
        let parts = Self { home, url, managers, _others: vec![broker, worker] };
        let add = ["models", "add", "checkable", "--engine", "checkable", "--default"];
        poll("the catalogue takes the model", LIMIT, || async {
            (parts.try_ask(&add).await.is_some()).then_some(())
        })
        .await;
        poll("the worker can speak", LIMIT, || async { parts.try_ask(&["status"]).await }).await;
        parts
    }

    async fn try_ask(&self, args: &[&str]) -> Option<Value> {
        let ran = chorus(&self.home, &[args, &["--nats", &self.url, "--json"]].concat()).await;
        (ran.code == 0).then(|| ran.json())
    }

    async fn ask(&self, args: &[&str]) -> Value {
        chorus(&self.home, &[args, &["--nats", &self.url, "--json"]].concat()).await.ok().json()
    }

    async fn when(&self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        poll(what, LIMIT, || async { Some(self.ask(&["jobs", "status", id]).await).filter(&holds) }).await
    }

    /// Kills the manager that has the job.
    fn kill(&self, manager: &str) {
        let (_, child) = self.managers.iter().find(|(id, _)| id == manager).unwrap();
        signal(child.id().unwrap(), Signal::KILL);
    }
}

async fn broker(home: &Home, program: &str) -> (Child, String) {
    let folder = home.file("broker");
    std::fs::create_dir(&folder).unwrap();
    #[allow(clippy::disallowed_methods, reason = "a broker that belongs to nobody")]
    let child = tokio::process::Command::new(program)
        .args(["--jetstream", "--addr", "127.0.0.1", "--port", "-1"])
        .args([std::path::Path::new("--ports_file_dir"), &folder])
        .args([std::path::Path::new("--store_dir"), &folder])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = poll("the broker names its port", LIMIT, || async {
        let files = std::fs::read_dir(&folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let file = files.filter(|path| path.extension().is_some_and(|e| e == "ports")).last()?;
        let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        Some(ports["nats"][0].as_str()?.to_owned())
    })
    .await;
    (child, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_manager_costs_a_durable_job_nothing_that_was_stored() {
    let parts = Parts::start().await;
    let client = async_nats::connect(&parts.url).await.unwrap();
    let mut outcomes = client.subscribe(names::event_subject("outcome")).await.unwrap();
    client.flush().await.unwrap();

    let said: Vec<String> = (0..SEGMENTS).map(|i| format!("This is part {i} of it.")).collect();
    let text: String = said.iter().map(|part| format!("[[slow ms=300]]{part} ")).collect();
    std::fs::write(parts.home.file("book.txt"), &text).unwrap();
    let submit = ["jobs", "submit", "--file", "book.txt", "--id", "book"];
    let submitted = parts.ask(&submit).await;
    assert_eq!(parts.ask(&submit).await["createdMs"], submitted["createdMs"], "the same id is the same job");
    let other = ["jobs", "submit", "Another text.", "--id", "book"];
    assert!(parts.try_ask(&other).await.is_none(), "another text under the same id is refused");

    let speaking =
        parts.when("book", "some of it is stored", |job| job["segments"].as_u64() >= Some(3)).await;
    parts.kill(speaking["manager"].as_str().unwrap());
    let done =
        parts.when("book", "it is over", |job| job["state"] != "speaking" && job["state"] != "queued").await;
    assert_eq!(
        (&done["state"], done["segments"].as_u64()),
        (&"done".into(), Some(SEGMENTS as u64)),
        "{done}"
    );
    parts.ask(&["jobs", "fetch", "book", "-o", "book.wav"]).await;
    let wav = wav::parse(&std::fs::read(parts.home.file("book.wav")).unwrap());
    checkable::assert_spoken(&wav.samples, &said.iter().map(String::as_str).collect::<Vec<_>>());

    let bucket =
        async_nats::jetstream::new(client.clone()).get_key_value(names::DURABLE_JOBS_BUCKET).await.unwrap();
    let key =
        names::encode_token(&names::durable_job_key(names::DEFAULT_PRINCIPAL, &"book".parse().unwrap()));
    let record = bucket.get(format!("{}.{key}", names::JOB_RECORDS)).await.unwrap().unwrap();
    let record: DurableJob = serde_json::from_slice(&record).unwrap();
    let takes = &record.progress.takes;
    assert_eq!(takes.len(), 2, "one manager began, one went on: {takes:?}");
    let stored_before = takes[0].pieces;
    assert!((3..SEGMENTS as u32).contains(&stored_before), "{takes:?}");

    client.flush().await.unwrap();
    let mut spoken_after = BTreeSet::new();
    let mut first_session = None;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), outcomes.next()).await {
        let run = codec::decode::<Outcome>(&event.payload, codec::MAX_MESSAGE_BYTES).unwrap().payload.run;
        if run.session != *first_session.get_or_insert(run.session) {
            assert!(run.segment >= stored_before, "segment {} was stored and is spoken again", run.segment);
            assert!(spoken_after.insert(run.segment), "segment {} is spoken twice", run.segment);
        }
    }
    assert_eq!(spoken_after, (stored_before..SEGMENTS as u32).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_frees_its_worker() {
    let parts = Parts::start().await;
    let text: String = (0..50).map(|i| format!("[[slow ms=300]]This is part {i} of it. ")).collect();
    parts.ask(&["jobs", "submit", &text, "--id", "long"]).await;
    parts.when("long", "it is being spoken", |job| job["segments"].as_u64() >= Some(1)).await;
    assert_eq!(parts.ask(&["jobs", "cancel", "long"]).await["state"], "cancelled");
    poll("the worker is free and the queue empty", Duration::from_secs(5), || async {
        let status = parts.ask(&["status"]).await;
        (status["workers"][0]["inFlight"] == 0 && status["models"][0]["queued"] == 0).then_some(())
    })
    .await;
    let fetched = chorus(&parts.home, &["jobs", "fetch", "long", "-o", "x.wav", "--nats", &parts.url]).await;
    assert_ne!(fetched.code, 0);
    assert!(fetched.stderr.contains("cancelled"), "{}", fetched.stderr);
    let jobs = parts.ask(&["jobs", "list"]).await;
    assert_eq!(jobs["jobs"][0]["job"], "long");
}
