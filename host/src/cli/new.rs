//! `boxyard new plugin`.

mod name;
mod project;
mod sdk;

use std::path::PathBuf;

use clap::Subcommand;

use self::{name::PluginName, sdk::Sdk};
use super::{Failure, output};
use crate::exit;

#[derive(Debug, Subcommand)]
pub(super) enum NewVerb {
    /// Make the project of a plugin: a backend that works, its tests, and a guide.
    Plugin(PluginArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct PluginArgs {
    /// The name of the package and of its sandbox type; `boxyard-plugin-` in front is for the
    /// package alone.
    name: PluginName,
    /// Make it in this directory, new or empty; in one of its name without it.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Take the SDK from Boxyard's source in this directory.
    #[arg(long, value_name = "DIR", conflicts_with = "sdk_git")]
    sdk_path: Option<PathBuf>,
    /// Take the SDK from Boxyard's source in this git repository.
    #[arg(long, value_name = "URL")]
    sdk_git: Option<String>,
    /// The commit or tag of that repository.
    #[arg(long, value_name = "REV", requires = "sdk_git")]
    sdk_rev: Option<String>,
}

pub(super) fn run(verb: NewVerb) -> Result<u8, Failure> {
    let NewVerb::Plugin(args) = verb;
    let PluginArgs {
        name,
        path,
        sdk_path,
        sdk_git,
        sdk_rev,
    } = args;
    let sdk = match (sdk_path, sdk_git) {
        (Some(directory), _) => {
            Sdk::in_directory(&directory).map_err(|error| Failure::new(exit::USAGE, error))?
        }
        (None, Some(url)) => Sdk::Git { url, rev: sdk_rev },
        (None, None) => Sdk::at_hand(),
    };
    let directory = path.unwrap_or_else(|| name.package().into());
    project::make(&directory, &name, &sdk).map_err(|error| Failure::new(exit::FAILURE, error))?;
    output::line(format_args!(
        "made {} with the SDK from {sdk}; its README.md says how to go on

    cd {}
    cargo test
    cargo build --release
    boxyard plugins install target/release/lib{}.so
    boxyard run -t {} -- echo hi",
        name.package(),
        directory.display(),
        name.library(),
        name.sandbox_type()
    ))?;
    if matches!(sdk, Sdk::Registry) {
        output::remark(
            "\nnote: as long as the SDK is not on the registry, this needs Boxyard's source: \
             --sdk-path DIR or --sdk-git URL",
        );
    }
    Ok(exit::SUCCESS)
}
