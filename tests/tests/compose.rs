//! `docker-compose.yml` and `deploy/Dockerfile`, replayed without Docker: the services' own commands, on loopback, with the
//! programs that the images' entry points name, speak.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use chorus_tests::fleet::{binary, command};
use chorus_tests::{Home, chorus, poll};
use serde_json::Value;
use tokio::process::{Child, Command};
use yaml_rust2::{Yaml, YamlLoader};

const STARTS_WITHIN: Duration = Duration::from_secs(120);

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(workspace().join(file)).expect("the file is there")
}

/// The entry point of each stage of the Dockerfile.
fn entry_points() -> BTreeMap<String, String> {
    let (mut stage, mut found) = (String::new(), BTreeMap::new());
    for line in read("deploy/Dockerfile").lines() {
        if let Some((_image, name)) = line.strip_prefix("FROM ").and_then(|from| from.split_once(" AS ")) {
            stage = name.to_owned();
        }
        if let Some(entry) = line.strip_prefix("ENTRYPOINT ") {
            let words: Vec<String> = serde_json::from_str(entry).expect("an entry point is a JSON list");
            found.insert(stage.clone(), words[0].clone());
        }
    }
    found
}

fn words(list: &Yaml) -> Vec<String> {
    list.as_vec().expect("a list").iter().map(|word| word.as_str().expect("a string").to_owned()).collect()
}

/// The broker as the compose file starts it, on a free port and in a folder of the test's.
async fn start_broker(home: &Home, service: &Yaml) -> (Child, String) {
    let store = home.path().join("data").display().to_string();
    let arguments = words(&service["command"]).into_iter().map(|word| match word.as_str() {
        "/data" => store.clone(),
        "8222" => "-1".to_owned(),
        _ => word,
    });
    let server =
        std::env::var_os("CHORUS_NATS_SERVER").map_or_else(|| PathBuf::from("nats-server"), PathBuf::from);
    #[allow(clippy::disallowed_methods, reason = "the test stands where the container engine stands")]
    let mut broker = Command::new(server);
    broker.args(arguments).args(["--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir"]).arg(home.path());
    broker.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = broker.spawn().expect("nats-server starts");
    let ports = home.file(&format!("nats-server_{}.ports", child.id().expect("it runs")));
    let url = poll("the broker's address", STARTS_WITHIN, || async {
        let ports: Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
        ports["nats"][0].as_str().map(str::to_owned)
    });
    let url = url.await;
    (child, url)
}

/// A service of ours: the entry point of its stage, with the compose file's command.
fn start_service(home: &Home, service: &Yaml, entries: &BTreeMap<String, String>, url: &str) -> Child {
    let stage = service["build"]["target"].as_str().expect("a target");
    let program = binary().with_file_name(&entries[stage]);
    assert!(program.exists(), "stage {stage} starts {}, which nobody builds", program.display());
    let arguments: Vec<String> =
        words(&service["command"]).iter().map(|word| word.replace("nats://nats:4222", url)).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The environment and the folder of a command line of the test's, the program of the image.
    let prepared = command(home, &arguments);
    #[allow(clippy::disallowed_methods, reason = "the test stands where the container engine stands")]
    let mut started = Command::new(program);
    started.args(arguments).current_dir(home.path()).env_clear();
    started.envs(std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("CHORUS_")));
    for (name, value) in prepared.as_std().get_envs() {
        if let Some(value) = value {
            started.env(name, value);
        }
    }
    started.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    started.spawn().expect("the service starts")
}

#[tokio::test]
async fn what_the_compose_file_starts_speaks() {
    let compose = YamlLoader::load_from_str(&read("docker-compose.yml")).expect("the compose file is YAML");
    let services = &compose[0]["services"];
    let entries = entry_points();
    let home = Home::provisioned();
    let (_broker, url) = start_broker(&home, &services["nats"]).await;
    let _manager = start_service(&home, &services["manager"], &entries, &url);
    let _worker = start_service(&home, &services["worker"], &entries, &url);
    poll("a fleet that can speak", STARTS_WITHIN, || async {
        let status = chorus(&home, &["status", "--nats", &url]).await;
        (status.code == 0).then_some(())
    })
    .await;
    let said = chorus(&home, &["say", "hello", "--nats", &url, "-o", "hello.wav"]).await.ok();
    let wav = std::fs::read(home.file("hello.wav")).unwrap_or_else(|e| panic!("{e}: {}", said.stderr));
    assert!(wav.starts_with(b"RIFF") && wav.len() > 10_000, "{} bytes", wav.len());
}
