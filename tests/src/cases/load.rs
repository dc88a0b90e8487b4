//! What is true of a library before and while it is loaded.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use boxyard_plugin_api::{API_VERSION, canonical_type_name};
use semver::Version;

use crate::{
    case::{Needs::Library, cases},
    subject::{Subject, process::ProcessState},
    verdict::{Finding, Outcome, check, check_eq},
};

cases! {
    "load-manifest-is-read-from-the-bytes" "L1" Must Library => manifest_is_read;
    "load-version-is-semantic" "L2" Must Library => version_is_semantic;
    "load-api-version-fits-this-host" "L3" Must Library => api_version_fits;
    "load-names-are-canonical" "L4" Must Library => names_are_canonical;
    "load-offers-something" "L4" Must Library => offers_something;
    "load-unwinds-and-never-aborts" "L5" Must Library => unwinds;
    "load-host-takes-it" "L6" Must Library => host_takes_it;
    "load-code-keeps-the-manifest" "L6" Must Library => code_keeps_the_manifest;
    "load-is-fast" "L7" Should Library => is_fast;
    "load-writes-nothing-outside-its-directory" "L8" Must Library => writes_nothing;
    "load-leaves-the-process-as-it-was" "L9" Must Library => leaves_the_process { leaves_nothing: true };
    "load-twice-in-one-process" "L10" Must Library => twice;
}

async fn manifest_is_read(subject: Subject) -> Outcome {
    let inspected = subject.inspect()?;
    check!(
        !inspected.manifest.name.is_empty(),
        "the plugin has an empty name"
    );
    Ok(())
}

async fn version_is_semantic(subject: Subject) -> Outcome {
    let manifest = subject.inspect()?.manifest;
    let version = Version::parse(&manifest.version);
    check!(
        version.is_ok(),
        "version `{}` is not semantic",
        manifest.version
    );
    Ok(())
}

async fn api_version_fits(subject: Subject) -> Outcome {
    let inspected = subject.inspect()?;
    let host = Version::parse(API_VERSION)?;
    check_eq!(
        inspected.api_version.major,
        host.major,
        "the major version of its plugin API"
    );
    check!(
        inspected.min_host_api <= host,
        "it needs a host with plugin API {}, this one has {host}",
        inspected.min_host_api
    );
    Ok(())
}

async fn names_are_canonical(subject: Subject) -> Outcome {
    let manifest = subject.inspect()?.manifest;
    let mut seen = BTreeSet::new();
    for known in &manifest.sandbox_types {
        check_eq!(
            known.name,
            canonical_type_name(&known.name),
            "the name of a sandbox type"
        );
        check!(
            seen.insert(&known.name),
            "there are two sandbox types `{}`",
            known.name
        );
    }
    let mut seen = BTreeSet::new();
    for tool in &manifest.tools {
        check!(!tool.is_empty(), "a tool has an empty name");
        check!(seen.insert(tool), "there are two tools `{tool}`");
    }
    Ok(())
}

async fn offers_something(subject: Subject) -> Outcome {
    let manifest = subject.inspect()?.manifest;
    check!(
        !manifest.sandbox_types.is_empty() || !manifest.tools.is_empty(),
        "it offers neither a sandbox type nor a tool"
    );
    Ok(())
}

async fn unwinds(subject: Subject) -> Outcome {
    let manifest = subject.inspect()?.manifest;
    check!(
        !manifest.panic_abort,
        "it was built with panic=abort: a panic would end the host"
    );
    Ok(())
}

async fn host_takes_it(subject: Subject) -> Outcome {
    Ok(subject.loaded()?)
}

async fn code_keeps_the_manifest(subject: Subject) -> Outcome {
    let (offered, manifest) = (subject.offered()?, subject.inspect()?.manifest);
    let of_code: Vec<_> = offered
        .sandbox_types
        .iter()
        .map(|known| &known.name)
        .collect();
    let of_manifest: Vec<_> = manifest
        .sandbox_types
        .iter()
        .map(|known| &known.name)
        .collect();
    check_eq!(of_code, of_manifest, "the sandbox types of its code");
    for (code, manifest) in offered.sandbox_types.iter().zip(&manifest.sandbox_types) {
        check_eq!(
            code.isolation,
            manifest.isolation,
            "the isolation of `{}`",
            code.name
        );
    }
    let of_code: Vec<_> = offered.tools.iter().map(|tool| &tool.name).collect();
    check_eq!(
        of_code,
        manifest.tools.iter().collect::<Vec<_>>(),
        "the tools of its code"
    );
    Ok(())
}

async fn is_fast(subject: Subject) -> Outcome {
    /// Milliseconds are what it takes; the rest is for machines that do much else.
    const LIMIT: Duration = Duration::from_secs(3);
    subject.loaded()?;
    let began = Instant::now();
    subject.host().rescan().await;
    for (what, took) in [
        ("loading it", subject.loading()),
        ("finding it again", began.elapsed()),
    ] {
        check!(
            took < LIMIT,
            "{what}: expected within {} ms, and it took {} ms",
            LIMIT.as_millis(),
            took.as_millis()
        );
    }
    Ok(())
}

/// What a host keeps beside the plugins' directories.
const HOSTS_OWN: [&str; 2] = ["host-id", "leases"];

async fn writes_nothing(subject: Subject) -> Outcome {
    subject.loaded()?;
    let own = subject.data_dir()?;
    // The case's temporary directory and its home are in here, and so is all that a host writes.
    let state = subject.root().join("state");
    for entry in fs::read_dir(&state)? {
        let path = entry?.path();
        check!(
            own.starts_with(&path) || HOSTS_OWN.iter().any(|name| path.ends_with(name)),
            "it wrote {} when it was loaded: expected nothing outside of its data directory",
            path.display()
        );
    }
    let temporary = std::env::temp_dir();
    for entry in fs::read_dir(&temporary)? {
        let path = entry?.path();
        check!(
            subject.root().starts_with(&path),
            "it wrote {} when it was loaded",
            path.display()
        );
    }
    Ok(())
}

async fn leaves_the_process(subject: Subject) -> Outcome {
    subject.loaded()?;
    let (before, after) = (subject.before(), ProcessState::now()?);
    check_eq!(
        after.working_dir,
        before.working_dir,
        "the working directory"
    );
    check_eq!(after.umask, before.umask, "the umask");
    check_eq!(
        after.signals,
        before.signals,
        "the signals that are handled and ignored"
    );
    check_eq!(
        after.children,
        before.children,
        "the processes that it started"
    );
    check!(
        after.environment == before.environment,
        "it changed the environment of the host"
    );
    Ok(())
}

async fn twice(subject: Subject) -> Outcome {
    subject.loaded()?;
    let again = subject.host().rescan().await;
    let report = again.first().ok_or_else(|| {
        Finding::Failed("the plugin is not found again in the same directory".into())
    })?;
    check_eq!(
        report.status,
        subject.report().status,
        "its status when it is found again"
    );
    Ok(())
}
