//! Configuration, verbs of others, and the rest.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use super::{Cli, code, stderr, stdout};

#[test]
fn config_check_names_the_key_and_exits_with_78() {
    let cli = Cli::new();
    assert_eq!(code(&cli.output(&["config", "check"])), 0);
    let directory = cli.root().join("config/boxyard");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("boxyard.toml"), "plugin_dir = []\n").unwrap();
    for verb in [
        &["config", "check"][..],
        &["plugins", "list"],
        &["run", "-t", "local-process", "--", "true"],
    ] {
        let output = cli.output(verb);
        assert_eq!(code(&output), 78, "{output:?}");
        assert!(
            stderr(&output).contains("did you mean `plugin_dirs`?"),
            "{output:?}"
        );
    }
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let cli = Cli::new();
    let directory = cli.root().join("config/boxyard");
    fs::create_dir_all(&directory).unwrap();
    fs::write(
        directory.join("boxyard.toml"),
        "plugin_dirs = ['/nonexistent/file']\n",
    )
    .unwrap();
    let searched = |command: &mut Command| stderr(&command.output().unwrap());
    let list = ["plugins", "list"];
    assert_eq!(searched(&mut cli.command(&list)), "");
    let file = searched(cli.command(&list).env_remove("BOXYARD_PLUGIN_PATH"));
    assert!(file.contains("/nonexistent/file"), "{file}");
    let flag = searched(
        cli.command(&list)
            .args(["--plugin-dir", "/nonexistent/flag"]),
    );
    assert!(
        flag.contains("/nonexistent/flag") && !flag.contains("/nonexistent/file"),
        "{flag}"
    );
}

#[test]
fn verbs_of_others_are_found_on_path_and_misspelt_ones_are_corrected() {
    let cli = Cli::new();
    let program = cli.root().join("boxyard-greet");
    fs::write(&program, "#!/bin/sh\necho \"greetings, $*\"; exit 5\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", cli.root().display());
    let output = cli
        .command(&["greet", "you", "--all"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert_eq!(
        (code(&output), stdout(&output).as_str()),
        (5, "greetings, you --all\n")
    );
    let output = cli.output(&["plugin", "list"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("did you mean `plugins`?"),
        "{output:?}"
    );
}

#[test]
fn completions_are_printed_and_an_unwritable_state_is_a_clear_error() {
    let cli = Cli::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = cli.output(&["completions", shell]);
        assert!(
            code(&output) == 0 && stdout(&output).contains("plugins"),
            "{shell}: {output:?}"
        );
    }
    let file = cli.root().join("a-file");
    fs::write(&file, "").unwrap();
    let mut command = cli.command(&["run", "-t", "local-process", "--", "true"]);
    let output = command.env("XDG_STATE_HOME", &file).output().unwrap();
    assert_eq!(code(&output), 125);
    assert!(stderr(&output).contains("state directory"), "{output:?}");
}
