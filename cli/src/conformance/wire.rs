//! A program under test and its streams: what is sent, what comes, and how it ends.
//!
//! The runtime's own child, line reader and frame reader are used; nothing here waits without a deadline. What is written
//! goes through a task, so that a program that does not read and one that is not read cannot hold each other up for ever.

mod watched;

use std::ffi::OsString;
use std::time::Duration;

use chorus_protocol::gateway::MAX_ANSWER_BYTES;
use chorus_runtime::process::{Child, Exit, FrameReader, Line, LineReader, Pipes, ProcessSpec, SpawnError};
use chorus_runtime::task::{self, FailureMeans};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::message::{Message, cut};
use watched::{Unfinished, Watched};

/// Between SIGTERM and SIGKILL for a program that is not needed any more.
const GRACE: Duration = Duration::from_millis(500);
/// Lines of stderr that a report shows.
const LAST_LINES: usize = 5;

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// The command, not empty.
    pub command: Vec<OsString>,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// What came.
#[derive(Debug)]
pub enum Heard {
    /// A message.
    Message(Message),
    /// Something that is none, and why.
    Noise(String),
    /// The stream cannot be read any further.
    Broken(String),
    /// The stream has ended.
    End,
}

enum Reader {
    Lines(LineReader<Watched<pipe::Receiver>>),
    Frames(FrameReader<Watched<pipe::Receiver>>),
    Over,
}

/// See the module. Dropping it kills the program's process group.
pub struct Wire {
    child: Child,
    outgoing: Option<mpsc::UnboundedSender<Vec<u8>>>,
    reader: Reader,
    unfinished: Unfinished,
}

impl Wire {
    /// Starts a program that speaks lines on its standard streams, or (`framed`) frames on descriptors 4 and 5.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Program, framed: bool) -> Result<Self, SpawnError> {
        let (name, args) = program
            .command
            .split_first()
            .map_or((OsString::new(), &[][..]), |(name, args)| (name.clone(), args));
        let mut spec = ProcessSpec::new("conformance", name).args(args.iter().cloned());
        spec.env = program.environment.iter().cloned().collect();
        spec.pipes = if framed { Pipes::Fds } else { Pipes::Stdio };
        spec.grace = GRACE;
        let mut child = Child::spawn(&spec)?;
        let missing = || SpawnError::NotFound { name: "conformance".into(), program: spec.program.clone() };
        let pipe = child.take_frames().ok_or_else(missing)?;
        let (outgoing, waiting) = mpsc::unbounded_channel();
        let writing = write(pipe.writer, waiting);
        drop(task::spawn("conformance-writer", CancellationToken::new(), FailureMeans::Log, writing));
        let (watched, unfinished) = Watched::new(pipe.reader);
        let reader = if framed {
            Reader::Frames(FrameReader::new(watched, MAX_ANSWER_BYTES))
        } else {
            Reader::Lines(LineReader::new(watched, MAX_ANSWER_BYTES))
        };
        Ok(Self { child, outgoing: Some(outgoing), reader, unfinished })
    }

    /// From now on frames are read.
    pub fn turn_to_frames(&mut self) {
        self.reader = match std::mem::replace(&mut self.reader, Reader::Over) {
            Reader::Lines(lines) => Reader::Frames(lines.into_frames(MAX_ANSWER_BYTES)),
            other => other,
        };
    }

    /// Sends bytes as they are.
    pub fn send(&self, bytes: Vec<u8>) {
        // A program that has ended is found out by what does not come.
        let _ended = self.outgoing.as_ref().map(|outgoing| outgoing.send(bytes));
    }

    /// Ends what the program reads.
    pub fn close(&mut self) {
        self.outgoing = None;
    }

    /// What comes next; `None` when nothing does in time. Cancel-safe.
    pub async fn hear(&mut self, until: Instant) -> Option<Heard> {
        let heard = match &mut self.reader {
            Reader::Over => return Some(Heard::End),
            Reader::Lines(lines) => timeout_at(until, lines.next()).await.ok()?.map(|line| match line {
                Some(Line::Whole(line)) => {
                    let shown = String::from_utf8_lossy(&line).into_owned();
                    Message::of_line(line)
                        .map_or_else(|why| Heard::Noise(format!("{why}: {}", cut(&shown))), Heard::Message)
                }
                Some(Line::TooLong { len }) => Heard::Noise(format!("a line of {len} bytes")),
                None => Heard::End,
            }),
            Reader::Frames(frames) => timeout_at(until, frames.next()).await.ok()?.map(|frame| match frame {
                Some(frame) => {
                    let len = frame.len();
                    Message::of_frame(frame).map_or_else(
                        |why| Heard::Noise(format!("a frame of {len} bytes that is no message: {why}")),
                        Heard::Message,
                    )
                }
                None => Heard::End,
            }),
        };
        Some(heard.unwrap_or_else(|error| {
            self.reader = Reader::Over;
            Heard::Broken(error.to_string())
        }))
    }

    /// What came of a line that has no end yet.
    pub fn unfinished(&self) -> Option<String> {
        matches!(self.reader, Reader::Lines(_)).then(|| self.unfinished.shown()).flatten()
    }

    /// Waits for the program's end, reading on meanwhile; what came, and how it ended, if it did in time.
    pub async fn ended(&mut self, within: Duration) -> (Vec<Heard>, Option<Exit>) {
        let until = Instant::now() + within;
        let mut heard = Vec::new();
        loop {
            match self.hear(until).await {
                None => return (heard, self.child.exit_watch().peek()),
                Some(Heard::End) => break,
                Some(Heard::Broken(_)) => {}
                Some(one) => heard.push(one),
            }
        }
        let mut exit = self.child.exit_watch();
        (heard, timeout_at(until, exit.wait()).await.ok())
    }

    /// The last that it wrote on stderr.
    pub fn last_words(&self) -> String {
        let lines = self.child.stderr_log().tail();
        cut(&lines[lines.len().saturating_sub(LAST_LINES)..].join(" / "))
    }

    /// Ends it and all that it has started.
    pub async fn stop(mut self) {
        self.close();
        self.child.terminate(GRACE).await;
    }
}

/// Writes until nothing more is to be sent or nobody reads.
async fn write(mut writer: pipe::Sender, mut waiting: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = waiting.recv().await {
        if let Err(error) = writer.write_all(&bytes).await {
            tracing::debug!(%error, "the program under test reads no more");
            return;
        }
    }
}
