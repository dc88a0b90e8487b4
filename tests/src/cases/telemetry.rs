//! What a plugin tells, and what it keeps to itself.

use std::time::Duration;

use boxyard_plugin_api::{Command, ErrorCode};
use serde_json::json;

use crate::{
    case::{
        Needs::{Capability, SandboxType},
        cases,
    },
    subject::{Live, Subject, bench, call, log, within},
    verdict::{Outcome, check, check_eq},
};

cases! {
    "telemetry-prints-nothing" "O1" Must SandboxType => prints_nothing { prints_nothing: true };
    "telemetry-tells-no-secret" "O2" Must Capability("commands") => no_secret;
    "telemetry-stats-go-forward" "O3" Must Capability("stats") => stats;
    "telemetry-information-in-every-state" "O4" Must SandboxType => information;
}

async fn prints_nothing(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    if subject.declares("commands")? {
        live.sh("echo to the host alone; echo and this >&2").await?;
    }
    for tool in subject.tools() {
        // What it answers is looked at elsewhere.
        let _ = tool.execute(&json!({}), bench::refusing(), call()).await;
    }
    live.close().await?;
    subject.shut_down().await;
    Ok(())
}

async fn no_secret(subject: Subject) -> Outcome {
    let secret = crate::secret();
    let live = subject.sandbox().await?;
    let command = Command::shell("test -n \"$TOKEN\"").env("TOKEN", &secret);
    check_eq!(live.code(command).await, Ok(0), "a command with a secret");
    let info = live.handle.info(call()).await?;
    live.close().await?;
    let (told, logged) = (live.told(), log::lines());
    for (place, text) in [
        ("log", logged.join("\n")),
        ("events", format!("{:?}", told.events)),
        ("metadata", format!("{:?}", told.metadata)),
        ("saved state", format!("{:?}", told.saved)),
        ("information", json!(info).to_string()),
    ] {
        check!(
            !text.contains(&secret),
            "the value of a command's variable is in its {place}"
        );
    }
    Ok(())
}

async fn stats(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut before = live.handle.stats(call()).await?;
    for _ in 0..3 {
        if subject.declares("commands")? {
            live.sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
                .await?;
        }
        let after = live.handle.stats(call()).await?;
        check!(
            after.cpu_us >= before.cpu_us,
            "processor time went from {:?} us to {:?} us",
            before.cpu_us,
            after.cpu_us
        );
        before = after;
    }
    live.close().await
}

async fn informed(live: &Live, when: &str) -> Outcome {
    let asked = live.handle.info(call());
    let answer = within(Duration::from_secs(10), "information", asked).await?;
    let code = answer.map(|_| ()).map_err(|error| error.code());
    check!(
        matches!(code, Ok(()) | Err(ErrorCode::FAILED_PRECONDITION)),
        "information {when}: {code:?}"
    );
    let asked = live.handle.execution_context(call());
    let answer = within(Duration::from_secs(10), "the execution context", asked).await?;
    let code = answer.map(|_| ()).map_err(|error| error.code());
    check!(
        matches!(code, Ok(()) | Err(ErrorCode::FAILED_PRECONDITION)),
        "the execution context {when}: {code:?}"
    );
    Ok(())
}

async fn information(subject: Subject) -> Outcome {
    let live = subject.created().await?;
    informed(&live, "before start").await?;
    live.start().await?;
    informed(&live, "of a sandbox that runs").await?;
    live.handle.stop(call()).await?;
    informed(&live, "after stop").await?;
    live.handle.cleanup(call()).await?;
    informed(&live, "after cleanup").await
}
