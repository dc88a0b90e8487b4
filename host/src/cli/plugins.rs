//! `boxyard plugins list`, `inspect` and `install`.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, Global, on_runtime, output, start_host};
use crate::{
    config::{Config, user_plugin_dir},
    exit,
    plugin::{self, Inspected, PluginReport, PluginStatus, inspect},
};

#[derive(Debug, Subcommand)]
pub(super) enum PluginsVerb {
    /// List every plugin that is found: loaded, or not and why.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a file says of itself, without running any of it.
    Inspect {
        /// The library.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy a library into your plugin directory and pin its content.
    Install {
        /// The library.
        file: PathBuf,
    },
}

pub(super) fn run(verb: PluginsVerb, global: &Global) -> Result<u8, Failure> {
    match verb {
        PluginsVerb::List { json } => on_runtime(list(global.prepare()?, json)),
        PluginsVerb::Inspect { file, json } => show(&file, json),
        PluginsVerb::Install { file } => install(&file, global),
    }
}

async fn list(mut config: Config, as_json: bool) -> Result<u8, Failure> {
    // The list itself says what is wrong.
    config.log = format!("{},boxyard_host::plugin=error", config.log);
    let host = start_host(config, exit::FAILURE).await?;
    let (reports, problems) = (host.plugins(), host.plugin_dir_problems());
    if as_json {
        output::json(&json!({ "plugins": reports }))?;
    } else {
        print_list(&reports, &host)?;
    }
    host.shutdown().await;
    for problem in &problems {
        output::complain(&anyhow!("{problem}"));
    }
    Ok(if problems.is_empty() {
        exit::SUCCESS
    } else {
        exit::FAILURE
    })
}

fn print_list(reports: &[PluginReport], host: &crate::Host) -> Result<(), Failure> {
    if reports.is_empty() {
        output::line("no plugins found; searched:")?;
        for directory in host.config().plugin_dirs().0 {
            output::line(format_args!("  {}", directory.display()))?;
        }
        return Ok(());
    }
    let unknown = || "-".to_owned();
    let rows = reports.iter().map(|report| {
        let file = report
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let types = report
            .sandbox_types
            .iter()
            .map(|one| format!("{} (isolation: {})", one.name, one.isolation));
        vec![
            report.name.clone().unwrap_or(file),
            report.version.clone().unwrap_or_else(unknown),
            report.status.to_string(),
            filled(types.collect::<Vec<_>>().join(", ")),
            filled(report.tools.join(", ")),
        ]
    });
    output::table(
        &["PLUGIN", "VERSION", "STATUS", "SANDBOX TYPES", "TOOLS"],
        rows.collect(),
    )?;
    for report in reports
        .iter()
        .filter(|report| report.status != PluginStatus::Loaded)
    {
        let style = output::colour(report.status);
        let reason = report.reason.as_deref().unwrap_or_default();
        output::line(format_args!(
            "\n{style}{}{style:#} {}\n  it {reason}",
            report.status,
            report.path.display()
        ))?;
    }
    Ok(())
}

fn filled(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// A manifest with the hash of the file that it was read from.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    manifest: &'a boxyard_plugin_api::Manifest,
    sha256: &'a str,
}

fn read(file: &Path) -> Result<Inspected, Failure> {
    inspect(file).map_err(|error| {
        Failure::new(
            exit::FAILURE,
            anyhow!(
                "{} is no plugin for this machine: it {error}",
                file.display()
            ),
        )
    })
}

fn show(file: &Path, as_json: bool) -> Result<u8, Failure> {
    let plugin = read(file)?;
    let shown = Shown {
        manifest: &plugin.manifest,
        sha256: &plugin.sha256,
    };
    if as_json {
        output::json(&shown)?;
        return Ok(exit::SUCCESS);
    }
    let Value::Object(fields) =
        serde_json::to_value(&shown).map_err(|error| Failure::new(exit::FAILURE, error))?
    else {
        return Ok(exit::SUCCESS);
    };
    for (name, value) in fields {
        let text = match value {
            Value::String(text) => text,
            other => output::one_line(&other),
        };
        output::line(format_args!("{name:<14} {text}"))?;
    }
    Ok(exit::SUCCESS)
}

fn install(file: &Path, global: &Global) -> Result<u8, Failure> {
    let plugin = read(file)?;
    let config = global.config()?;
    plugin::admit(&plugin, &config.plugin(&plugin.manifest.name)).map_err(|error| {
        Failure::new(
            exit::FAILURE,
            anyhow!("{} would not be loaded: it {error}", file.display()),
        )
    })?;
    let directory = global.plugin_dir.first().cloned().or_else(user_plugin_dir);
    let directory = directory.ok_or_else(|| {
        Failure::usage("there is no home directory: name a directory with --plugin-dir")
    })?;
    let path = directory.join(format!(
        "{}{}",
        plugin.manifest.name,
        std::env::consts::DLL_SUFFIX
    ));
    copy(&plugin, &directory, &path)
        .with_context(|| format!("cannot install {}", path.display()))
        .map_err(|error| Failure::new(exit::FAILURE, error))?;
    output::line(format_args!(
        "installed {} {} as {}\npinned to SHA-256 {}",
        plugin.manifest.name,
        plugin.manifest.version,
        path.display(),
        plugin.sha256
    ))?;
    Ok(exit::SUCCESS)
}

/// Writes the library under its final name in one step, and its pin first: a crash between the
/// two leaves a plugin that is refused, never one that is loaded unpinned.
fn copy(plugin: &Inspected, directory: &Path, path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    plugin.write_to(&mut file)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    plugin::pin(path, &plugin.sha256)?;
    file.persist(path)?;
    Ok(())
}
