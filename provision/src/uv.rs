//! Finds or installs `uv`, which installs all the rest.
//!
//! One on `PATH` is used when it is new enough; else the pinned one comes from PyPI by way of the Python's own pip, or of the
//! pip in a throw-away environment where Python has none (as on Debian).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::home::{self, Draft};
use crate::progress::Step;
use crate::tool::{Context, Tool};
use crate::{steps, version};

/// The pinned version.
const PINNED: &str = "0.13.9";
/// Its wheels, one for each platform, with their hashes.
const REQUIREMENTS: &str = include_str!("../pins/uv.txt");
/// The oldest that we rely on: it reads the lock's revision and knows every option used here.
const OLDEST: version::Version = (0, 8, 0);
const WHAT: &str = "uv";

/// A uv to use.
///
/// # Errors
/// Those of an installation, [`Error::PipMissing`] among them.
pub(crate) async fn provide(context: &Context, python: &Path) -> Result<PathBuf, Error> {
    let target = context.config.home.join("tools").join(format!("uv-{PINNED}"));
    let installed = target.join("bin/uv");
    if home::is_complete(&target, REQUIREMENTS) && installed.exists() {
        return Ok(installed);
    }
    if let Some(uv) = on_path(context).await {
        return Ok(uv);
    }
    steps::timed(context, Step::Uv, async {
        home::check_space(WHAT, &target, 200_000_000)?;
        let draft = Draft::beside(&target)?;
        let requirements = draft.path().join("requirements.txt");
        home::write(&requirements, REQUIREMENTS.as_bytes())?;
        match pip(context, python, &requirements, draft.path()).await {
            Err(Error::PipMissing { .. }) => {
                let borrowed = borrowed_pip(context, python, draft.path()).await?;
                pip(context, &borrowed, &requirements, draft.path()).await?;
                home::remove(&draft.path().join("borrowed"))?;
            }
            other => other?,
        }
        draft.complete(REQUIREMENTS)?;
        Ok(steps::made(PINNED, &target))
    })
    .await?;
    Ok(installed)
}

/// The uv on `PATH`, if it is new enough.
async fn on_path(context: &Context) -> Option<PathBuf> {
    let program = context.config.on_path("uv")?;
    let tool = Tool {
        what: WHAT,
        step: Step::Uv,
        program: program.clone(),
        arguments: vec!["--version".into()],
        variables: Vec::new(),
        limit: Duration::from_secs(30),
    };
    let lines = tool.run(context).await.ok()?;
    let found = version::find(&lines.join(" "))?;
    tracing::debug!(program = %program.display(), ?found, oldest = ?OLDEST, "uv on the path");
    if found < OLDEST {
        return None;
    }
    steps::found(context, Step::Uv, program.display().to_string());
    Some(program)
}

async fn pip(context: &Context, python: &Path, requirements: &Path, target: &Path) -> Result<(), Error> {
    let mut arguments: Vec<OsString> =
        ["-m", "pip", "install", "--no-input", "--disable-pip-version-check"].map(Into::into).into();
    arguments
        .extend(["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement"].map(Into::into));
    arguments.extend([requirements.into(), "--upgrade".into(), "--target".into(), target.into()]);
    run(context, python, arguments).await
}

/// A Python with a pip, in an environment inside the draft.
async fn borrowed_pip(context: &Context, python: &Path, draft: &Path) -> Result<PathBuf, Error> {
    let environment = draft.join("borrowed");
    run(context, python, vec!["-m".into(), "venv".into(), environment.clone().into()]).await?;
    Ok(environment.join("bin/python"))
}

async fn run(context: &Context, python: &Path, arguments: Vec<OsString>) -> Result<(), Error> {
    let limit = context.config.install_limit;
    let program = python.to_path_buf();
    let tool = Tool { what: WHAT, step: Step::Uv, program, arguments, variables: Vec::new(), limit };
    tool.run(context).await.map(|_| ())
}
