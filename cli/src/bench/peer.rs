//! The peer: Coqui's own `tts-server` on the same voice, started beside the fleet and asked over HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chorus_provision::{Profile, Want};
use chorus_runtime::process::{Child, ProcessSpec, spec::USUAL_ENV};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::app::Context;
use crate::error::CliError;
use crate::fleet::parts;
use crate::fleet::scratch::Scratch;

/// Importing its libraries and loading the voice takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Time between two looks for its port.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What one request may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(5);

/// Its own program, but for where it listens: on loopback, on a port that it chooses and tells.
const PROGRAM: &str = r#"
import sys
port_file = sys.argv.pop()
from TTS.server.server import app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app, threaded=True)
with open(port_file + ".new", "w") as file:
    file.write(str(server.port))
import os
os.rename(port_file + ".new", port_file)
server.serve_forever()
"#;

/// A running `tts-server`.
pub struct TtsServer {
    child: Child,
    address: SocketAddr,
    _scratch: Scratch,
}

impl TtsServer {
    /// Starts it on the demo voice, in the environment that the tests have (its flask is locked there).
    ///
    /// # Errors
    /// When the environment cannot be had, or it ends or is not ready in time: the last lines that it said are told.
    pub async fn start(context: &Context) -> Result<Self, CliError> {
        let want = Want { nats_server: false, engine: Some(Profile::Test), voice: true };
        let provided =
            parts::provisioner(&context.config, &context.environment, context.ui)?.provide(want).await?;
        let (Some(engine), Some(voice)) = (provided.engine, provided.voice) else {
            return Err(failed("its environment was not provided".into()));
        };
        let scratch = Scratch::new(&context.environment.temporary()).await?;
        let port_file = scratch.path().join("port");
        let file = |name: &str| voice.path.join(name).into_os_string();
        let spec = ProcessSpec::new("tts-server", engine.python)
            .args(["-c", PROGRAM, "--model_path"])
            .args([file("model.pth"), "--config_path".into(), file("config.json")])
            .args([port_file.clone()])
            .allow_env(context.environment.pairs(), USUAL_ENV);
        let child = Child::spawn(&spec).map_err(|error| failed(error.to_string()))?;
        let address = port(&child, port_file).await?;
        Ok(Self { child, address, _scratch: scratch })
    }

    /// Asks for a text; the milliseconds until the whole wav is there.
    ///
    /// # Errors
    /// When it answers with anything else than audio.
    pub async fn speak(&self, text: &str) -> Result<f64, CliError> {
        let begun = Instant::now();
        let asking = ask(self.address, text);
        let bytes = tokio::time::timeout(ANSWERED_WITHIN, asking)
            .await
            .map_err(|_elapsed| failed(format!("no answer within {ANSWERED_WITHIN:?}")))??;
        if !bytes.starts_with(b"RIFF") {
            return Err(failed(format!("{} bytes that are no wav", bytes.len())));
        }
        Ok(begun.elapsed().as_secs_f64() * 1000.0)
    }

    /// Ends it.
    pub async fn stop(self) {
        self.child.terminate(GRACE).await;
    }
}

async fn port(child: &Child, file: PathBuf) -> Result<SocketAddr, CliError> {
    let mut exit = child.exit_watch();
    let told = async {
        loop {
            if let Ok(text) = tokio::fs::read_to_string(&file).await
                && let Ok(port) = text.parse()
            {
                return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        address = tokio::time::timeout(READY_WITHIN, told) =>
            address.map_err(|_elapsed| failed(format!("not ready within {READY_WITHIN:?}"))),
        exit = exit.wait() => {
            let said = child.stderr_log().text();
            Err(failed(format!("it ended ({exit}); it needs the program espeak-ng (Debian: apt-get install espeak-ng)\n{said}")))
        }
    }
}

async fn ask(address: SocketAddr, text: &str) -> Result<Bytes, CliError> {
    let http = |error: hyper::Error| failed(error.to_string());
    let stream = TcpStream::connect(address).await.map_err(CliError::io("cannot reach tts-server"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    // In a header, as its own page sends it.
    let request = Request::get("/api/tts")
        .header("host", address.to_string())
        .header("text", text)
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(http)?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(failed(format!("HTTP {status}"))) }
    };
    let (answered, _ended) = tokio::join!(answered, connection);
    answered
}

fn failed(why: String) -> CliError {
    CliError::Fleet { part: "tts-server", why }
}
