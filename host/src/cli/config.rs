//! `boxyard config check`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Failure, Global, output};
use crate::{config::Config, exit};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Read a configuration file and say whether it is in order.
    Check {
        /// The file; the one that other verbs would read where it is left out.
        file: Option<PathBuf>,
    },
}

pub(super) fn run(verb: &ConfigVerb, global: &Global) -> Result<u8, Failure> {
    let ConfigVerb::Check { file } = verb;
    let file = file
        .clone()
        .or_else(|| global.config_file.clone())
        .or_else(Config::default_path);
    match file {
        Some(path) => {
            Config::read(&path)?;
            output::line(format_args!("{} is in order", path.display()))?;
        }
        None => output::line("there is no configuration file; the defaults hold")?,
    }
    Ok(exit::SUCCESS)
}
