//! What provisioning is given: where to install to, with which Python, and how much.
//!
//! The environment is taken once, as a list, by [`Config::from_environment`]; everything below reads this copy.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chorus_runtime::process::GuardBinary;

use crate::error::Error;

/// Where and how to install.
#[derive(Debug, Clone)]
pub struct Config {
    /// CHORUS_HOME, absolute: everything is installed below it.
    pub home: PathBuf,
    /// CHORUS_PYTHON: the only Python to consider.
    pub python: Option<PathBuf>,
    /// The caller's environment; `PATH` is searched, and what installers need of the rest is handed to them.
    pub environment: Vec<(OsString, OsString)>,
    /// How long to wait for another process that provisions the same folder.
    pub lock_wait: Duration,
    /// How long one run of an installer may take.
    pub install_limit: Duration,
    /// Who ends an installer when this process is killed.
    pub guard: GuardBinary,
}

impl Config {
    /// Reads `CHORUS_HOME`, `CHORUS_PYTHON` and the platform's places from an environment.
    ///
    /// # Errors
    /// [`Error::Io`] when there is neither `CHORUS_HOME` nor a home folder, or a relative path cannot be resolved.
    pub fn from_environment(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let environment: Vec<_> = environment.into_iter().collect();
        let variable = |name: &str| variable(&environment, name).map(PathBuf::from);
        let home = variable("CHORUS_HOME")
            .or_else(|| data_folder(cfg!(target_os = "macos"), variable("HOME"), variable("XDG_DATA_HOME")))
            .ok_or(std::io::Error::new(std::io::ErrorKind::NotFound, "neither CHORUS_HOME nor HOME is set"))
            .and_then(std::path::absolute)
            .map_err(|error| Error::io("find", "CHORUS_HOME", error))?;
        Ok(Self {
            home,
            python: variable("CHORUS_PYTHON"),
            environment,
            lock_wait: Duration::from_secs(30 * 60),
            install_limit: Duration::from_secs(2 * 60 * 60),
            guard: GuardBinary::OwnProgram,
        })
    }

    /// The first file called `name` in the folders of `PATH`, if it can be executed.
    pub(crate) fn on_path(&self, name: &str) -> Option<PathBuf> {
        let path = variable(&self.environment, "PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
    }
}

/// A variable's value, unless it is empty.
pub(crate) fn variable(environment: &[(OsString, OsString)], name: &str) -> Option<OsString> {
    let found = environment.iter().find(|(key, _)| key == OsStr::new(name));
    found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The platform's folder for an application's data. A relative `XDG_DATA_HOME` is ignored, as its specification asks.
fn data_folder(macos: bool, home: Option<PathBuf>, xdg_data_home: Option<PathBuf>) -> Option<PathBuf> {
    if macos {
        return Some(home?.join("Library/Application Support/chorus"));
    }
    let data = xdg_data_home.filter(|path| path.is_absolute()).or_else(|| Some(home?.join(".local/share")));
    Some(data?.join("chorus"))
}

/// How much of the Python environment is installed. A larger set serves for every smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The pipe alone: the engines `null` and `checkable`. About 1 MB.
    Light,
    /// `Light` and the tools of the checks (ruff, pytest, a speech recogniser). About 150 MB.
    Check,
    /// `Light` and Coqui with all it needs: real speech, voice import. About 5.2 GB on Linux.
    Coqui,
    /// All of it.
    Test,
}

impl Profile {
    /// The profile's name, as in `chorus setup --profile`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Check => "check",
            Self::Coqui => "coqui",
            Self::Test => "test",
        }
    }

    /// Whether Coqui is in it.
    pub(crate) fn has_coqui(self) -> bool {
        matches!(self, Self::Coqui | Self::Test)
    }

    /// Whether the tools of the checks are in it.
    pub(crate) fn has_tools(self) -> bool {
        matches!(self, Self::Check | Self::Test)
    }

    /// Every profile that has all of this one, this one first.
    pub(crate) fn satisfied_by(self) -> impl Iterator<Item = Self> {
        let all = [self, Self::Check, Self::Coqui, Self::Test].into_iter().enumerate();
        all.filter(move |(index, other)| {
            let again = *index > 0 && *other == self;
            !again && other.has_coqui() >= self.has_coqui() && other.has_tools() >= self.has_tools()
        })
        .map(|(_, profile)| profile)
    }
}

/// What shall be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// A nats-server; not needed where a broker is given.
    pub nats_server: bool,
    /// The engine: its source and an environment of this profile.
    pub engine: Option<Profile>,
    /// The demo voice; it needs an engine with Coqui, which is then installed too.
    pub voice: bool,
}

impl Want {
    /// What the command line's profiles stand for.
    #[must_use]
    pub fn of_profile(profile: Profile) -> Self {
        match profile {
            Profile::Check => Self { nats_server: false, engine: Some(profile), voice: false },
            Profile::Light => Self { nats_server: true, engine: Some(profile), voice: false },
            Profile::Coqui | Profile::Test => Self { nats_server: true, engine: Some(profile), voice: true },
        }
    }

    /// The profile of the environment that fulfils it all.
    pub(crate) fn profile(self) -> Option<Profile> {
        match self.engine {
            Some(Profile::Check) if self.voice => Some(Profile::Test),
            Some(Profile::Light) | None if self.voice => Some(Profile::Coqui),
            engine => engine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Config {
        Config::from_environment(variables.iter().map(|(k, v)| (k.into(), v.into()))).unwrap()
    }

    #[test]
    fn the_home_is_the_platforms_unless_named() {
        assert_eq!(config(&[("CHORUS_HOME", "/x"), ("HOME", "/h")]).home, Path::new("/x"));
        let data = |macos, home: &str, xdg: &str| {
            data_folder(
                macos,
                Some(home.into()),
                Some(xdg.into()).filter(|x: &PathBuf| !x.as_os_str().is_empty()),
            )
        };
        assert_eq!(data(false, "/h", "").unwrap(), Path::new("/h/.local/share/chorus"));
        assert_eq!(data(false, "/h", "/d").unwrap(), Path::new("/d/chorus"));
        assert_eq!(data(false, "/h", "relative").unwrap(), Path::new("/h/.local/share/chorus"));
        assert_eq!(data(true, "/h", "/d").unwrap(), Path::new("/h/Library/Application Support/chorus"));
        assert!(Config::from_environment([]).is_err());
    }

    #[test]
    fn a_larger_profile_serves_for_a_smaller() {
        let of = |profile: Profile| profile.satisfied_by().collect::<Vec<_>>();
        assert_eq!(of(Profile::Light), [Profile::Light, Profile::Check, Profile::Coqui, Profile::Test]);
        assert_eq!(of(Profile::Coqui), [Profile::Coqui, Profile::Test]);
        assert_eq!(of(Profile::Check), [Profile::Check, Profile::Test]);
        assert_eq!(of(Profile::Test), [Profile::Test]);
    }

    #[test]
    fn a_voice_asks_for_coqui() {
        let want = |engine, voice| Want { nats_server: false, engine, voice }.profile();
        assert_eq!(want(None, true), Some(Profile::Coqui));
        assert_eq!(want(Some(Profile::Check), true), Some(Profile::Test));
        assert_eq!(want(Some(Profile::Light), false), Some(Profile::Light));
        assert_eq!(want(None, false), None);
    }
}
