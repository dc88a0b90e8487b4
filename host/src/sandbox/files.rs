//! What a sandbox holds and uses, for whoever owns it: files, archives, stats, its log.
//!
//! Each of these needs a sandbox that runs. Dropping the future ends what was begun.

use std::sync::Arc;

use boxyard_plugin_api::{
    ByteSink, ByteSource, FileInfo, GetArchive, LogRequest, MakeDirectory, PutArchive, ReadFile,
    RemovePath, Result, Stats, WriteFile,
};

use super::Sandbox;
use crate::backend::Terms;

impl Sandbox {
    /// Reads a file, or a part of one, into a sink.
    ///
    /// # Errors
    ///
    /// There is no such file, it cannot be read, or the sandbox has no files.
    pub async fn read_file(self: &Arc<Self>, request: &ReadFile, to: ByteSink) -> Result<()> {
        self.call(Terms::default(), |handle, call| {
            handle.read_file(request, to, call)
        })
        .await
    }

    /// Writes a file from a source; whoever reads it sees the old content or the new, never a part.
    ///
    /// # Errors
    ///
    /// It cannot be written, the source broke off, or the sandbox has no files.
    pub async fn write_file(self: &Arc<Self>, request: &WriteFile, from: ByteSource) -> Result<()> {
        self.call(Terms::default(), |handle, call| {
            handle.write_file(request, from, call)
        })
        .await
    }

    /// Looks at what is at a path; at a symbolic link itself.
    ///
    /// # Errors
    ///
    /// There is nothing, or the sandbox has no files.
    pub async fn stat(self: &Arc<Self>, path: &str) -> Result<FileInfo> {
        self.call(Terms::default(), |handle, call| handle.stat(path, call))
            .await
    }

    /// Lists a directory.
    ///
    /// # Errors
    ///
    /// There is no such directory, or the sandbox has no files.
    pub async fn list(self: &Arc<Self>, path: &str) -> Result<Vec<FileInfo>> {
        self.call(Terms::default(), |handle, call| handle.list(path, call))
            .await
    }

    /// Removes a file or a directory.
    ///
    /// # Errors
    ///
    /// There is nothing, it is a directory with something in it, or the sandbox has no files.
    pub async fn remove(self: &Arc<Self>, request: &RemovePath) -> Result<()> {
        self.call(Terms::default(), |handle, call| {
            handle.remove(request, call)
        })
        .await
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// It cannot be made, or the sandbox has no files.
    pub async fn make_directory(self: &Arc<Self>, request: &MakeDirectory) -> Result<()> {
        self.call(Terms::default(), |handle, call| {
            handle.make_directory(request, call)
        })
        .await
    }

    /// Unpacks a tar stream in a directory.
    ///
    /// # Errors
    ///
    /// It is no archive, an entry leaves the directory, or the sandbox takes no archives.
    pub async fn put_archive(
        self: &Arc<Self>,
        request: &PutArchive,
        from: ByteSource,
    ) -> Result<()> {
        self.call(Terms::default(), |handle, call| {
            handle.put_archive(request, from, call)
        })
        .await
    }

    /// Packs a file or a directory into a tar stream.
    ///
    /// # Errors
    ///
    /// There is nothing, it cannot be read, or the sandbox gives no archives.
    pub async fn get_archive(self: &Arc<Self>, request: &GetArchive, to: ByteSink) -> Result<()> {
        self.call(Terms::default(), |handle, call| {
            handle.get_archive(request, to, call)
        })
        .await
    }

    /// Returns what it uses now.
    ///
    /// # Errors
    ///
    /// The sandbox measures nothing.
    pub async fn stats(self: &Arc<Self>) -> Result<Stats> {
        self.call(Terms::default(), |handle, call| handle.stats(call))
            .await
    }

    /// Copies its own log into a sink.
    ///
    /// # Errors
    ///
    /// The sandbox keeps no log.
    pub async fn logs(self: &Arc<Self>, request: &LogRequest, to: ByteSink) -> Result<()> {
        self.call(Terms::default(), |handle, call| {
            handle.logs(request, to, call)
        })
        .await
    }
}
