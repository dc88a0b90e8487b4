//! What outlives a host: saved state, and the sweep of what is left.

use boxyard_plugin_api::{ErrorCode, State, SweepRequest};
use serde_json::json;

use crate::{
    case::{
        Needs::{Capability, NoCapability, SandboxType},
        cases,
    },
    subject::{Live, Subject, call, identity, services},
    verdict::{Finding, Outcome, check, check_eq},
};

cases! {
    "recovery-garbage-state-is-an-error" "R1" Must SandboxType => garbage;
    "recovery-of-a-later-version-is-refused" "R1" Must Capability("recovery") => later_version;
    "recovery-finds-a-running-sandbox" "R2" Must Capability("recovery") => finds_it;
    "recovery-state-is-saved-before-start" "R3" Must Capability("recovery") => state_is_saved;
    "recovery-sweep-spares-the-living" "R4" Must Capability("sweep") => sweep_spares;
    "recovery-sweep-removes-orphans" "R4" Must Capability("sweep") => sweep_removes { leaves_nothing: true };
    "recovery-sweep-keeps-what-is-young" "R4" Must Capability("sweep") => sweep_keeps_young;
    "recovery-sweep-of-nothing" "R4" Must Capability("sweep") => sweep_nothing;
    "recovery-sweep-undeclared-is-unsupported" "R5" Must NoCapability("sweep") => sweep_undeclared;
}

async fn garbage(subject: Subject) -> Outcome {
    for data in [
        json!(null),
        json!("text"),
        json!({"nobody": "knows"}),
        json!([1, 2]),
    ] {
        let state = State::new(1, &data)?;
        let (services, _identity, _told) = services(subject.lease());
        let found = subject
            .sandbox_type()?
            .recover(&state, services, call())
            .await;
        let code = found.map(|_| ()).map_err(|error| error.code());
        check!(
            code.is_err() && code != Err(ErrorCode::PANICKED),
            "expected an error for the state {:?}, found {code:?}",
            state.data
        );
    }
    Ok(())
}

/// A sandbox that waits for a later host, and what that has of it.
async fn lingering(subject: &Subject) -> Outcome<(Live, State)> {
    let mut identity = identity(subject.lease());
    identity.linger_ms = 60_000;
    let config = subject.config()?;
    let live = Live::create_as(subject.sandbox_type()?, &config, identity).await?;
    live.start().await?;
    match live.told().saved.pop() {
        Some(state) => Ok((live, state)),
        None => Err(Finding::Failed(
            "it declares recovery, and saved no state".into(),
        )),
    }
}

async fn later_version(subject: Subject) -> Outcome {
    let (live, mut state) = lingering(&subject).await?;
    state.version = u32::MAX;
    let identity = live.identity.clone();
    let found = Live::recover(subject.sandbox_type()?, &state, identity).await;
    check!(
        found.is_err(),
        "it takes a state of a version that it cannot know"
    );
    live.close().await
}

async fn finds_it(subject: Subject) -> Outcome {
    let (live, state) = lingering(&subject).await?;
    let runs_commands = subject.declares("commands")?;
    if runs_commands {
        live.sh("echo before > file").await?;
    }
    let identity = live.identity.clone();
    let lingers = !live
        .told()
        .metadata
        .contains(&("lingers".into(), false.into()));
    // As a host that dies leaves it.
    drop(live);
    let sandbox_type = subject.sandbox_type()?;
    let again = || Live::recover(sandbox_type, &state, identity.clone());
    let Some(found) = again().await? else {
        if !lingers {
            return Ok(());
        }
        return Err(Finding::Failed(
            "a sandbox that runs is said to be gone".into(),
        ));
    };
    if runs_commands {
        check_eq!(found.sh("cat file").await?, "before\n", "what was in it");
    }
    found.close().await?;
    let found = again().await?;
    check!(
        found.is_none(),
        "a sandbox that was cleaned up is said to run"
    );
    Ok(())
}

async fn state_is_saved(subject: Subject) -> Outcome {
    let live = subject.created().await?;
    check!(
        !live.told().saved.is_empty(),
        "nothing was saved when create had returned"
    );
    live.close().await
}

fn request(subject: &Subject, known: &[&Live], grace_ms: u64) -> SweepRequest {
    SweepRequest::new("conformance", [subject.dead_lease()])
        .known(known.iter().map(|live| &live.identity.id))
        .grace_ms(grace_ms)
}

async fn of_lease(subject: &Subject, lease: &str) -> Outcome<Live> {
    let config = subject.config()?;
    let live = Live::create(subject.sandbox_type()?, &config, lease).await?;
    live.start().await?;
    Ok(live)
}

async fn works(subject: &Subject, live: &Live, what: &str) -> Outcome {
    if subject.declares("commands")? {
        check_eq!(
            live.sh("echo on").await?,
            "on\n",
            "a command in {what} after the sweep"
        );
    }
    Ok(())
}

async fn sweep_spares(subject: Subject) -> Outcome {
    let (alive, known) = (
        of_lease(&subject, subject.lease()).await?,
        of_lease(&subject, &subject.dead_lease()).await?,
    );
    let swept = subject
        .sandbox_type()?
        .sweep(&request(&subject, &[&known], 0), call())
        .await?;
    check_eq!(swept.removed, Vec::<String>::new(), "what was removed");
    works(&subject, &alive, "a sandbox of a host that lives").await?;
    works(&subject, &known, "a sandbox that a host knows").await?;
    alive.close().await?;
    known.close().await
}

async fn sweep_removes(subject: Subject) -> Outcome {
    let orphan = of_lease(&subject, &subject.dead_lease()).await?;
    let id = orphan.identity.id.clone();
    // As a host that dies leaves it: nobody tells the plugin, which would remove it by itself.
    std::mem::forget(orphan);
    let began = std::time::Instant::now();
    loop {
        let swept = subject
            .sandbox_type()?
            .sweep(&request(&subject, &[], 0), call())
            .await?;
        if swept.removed.contains(&id) {
            break;
        }
        // It may still be on its way out.
        check!(
            swept.kept.contains(&id) && began.elapsed().as_secs() < 10,
            "an orphan is neither removed nor kept: {swept:?}"
        );
    }
    let again = subject
        .sandbox_type()?
        .sweep(&request(&subject, &[], 0), call())
        .await?;
    check!(!again.removed.contains(&id), "an orphan was removed twice");
    Ok(())
}

async fn sweep_keeps_young(subject: Subject) -> Outcome {
    let orphan = of_lease(&subject, &subject.dead_lease()).await?;
    let id = orphan.identity.id.clone();
    let swept = subject
        .sandbox_type()?
        .sweep(&request(&subject, &[], 3_600_000), call())
        .await?;
    check!(
        !swept.removed.contains(&id),
        "a sandbox younger than the grace was removed"
    );
    works(&subject, &orphan, "a young sandbox").await?;
    orphan.close().await
}

async fn sweep_nothing(subject: Subject) -> Outcome {
    let swept = subject
        .sandbox_type()?
        .sweep(&request(&subject, &[], 0), call())
        .await?;
    check_eq!(
        swept.removed,
        Vec::<String>::new(),
        "what was removed where nothing was"
    );
    Ok(())
}

async fn sweep_undeclared(subject: Subject) -> Outcome {
    let swept = subject
        .sandbox_type()?
        .sweep(&request(&subject, &[], 0), call())
        .await;
    let code = swept
        .map(|swept| swept.removed.len())
        .map_err(|error| error.code());
    check!(
        matches!(code, Ok(0) | Err(ErrorCode::UNIMPLEMENTED)),
        "a type that does not sweep answered {code:?}"
    );
    Ok(())
}
