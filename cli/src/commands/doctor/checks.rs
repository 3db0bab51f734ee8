//! The checks, in the order in which a start would meet their subjects.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chorus_bus::Bus;
use chorus_provision::progress::readable;
use chorus_provision::{Profile, Provisioner, Quiet, Want};
use chorus_runtime::process::{ProcessSpec, RunLimits, run_to_end, spec::USUAL_ENV};
use tokio_util::sync::CancellationToken;

use super::Finding;
use crate::app::Context;
use crate::config::EngineKind;
use crate::error::CliError;
use crate::fleet::{parts, ready};
use crate::locate;

/// What a full installation takes on Linux (measured with the locked set), and room for the work.
const NEEDED_BYTES: u64 = 6_500_000_000;
/// Less than this, and even the broker's store may fill the disk.
const LEAST_BYTES: u64 = 500_000_000;
/// What asking a program for its version may take.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// Pythons that the engine runs on.
const PYTHONS: [&str; 7] =
    ["python3", "python3.12", "python3.13", "python3.11", "python3.14", "python3.10", "python"];

/// All checks.
pub(super) async fn all(context: &Context) -> Vec<Finding> {
    let want = |engine, voice| Want { nats_server: false, engine, voice };
    let engine_there = installed(context, want(Some(Profile::Coqui), false));
    let voice_there = installed(context, want(Some(Profile::Coqui), true));
    vec![
        home(&context.config.home),
        space(&context.config.home, engine_there),
        settings(context),
        python(context, engine_there).await,
        server(context).await,
        engine(context, engine_there),
        voice(context, voice_there),
        gpu(context),
        port(context),
        fleet(context).await,
    ]
}

fn installed(context: &Context, want: Want) -> bool {
    let config = chorus_provision::Config::from_environment(context.environment.pairs());
    config.is_ok_and(|config| Provisioner::new(config, Arc::new(Quiet)).installed(want).is_some())
}

fn home(home: &Path) -> Finding {
    let writable = std::fs::create_dir_all(home).and_then(|()| tempfile::tempfile_in(home).map(drop));
    match writable {
        Ok(()) => Finding::ok("CHORUS_HOME", home.display().to_string()),
        Err(error) => Finding::fault(
            "CHORUS_HOME",
            format!("{} cannot be written: {error}", home.display()),
            "give yourself the right to write there, or set CHORUS_HOME to another folder",
        ),
    }
}

fn space(home: &Path, engine_there: bool) -> Finding {
    let there = home.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(there) {
        Ok(system) => system.f_bavail.saturating_mul(system.f_frsize),
        Err(error) => {
            return Finding::warning("disk", format!("cannot be measured: {error}"), "look at it with `df`");
        }
    };
    let needed = if engine_there { LEAST_BYTES } else { NEEDED_BYTES };
    let detail = format!("{} free", readable(free));
    let advice = || format!("free {}, or set CHORUS_HOME to a folder on another disk", readable(needed));
    match free {
        _ if free >= needed => Finding::ok("disk", detail),
        _ if free >= LEAST_BYTES => {
            Finding::warning("disk", format!("{detail}; real speech needs more"), advice())
        }
        _ => Finding::fault("disk", detail, advice()),
    }
}

fn settings(context: &Context) -> Finding {
    let unknown = context.environment.unknown();
    if unknown.is_empty() {
        return Finding::ok("settings", "all are known");
    }
    let advice = "look for a spelling mistake; DESIGN and the README name the settings";
    Finding::warning("settings", format!("no setting is called {}", unknown.join(", ")), advice)
}

async fn python(context: &Context, engine_there: bool) -> Finding {
    if let Some(python) = &context.config.engine.python {
        return match version(context, python, &["--version"]).await {
            Some(version) => Finding::ok("python", format!("{version} at {} (configured)", python.display())),
            None => Finding::fault(
                "python",
                format!("{} does not run", python.display()),
                "correct engine.python (CHORUS_ENGINE_PYTHON)",
            ),
        };
    }
    if engine_there {
        return Finding::ok("python", "the engine's environment has its own");
    }
    let named = context.environment.get("CHORUS_PYTHON").map(|path| vec![path.into()]);
    let found = || PYTHONS.iter().filter_map(|name| context.environment.on_path(name)).collect();
    for python in named.unwrap_or_else(found) {
        if let Some(version) = version(context, &python, &["--version"]).await
            && is_supported(&version)
        {
            return Finding::ok("python", format!("{version} at {}", python.display()));
        }
    }
    let advice = "install one, for example `apt install python3 python3-venv`, or name one in CHORUS_PYTHON";
    Finding::fault("python", "none from 3.10 to 3.14 was found", advice)
}

/// `Python 3.12.4`, from 3.10 to 3.14.
fn is_supported(version: &str) -> bool {
    let minor =
        version.strip_prefix("Python 3.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| (10..=14).contains(&minor))
}

async fn server(context: &Context) -> Finding {
    let name = "nats-server";
    if let Some(program) = &context.config.nats.server {
        return match version(context, program, &["--version"]).await {
            Some(version) => Finding::ok(name, format!("{version} at {} (configured)", program.display())),
            None => Finding::fault(
                name,
                format!("{} does not run", program.display()),
                "correct nats.server (CHORUS_NATS_SERVER)",
            ),
        };
    }
    let want = Want { nats_server: true, engine: None, voice: false };
    if installed(context, want) {
        return Finding::ok(name, "installed");
    }
    Finding::ok(name, "not installed yet; the first command that needs it installs it")
}

fn engine(context: &Context, there: bool) -> Finding {
    let name = "engine";
    let config = &context.config.engine;
    if let Some(path) = &config.path {
        return if path.join("chorus_engine").is_dir() {
            Finding::ok(name, format!("{} at {} (configured)", config.kind.as_str(), path.display()))
        } else {
            let detail = format!("{} holds no package chorus_engine", path.display());
            Finding::fault(name, detail, "correct engine.path (CHORUS_ENGINE_PATH)")
        };
    }
    if there {
        return Finding::ok(name, "its environment is installed");
    }
    Finding::ok(name, "not installed yet; the first `chorus say` installs it, or `chorus setup` now")
}

fn voice(context: &Context, demo_there: bool) -> Finding {
    let name = "voice";
    let known = match parts::known_models(&context.config, &context.environment) {
        Ok(known) => known,
        Err(error) => {
            return Finding::fault(name, error.to_string(), "check the folder voices in CHORUS_HOME");
        }
    };
    let names: Vec<String> = known
        .configured
        .keys()
        .cloned()
        .chain(known.installed.iter().map(|voice| voice.name.clone()))
        .collect();
    match (names.is_empty(), context.config.engine.kind) {
        (false, _) => Finding::ok(name, names.join(", ")),
        (true, EngineKind::Coqui) if context.config.engine.path.is_some() && !demo_there => Finding::warning(
            name,
            "none is installed, and with an engine of your own none will be by itself",
            "name one with --model, or run `chorus setup`",
        ),
        (true, _) => Finding::ok(name, "not installed yet; the first `chorus say` installs the demo voice"),
    }
}

fn gpu(context: &Context) -> Finding {
    let device = Path::new("/dev/nvidia0").exists();
    match (device, context.environment.on_path("nvidia-smi")) {
        (true, _) => Finding::ok("gpu", "NVIDIA, as /dev/nvidia0"),
        (false, Some(_)) => {
            let advice = "check the driver with `nvidia-smi`; until then speech runs on the processor";
            Finding::warning("gpu", "nvidia-smi is there, but no device", advice)
        }
        (false, None) => Finding::ok("gpu", "none; speech runs on the processor"),
    }
}

fn port(context: &Context) -> Finding {
    let (port, wanted) = context.config.nats.port.map_or((4222, false), |port| (port, true));
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Finding::ok("port", format!("{port} is free for `chorus up`")),
        Err(_) if !wanted => Finding::ok("port", format!("{port} is taken; `chorus up` takes another")),
        Err(error) => {
            let advice =
                "stop who uses it, or set nats.port to another (no fault when it is `chorus up` itself)";
            Finding::warning("port", format!("{port} cannot be used: {error}"), advice)
        }
    }
}

async fn fleet(context: &Context) -> Finding {
    let name = "fleet";
    let asked = async {
        let Some(found) = locate::locate(&context.config, "chorus").await? else { return Ok(None) };
        let url = found.shown_url();
        let bus = Bus::connect(found).await?;
        let status = ready::status(&bus).await;
        bus.close().await;
        Ok::<_, CliError>(Some((url, status?)))
    };
    match asked.await {
        Ok(None) => Finding::ok(name, "none is running"),
        Ok(Some((url, status))) if ready::can_speak(&status) => {
            Finding::ok(name, format!("can speak, at {url}"))
        }
        Ok(Some((url, _))) => Finding::warning(
            name,
            format!("no model can speak at {url}"),
            "`chorus status` shows its workers and models",
        ),
        Err(error) => Finding::fault(name, error.to_string(), error.hint().unwrap_or_default()),
    }
}

/// What a program says of itself, on its first line.
async fn version(context: &Context, program: &Path, args: &[&str]) -> Option<String> {
    let spec = ProcessSpec::new("probe", program)
        .args(args.iter().copied())
        .allow_env(context.environment.pairs(), USUAL_ENV);
    let limits = RunLimits { timeout: PROBE_LIMIT, token: CancellationToken::new() };
    match run_to_end(spec, limits, Arc::new(|_, _| {})).await {
        Ok(output) => output.stdout.into_iter().chain(output.stderr).next(),
        Err(error) => {
            tracing::debug!(%error, "a program did not say its version");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::State;

    #[test]
    fn pythons_from_3_10_to_3_14_are_supported() {
        assert!(is_supported("Python 3.10.1") && is_supported("Python 3.14.0rc1"));
        assert!(
            ["Python 3.9.2", "Python 3.15.0", "Python 2.7", "python", ""]
                .iter()
                .all(|text| !is_supported(text))
        );
    }

    #[test]
    fn a_home_that_cannot_be_made_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(home(&file.join("home")).state, State::Fault);
        let fine = folder.path().join("home");
        assert_eq!(home(&fine).state, State::Ok);
        assert_eq!(space(&fine, true).name, "disk");
    }
}
