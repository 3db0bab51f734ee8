//! Provisioning against scripted installers: every fault is named, nothing unfinished counts, and the next run goes on.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod interruption;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use chorus_provision::{Error, Profile, Provisioner, Quiet, Want};
use chorus_runtime::fs::FileLock;
use support::{LIGHT, Machine};

#[tokio::test]
async fn what_is_there_is_found_at_once_without_a_process() {
    let machine = Machine::new();
    let (provisioner, memory) = machine.provisioner();
    assert_eq!(provisioner.installed(LIGHT), None);
    let provided = provisioner.provide(LIGHT).await.unwrap();
    assert!(memory.heard("finished Environment"));
    let engine = provided.engine.clone().unwrap();
    assert!(engine.python.exists() && engine.source.join("chorus_engine/__main__.py").exists());

    machine.uv("exit 9");
    let begun = Instant::now();
    assert_eq!(provisioner.installed(LIGHT), Some(provided.clone()));
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(50), "markers alone are read: {took:?}");
    assert_eq!(provisioner.provide(LIGHT).await.unwrap(), provided);
    assert_eq!(machine.uv_runs("pip"), 1);
}

#[tokio::test]
async fn a_fault_is_named_leaves_nothing_and_the_next_run_succeeds() {
    type Is = fn(&Error) -> bool;
    let faults: [(&str, Is); 5] = [
        ("echo 'error: No space left on device (os error 28)' >&2; exit 2", |e| {
            matches!(e, Error::DiskFull { .. })
        }),
        ("echo 'Hash mismatch for `msgpack==1.1.2`' >&2; exit 1", |e| {
            matches!(e, Error::HashMismatch { .. })
        }),
        ("echo 'error sending request for url (https://me:pw@pypi.org/)' >&2; exit 2", |e| {
            matches!(e, Error::NoNetwork { .. }) && !e.to_string().contains("pw")
        }),
        ("echo 'msgpack has no wheels with a matching platform tag' >&2; exit 1", |e| {
            matches!(e, Error::UnsupportedPlatform { .. })
        }),
        ("echo 'something new' >&2; exit 4", |e| {
            matches!(e, Error::Tool { .. }) && e.to_string().contains("something new")
        }),
    ];
    for (fault, is_named) in faults {
        let machine = Machine::new();
        let (provisioner, _) = machine.provisioner();
        machine.uv(fault);
        let error = provisioner.provide(LIGHT).await.unwrap_err();
        assert!(is_named(&error), "{fault}: {error:?}");
        assert_eq!(provisioner.installed(LIGHT), None, "{fault}");
        assert!(is_empty(&machine.path("home/env")), "{fault} left something");

        machine.uv("true");
        provisioner.provide(LIGHT).await.unwrap();
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test]
async fn an_installer_that_never_ends_is_ended() {
    let machine = Machine::new();
    machine.uv("exec sleep 600");
    let mut config = machine.config();
    config.install_limit = Duration::from_millis(300);
    let error = Provisioner::new(config, std::sync::Arc::new(Quiet)).provide(LIGHT).await.unwrap_err();
    assert!(error.to_string().contains("took longer"), "{error}");
}

#[tokio::test]
async fn a_machine_without_a_fitting_python_is_told_what_to_install() {
    let machine = Machine::new();
    machine.program("bin/python3", "#!/bin/sh\necho 3.9\necho /usr/bin/python3\n");
    let (provisioner, _) = machine.provisioner();
    let too_old = provisioner.provide(LIGHT).await.unwrap_err();
    assert!(too_old.to_string().contains("python3: 3.9") && too_old.to_string().contains("CHORUS_PYTHON"));

    machine.without("bin/python3");
    let none = provisioner.provide(LIGHT).await.unwrap_err();
    assert!(matches!(none, Error::PythonMissing { .. }) && none.to_string().contains("nstall"), "{none}");
}

#[tokio::test]
async fn a_python_without_pip_is_told_apart() {
    let machine = Machine::new();
    machine.without("bin/uv");
    let (provisioner, _) = machine.provisioner();
    let error = provisioner.provide(LIGHT).await.unwrap_err();
    assert!(matches!(error, Error::PipMissing { .. }), "{error}");
    assert!(is_empty(&machine.path("home/tools")));
}

#[tokio::test]
async fn a_server_on_the_path_is_used_when_it_is_new_enough() {
    let machine = Machine::new();
    let want = Want { nats_server: true, engine: None, voice: false };
    machine.program("bin/nats-server", "#!/bin/sh\necho nats-server: v2.12.3\n");
    let (provisioner, _) = machine.provisioner();
    let provided = provisioner.provide(want).await.unwrap();
    assert_eq!(provided.nats_server, Some(machine.path("bin/nats-server")));
    assert_eq!(provisioner.installed(want), Some(provided));

    machine.program("bin/nats-server", "#!/bin/sh\necho nats-server: v2.9.10 of Debian\n");
    machine.uv("for f; do [ -d \"$f\" ] && mkdir -p $f/bin && : > $f/bin/nats-server; done; :");
    assert_eq!(provisioner.installed(want), None, "the file has changed");
    let pinned = provisioner.provide(want).await.unwrap().nats_server.unwrap();
    assert!(pinned.starts_with(machine.path("home/tools")), "{}", pinned.display());
}

#[tokio::test]
async fn a_refused_voice_is_an_error_in_the_importers_words() {
    let machine = Machine::new();
    let refusal = r#"{"event":"error","reason":"multi_speaker","message":"this voice has 4 speakers"}"#;
    machine.program("engine-python", &format!("#!/bin/sh\necho '{refusal}'\nexit 3\n"));
    let onnx = machine.path("many.onnx");
    std::fs::write(&onnx, "weights").unwrap();
    let (provisioner, _) = machine.provisioner();
    let error = provisioner.import_voice(&onnx, "many").await.unwrap_err();
    assert!(matches!(&error, Error::VoiceRefused { reason, .. } if reason == "multi_speaker"), "{error}");
    assert!(chorus_provision::voices(&machine.config()).unwrap().is_empty());
    assert!(matches!(provisioner.import_voice(&onnx, "../up").await, Err(Error::VoiceName { .. })));

    machine.program("home/env/python", "#!/bin/sh\n");
    let python =
        provisioner.installed(Want { engine: Some(Profile::Coqui), ..LIGHT }).unwrap().engine.unwrap().python;
    std::fs::copy(machine.path("home/env/python"), python).unwrap();
    let voice = provisioner.import_voice(&onnx, "one").await.unwrap();
    assert_eq!(chorus_provision::voices(&machine.config()).unwrap(), std::slice::from_ref(&voice));
    assert_eq!(provisioner.import_voice(&onnx, "one").await.unwrap(), voice);
    std::fs::write(&onnx, "other weights").unwrap();
    assert!(matches!(provisioner.import_voice(&onnx, "one").await, Err(Error::VoiceExists { .. })));
}

#[tokio::test]
async fn a_lock_that_is_never_freed_is_an_error_that_names_its_holder() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("home")).unwrap();
    let path = machine.path("home/provision.lock");
    let _held = FileLock::acquire(&path, "process 4711", Duration::ZERO).await.unwrap();
    let mut config = machine.config();
    config.lock_wait = Duration::from_millis(100);
    let error = Provisioner::new(config, std::sync::Arc::new(Quiet)).provide(LIGHT).await.unwrap_err();
    assert!(matches!(&error, Error::LockTimeout { holder, .. } if holder == "process 4711"), "{error}");
}
