//! What all steps share: telling the observer when one begins and ends, and running uv.

use std::ffi::OsString;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::home;
use crate::progress::{Finished, Step};
use crate::tool::{Context, Tool};

/// What a step made: words for the observer, and its size.
pub(crate) struct Made {
    outcome: String,
    size_bytes: u64,
}

/// A step that filled a folder.
pub(crate) fn made(outcome: &str, folder: &Path) -> Made {
    Made { outcome: outcome.to_owned(), size_bytes: home::size_bytes(folder) }
}

/// Runs a step between its announcements.
pub(crate) async fn timed(
    context: &Context,
    step: Step,
    work: impl Future<Output = Result<Made, Error>>,
) -> Result<(), Error> {
    context.progress.started(step);
    let begun = Instant::now();
    let made = work.await?;
    let (took, size_bytes) = (begun.elapsed(), Some(made.size_bytes));
    context.progress.finished(step, &Finished { outcome: made.outcome, took, size_bytes });
    Ok(())
}

/// Tells of a step that needed no work, for the machine has what it would make.
pub(crate) fn found(context: &Context, step: Step, outcome: String) {
    context.progress.started(step);
    context.progress.finished(step, &Finished { outcome, took: Duration::ZERO, size_bytes: None });
}

/// Runs uv, its downloads kept below CHORUS_HOME unless the user has a place for them.
pub(crate) async fn uv(
    context: &Context,
    step: Step,
    what: &'static str,
    uv: &Path,
    arguments: Vec<OsString>,
) -> Result<Vec<String>, Error> {
    let config = &context.config;
    let mut variables: Vec<(&'static str, OsString)> = vec![("UV_NO_PROGRESS", "1".into())];
    if crate::config::variable(&config.environment, "UV_CACHE_DIR").is_none() {
        variables.push(("UV_CACHE_DIR", config.home.join("cache/uv").into()));
    }
    let tool =
        Tool { what, step, program: uv.to_path_buf(), arguments, variables, limit: config.install_limit };
    tool.run(context).await
}

/// Installs pinned wheels, and nothing beside them, into a folder.
pub(crate) async fn install_wheels(
    context: &Context,
    step: Step,
    what: &'static str,
    programs: (&Path, &Path),
    requirements: &str,
    target: &Path,
) -> Result<(), Error> {
    let (uv_program, python) = programs;
    let list = target.join("requirements.txt");
    home::write(&list, requirements.as_bytes())?;
    let mut arguments: Vec<OsString> =
        ["pip", "install", "--no-deps", "--only-binary", ":all:"].map(Into::into).into();
    arguments.extend([
        "--require-hashes".into(),
        "--python".into(),
        python.into(),
        "--target".into(),
        target.into(),
    ]);
    arguments.extend(["--requirements".into(), list.into()]);
    uv(context, step, what, uv_program, arguments).await.map(|_| ())
}
