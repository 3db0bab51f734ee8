//! `chorus stdio`: a drop-in for the single Python script, with a fleet behind it.
//!
//! ```text
//!            ┌─ 1.0 lines:  legacy    answers in order
//!   stdin ──► opening (first message decides)                      ──► outbox (bounded) ──► stdout
//!            └─ 2.0 lines, 2.1 frames:  modern    answers by id
//! ```
//! [`serve`] needs two streams and an [`Access`] to a fleet that may still be starting. Everything is bounded: a message's
//! length, requests under way, audio inside a reply, and what waits to be written: a parent that does not read stops the
//! asking for more speech.

mod coming;
mod events;
mod flights;
mod hello;
mod input;
mod legacy;
mod modern;
mod outbox;
mod parent;
mod speech;
mod stream;

use std::time::Duration;

use chorus_protocol::ServiceError;
use chorus_runtime::task::TaskGroup;
use semver::Version;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::fleet::Access;
use crate::place::Root;
use hello::Opened;
use input::Input;
use legacy::Legacy;
use modern::Modern;
use outbox::Outbox;
use parent::Parent;

/// What a gateway is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The versions offered, oldest first.
    pub supported: Vec<Version>,
    /// Where files may be written.
    pub root: Root,
    /// The version of chorus.
    pub version: String,
    /// How long requests under way may take to end after `shutdown`.
    pub finish_within: Duration,
}

/// Why a gateway has ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The parent asked for it.
    Shutdown,
    /// The parent closed stdin; all that it asked is answered.
    EndOfInput,
    /// The parent is gone: nobody reads the answers.
    ParentGone,
    /// The parent broke the framing, so that nothing it sends can be trusted.
    Broken(String),
    /// We were told to stop.
    Stopped,
    /// There is no fleet (any more); all that was asked got this error.
    NoFleet(ServiceError),
}

/// How long answers may take to be written when all is over.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// How long requests may take to end once they are cancelled.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// What the parts of a gateway share.
#[derive(Clone)]
struct Shared {
    config: Config,
    access: Access,
    outbox: Outbox,
    tasks: TaskGroup,
    parent: Parent,
}

/// Serves one parent until the end. `stop` ends it early: what is under way is cancelled, and says so.
pub async fn serve<R, W>(
    config: Config,
    access: Access,
    (reader, writer): (R, W),
    stop: CancellationToken,
) -> End
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let scope = CancellationToken::new();
    let tasks = TaskGroup::new("stdio", &scope);
    let (outbox, writing) = Outbox::start(writer);
    let gone = outbox.gone();
    let shared = Shared { config, access, outbox, tasks: tasks.clone(), parent: Parent::now() };
    let no_fleet = shared.access.clone();
    let mut conversation = Box::pin(converse(shared, Input::new(reader)));
    let end = tokio::select! {
        biased;
        end = &mut conversation => end,
        () = gone.cancelled() => End::ParentGone,
        () = stop.cancelled() => End::Stopped,
        // What waits for the fleet is told first, by its own task.
        error = no_fleet.failed() => End::NoFleet(error),
    };
    if let End::NoFleet(_) = end {
        // Those who wait for it answer by themselves, in 1.0 through the conversation.
        let _in_time = tokio::time::timeout(CANCEL_WITHIN, async {
            tokio::select! {
                _end = &mut conversation => {}
                () = tasks.idle() => {}
            }
        })
        .await;
    }
    drop(conversation);
    tasks.token().cancel();
    let _report = tasks.join(CANCEL_WITHIN).await;
    drop(tasks);
    // The last sender is gone now: the writer flushes and ends, unless nobody reads.
    let _in_time = tokio::time::timeout(FLUSH_WITHIN, writing).await;
    end
}

async fn converse<R: AsyncRead + Unpin + Send>(shared: Shared, mut input: Input<R>) -> End {
    match hello::open(&shared, &mut input).await {
        Opened::Ended(end) => end,
        Opened::Legacy(first) => Legacy::new(shared, input).run(first).await,
        Opened::Modern { encoding, first } => {
            let input = match encoding {
                chorus_protocol::codec::Encoding::Json => input,
                chorus_protocol::codec::Encoding::MessagePack => input.into_frames(),
            };
            Modern::new(shared, input, encoding).run(first).await
        }
    }
}

#[cfg(test)]
mod tests;
