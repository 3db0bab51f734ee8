//! The nats-server that chorus starts: a child process on loopback, supervised, its store where its fleet wants it.
//!
//! The server chooses a free port itself and tells it in a file (`--ports_file_dir`), so nothing races for it; begun again
//! after a crash it keeps the port, and every client finds it back. It counts as ready when it has told its port and
//! greets on it.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chorus_runtime::process::supervisor::RestartPolicy;
use chorus_runtime::process::supervisor::{
    Ended, Event, HandshakeError, Launch, Supervisor, SupervisorConfig, supervise,
};
use chorus_runtime::process::{Child, Exit, ProcessSpec, SpawnError, spec::USUAL_ENV};
use chorus_runtime::task::{self, FailureMeans, TaskHandle};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Notice, Notices};
use crate::error::CliError;

/// Time between two looks for the server's port.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What the start of a server may take; a large store on a slow disk is read back in this time.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);
/// The largest message, as NATS itself has it by default (DESIGN.md relies on it).
const MAX_PAYLOAD: &str = "1MB";

/// Which port the server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Whichever is free.
    Any,
    /// This one when it is free, else whichever is.
    Preferred(u16),
    /// This one.
    Fixed(u16),
}

/// A server of our own.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The program.
    pub program: PathBuf,
    /// Where JetStream keeps its files.
    pub store: PathBuf,
    /// A folder for its configuration and the file with its port; nobody else's.
    pub work: PathBuf,
    /// Its port.
    pub port: Port,
    /// What clients must show.
    pub token: Option<String>,
    /// Our environment, of which it gets the usual part.
    pub environment: Vec<(OsString, OsString)>,
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Starting,
    Ready(String),
    Gone(String),
}

/// A running server.
pub struct Broker {
    state: watch::Receiver<State>,
    stop: CancellationToken,
    supervisor: TaskHandle<()>,
    /// Ends with the supervisor, whose events it reads.
    _follower: TaskHandle<()>,
}

/// Waits for the end of a server that an earlier, killed command has left on this store: its guard ends it within the grace,
/// and two must not write one store. It removes its file as its last act; a file that stays without a server that greets is
/// stale.
pub async fn previous_ended(work: &Path) {
    const POLLS: u32 = 120;
    const SILENT_POLLS: u32 = 10;
    let mut silent = 0;
    for _ in 0..POLLS {
        let Some(port) = told_port(work) else { return };
        silent = if greets(port).await { 0 } else { silent + 1 };
        if silent == SILENT_POLLS {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tracing::warn!("another server still greets on the port of an earlier one; it is taken for a stranger");
}

impl Broker {
    /// Begins to start the server; see [`Broker::ready`].
    pub fn launch(
        config: BrokerConfig,
        notices: Notices,
        root: &CancellationToken,
    ) -> Result<Self, CliError> {
        let port = choose(config.port)?;
        let file = write_config(&config)?;
        let stop = root.child_token();
        let settings = SupervisorConfig {
            name: "nats-server".into(),
            restart: RestartPolicy::default(),
            ready_within: READY_WITHIN,
            grace: GRACE,
        };
        let preferred = matches!(config.port, Port::Preferred(_));
        let launch = ServerLaunch { config, file, port, may_move: preferred || port.is_none() };
        let Supervisor { handle: _, events, task: supervisor } = supervise(settings, stop.clone(), launch);
        let (publish, state) = watch::channel(State::Starting);
        let follower = task::spawn(
            "broker",
            CancellationToken::new(),
            FailureMeans::Log,
            follow(events, publish, notices),
        );
        Ok(Self { state, stop, supervisor, _follower: follower })
    }

    /// Waits until it greets; its address.
    pub async fn ready(&mut self) -> Result<String, CliError> {
        let failed = |why: String| CliError::Fleet { part: "nats-server", why };
        let state = self.state.wait_for(|state| *state != State::Starting).await;
        match state.as_deref() {
            Ok(State::Ready(url)) => Ok(url.clone()),
            Ok(State::Gone(why)) => Err(failed(why.clone())),
            Ok(State::Starting) | Err(_) => Err(failed("it was stopped before it was ready".into())),
        }
    }

    /// Ends it: SIGTERM, its grace, SIGKILL.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.supervisor.await {
            tracing::warn!(%error, "the supervisor of nats-server did not end well");
        }
    }
}

/// The port to ask for; `None` lets the server choose.
fn choose(port: Port) -> Result<Option<u16>, CliError> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match port {
        Port::Any => Ok(None),
        Port::Preferred(port) => Ok(free(port).ok().map(|_| port)),
        Port::Fixed(port) => match free(port) {
            Ok(_) => Ok(Some(port)),
            Err(source) => Err(CliError::Port { port, source }),
        },
    }
}

fn write_config(config: &BrokerConfig) -> Result<PathBuf, CliError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    for folder in [&config.store, &config.work] {
        std::fs::create_dir_all(folder).map_err(CliError::io(format!("cannot make {}", folder.display())))?;
    }
    let file = config.work.join("nats.conf");
    let text = config_text(&config.store, config.token.as_deref());
    // It may hold a token: nobody else reads it.
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file);
    open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(CliError::io(format!("cannot write {}", file.display())))?;
    Ok(file)
}

fn config_text(store: &Path, token: Option<&str>) -> String {
    // JSON's strings are read by the server's own format.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let store = quoted(&store.to_string_lossy());
    let mut text = format!(
        "host: \"127.0.0.1\"\nmax_payload: {MAX_PAYLOAD}\nping_interval: \"5s\"\nping_max: 2\n\
         jetstream {{ store_dir: {store} }}\n"
    );
    if let Some(token) = token {
        text.push_str(&format!("authorization {{ token: {} }}\n", quoted(token)));
    }
    text
}

struct ServerLaunch {
    config: BrokerConfig,
    file: PathBuf,
    port: Option<u16>,
    /// Whether another port will do, as long as nobody knows this one.
    may_move: bool,
}

impl Launch for ServerLaunch {
    type Ready = String;

    fn start(&mut self, run: u64) -> Result<Child, SpawnError> {
        if run > 1 && self.may_move {
            self.port = None;
        }
        remove_port_files(&self.config.work);
        let port = self.port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
        let spec = ProcessSpec::new("nats-server", &self.config.program)
            .args(["-c".into(), self.file.clone().into_os_string(), "-p".into(), port.into()])
            .args(["--ports_file_dir".into(), self.config.work.clone().into_os_string()])
            .allow_env(self.config.environment.iter().cloned(), USUAL_ENV);
        Child::spawn(&ProcessSpec { grace: GRACE, ..spec })
    }

    async fn handshake(&mut self, child: Child) -> Result<(Child, String), HandshakeError> {
        let port = loop {
            match told_port(&self.config.work) {
                Some(port) if greets(port).await => break port,
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        (self.port, self.may_move) = (Some(port), false);
        Ok((child, format!("nats://127.0.0.1:{port}")))
    }
}

fn port_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_port_file = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "ports");
    entries.map(|entry| entry.path()).filter(is_port_file).collect()
}

/// What an earlier server has left would be taken for this one's.
fn remove_port_files(folder: &Path) {
    for file in port_files(folder) {
        if let Err(error) = std::fs::remove_file(&file) {
            tracing::warn!(file = %file.display(), %error, "an old file with a port was not removed");
        }
    }
}

/// `{"nats": ["nats://127.0.0.1:4222"], …}`, as the server writes it.
#[derive(Deserialize)]
struct PortFile {
    nats: Vec<String>,
}

fn told_port(folder: &Path) -> Option<u16> {
    port_files(folder).iter().find_map(|file| {
        // A file that is being written does not parse, and is looked at again.
        let told: PortFile = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        told.nats.iter().find_map(|url| url.rsplit_once(':')?.1.parse().ok())
    })
}

/// Whether a NATS server answers on the port: it speaks first, with `INFO`.
async fn greets(port: u16) -> bool {
    let greeting = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        std::io::Result::Ok(&word == b"INFO")
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), greeting).await, Ok(Ok(true)))
}

async fn follow(mut events: mpsc::Receiver<Event<String>>, publish: watch::Sender<State>, notices: Notices) {
    let last_words = Arc::new(Mutex::new(String::new()));
    while let Some(event) = events.recv().await {
        match event {
            Event::Started { run, pid } => tracing::debug!(run, pid, "nats-server started"),
            Event::Ready { run, ready } => {
                if run > 1 {
                    notices.tell(Notice::News(format!("nats-server is back at {ready}")));
                }
                publish.send_replace(State::Ready(ready));
            }
            Event::Exited { ended: Ended::Stopped, .. } => {}
            Event::Exited { exit, ended, stderr_tail, .. } => {
                let why = why(exit, &ended, &stderr_tail);
                last_words.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&why);
                notices.tell(Notice::Trouble(format!("nats-server ended: {why}")));
                if matches!(ended, Ended::NotStarted(_)) {
                    publish.send_replace(State::Gone(why));
                }
            }
            Event::Restarting { .. } => {}
            Event::GaveUp { failures } => {
                let last = last_words.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let why = format!("it ended {failures} times within a minute, at last: {last}");
                publish.send_replace(State::Gone(why.clone()));
                notices.tell(Notice::Fatal { part: "nats-server", why });
            }
        }
    }
}

fn why(exit: Option<Exit>, ended: &Ended, stderr_tail: &[String]) -> String {
    let how = match ended {
        Ended::NotStarted(error) => return error.to_string(),
        Ended::HandshakeTimedOut => format!("it did not greet within {} s", READY_WITHIN.as_secs()),
        _ => exit.unwrap_or(Exit::UNKNOWN).to_string(),
    };
    // Its log says in one line why it cannot go on; what comes before is its banner.
    match stderr_tail.iter().rev().find(|line| line.contains("[FTL]") || line.contains("nats-server:")) {
        Some(line) => format!("{how}: {line}"),
        None => how,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_quotes_what_it_is_given() {
        let text = config_text(Path::new("/a \"b\"/nats"), Some("t0k\"en"));
        assert!(text.contains(r#"store_dir: "/a \"b\"/nats""#), "{text}");
        assert!(text.contains(r#"token: "t0k\"en""#), "{text}");
        assert!(!config_text(Path::new("/s"), None).contains("authorization"));
    }

    #[test]
    fn the_port_is_read_from_the_servers_own_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(told_port(folder.path()), None);
        let file = folder.path().join("nats-server_7.ports");
        std::fs::write(&file, "{\"nats\": [\"nats://127.0.0.1:40").unwrap();
        assert_eq!(told_port(folder.path()), None, "half a file");
        std::fs::write(&file, r#"{"nats": ["nats://127.0.0.1:40321"], "monitoring": []}"#).unwrap();
        assert_eq!(told_port(folder.path()), Some(40_321));
        remove_port_files(folder.path());
        assert_eq!(told_port(folder.path()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_before_is_waited_for_unless_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        previous_ended(folder.path()).await;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let stale = format!(r#"{{"nats": ["nats://{free}"]}}"#);
        std::fs::write(folder.path().join("nats-server_7.ports"), stale).unwrap();
        previous_ended(folder.path()).await;
    }

    #[test]
    fn a_taken_port_is_refused_when_it_is_asked_for_and_left_when_it_is_preferred() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(choose(Port::Preferred(port)).unwrap(), None);
        assert!(matches!(choose(Port::Fixed(port)), Err(CliError::Port { .. })));
        assert_eq!(choose(Port::Any).unwrap(), None);
    }

    #[test]
    fn the_reason_of_an_end_is_the_servers_own_last_word() {
        let tail =
            ["[1] [INF] Starting".to_owned(), "[1] [FTL] Can't start JetStream".into(), "[1] [INF] x".into()];
        assert_eq!(
            why(Some(Exit { code: Some(1), signal: None }), &Ended::Exited, &tail),
            "exit code 1: [1] [FTL] Can't start JetStream"
        );
        assert_eq!(why(None, &Ended::Exited, &[]), "unknown exit");
    }
}
