//! The conformance harness, as the author of a plugin runs it.

mod faults;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use boxyard_conformance::{Library, cases};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn harness(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boxyard-conformance"))
        .args(arguments)
        .output()
        .unwrap()
}

fn report(plugin: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let plugin = plugin.to_str().unwrap();
    let output = harness(&[&[plugin, "--format", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), report)
}

/// Puts a library where the harness finds it.
fn put(directory: &Path, name: &str, library: &Library) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, library.bytes()).unwrap();
    path
}

#[test]
fn every_case_has_a_name_of_its_own_and_a_clause_of_the_contract() {
    let contract = include_str!("../CONTRACT.md");
    let mut names = BTreeSet::new();
    for case in cases::all() {
        assert!(names.insert(case.id), "two cases are called {}", case.id);
        let clause = format!("* **{}** ", case.clause);
        assert!(
            contract.contains(&clause),
            "{}: no clause {}",
            case.id,
            case.clause
        );
    }
    assert!(names.len() >= 80, "{} cases", names.len());
    for line in contract
        .lines()
        .filter_map(|line| line.strip_prefix("* **"))
    {
        let clause = line.split("**").next().unwrap();
        let mut looking = cases::all().filter(|case| case.clause == clause);
        assert!(looking.next().is_some(), "no case looks at clause {clause}");
    }
}

#[test]
fn a_tool_only_plugin_conforms_and_its_sandbox_cases_are_excluded() {
    let place = tempfile::tempdir().unwrap();
    let hello = Library::package("boxyard-plugin-hello").unwrap();
    let (code, report) = report(&put(place.path(), "hello.so", &hello), &["--seed", "7"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(
        (&report["pass"], &report["seed"]),
        (&true.into(), &7.into())
    );
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), cases::all().count());
    let exec = cases
        .iter()
        .filter(|case| case["id"].as_str().unwrap().starts_with("exec-"));
    assert!(exec.clone().count() > 20);
    for case in exec {
        assert_eq!(
            (&case["verdict"], &case["excluded"]),
            (&"skipped".into(), &true.into())
        );
    }
}

#[test]
fn what_cannot_be_run_says_why_and_ends_with_2() {
    let place = tempfile::tempdir().unwrap();
    let text = place.path().join("text.so");
    std::fs::write(&text, "text").unwrap();
    let hello = Library::package("boxyard-plugin-hello").unwrap();
    let hello = put(place.path(), "hello.so", &hello);
    for (arguments, expected) in [
        (vec!["/no/such/plugin.so"], "/no/such/plugin.so"),
        (vec![text.to_str().unwrap()], "not a shared library"),
        (
            vec![hello.to_str().unwrap(), "--type", "docker"],
            "no sandbox type `docker`",
        ),
        (
            vec![hello.to_str().unwrap(), "--only", "nonsense"],
            "no case or group `nonsense`",
        ),
    ] {
        let output = harness(&arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_plugin_for_another_host_fails_the_cases_that_say_so() {
    let place = tempfile::tempdir().unwrap();
    let hello = Library::package("boxyard-plugin-hello").unwrap();
    let later = hello.with("api_version", "9.0.0").unwrap();
    let later = put(place.path(), "later.so", &later);
    let (code, report) = report(&later, &["--only", "load"]);
    assert_eq!(code, Some(1), "{report:#}");
    let verdict = |id: &str| {
        let mut cases = report["cases"].as_array().unwrap().iter();
        let case = cases.find(|case| case["id"] == id).unwrap();
        case["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict("load-host-takes-it"), "failed");
    assert_eq!(verdict("load-api-version-fits-this-host"), "failed");
    assert_eq!(verdict("load-version-is-semantic"), "passed");
}

#[test]
fn reports_are_what_other_programs_read() {
    let place = tempfile::tempdir().unwrap();
    let hello = Library::package("boxyard-plugin-hello").unwrap();
    let hello = put(place.path(), "hello.so", &hello);
    let text = |format: &str| {
        let plugin = hello.to_str().unwrap();
        let output = harness(&[plugin, "--only", "load", "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let cases = cases::all().filter(|case| case.group() == "load").count();
    let tap = text("tap");
    assert!(
        tap.starts_with(&format!("TAP version 14\n1..{cases}\nok 1 - load-")),
        "{tap}"
    );
    let junit = text("junit");
    assert!(junit.starts_with("<?xml"), "{junit}");
    assert_eq!(junit.matches("<testcase ").count(), cases, "{junit}");
    let human = text("human");
    assert!(human.contains(&format!("| passed | {cases} |")), "{human}");
    assert!(human.contains("conforms"), "{human}");
}

#[test]
fn an_interrupted_run_ends_soon_and_leaves_nothing() {
    let (place, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plugin = Library::package("boxyard-plugin-local-process").unwrap();
    let plugin = put(place.path(), "local-process.so", &plugin);
    let mut harness = Command::new(env!("CARGO_BIN_EXE_boxyard-conformance"))
        .arg(plugin)
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(harness.stdout.take().unwrap()).lines();
    // Others run when one has ended.
    lines.next().unwrap().unwrap();
    let pid = Pid::from_raw(harness.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let began = Instant::now();
    for line in lines {
        line.unwrap();
    }
    let output = harness.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("interrupted"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(15), "it went on");
    let left = std::fs::read_dir(temporary.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let place = temporary.path().to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap() {
        let command = process.unwrap().path().join("cmdline");
        let command = std::fs::read_to_string(command).unwrap_or_default();
        assert!(!command.contains(place), "{command:?} still runs");
    }
}
