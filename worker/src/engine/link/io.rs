//! The two tasks of a link.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chorus_protocol::pipe::EngineRequest;
use chorus_protocol::{Reason, ServiceError};
use chorus_runtime::process::{FrameError, FrameReader, FrameWriter};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{Behind, Link, Liveness};
use crate::engine::router::Routed;
use crate::engine::wire::{self, What};

/// How long the end of the pipe waits for the end of the process, which completes its log.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Lines of stderr that a failure carries, and the characters of each.
const TAIL_LINES: usize = 20;
const TAIL_LINE_CHARS: usize = 400;

/// Writes what is queued, all that waits in one go.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    link: Arc<Link>,
    mut writer: FrameWriter<W>,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(first) = outgoing.recv().await {
        let mut queued = writer.queue(&first);
        while let Ok(next) = outgoing.try_recv() {
            queued = queued.and_then(|()| writer.queue(&next));
        }
        let written = match queued {
            Ok(()) => writer.flush().await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {}
            // The reader sees the end of the pipe too, and knows more about it.
            Err(FrameError::Closed) => return,
            Err(error) => {
                let message = format!("cannot write to the engine: {error}");
                return link.close(ServiceError::new(Reason::EngineCrashed, message), Vec::new());
            }
        }
    }
}

/// Reads to the end, and ends the link.
pub(super) async fn read<R: AsyncRead + Unpin>(
    link: Arc<Link>,
    mut reader: FrameReader<R>,
    liveness: Liveness,
    behind: Option<Behind>,
) {
    let error = read_on(&link, &mut reader, &liveness).await;
    let (error, stderr) = last_words(error, behind).await;
    tracing::warn!(%error, lines = stderr.len(), under_way = link.under_way(), "the engine's pipe has ended");
    link.close(error, stderr);
}

async fn read_on<R: AsyncRead + Unpin>(
    link: &Arc<Link>,
    reader: &mut FrameReader<R>,
    liveness: &Liveness,
) -> ServiceError {
    let mut silent = Duration::ZERO;
    loop {
        if silent >= silence_limit(link, liveness) {
            let message = format!("the engine hangs: silent for {} ms, though pinged", silent.as_millis());
            return ServiceError::new(Reason::EngineCrashed, message);
        }
        let Ok(read) = tokio::time::timeout(liveness.ping_every, reader.next()).await else {
            silent += liveness.ping_every;
            link.send_unasked(EngineRequest::Ping);
            continue;
        };
        silent = Duration::ZERO;
        match read {
            Ok(Some(frame)) => {
                if let Err(error) = take(link, &frame) {
                    return ServiceError::new(Reason::EngineProtocol, error.to_string());
                }
            }
            Ok(None) => return ServiceError::new(Reason::EngineCrashed, "the engine closed its pipe"),
            Err(FrameError::Closed | FrameError::Io(_)) => {
                return ServiceError::new(Reason::EngineCrashed, "the engine's pipe broke");
            }
            Err(FrameError::Truncated { have, want }) => {
                let message = format!("the engine stopped within a frame, after {have} of {want} bytes");
                return ServiceError::new(Reason::EngineCrashed, message);
            }
            Err(error @ (FrameError::Oversized { .. } | FrameError::Stalled { .. })) => {
                let message = format!("the engine's stream cannot be trusted any more: {error}");
                return ServiceError::new(Reason::EngineProtocol, message);
            }
        }
    }
}

fn silence_limit(link: &Link, liveness: &Liveness) -> Duration {
    if link.is_loading() {
        liveness.load_silence
    } else if link.under_way() > 0 {
        liveness.busy_silence
    } else {
        liveness.idle_silence
    }
}

fn take(link: &Link, frame: &Bytes) -> Result<(), wire::WireError> {
    let message = wire::decode(frame)?;
    if let (None, What::Failed(error)) = (&message.to, &message.what) {
        tracing::warn!(%error, "the engine could not read a frame of ours");
        return Ok(());
    }
    match link.router().route(message) {
        Routed::Delivered => {}
        // Answers to pings and cancels, and what crossed a cancel, are waited for by nobody.
        Routed::Unknown => tracing::trace!("the engine answered a request that nobody waits for"),
        Routed::Overflowed => {
            tracing::warn!("a request was given up: the engine sends faster than it is taken")
        }
    }
    Ok(())
}

/// What the process says at its end. Its exit tells more than the end of its pipe.
async fn last_words(error: ServiceError, behind: Option<Behind>) -> (ServiceError, Vec<String>) {
    let Some(mut behind) = behind else { return (error, Vec::new()) };
    let exit = tokio::time::timeout(LAST_WORDS, behind.exit.wait()).await;
    let error = match exit {
        Ok(exit) => ServiceError { message: format!("{} ({exit})", error.message), ..error },
        Err(_still_runs) => error,
    };
    (error, tail(&behind.stderr.tail()))
}

/// The end of a log, cut to what a failure may carry.
pub(in crate::engine) fn tail(lines: &[String]) -> Vec<String> {
    let kept = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    kept.iter().map(|line| line.chars().take(TAIL_LINE_CHARS).collect()).collect()
}
