//! Finds or installs a `nats-server` that is new enough.
//!
//! Asking a server on `PATH` for its version takes a process, too slow for every start; so the answer is kept in
//! `tools/nats-server.path` with the file's path, size and time of change, and asked again only when one of them changes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::error::Error;
use crate::home::{self, Draft};
use crate::progress::Step;
use crate::tool::{Context, Tool};
use crate::{steps, version};

const PINNED: &str = "2.15.1";
const REQUIREMENTS: &str = include_str!("../pins/nats-server.txt");
/// Per-message TTL and priority groups of pull consumers, which the queue needs, came with 2.11.
const OLDEST: version::Version = (2, 11, 0);
const WHAT: &str = "nats-server";

/// The server to use, if that is known without starting anything.
pub(crate) fn installed(config: &Config) -> Option<PathBuf> {
    if let Some(on_path) = config.on_path(WHAT)
        && let Some(note) = note(&on_path)
        && std::fs::read_to_string(note_path(config)).is_ok_and(|noted| noted == note)
    {
        return Some(on_path);
    }
    let target = target(config);
    let server = target.join("bin").join(WHAT);
    (home::is_complete(&target, REQUIREMENTS) && server.exists()).then_some(server)
}

/// A server: the one on `PATH` when it is new enough, else the pinned one. `programs` gives uv and Python when they are
/// needed.
pub(crate) async fn provide(context: &Context, uv: &Path, python: &Path) -> Result<PathBuf, Error> {
    let target = target(&context.config);
    steps::timed(context, Step::NatsServer, async {
        home::check_space(WHAT, &target, 60_000_000)?;
        let draft = Draft::beside(&target)?;
        steps::install_wheels(context, Step::NatsServer, WHAT, (uv, python), REQUIREMENTS, draft.path())
            .await?;
        draft.complete(REQUIREMENTS)?;
        Ok(steps::made(PINNED, &target))
    })
    .await?;
    Ok(target.join("bin").join(WHAT))
}

/// The server on `PATH`, if it is new enough; that it is, is noted down for [`installed`].
pub(crate) async fn on_path(context: &Context) -> Result<Option<PathBuf>, Error> {
    let Some(program) = context.config.on_path(WHAT) else { return Ok(None) };
    let tool = Tool {
        what: WHAT,
        step: Step::NatsServer,
        program: program.clone(),
        arguments: vec!["--version".into()],
        variables: Vec::new(),
        limit: Duration::from_secs(30),
    };
    let found = tool.run(context).await.ok().and_then(|lines| version::find(&lines.join(" ")));
    tracing::debug!(program = %program.display(), ?found, oldest = ?OLDEST, "nats-server on the path");
    if found.is_none_or(|found| found < OLDEST) {
        return Ok(None);
    }
    let Some(note) = note(&program) else { return Ok(None) };
    home::write(&note_path(&context.config), note.as_bytes())?;
    steps::found(context, Step::NatsServer, program.display().to_string());
    Ok(Some(program))
}

fn target(config: &Config) -> PathBuf {
    config.home.join("tools").join(format!("nats-{PINNED}"))
}

fn note_path(config: &Config) -> PathBuf {
    config.home.join("tools/nats-server.path")
}

/// What identifies a file without reading it, and what it was found new enough for.
fn note(program: &Path) -> Option<String> {
    let metadata = program.metadata().ok()?;
    let (size, changed, nanos) = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    Some(format!("{}\n{size} {changed}.{nanos:09} {OLDEST:?}\n", program.display()))
}
