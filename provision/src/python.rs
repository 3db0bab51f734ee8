//! Finds a Python that the engine can use. Chorus brings none of its own: every platform has a way to install one, and
//! says how security fixes for it arrive.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::progress::Step;
use crate::steps;
use crate::tool::{Context, Tool};

/// The versions that the locked set supports: 3.10 to 3.14.
const MINORS: std::ops::RangeInclusive<u32> = 10..=14;

/// What is looked for on `PATH`, in this order: the machine's own choice first, then the versions that most wheels
/// are built for.
const NAMES: [&str; 7] =
    ["python3", "python3.12", "python3.13", "python3.11", "python3.14", "python3.10", "python"];

/// Prints the version and the interpreter's real path, a line each.
const PROBE: &str = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)";

#[cfg(target_os = "macos")]
const ADVICE: &str =
    "Install one (`brew install python@3.13`, or from python.org), or name one in CHORUS_PYTHON.";
#[cfg(not(target_os = "macos"))]
const ADVICE: &str = "Install one (Debian, Ubuntu: `apt install python3 python3-venv`; Fedora: `dnf install python3`; \
                      Arch: `pacman -S python`; Alpine: `apk add python3 py3-pip`), or name one in CHORUS_PYTHON.";

/// How to get pip.
#[cfg(target_os = "macos")]
pub(crate) const PIP_ADVICE: &str =
    "Install uv yourself (`brew install uv`), or a Python that has pip (`brew install python@3.13`).";
/// How to get pip.
#[cfg(not(target_os = "macos"))]
pub(crate) const PIP_ADVICE: &str = "Install it (Debian, Ubuntu: `apt install python3-venv` or `python3-pip`; Fedora: \
                                     `dnf install python3-pip`; Alpine: `apk add py3-pip`), or put uv on PATH.";

/// The Python to use: the configured one, else the first on `PATH` that fits.
///
/// # Errors
/// [`Error::PythonMissing`], naming what was tried and what it answered.
pub(crate) async fn find(context: &Context) -> Result<PathBuf, Error> {
    let candidates: Vec<PathBuf> = match &context.config.python {
        Some(python) => vec![python.clone()],
        None => NAMES.iter().filter_map(|name| context.config.on_path(name)).collect(),
    };
    let mut tried = Vec::new();
    for candidate in candidates {
        match probe(context, &candidate).await {
            Ok((minor, python)) if MINORS.contains(&minor) => {
                steps::found(context, Step::Python, format!("3.{minor} at {}", python.display()));
                return Ok(python);
            }
            Ok((minor, _)) => tried.push(format!("{}: 3.{minor}", candidate.display())),
            Err(_) => tried.push(format!("{}: does not run", candidate.display())),
        }
    }
    let tried = if tried.is_empty() { NAMES.join(", ") } else { tried.join(", ") };
    Err(Error::PythonMissing { tried, advice: ADVICE })
}

async fn probe(context: &Context, candidate: &Path) -> Result<(u32, PathBuf), Error> {
    let probe = Tool {
        what: "Python",
        step: Step::Python,
        program: candidate.to_path_buf(),
        arguments: vec!["-I".into(), "-c".into(), PROBE.into()],
        variables: Vec::new(),
        limit: Duration::from_secs(30),
    };
    let lines = probe.run(context).await?;
    parse(&lines)
        .ok_or_else(|| Error::PythonMissing { tried: candidate.display().to_string(), advice: ADVICE })
}

/// The probe's answer: the minor version of a Python 3 (0 for any other), and its path.
fn parse(lines: &[String]) -> Option<(u32, PathBuf)> {
    let [version, executable] = lines else { return None };
    let (major, minor) = version.trim().split_once('.')?;
    let minor = if major == "3" { minor.parse().ok()? } else { 0 };
    Some((minor, PathBuf::from(executable.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_answer_is_read() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parse(&lines("3.12\n/usr/bin/python3")), Some((12, "/usr/bin/python3".into())));
        assert_eq!(parse(&lines("2.7\n/usr/bin/python")), Some((0, "/usr/bin/python".into())));
        assert_eq!(parse(&lines("three")), None);
    }
}
