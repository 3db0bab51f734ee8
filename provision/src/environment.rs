//! Builds the engine's Python environment from the lock, every file checked against its hash.
//!
//! An environment cannot be moved, so it is built in its place and counts once its marker is written. What an interrupted
//! build left is thrown away, for an installer killed between two files cannot be trusted to know; the downloads are in
//! uv's cache, so the next build goes on from there and only links files.
//!
//! The set is installed with `uv pip`, not `uv sync`: that way a user's own index (a company's mirror) is honoured, while the
//! hashes still come from the lock.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Config, Profile, variable};
use crate::engine::LOCK_HASH;
use crate::error::Error;
use crate::home::{self, Draft};
use crate::progress::Step;
use crate::requirements::{self, Divided};
use crate::steps;
use crate::tool::Context;

const WHAT: &str = "the engine's environment";

/// The Python of the first complete environment that has all of `profile`.
pub(crate) fn installed(config: &Config, profile: Profile) -> Option<(Profile, PathBuf)> {
    profile.satisfied_by().find_map(|profile| {
        let target = target(config, profile);
        let python = target.join("bin/python");
        // Following the link: the base Python may have been removed since.
        (home::is_complete(&target, LOCK_HASH) && python.exists()).then_some((profile, python))
    })
}

/// Builds the environment. `programs` are uv and the base Python.
pub(crate) async fn provide(
    context: &Context,
    profile: Profile,
    programs: (&Path, &Path),
    engine: &Path,
) -> Result<PathBuf, Error> {
    let target = target(&context.config, profile);
    steps::timed(context, Step::Environment, async {
        let cached_bytes = home::size_bytes(&context.config.home.join("cache/uv"));
        home::check_space(WHAT, &target, needed_bytes(profile).saturating_sub(cached_bytes))?;
        let draft = Draft::in_place(&target)?;
        let build = Build { context, profile, uv: programs.0, target: &target };
        build.run(programs.1, engine).await?;
        draft.complete(LOCK_HASH)?;
        Ok(steps::made(profile.name(), &target))
    })
    .await?;
    Ok(target.join("bin/python"))
}

/// What a build from nothing takes on the disk, with room to spare (measured on Linux: 5.2 GB for Coqui).
fn needed_bytes(profile: Profile) -> u64 {
    let coqui = if profile.has_coqui() { 6_000_000_000 } else { 0 };
    let tools = if profile.has_tools() { 250_000_000 } else { 0 };
    coqui + tools + 20_000_000
}

fn target(config: &Config, profile: Profile) -> PathBuf {
    config.home.join("env").join(format!("{}-{LOCK_HASH}", profile.name()))
}

struct Build<'a> {
    context: &'a Context,
    profile: Profile,
    uv: &'a Path,
    target: &'a Path,
}

impl Build<'_> {
    async fn run(&self, base_python: &Path, engine: &Path) -> Result<(), Error> {
        let target: OsString = self.target.into();
        let venv = ["venv", "--no-project", "--allow-existing", "--no-python-downloads", "--python"];
        self.uv(&venv, [base_python.into(), target]).await?;

        let list = self.target.join("requirements.txt");
        let mut export = vec!["export", "--frozen", "--quiet", "--no-emit-project", "--no-default-groups"];
        export.extend([
            "--no-python-downloads",
            "--format",
            "requirements-txt",
            "--no-header",
            "--no-annotate",
        ]);
        export.extend(self.profile.has_coqui().then_some("--extra=coqui"));
        export.extend(self.profile.has_tools().then_some("--group=test"));
        export.extend(["--project"]);
        let python: OsString = self.python().into();
        let paths =
            [engine.into(), "--python".into(), python.clone(), "--output-file".into(), list.clone().into()];
        self.uv(&export, paths).await?;

        if self.profile.has_coqui() && cpu_index_answers(&self.context.config).await {
            let exported = std::fs::read_to_string(&list).map_err(|error| Error::io("read", &list, error))?;
            match self.with_cpu_torch(requirements::divide(&exported)).await {
                Err(error) => {
                    tracing::warn!(%error, "PyTorch's CPU index does not serve; taking all from PyPI")
                }
                Ok(()) => return Ok(()),
            }
        }
        let sync = ["pip", "sync", "--require-hashes", "--python"];
        self.uv(&sync, [python, "--build-constraints".into(), list.clone().into(), list.into()]).await
    }

    /// The same versions, but PyTorch in its much smaller build for the CPU, from PyTorch's own index, whose hashes are not
    /// in the lock. (Untested where this was written: that index could not be reached.)
    async fn with_cpu_torch(&self, divided: Divided) -> Result<(), Error> {
        let rest = self.target.join("requirements-rest.txt");
        home::write(&rest, divided.rest.as_bytes())?;
        let torch = ["pip", "install", "--torch-backend=cpu", "--no-deps", "--python"];
        let packages = divided.torch.into_iter().map(OsString::from);
        self.uv(&torch, std::iter::once(self.python().into()).chain(packages)).await?;
        let others = ["pip", "install", "--no-deps", "--require-hashes", "--python"];
        self.uv(&others, [self.python().into(), "--requirements".into(), rest.into()]).await
    }

    fn python(&self) -> PathBuf {
        self.target.join("bin/python")
    }

    async fn uv(&self, words: &[&str], more: impl IntoIterator<Item = OsString>) -> Result<(), Error> {
        let arguments = words.iter().map(OsString::from).chain(more).collect();
        steps::uv(self.context, Step::Environment, WHAT, self.uv, arguments).await.map(|_| ())
    }
}

/// Whether this is a Linux without an NVIDIA GPU (elsewhere PyPI's own PyTorch is the right one) from which PyTorch's index
/// can be reached.
async fn cpu_index_answers(config: &Config) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    let gpu = Path::new("/dev/nvidia0").exists() || config.on_path("nvidia-smi").is_some();
    let offline = variable(&config.environment, "UV_OFFLINE").is_some();
    if !cfg!(target_os = "linux") || gpu || offline {
        return false;
    }
    let connection = tokio::net::TcpStream::connect(("download.pytorch.org", 443));
    matches!(tokio::time::timeout(PATIENCE, connection).await, Ok(Ok(_)))
}
