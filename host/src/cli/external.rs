//! `boxyard VERB` for verbs of others: `boxyard-VERB` beside this program, else on PATH.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use clap::CommandFactory;

use super::{Cli, Failure};
use crate::spelling::nearest;

pub(super) fn run(words: &[OsString]) -> Result<u8, Failure> {
    let [verb, arguments @ ..] = words else {
        return Err(Failure::usage("expected a verb; see `boxyard --help`"));
    };
    let Some(program) = find(verb) else {
        return Err(unknown(verb));
    };
    // Only returns when the program cannot be started.
    let error = Command::new(&program).args(arguments).exec();
    Err(Failure::usage(format_args!(
        "cannot start {}: {error}",
        program.display()
    )))
}

fn find(verb: &OsStr) -> Option<PathBuf> {
    let mut name = OsString::from("boxyard-");
    name.push(verb);
    let beside = env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.to_path_buf()));
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(&name))
        .find(|program| program.is_file())
}

fn unknown(verb: &OsStr) -> Failure {
    let verb = verb.to_string_lossy();
    let known: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let near = nearest(&verb, &known).map(|near| format!(" (did you mean `{near}`?)"));
    Failure::usage(format_args!(
        "there is no verb `{verb}`{}, and no `boxyard-{verb}` beside this program or on PATH; see `boxyard --help`",
        near.unwrap_or_default()
    ))
}
