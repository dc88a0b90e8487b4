//! What a file or a directory must be, told without running anything.

use std::{fs, os::unix::fs::symlink, time::Duration};

use anyhow::Result;
use boxyard_conformance::{Library, Yard};
use boxyard_host::PluginStatus;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{BAD, GOOD, assert_refused, beside_good, check_refused, hello, works};

/// Where an ELF header has its type, its machine and its class.
const E_CLASS: usize = 4;
const E_TYPE: usize = 16;
const E_MACHINE: usize = 18;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_is_no_problem() -> Result<()> {
    let yard = Yard::new()?;
    let host = yard.host().await?;
    assert!(host.plugins().is_empty());
    assert!(host.plugin_dir_problems().is_empty());
    assert_eq!(host.registry().types().count(), 0);
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_cannot_be_searched_leave_the_others() -> Result<()> {
    let mut yard = Yard::new()?;
    yard.put(GOOD, &Library::example("good")?)?;
    // A path through a file cannot be listed by anyone, root included.
    let behind_file = yard.plugins().join(GOOD).join("plugins");
    let missing = yard.root().join("missing");
    yard.config.plugin_dirs = Some(vec![behind_file.clone(), missing.clone(), yard.plugins()]);
    let host = yard.host().await?;
    let problems: Vec<String> = host
        .plugin_dir_problems()
        .iter()
        .map(ToString::to_string)
        .collect();
    let [unlisted, absent] = problems.as_slice() else {
        panic!("expected two problems: {problems:?}");
    };
    assert!(
        unlisted.starts_with("cannot list plugin directory")
            && unlisted.contains(&behind_file.display().to_string()),
        "{unlisted}"
    );
    assert!(
        absent.contains(&missing.display().to_string()) && absent.contains("create it"),
        "{absent}"
    );
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_library_for_this_machine_is_refused_from_its_bytes() -> Result<()> {
    let hello = hello()?;
    let half = hello.bytes().len() / 2;
    let other_machine = if cfg!(target_arch = "aarch64") {
        62_u16
    } else {
        183
    };
    for (what, library, words) in [
        (
            "text",
            Library::from_bytes("#!/bin/sh\necho I am a library\n"),
            ["is not a shared library", "expected a 64-bit"],
        ),
        (
            "nothing",
            Library::from_bytes(""),
            ["is not a shared library", "expected a 64-bit"],
        ),
        (
            "another machine's",
            hello.with_bytes_at(E_MACHINE, &other_machine.to_le_bytes())?,
            ["64-bit", "expected a 64-bit"],
        ),
        (
            "a 32-bit one",
            Library::from_bytes(elf32()),
            ["is a 32-bit I386 file", "expected a 64-bit"],
        ),
        (
            "one that calls itself 32-bit",
            hello.with_bytes_at(E_CLASS, &[1])?,
            ["is not a shared library", "expected a 64-bit"],
        ),
        (
            "an object file that is not linked",
            hello.with_bytes_at(E_TYPE, &[1, 0])?,
            ["kind Relocatable", "expected a 64-bit"],
        ),
        (
            "half a library",
            Library::from_bytes(&hello.bytes()[..half]),
            ["is truncated", "copy it again"],
        ),
        (
            "a library without its section table",
            Library::from_bytes(&hello.bytes()[..hello.bytes().len() - 100]),
            ["is truncated", "copy it again"],
        ),
    ] {
        check_refused(&library, &words)
            .await
            .map_err(|error| error.context(what))?;
    }
    Ok(())
}

/// Returns the header of a 32-bit shared library, and nothing more.
fn elf32() -> Vec<u8> {
    let mut header = b"\x7fELF\x01\x01\x01".to_vec();
    header.resize(16, 0);
    // Shared object, 80386, version 1; no entry, no tables.
    header.extend([3, 0, 3, 0, 1, 0, 0, 0]);
    header.resize(40, 0);
    // The sizes of the header and of the entries of its tables.
    header.extend([52, 0, 32, 0, 0, 0, 40, 0, 0, 0, 0, 0]);
    header
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_without_a_manifest_is_refused() -> Result<()> {
    let words = [
        "has no Boxyard manifest",
        "`BOXYARD_MANIFEST`",
        "register_plugin!",
    ];
    check_refused(&Library::example("no_manifest")?, &words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_truncation_is_refused_and_says_so() -> Result<()> {
    let hello = hello()?;
    let length = hello.bytes().len();
    for tenth in 1..10 {
        let library = Library::from_bytes(&hello.bytes()[..length * tenth / 10]);
        let yard = Yard::new()?;
        let path = yard.put(BAD, &library)?;
        let error = boxyard_host::plugin::inspect(&path).map(|plugin| plugin.manifest);
        let reason = error.expect_err("a truncated library").to_string();
        assert!(
            reason.starts_with("is truncated") && reason.contains("copy it again"),
            "{tenth} tenths: {reason}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_is_refused_at_once() -> Result<()> {
    let yard = Yard::new()?;
    let path = yard.plugins().join(BAD);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Nobody ever writes to the pipe: whoever opens it the plain way waits for ever.
    let report = tokio::time::timeout(Duration::from_secs(60), beside_good(&yard)).await??;
    assert_refused(&report, &["is not a regular file"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_a_librarys_name_is_refused() -> Result<()> {
    let yard = Yard::new()?;
    fs::create_dir(yard.plugins().join(BAD))?;
    assert_refused(&beside_good(&yard).await?, &["is not a regular file"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_is_refused_even_where_directories_are_trusted() -> Result<()> {
    for trust in [false, true] {
        let mut yard = Yard::new()?;
        yard.config.trust_plugin_dirs = trust;
        let target = yard.put("aside", &hello()?)?;
        symlink(target, yard.plugins().join(BAD))?;
        assert_refused(
            &beside_good(&yard).await?,
            &["is a symbolic link", "copy it there"],
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_other_names_are_not_looked_at() -> Result<()> {
    let yard = Yard::new()?;
    yard.put(
        "README.md",
        &Library::from_bytes("How to install plugins.\n"),
    )?;
    yard.put("hello.so.bak", &hello()?)?;
    yard.put(GOOD, &Library::example("good")?)?;
    let host = yard.host().await?;
    let reports = host.plugins();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].status, PluginStatus::Loaded);
    host.shutdown().await;
    Ok(())
}
