//! Loading: what is refused and why, and that nothing bad costs more than itself.

mod copies;
mod files;
mod foreign;
mod growth;
pub(crate) mod init;
mod inputs;
mod manifests;
mod names;
mod published;
mod rescan;
mod trust;

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use boxyard_conformance::{Library, Yard};
use boxyard_host::{Command, CreateRequest, Host, PluginReport, PluginStatus, Sandbox};

/// The fixture that everything else must leave working.
const GOOD: &str = "good.so";
/// The name of the file that a test is about; it is found before [`GOOD`].
const BAD: &str = "bad.so";

/// Runs a command in a sandbox and returns what it wrote.
async fn run(sandbox: &Arc<Sandbox>, argv: &[&str]) -> Result<String> {
    let command = Command::argv(argv.iter().copied());
    let result = sandbox.run(command, None).await?;
    Ok(result.stdout_text())
}

/// Makes a sandbox of a type, runs a command in it and deletes it.
async fn works(host: &Host, sandbox_type: &str) -> Result<()> {
    let request = CreateRequest::new(sandbox_type);
    let sandbox = host.manager().create(request).await?;
    let said = run(&sandbox, &["still", "here"]).await?;
    ensure!(said == "still here\n", "`{sandbox_type}` said {said:?}");
    host.manager().delete(sandbox.id()).await?;
    Ok(())
}

/// Starts a host on the yard with a good plugin added, sees that one work, and returns what
/// became of [`BAD`].
async fn beside_good(yard: &Yard) -> Result<PluginReport> {
    yard.put(GOOD, &Library::example("good")?)?;
    let host = yard.host().await?;
    let good = yard.report(&host, GOOD)?;
    ensure!(good.status == PluginStatus::Loaded, "{good:?}");
    works(&host, "good").await?;
    let report = yard.report(&host, BAD)?;
    host.shutdown().await;
    Ok(report)
}

/// Checks that a plugin was refused for a reason with all of these words.
fn assert_refused(report: &PluginReport, words: &[&str]) {
    let reason = report.reason.as_deref().unwrap_or_default();
    assert_eq!(report.status, PluginStatus::Quarantined, "{report:?}");
    for word in words {
        assert!(reason.contains(word), "no `{word}` in: {reason}");
    }
}

/// Checks that [`BAD`] is refused with these words while a good plugin beside it works.
async fn check_refused(library: &Library, words: &[&str]) -> Result<()> {
    let yard = Yard::new()?;
    yard.put(BAD, library)?;
    assert_refused(&beside_good(&yard).await?, words);
    Ok(())
}

/// Returns a plugin without sandbox types, whose names collide with nothing of [`GOOD`]'s.
fn hello() -> Result<Library> {
    Library::package("boxyard-plugin-hello")
}

/// Gives a file other permission bits.
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}
