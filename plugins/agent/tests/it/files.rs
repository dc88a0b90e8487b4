//! Files: what each operation does, what it answers, and what it leaves behind.

mod list;
mod names;
mod read;
mod root;
mod write;

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use boxyard_plugin_api::{FileInfo, Result};

use crate::harness::*;

/// An agent, and the directory that its relative paths start at and no path leaves.
async fn in_root() -> (TestAgent, tempfile::TempDir) {
    let root = open_directory();
    let agent = agent(rooted(root.path())).await;
    (agent, root)
}

fn mode_of(path: impl AsRef<Path>) -> u32 {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.permissions().mode() & 0o7777
}

fn names_in(directory: impl AsRef<Path>) -> BTreeSet<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let names = fs::read_dir(directory).unwrap().map(name);
    names.map(|name| name.into_string().unwrap()).collect()
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn make_pipe(path: PathBuf) {
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

fn one_file_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, "name", &b"x"[..]).unwrap();
    builder.into_inner().unwrap()
}

async fn stat(agent: &TestAgent, path: &str) -> Result<FileInfo> {
    within(agent.client.stat(path, &call())).await
}

async fn list(agent: &TestAgent, path: &str) -> Result<Vec<FileInfo>> {
    within(agent.client.list(path, &call())).await
}
