//! An engine of an older protocol in the place of one that speaks frames.
//!
//! ```text
//!   Link ◄─ frames (2.1) ─► translator ◄─ lines (1.0, 2.0) ─► any script that reads stdin and answers on stdout
//! ```
//! The rest of the worker knows nothing of it. The script is asked to speak into a file; the translator reads the file,
//! checks it and sends its samples on as pieces. What the script lacks is declared at the handshake: speed and pitch are
//! emulated on its audio, there is no streaming, and what is given up while it is spoken is finished and thrown away (a
//! script that takes longer than the worker's patience is replaced like any engine that hangs). It is spoken to one text at
//! a time, unless a 2.0 script says that it has more lanes. What it prints between its answers is logged.

pub mod audio;
mod talk;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use chorus_protocol::adapt::engine::{self, Line, Question, Spoken, capabilities};
use chorus_protocol::fleet::Device;
use chorus_protocol::pipe::{
    Capabilities, EngineEvent, EngineInfo, EngineRequest, HelloAnswer, LoadAnswer, UnloadAnswer,
};
use chorus_protocol::{MessageId, Reason, ServiceError, version};
use chorus_runtime::clock::SharedClock;
use chorus_runtime::process::{FramePipe, Line as Read, LineReader, Program};
use chorus_runtime::task::{self, FailureMeans};
use serde_json::json;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use talk::{Asked, Speaking, Talk};

/// The longest line that a script may write, in bytes: audio inside an answer.
const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;
/// What may wait in memory between the translator and the link, in bytes.
const PIPE_BYTES: usize = 256 * 1024;
/// How often a script at work counts as progress, and its time-outs are looked at.
const TICK: Duration = Duration::from_millis(500);
/// A script that does not answer `hello` for so long is asked as one of 1.0; it may be loading its model first.
const PROBE: Duration = Duration::from_secs(5);
/// After both questions, how long the second answer is waited for.
const SETTLE: Duration = Duration::from_millis(300);
/// Lines of noise that are logged at info level; those after them at debug level.
const LOUD_NOISE: u32 = 100;
/// What is spoken to learn the rate of a voice.
const WARM_UP: &str = "Hello.";

/// What a translator is told.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// The worker, for the script's log.
    pub(super) worker: String,
    /// The kind of engine.
    pub(super) kind: String,
    /// The command, for people.
    pub(super) command: String,
    /// The script's process.
    pub(super) program: Program,
    /// How long one text may take.
    pub(super) silence: Duration,
}

/// Puts a translator before a script; our ends of its frames.
///
/// # Errors
/// When there is no place for the script's files.
pub(super) fn translate(
    config: Config,
    pipe: FramePipe,
    clock: SharedClock,
) -> io::Result<(DuplexStream, DuplexStream)> {
    let folder = tempfile::Builder::new().prefix("chorus-engine-").tempdir()?;
    let ((near_in, answers), (near_out, requests)) = (duplex(PIPE_BYTES), duplex(PIPE_BYTES));
    let translator = Translator {
        talk: Talk::new(requests, answers, clock),
        lines: LineReader::new(pipe.reader, MAX_LINE_BYTES),
        script: pipe.writer,
        version: None,
        capabilities: Capabilities::default(),
        hello: None,
        asked_both: false,
        noise: 0,
        files: 0,
        folder: folder.path().to_owned(),
        config,
    };
    let translating = async move {
        let why = translator.run().await;
        tracing::debug!(?why, "the translator of an old engine has ended");
        drop(folder);
    };
    // Ends with either side: the process, or the link.
    drop(task::spawn("engine-translator", CancellationToken::new(), FailureMeans::Log, translating));
    Ok((near_in, near_out))
}

/// Why a conversation is over.
#[derive(Debug)]
enum Over {
    /// The link was closed.
    Link,
    /// The script closed its end, or reads no more.
    Script,
    /// The script broke the protocol, or hangs.
    Broken(String),
}

struct Translator {
    config: Config,
    talk: Talk,
    lines: LineReader<pipe::Receiver>,
    script: pipe::Sender,
    version: Option<Spoken>,
    capabilities: Capabilities,
    /// The worker's hello, until it is answered, and when it came.
    hello: Option<(MessageId, tokio::time::Instant)>,
    asked_both: bool,
    noise: u32,
    files: u64,
    folder: PathBuf,
}

impl Translator {
    async fn run(mut self) -> Over {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                request = self.talk.next() => match request {
                    Some(asked) => self.asked(asked).await,
                    None => return Over::Link,
                },
                line = self.lines.next() => match line {
                    Ok(Some(line)) => self.line(line).await,
                    Ok(None) | Err(_) => return Over::Script,
                },
                _ = tick.tick() => self.tick().await,
            };
            let step = match step {
                Ok(()) => self.speak_on().await,
                over => over,
            };
            if let Err(over) = step {
                if let Over::Broken(why) = &over {
                    tracing::warn!(engine = %self.config.command, %why, "an old engine is given up");
                }
                return over;
            }
        }
    }

    async fn asked(&mut self, asked: Asked) -> Result<(), Over> {
        let Asked { id, request } = asked;
        match request {
            EngineRequest::Hello { .. } => {
                self.hello = Some((id, tokio::time::Instant::now()));
                self.write(&Question::Hello { worker: self.config.worker.clone() }, MessageId::fresh()).await
            }
            // A script at work cannot answer; that it works is watched over here.
            EngineRequest::Ping => self.talk.answer(&id, json!({"method": "ping"})).await,
            EngineRequest::Load { .. } => {
                self.talk.queue.push_back(Speaking::warm_up(id, WARM_UP));
                Ok(())
            }
            EngineRequest::Unload { .. } => self.talk.answer(&id, UnloadAnswer::default()).await,
            EngineRequest::Synthesize(speech) => {
                self.talk.queue.push_back(Speaking::of(id, *speech));
                Ok(())
            }
            EngineRequest::Cancel { message_id } => self.cancel(&message_id).await,
            EngineRequest::Shutdown => self.write(&Question::Shutdown, MessageId::fresh()).await,
        }
    }

    async fn cancel(&mut self, id: &MessageId) -> Result<(), Over> {
        if self.talk.unqueue(id) {
            let error = ServiceError::new(Reason::Cancelled, "given up before it was begun");
            return self.talk.fail(id, error).await;
        }
        match self.talk.give_up(id) {
            Some(line) if self.capabilities.cancel => {
                self.write(&Question::Cancel(line), MessageId::fresh()).await
            }
            _ => Ok(()),
        }
    }

    /// Asks for the next texts, as many as the script takes at once.
    async fn speak_on(&mut self) -> Result<(), Over> {
        while self.version.is_some() && self.talk.speaking.len() < self.capabilities.lanes.max(1) as usize {
            let Some(mut next) = self.talk.queue.pop_front() else { return Ok(()) };
            let (path, line) = (self.folder.join(format!("{}.wav", self.files)), MessageId::fresh());
            self.files += 1;
            let question =
                Question::Speak(Box::new(next.for_script(&self.capabilities)), path.display().to_string());
            next.begins(line.clone(), path);
            self.talk.speaking.push_back(next);
            self.write(&question, line).await?;
        }
        Ok(())
    }

    async fn line(&mut self, line: Read) -> Result<(), Over> {
        let line = match line {
            Read::Whole(line) => line,
            Read::TooLong { len } => return self.noise(&format!("(a line of {len} bytes)")),
        };
        match engine::read(&line, MAX_LINE_BYTES) {
            Line::Noise => self.noise(&String::from_utf8_lossy(&line)),
            Line::Event => Ok(()),
            Line::Answer { version, what, .. } if self.version.is_none() => {
                self.capabilities = capabilities(version, what.as_ref().ok());
                self.version = Some(version);
                if self.asked_both { Ok(()) } else { self.greet().await }
            }
            // The second answer to a greeting in two versions.
            Line::Answer { .. } if self.hello.is_some() => Ok(()),
            Line::Answer { to, what, .. } => {
                let Some(spoken) = self.talk.take(to.as_ref()) else {
                    return self.noise("(an answer to no question)");
                };
                self.spoken(spoken, what).await
            }
        }
    }

    fn noise(&mut self, text: &str) -> Result<(), Over> {
        let shown: String = text.chars().take(200).collect();
        self.noise = self.noise.saturating_add(1);
        if self.noise <= LOUD_NOISE {
            tracing::info!(engine = %self.config.command, "printed: {shown}");
        } else {
            tracing::debug!(engine = %self.config.command, "printed: {shown}");
        }
        Ok(())
    }

    async fn greet(&mut self) -> Result<(), Over> {
        let (Some((id, _)), Some(version)) = (self.hello.take(), self.version) else { return Ok(()) };
        let spoken = match version {
            Spoken::V1 => "1.0",
            Spoken::V2 => "2.0",
        };
        tracing::info!(engine = %self.config.command, version = spoken, "an old engine says hello");
        let answer = HelloAnswer {
            version: version::V2_1,
            engine: EngineInfo {
                name: self.config.kind.clone(),
                version: spoken.to_owned(),
                library: self.config.command.clone(),
            },
            pid: self.config.program.pid(),
            device: Device { kind: "unknown".into(), ..Device::default() },
            // Speed and pitch are made here where the script has none.
            capabilities: Capabilities { speed: true, pitch: true, ..self.capabilities.clone() },
        };
        self.talk.answer(&id, answer).await
    }

    async fn tick(&mut self) -> Result<(), Over> {
        if let Some((_, since)) = &self.hello {
            let waited = since.elapsed();
            if self.asked_both && self.version.is_some() {
                tokio::time::sleep(SETTLE).await;
                return self.greet().await;
            }
            if waited > PROBE && !self.asked_both {
                self.asked_both = true;
                let ping = engine::write(&Question::Ping, Spoken::V1, &MessageId::fresh(), 0);
                return self.send(ping).await;
            }
        }
        let late = self.talk.speaking.iter().any(|speaking| speaking.took() > self.config.silence);
        if late {
            return Err(Over::Broken(format!("it did not speak within {} s", self.config.silence.as_secs())));
        }
        let ids: Vec<MessageId> = self.talk.speaking.iter().map(|speaking| speaking.id.clone()).collect();
        for id in ids {
            let progress = EngineEvent::Progress { stage: "speak".into(), other: serde_json::Map::new() };
            self.talk.event(&id, progress).await?;
        }
        Ok(())
    }

    async fn spoken(
        &mut self,
        spoken: Speaking,
        what: Result<chorus_protocol::adapt::Fields, Box<ServiceError>>,
    ) -> Result<(), Over> {
        let id = spoken.id.clone();
        let taken = match what {
            Ok(fields) => audio::take(&fields, spoken.path()).await,
            Err(error) => Err(*error),
        };
        let kept = taken.and_then(|take| {
            take.changed(spoken.speed(&self.capabilities), spoken.pitch(&self.capabilities))
        });
        let engine_ms = spoken.took().as_secs_f64() * 1000.0;
        match kept {
            _ if spoken.given_up => {
                let error = ServiceError::new(Reason::Cancelled, "given up while it was spoken");
                self.talk.fail(&id, error).await
            }
            Err(error) => self.talk.fail(&id, error).await,
            Ok(take) if spoken.is_warm_up() => {
                let answer = LoadAnswer {
                    sample_rate: take.sample_rate,
                    voices: Vec::new(),
                    languages: Vec::new(),
                    load_ms: engine_ms,
                    warmup_ms: 0.0,
                    max_text_chars: None,
                    rss_bytes: 0,
                    gpu_memory_bytes: None,
                    files: Vec::new(),
                    tuning: None,
                };
                self.talk.answer(&id, answer).await
            }
            Ok(take) => self.talk.speak(&id, take, engine_ms).await,
        }
    }

    async fn write(&mut self, question: &Question, id: MessageId) -> Result<(), Over> {
        let version = self.version.unwrap_or(Spoken::V2);
        self.send(engine::write(question, version, &id, self.talk.now_ms())).await
    }

    async fn send(&mut self, line: Result<Vec<u8>, ServiceError>) -> Result<(), Over> {
        let mut line = line.map_err(|error| Over::Broken(error.to_string()))?;
        line.push(b'\n');
        let writing = tokio::time::timeout(self.config.silence, self.script.write_all(&line));
        match writing.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(Over::Script),
            Err(_elapsed) => Err(Over::Broken("it reads no questions".into())),
        }
    }
}

#[cfg(test)]
mod tests;
