//! `boxyard new plugin`: a project that builds elsewhere, and whose tests tell a good backend from
//! a bad one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use boxyard_conformance::{cargo, cases};
use boxyard_plugin_api::API_VERSION;

use super::{Cli, code, stderr, stdout};

/// What the template's backend returns for a command, and what one returns that loses exit codes.
const GOOD: &str = "self.agent()?.execute_command(&command, io, call).await\n";
const BAD: &str = "let mut exit = self.agent()?.execute_command(&command, io, call).await?;
        exit.exit_code = 0;
        Ok(exit)\n";

/// A project that was made in a directory of its own.
struct Project {
    directory: PathBuf,
    target: PathBuf,
    /// In one target directory, cargo takes packages of one name for one.
    _one_at_a_time: File,
}

impl Project {
    fn new(cli: &Cli) -> Self {
        let output = cli
            .command(&["new", "plugin", "demo-box"])
            .current_dir(cli.root())
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
        let directory = cli.root().join("demo-box");
        // The versions of this workspace, which are compiled in its target directory already.
        fs::copy(
            cargo::workspace().join("Cargo.lock"),
            directory.join("Cargo.lock"),
        )
        .unwrap();
        let target = cargo::target_dir().unwrap();
        let one_at_a_time = File::create(target.join("new-plugin.lock")).unwrap();
        one_at_a_time.lock().unwrap();
        Self {
            directory,
            target,
            _one_at_a_time: one_at_a_time,
        }
    }

    fn cargo(&self, arguments: &[&str]) -> Output {
        let mut command = cargo::foreign(cargo::cargo(), &self.directory, &self.target);
        command.args(arguments).output().unwrap()
    }

    /// Runs the conformance tests whose names contain something.
    fn test(&self, filter: &str) -> Output {
        self.cargo(&[
            "test",
            "--offline",
            "--test",
            "conformance",
            "--",
            "--color",
            "never",
            filter,
        ])
    }

    fn edit(&self, file: &str, old: &str, new: &str) {
        let path = self.directory.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "no {old:?} in {file}");
        fs::write(path, text.replace(old, new)).unwrap();
    }
}

/// Returns what a test run said of a case.
fn outcome(output: &Output, case: &str) -> String {
    let said = stdout(output);
    let mut lines = said.lines().filter(|line| line.starts_with("test "));
    let line = lines.find(|line| line.contains(&format!(" {case} ")));
    let line = line.unwrap_or_else(|| panic!("nothing of {case}: {said}{}", stderr(output)));
    line.rsplit("... ").next().unwrap().to_owned()
}

#[test]
fn a_new_project_passes_and_its_tests_see_the_library_of_their_build_alone() {
    let cli = Cli::empty();
    let project = Project::new(&cli);
    let formatted = project.cargo(&["fmt", "--check"]);
    assert_eq!(code(&formatted), 0, "{}", stdout(&formatted));

    let output = project.cargo(&["test", "--offline"]);
    assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    for case in cases::all() {
        let outcome = outcome(&output, case.id);
        assert!(
            outcome == "ok" || outcome.starts_with("ignored ("),
            "{}: {outcome}",
            case.id
        );
    }
    assert_eq!(outcome(&output, "exec-exit-code"), "ok");

    project.edit("src/lib.rs", GOOD, BAD);
    let output = project.test("exec-e");
    assert_eq!(code(&output), 101, "{}", stdout(&output));
    assert_eq!(outcome(&output, "exec-exit-code"), "FAILED");
    assert_eq!(outcome(&output, "exec-environment-is-added"), "ok");
    let said = stdout(&output);
    assert!(
        said.contains("expected (1, None), found (0, None)"),
        "{said}"
    );
    assert!(said.contains("breaks clause E2"), "{said}");

    // Good again; but cargo does not build it, and what is there is the bad one.
    project.edit("src/lib.rs", BAD, GOOD);
    let both = "crate-type = [\"cdylib\", \"rlib\"]";
    let cdylib = "crate-type = [\"cdylib\"]";
    project.edit("Cargo.toml", both, cdylib);
    let output = project.test("exec-exit-code");
    assert_ne!(code(&output), 0, "{}", stdout(&output));
    let said = stderr(&output);
    assert!(said.contains("found [\"cdylib\"]"), "{said}");

    project.edit("Cargo.toml", cdylib, both);
    let output = project.test("exec-exit-code");
    assert_eq!(outcome(&output, "exec-exit-code"), "ok");
}

#[test]
fn a_name_that_no_plugin_can_have_is_a_usage_error_with_one_that_it_can() {
    let cli = Cli::empty();
    for (name, expected) in [
        ("Demo_Box", "`demo-box` would do"),
        ("../demo", "`demo` would do"),
        ("box", "a keyword of Rust"),
        ("tokio", "a crate that plugins use"),
    ] {
        let output = cli
            .command(&["new", "plugin", name])
            .current_dir(cli.root())
            .output()
            .unwrap();
        assert_eq!(code(&output), 2, "{name}: {output:?}");
        assert!(stderr(&output).contains(expected), "{name}: {output:?}");
    }
    let here = fs::read_dir(cli.root()).unwrap().count();
    assert_eq!(here, 1, "more than the plugin directory is there");
}

#[test]
fn what_is_in_a_directory_stays_as_it_is() {
    let cli = Cli::empty();
    let work = cli.root().join("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("notes"), "mine").unwrap();
    let path = work.to_str().unwrap();
    let output = cli.output(&["new", "plugin", "demo-box", "--path", path]);
    assert_eq!(code(&output), 1, "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("found notes in it"), "{said}");
    assert!(said.contains("--path"), "{said}");
    assert_eq!(fs::read_dir(&work).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(work.join("notes")).unwrap(), "mine");
}

#[test]
fn a_project_that_cannot_be_written_is_not_half_made() {
    let cli = Cli::empty();
    let empty = cli.root().join("empty");
    fs::create_dir(&empty).unwrap();
    for directory in [cli.root().join("new"), empty] {
        let program = cli.command(&[]).get_program().to_owned();
        // Directories can be made, and files, in which there is room for nothing.
        let line = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
        let output = Command::new("/bin/sh")
            .args(["-c", line, "sh"])
            .arg(program)
            .args(["new", "plugin", "demo-box", "--path"])
            .arg(&directory)
            .output()
            .unwrap();
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(stderr(&output).contains("cannot make"), "{output:?}");
        let left = fs::read_dir(&directory).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{}", directory.display());
    }
    assert!(!cli.root().join("new").exists());
    assert!(cli.root().join("empty").exists());
}

#[test]
fn the_sdk_comes_from_where_the_host_does_unless_told() {
    let cli = Cli::empty();
    let made = |program: &Path, directory: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(["new", "plugin", "demo-box", "--path", directory])
            .args(arguments)
            .current_dir(cli.root())
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{output:?}");
        let manifest = cli.root().join(directory).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
        let api = manifest["dependencies"]["boxyard-plugin-api"].clone();
        (api, stderr(&output))
    };
    let program = cargo::program("boxyard").unwrap();
    let (api, said) = made(&program, "built", &[]);
    let source = cargo::workspace().canonicalize().unwrap();
    let expected = source.join("plugin-api");
    assert_eq!(api["path"].as_str(), expected.to_str());
    assert_eq!(said, "");

    let url = "https://example.org/boxyard.git";
    let (api, _) = made(&program, "git", &["--sdk-git", url, "--sdk-rev", "v1"]);
    assert_eq!(
        (api["git"].as_str(), api["rev"].as_str()),
        (Some(url), Some("v1"))
    );

    // Elsewhere it knows of no source.
    let installed = cli.root().join("boxyard");
    fs::copy(&program, &installed).unwrap();
    let (api, said) = made(&installed, "installed", &[]);
    // A candidate goes with itself alone.
    let is_candidate = API_VERSION.contains('-');
    let expected_version = format!("{}{API_VERSION}", if is_candidate { "=" } else { "" });
    assert_eq!(api.as_str(), Some(&*expected_version));
    assert!(said.contains("--sdk-path"), "{said}");
    let source = source.to_str().unwrap();
    let (api, said) = made(&installed, "told", &["--sdk-path", source]);
    assert_eq!(api["path"].as_str(), expected.to_str());
    assert_eq!(said, "");
}
