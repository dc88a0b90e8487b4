//! The life of a sandbox: made, started, stopped, cleaned up.

use std::time::Duration;

use boxyard_plugin_api::{CallController, Command, ErrorCode};

use crate::{
    case::{
        Needs::{Capability, SandboxType},
        cases,
    },
    subject::{Live, Subject, call, within},
    verdict::{Finding, Outcome, check_eq},
};

/// How long the end of a sandbox may take that runs nothing.
const QUICK: Duration = Duration::from_secs(10);

cases! {
    "lifecycle-create-start-stop-cleanup" "B1" Must SandboxType => whole_life { leaves_nothing: true };
    "lifecycle-cleanup-leaves-nothing" "B2" Must SandboxType => cleanup_leaves_nothing { leaves_nothing: true };
    "lifecycle-stop-twice" "B3" Must SandboxType => stop_twice;
    "lifecycle-cleanup-twice" "B3" Must SandboxType => cleanup_twice;
    "lifecycle-stop-before-start" "B4" Must SandboxType => stop_before_start;
    "lifecycle-cleanup-without-stop" "B5" Must SandboxType => cleanup_without_stop { leaves_nothing: true };
    "lifecycle-dropped-without-anything" "B6" Must SandboxType => dropped { leaves_nothing: true };
    "lifecycle-nothing-runs-before-start" "B7" Must Capability("commands") => nothing_before_start;
    "lifecycle-nothing-runs-after-stop" "B7" Must Capability("commands") => nothing_after_stop;
    "lifecycle-runs-as-soon-as-it-is-started" "B13" Must Capability("commands") => runs_at_once;
    "lifecycle-stop-is-quick" "B8" Must SandboxType => stop_is_quick;
    "lifecycle-sandboxes-are-apart" "B9" Must SandboxType => sandboxes_are_apart;
    "lifecycle-many-cycles" "B10" Must SandboxType => many_cycles { leaves_nothing: true, deadline: Duration::from_secs(60) };
    "lifecycle-exited-is-not-said-of-a-stop" "B11" Must SandboxType => stop_is_no_exit;
    "lifecycle-create-that-was-cancelled" "B12" Must SandboxType => cancelled_create { leaves_nothing: true };
}

async fn whole_life(subject: Subject) -> Outcome {
    let live = subject.created().await?;
    live.start().await?;
    live.handle.stop(call()).await?;
    live.handle.cleanup(call()).await?;
    drop(live);
    subject.shut_down().await;
    Ok(())
}

async fn cleanup_leaves_nothing(subject: Subject) -> Outcome {
    // What a plugin keeps for all sandboxes is made by the first.
    subject.sandbox().await?.close().await?;
    let before = super::paths_below(&subject.data_dir()?)?;
    let live = subject.sandbox().await?;
    if subject.declares("commands")? {
        live.sh("echo > left-over").await?;
    }
    live.close().await?;
    let after = super::paths_below(&subject.data_dir()?)?;
    check_eq!(after, before, "what is in its data directory after cleanup");
    Ok(())
}

async fn stop_twice(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.handle.stop(call()).await?;
    live.handle.stop(call()).await?;
    live.handle.cleanup(call()).await?;
    Ok(())
}

async fn cleanup_twice(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.close().await?;
    live.handle.cleanup(call()).await?;
    Ok(())
}

async fn stop_before_start(subject: Subject) -> Outcome {
    let live = subject.created().await?;
    live.close().await
}

async fn cleanup_without_stop(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.handle.cleanup(call()).await?;
    Ok(())
}

async fn dropped(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    drop(live);
    subject.shut_down().await;
    Ok(())
}

/// Expects a command to be refused, for the sandbox does not run.
async fn nothing_runs(live: &Live, when: &str) -> Outcome {
    match live.run(Command::shell("echo ran")).await {
        Ok(output) => Err(Finding::Failed(format!(
            "a command ran {when}, and said {:?}",
            output.out()
        ))),
        Err(error) => {
            check_eq!(
                error.code(),
                ErrorCode::FAILED_PRECONDITION,
                "the error of a command {when}"
            );
            Ok(())
        }
    }
}

async fn nothing_before_start(subject: Subject) -> Outcome {
    let live = subject.created().await?;
    nothing_runs(&live, "before start").await?;
    live.close().await
}

async fn nothing_after_stop(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.handle.stop(call()).await?;
    nothing_runs(&live, "after stop").await?;
    live.handle.cleanup(call()).await?;
    Ok(())
}

async fn runs_at_once(subject: Subject) -> Outcome {
    for _ in 0..5 {
        let live = subject.sandbox().await?;
        check_eq!(
            live.code(Command::argv(["true"])).await,
            Ok(0),
            "a command as soon as start had returned"
        );
        live.close().await?;
    }
    Ok(())
}

async fn stop_is_quick(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    within(QUICK, "stop", live.handle.stop(call())).await??;
    within(QUICK, "cleanup", live.handle.cleanup(call())).await??;
    Ok(())
}

async fn sandboxes_are_apart(subject: Subject) -> Outcome {
    let (one, other) = (subject.sandbox().await?, subject.sandbox().await?);
    one.close().await?;
    if subject.declares("commands")? {
        check_eq!(
            other.sh("echo on").await?,
            "on\n",
            "the other sandbox's output"
        );
    }
    other.close().await
}

async fn many_cycles(subject: Subject) -> Outcome {
    for _ in 0..20 {
        subject.sandbox().await?.close().await?;
    }
    Ok(())
}

async fn stop_is_no_exit(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.close().await?;
    check_eq!(live.told().exited, None, "what it told of its end");
    Ok(())
}

async fn cancelled_create(subject: Subject) -> Outcome {
    subject.sandbox().await?.close().await?;
    let before = super::paths_below(&subject.data_dir()?)?;
    let controller = CallController::new(0);
    controller.cancel();
    let (services, _identity, _told) = crate::subject::services(subject.lease());
    let config = subject.config()?;
    let made = subject
        .sandbox_type()?
        .create(&config, services, controller.call());
    match within(QUICK, "a create that was cancelled", made).await? {
        // It was done before it heard of it: the host deletes it.
        Ok(handle) => handle.cleanup(call()).await?,
        Err(error) => {
            check_eq!(
                error.code(),
                ErrorCode::CANCELLED,
                "the error of a cancelled create"
            );
        }
    }
    let after = super::paths_below(&subject.data_dir()?)?;
    check_eq!(after, before, "what is in its data directory");
    Ok(())
}
