//! The conformance kit: what keeps to the specification passes, and each fault is found by the one check that is about it.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic")]

use std::path::{Path, PathBuf};

use chorus_tests::{Home, fleet};
use serde_json::{Value, json};

/// Short, so that what never comes is not waited for long; long enough for an interpreter to start on a busy machine.
const PATIENCE: [&str; 6] = ["--start-within", "10", "--answer-within", "4", "--end-within", "3"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn fixture(name: &str) -> String {
    root().join("tests/fixtures/conformance").join(name).display().to_string()
}

fn path(path: PathBuf) -> String {
    path.display().to_string()
}

/// Runs the kit; its exit code and its report.
async fn check(home: &Home, role: &str, options: &[&str], command: &[String]) -> (i32, Value) {
    let mut all = vec!["conformance", role, "--json"];
    all.extend(options);
    all.push("--");
    all.extend(command.iter().map(String::as_str));
    let mut chorus = fleet::command(home, &all);
    chorus.env("PYTHONPATH", root().join("worker/engine")).env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = fleet::finish(chorus).await;
    (ran.code, ran.json())
}

fn named(report: &Value, status: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let checks = checks.filter(|check| check["status"] == status);
    checks.map(|check| check["name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn conforms((code, report): &(i32, Value), versions: &[&str]) {
    assert_eq!((*code, &report["success"]), (0, &json!(true)), "{report:#}");
    assert_eq!(named(report, "failed"), Vec::<String>::new(), "{report:#}");
    assert_eq!(report["versions"], json!(versions), "{report:#}");
}

#[track_caller]
fn fails_only((code, report): &(i32, Value), name: &str) {
    assert_eq!((*code, &report["success"]), (1, &json!(false)), "{report:#}");
    assert_eq!(named(report, "failed"), [name], "{report:#}");
    let failed =
        report["checks"].as_array().unwrap().iter().find(|check| check["status"] == "failed").unwrap();
    for told in ["expected", "came", "section"] {
        assert!(failed[told].as_str().is_some_and(|text| !text.is_empty()), "{failed}");
    }
}

#[tokio::test]
async fn our_own_engines_conform() {
    let home = Home::provisioned();
    for kind in ["null", "checkable"] {
        let args = ["-m", "chorus_engine", "--kind", kind, "--in-fd", "4", "--out-fd", "5"];
        let python = path(fleet::python(&home));
        let command: Vec<String> = [python].into_iter().chain(args.map(str::to_owned)).collect();
        let ran = check(&home, "engine", &[], &command).await;
        conforms(&ran, &["2.1.0"]);
        let passed = named(&ran.1, "passed");
        for name in ["load", "cancel", "in-flight", "unload", "under-a-worker"] {
            assert!(passed.iter().any(|passed| passed == name), "{name}: {:#}", ran.1);
        }
        assert!(ran.1["peer"].as_str().unwrap().starts_with(kind), "{:#}", ran.1);
    }
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn old_engines_conform() {
    let home = Home::provisioned();
    let python = path(fleet::python(&home));
    let old = vec![python.clone(), path(root().join("examples/legacy/tts_service.py"))];
    conforms(&check(&home, "engine", &[], &old).await, &["1.0.0"]);
    for version in ["1.0", "2.0", "2.1"] {
        let small = vec![python.clone(), fixture("engine.py"), version.to_owned(), "none".to_owned()];
        conforms(&check(&home, "engine", &PATIENCE, &small).await, &[&format!("{version}.0")]);
    }
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn each_fault_of_an_engine_is_found_by_the_check_that_is_about_it() {
    let home = Home::provisioned();
    let python = path(fleet::python(&home));
    let faults = [
        ("2.0", "wrong-id", "correlation"),
        ("2.1", "wrong-id", "correlation"),
        ("2.0", "no-newline", "framing"),
        ("1.0", "no-audio", "synthesis"),
        ("2.1", "no-audio", "synthesis"),
        ("2.0", "mixed-ids", "in-flight"),
        ("2.1", "mixed-ids", "in-flight"),
        ("2.0", "hangs-at-shutdown", "shutdown"),
        ("2.1", "ignores-the-end", "end-of-input"),
        ("1.0", "dies-of-unknown", "unknown-method"),
        ("2.1", "dies-of-garbage", "malformed"),
        ("2.1", "any-version", "version-refused"),
        ("2.1", "noise", "clean-output"),
        ("2.1", "never-unloads", "unload"),
    ];
    for (version, fault, name) in faults {
        let command = [python.as_str(), &fixture("engine.py"), version, fault].map(str::to_owned);
        let options = [&PATIENCE[..], &["--protocol", version]].concat();
        eprintln!("{version} {fault}");
        fails_only(&check(&home, "engine", &options, &command).await, name);
    }
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn our_own_gateway_conforms_in_every_version() {
    let home = Home::provisioned();
    let root = home.file("out");
    std::fs::create_dir(&root).unwrap();
    let args = ["stdio", "--engine", "checkable", "--output-root", root.to_str().unwrap()];
    let command: Vec<String> = [path(fleet::binary())].into_iter().chain(args.map(str::to_owned)).collect();
    let ran = check(&home, "gateway", &["--output-root", root.to_str().unwrap()], &command).await;
    conforms(&ran, &["1.0.0", "2.0.0", "2.1.0"]);
    let passed = named(&ran.1, "passed");
    for (name, times) in [
        ("in-flight", 3),
        ("output-confined", 3),
        ("stream-window", 2),
        ("version-refused", 1),
        ("metrics", 2),
        ("load-model", 2),
        ("unload-model", 2),
        ("subscribe", 2),
    ] {
        let counted = passed.iter().filter(|passed| *passed == name).count();
        assert_eq!(counted, times, "{name}: {:#}", ran.1);
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "the kit leaves no files");
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn each_fault_of_a_gateway_is_found_by_the_check_that_is_about_it() {
    let home = Home::provisioned();
    let (python, out) = (path(fleet::python(&home)), home.file("out"));
    std::fs::create_dir(&out).unwrap();
    let out = path(out);
    let options = [&PATIENCE[..], &["--output-root", &out]].concat();
    let command = |fault: &str| [python.as_str(), &fixture("gateway.py"), fault, &out].map(str::to_owned);
    conforms(&check(&home, "gateway", &options, &command("none")).await, &["2.0.0"]);
    let faults = [
        ("wrong-id", "correlation"),
        ("mixed-ids", "in-flight"),
        ("writes-in-place", "output-atomic"),
        ("lets-out", "output-confined"),
        ("ignores-the-window", "stream-window"),
        ("deaf-to-cancel", "cancel"),
        ("forgets-ids", "id-reused"),
        ("prints", "clean-output"),
        ("untyped-errors", "typed-errors"),
        ("any-version", "version-refused"),
        ("hangs-at-shutdown", "shutdown"),
        ("ignores-the-end", "end-of-input"),
        ("leaves-early", "end-of-input"),
        ("says-little", "status"),
        ("counts-nothing", "metrics"),
        ("loads-another", "load-model"),
        ("loads-no-more", "unload-model"),
        ("tells-everything", "subscribe"),
    ];
    for (fault, name) in faults {
        eprintln!("{fault}");
        fails_only(&check(&home, "gateway", &options, &command(fault)).await, name);
    }
    // The old service itself, as the gateway that it was: it writes over what is there.
    let old = [python.clone(), path(root().join("examples/legacy/tts_service.py"))];
    fails_only(&check(&home, "gateway", &PATIENCE, &old).await, "output-atomic");
    fleet::nothing_is_left(&home).await;
}

#[tokio::test]
async fn what_cannot_be_started_or_says_nothing_is_no_pass() {
    let home = Home::provisioned();
    let ran = fleet::finish(fleet::command(&home, &["conformance", "engine", "--", "no-such-program"])).await;
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let silent = [&PATIENCE[..], &["--protocol", "2.0"]].concat();
    let (code, report) = check(&home, "engine", &silent, &["/bin/cat".into(), "/dev/null".into()]).await;
    assert_eq!((code, named(&report, "failed")), (1, vec!["handshake".to_owned()]), "{report:#}");
    // For a person: the expectation, what came, and where it stands; no colours in a pipe.
    let mut command =
        fleet::command(&home, &["conformance", "gateway", "--start-within", "3", "--", "/bin/true"]);
    let ran = fleet::finish({
        command.env("TERM", "xterm");
        command
    })
    .await;
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    for word in ["failed  hello", "expected: ", "came: ", "docs/protocol.md, \"", "does not conform: "] {
        assert!(ran.text().contains(word), "{word} in {}", ran.text());
    }
    assert!(!ran.text().contains('\u{1b}'));
}
