//! The methods of a sandbox that its agent does, written once for every backend.

/// Implements what an agent does, inside an `impl Sandbox for …`: commands, files, archives
/// and stats.
///
/// Takes `self` and an expression for a `Result<&Client>`; start, stop and cleanup stay the
/// backend's own.
///
/// ```
/// use std::{path::PathBuf, sync::OnceLock, time::Duration};
///
/// use boxyard_agent::{Client, protocol::Setup};
/// use boxyard_plugin_api::prelude::*;
///
/// struct Boundary {
///     context: SandboxContext,
///     /// The agent's program.
///     program: PathBuf,
///     agent: OnceLock<Client>,
/// }
///
/// impl Boundary {
///     fn agent(&self) -> Result<&Client> {
///         self.agent.get().ok_or_else(|| Error::failed_precondition("not started"))
///     }
/// }
///
/// impl Sandbox for Boundary {
///     boxyard_agent::delegate!(self => self.agent());
///
///     async fn start(&self, _call: &Call) -> Result<()> {
///         let mut boundary = std::process::Command::new("unshare");
///         boundary.args(["--pid", "--fork", "--mount-proc"]).arg(&self.program);
///         let (mut child, line) = boxyard_agent::spawn(boundary).await?;
///         let (client, work) = Client::connect(line, Setup::default()).await?;
///         self.context.spawn(async move {
///             work.await;
///             // It ends with its line; nothing is left to do if it cannot be waited for.
///             let _ = tokio::task::spawn_blocking(move || child.wait()).await;
///         });
///         self.agent.set(client).map_err(|_| Error::internal("started twice"))
///     }
///
///     async fn stop(&self, _call: &Call) -> Result<()> {
///         self.agent()?.shut_down(Duration::from_secs(10)).await
///     }
///
///     async fn cleanup(&self, _call: &Call) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
#[macro_export]
macro_rules! delegate {
    ($self:ident => $client:expr) => {
        async fn execute_command(
            &$self,
            command: $crate::plugin_api::Command,
            io: $crate::plugin_api::CommandIo,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<$crate::plugin_api::CommandExit> {
            $client?.execute_command(&command, io, call).await
        }

        async fn stats(
            &$self,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<$crate::plugin_api::Stats> {
            $client?.stats(call).await
        }

        $crate::delegate_files!($self => $client);
    };
}

/// Implements what [`delegate!`] does but commands and stats, for a backend that adds to those:
/// files and archives.
#[macro_export]
macro_rules! delegate_files {
    ($self:ident => $client:expr) => {
        async fn read_file(
            &$self,
            request: $crate::plugin_api::ReadFile,
            to: $crate::plugin_api::ByteSink,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<()> {
            $client?.read_file(&request, to, call).await
        }

        async fn write_file(
            &$self,
            request: $crate::plugin_api::WriteFile,
            from: $crate::plugin_api::ByteSource,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<()> {
            $client?.write_file(&request, from, call).await
        }

        async fn stat(
            &$self,
            path: String,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<$crate::plugin_api::FileInfo> {
            $client?.stat(&path, call).await
        }

        async fn list(
            &$self,
            path: String,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<Vec<$crate::plugin_api::FileInfo>> {
            $client?.list(&path, call).await
        }

        async fn remove(
            &$self,
            request: $crate::plugin_api::RemovePath,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<()> {
            $client?.remove(&request, call).await
        }

        async fn make_directory(
            &$self,
            request: $crate::plugin_api::MakeDirectory,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<()> {
            $client?.make_directory(&request, call).await
        }

        async fn put_archive(
            &$self,
            request: $crate::plugin_api::PutArchive,
            from: $crate::plugin_api::ByteSource,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<()> {
            $client?.put_archive(&request, from, call).await
        }

        async fn get_archive(
            &$self,
            request: $crate::plugin_api::GetArchive,
            to: $crate::plugin_api::ByteSink,
            call: &$crate::plugin_api::Call,
        ) -> $crate::plugin_api::Result<()> {
            $client?.get_archive(&request, to, call).await
        }
    };
}
