//! What is asked for too much is an error, and never a panic.

use boxyard_plugin_api::{Command, ErrorCode, MakeDirectory, RemovePath};

use crate::{
    case::{
        Needs::{Capability, SandboxType},
        cases,
    },
    subject::{Live, Subject, call, log},
    verdict::{Outcome, check, check_eq},
};

cases! {
    "safety-hostile-paths" "S1" Must Capability("files") => paths;
    "safety-hostile-commands" "S1" Must Capability("commands") => commands;
    "safety-a-life-without-a-panic" "S2" Must SandboxType => a_life;
}

fn no_panic<T>(answer: Result<T, boxyard_plugin_api::Error>, what: &str) -> Outcome {
    match answer {
        Err(error) if error.code() == ErrorCode::PANICKED => {
            check!(
                false,
                "{what}: expected an answer or an error, found {error}"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn paths(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let hostile = [
        String::new(),
        "\0".into(),
        "a\0b".into(),
        "name\nwith\u{1b}[31mlines".into(),
        "x".repeat(300),
        "x/".repeat(3_000),
        "../".repeat(50),
        "/".repeat(5_000),
        "\u{202e}txt.exe".into(),
    ];
    for path in &hostile {
        let shown: String = path.chars().take(20).collect();
        let what = |request: &str| format!("{request} of the path {shown:?}…");
        no_panic(live.read(path).await, &what("reading"))?;
        no_panic(live.handle.stat(path, call()).await, &what("looking"))?;
        no_panic(live.handle.list(path, call()).await, &what("listing"))?;
        // What is above the sandbox is nobody's to write to or to remove.
        if path.contains("..") || path.starts_with('/') || path.is_empty() {
            continue;
        }
        no_panic(live.write(path, "x").await, &what("writing"))?;
        let request = MakeDirectory::new(path.clone());
        no_panic(
            live.handle.make_directory(&request, call()).await,
            &what("making"),
        )?;
        let request = RemovePath::new(path.clone());
        no_panic(
            live.handle.remove(&request, call()).await,
            &what("removing"),
        )?;
    }
    live.write("fine", "after all that").await?;
    check_eq!(
        live.read("fine").await?,
        b"after all that",
        "a file after all that"
    );
    live.close().await
}

/// Whatever it answers, it answers, and the sandbox goes on.
async fn survives(live: &Live, what: &str, command: Command) -> Outcome {
    no_panic(live.run(command).await, what)?;
    check_eq!(
        live.code(Command::argv(["true"])).await,
        Ok(0),
        "a command after {what}"
    );
    Ok(())
}

async fn commands(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let long = "x".repeat(200_000);
    survives(
        &live,
        "an argument of 200 kB",
        Command::argv(["true", &long]),
    )
    .await?;
    let many = std::iter::repeat_n("argument", 20_000);
    let argv = std::iter::once("true").chain(many);
    survives(&live, "20,000 arguments", Command::argv(argv)).await?;
    let environment = (0..2_000).fold(Command::argv(["true"]), |command, number| {
        command.env(format!("NAME_{number}"), "value")
    });
    survives(&live, "2,000 variables", environment).await?;
    let place = Command::argv(["true"]).working_dir("x/".repeat(5_000));
    survives(&live, "a directory of 10 kB", place).await?;
    let line = Command::shell("'\"$(`{[(\n\\");
    survives(&live, "a line that no shell understands", line).await?;
    let mut user = Command::argv(["true"]);
    user.user = Some("4294967295:-1:x".into());
    survives(&live, "a user that is none", user).await?;
    live.close().await
}

async fn a_life(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    if subject.declares("commands")? {
        live.sh("echo on").await?;
    }
    live.close().await?;
    drop(live);
    // One that is dropped as it is has more to do.
    drop(subject.sandbox().await?);
    subject.shut_down().await;
    let panics = log::lines()
        .into_iter()
        .filter(|line| line.contains("source=\"panic\""));
    let panics: Vec<String> = panics.collect();
    check!(
        panics.is_empty(),
        "it panicked where nobody saw it: {}",
        panics.join("\n")
    );
    Ok(())
}
