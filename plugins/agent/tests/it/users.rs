//! Users: who runs a command, whose files are, and what one user may do to the agent.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use boxyard_agent::protocol::Setup;
use boxyard_plugin_api::{ByteSource, Command, ErrorCode, ReadFile, TerminalSize, WriteFile, pipe};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::harness::*;

/// Says who runs it: user, group, all groups, home.
const WHO: &str = "id -u; id -g; id -G; echo \"$HOME\"";

fn as_user(user: &str, line: &str) -> Command {
    let mut command = Command::shell(line);
    command.user = Some(user.into());
    command
}

#[tokio::test]
async fn a_command_runs_as_whom_it_names() {
    if !is_root("a command runs as whom it names") {
        return;
    }
    let agent = agent(setup()).await;
    for (user, expected) in [
        ("4711", "4711\n0\n0\n/\n"),
        ("4711:4712", "4711\n4712\n4712\n/\n"),
        ("65534:1", "65534\n1\n1\n/nonexistent\n"),
        ("nobody", "65534\n65534\n65534\n/nonexistent\n"),
        ("nobody:daemon", "65534\n1\n1\n/nonexistent\n"),
        ("0:0", "0\n0\n0\n/root\n"),
        ("root", "0\n0\n0\n/root\n"),
    ] {
        let output = agent.run(as_user(user, WHO)).await;
        assert_eq!(output.out(), expected, "{user}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_user_has_all_his_groups_unless_one_is_named() {
    if !is_root("a user has all his groups") {
        return;
    }
    let files = [
        (
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nann:x:7:70:Ann:/home/ann:\n",
        ),
        (
            "/etc/group",
            "ann:x:70:\ndocker:x:8:bob,ann\nstaff:x:9:annie\nann2:x:10:ann\n",
        ),
    ];
    let agent = agent_with_files(&files, setup()).await;
    for (user, expected) in [
        ("ann", "7\n70\n70 8 10\n/home/ann\n"),
        ("7", "7\n70\n70 8 10\n/home/ann\n"),
        ("ann:staff", "7\n9\n9\n/home/ann\n"),
        ("ann:4712", "7\n4712\n4712\n/home/ann\n"),
    ] {
        assert_eq!(
            agent.run(as_user(user, WHO)).await.out(),
            expected,
            "{user}"
        );
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_user_that_is_none_is_refused() {
    if !is_root("a user that is none is refused") {
        return;
    }
    let agent = agent(setup()).await;
    for user in [
        "no-such-user",
        "nobody:no-such-group",
        "nobody:",
        ":0",
        "",
        "-1",
        "-1:-1",
        "4294967296",
        // To the kernel these mean that nothing is to change, which would leave root.
        "4294967295",
        "4294967295:4294967295",
        "65534:4294967295",
    ] {
        let refused = agent.try_run(as_user(user, "id -u")).await;
        assert_eq!(code(refused), ErrorCode::INVALID_ARGUMENT, "`{user}`");
    }
    agent.stop().await;
}

#[tokio::test]
async fn home_is_the_users_unless_somebody_says_so() {
    if !is_root("home is the user's") {
        return;
    }
    let mut setup = setup();
    setup.env.insert("HOME".into(), "/of/the/sandbox".into());
    let agent = agent(setup).await;
    let line = "echo \"$HOME\"";
    assert_eq!(agent.sh(line).await, "/of/the/sandbox\n");
    let own = as_user("nobody", line).env("HOME", "/of/the/command");
    assert_eq!(agent.run(own).await.out(), "/of/the/command\n");
    let mut cleared = as_user("nobody", "/usr/bin/env");
    cleared.clear_env = true;
    let output = agent.run(cleared).await;
    assert!(!output.out().contains("HOME"), "{output:?}");
    agent.stop().await;
}

#[tokio::test]
async fn home_is_the_agents_users_where_nobody_is_named() {
    if !is_root("home is the agent's user's") {
        return;
    }
    let passwd = "root:x:0:0::/home/of/root:/bin/sh\nann:x:7:70:Ann:/home/ann:\n";
    let files = [("/etc/passwd", passwd)];
    let agent = agent_with_files(&files, setup()).await;
    let line = "echo \"$HOME\"";
    assert_eq!(agent.sh(line).await, "/home/of/root\n");
    let own = Command::shell(line).env("HOME", "/of/the/command");
    assert_eq!(agent.run(own).await.out(), "/of/the/command\n");
    assert_eq!(agent.run(as_user("ann", line)).await.out(), "/home/ann\n");
    let mut cleared = Command::argv(["/usr/bin/env"]).env("ONLY", "1");
    cleared.clear_env = true;
    assert_eq!(agent.run(cleared).await.out(), "ONLY=1\n");
    agent.stop().await;
    for (user, home) in [(NOBODY, "/nonexistent\n"), (4711, "/\n")] {
        let agent = agent_as(user, setup()).await;
        assert_eq!(agent.sh(line).await, home, "{user}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_list_of_users_that_has_no_end_holds_nothing_up() {
    if !is_root("a list of users that has no end holds nothing up") {
        return;
    }
    let home = open_directory();
    let pipe = home.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for list in [&*pipe, Path::new("/dev/zero")] {
        let mut unshared = std::process::Command::new("unshare");
        unshared.args(["--mount", "sh", "-ec"]);
        unshared.arg("mount --bind \"$0\" /etc/passwd; exec \"$@\"");
        unshared.arg(list);
        unshared.arg(program_in(home.path()).get_program());
        let agent = agent_started_by(unshared, setup()).await;
        assert_eq!(agent.sh("echo \"$HOME\"").await, "/\n", "{list:?}");
        let named = agent.run(as_user("0:0", "echo \"$HOME\"")).await;
        assert_eq!(named.out(), "/\n", "{list:?}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn what_is_made_belongs_to_the_sandboxs_user() {
    if !is_root("what is made belongs to the sandbox's user") {
        return;
    }
    let place = open_directory();
    let place = place.path();
    let agent = agent(Setup {
        user: Some("4711:4712".into()),
        ..rooted(place)
    })
    .await;
    let request = WriteFile::new("made/above/file")
        .mode(0o4755)
        .make_parents(true);
    let source = ByteSource::from_bytes("x");
    agent.write_from(&request, source).await.unwrap();
    agent.mkdir("directory", None, false).await.unwrap();
    agent.mkdir("two/directories", None, true).await.unwrap();
    agent.put("unpacked", every_kind()).await.unwrap();
    let mut seen = 0;
    for_each_below(place, &mut |path| {
        let found = path.symlink_metadata().unwrap();
        let owner = (found.uid(), found.gid());
        assert_eq!(owner, (4711, 4712), "{}", path.display());
        seen += 1;
    });
    assert_eq!(seen, 11);
    let mode = place.join("made/above/file").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o4755);
    assert_eq!(agent.sh("id -u; id -g").await, "4711\n4712\n");
    // The runner that did all this is root again.
    let root = agent.run(as_user("root", "id -u; id -G")).await;
    assert_eq!(root.out(), "0\n0\n");
    agent.remove("unpacked", true).await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn what_the_sandboxs_user_may_not_no_request_does() {
    if !is_root("what the sandbox's user may not no request does") {
        return;
    }
    let place = open_directory();
    let path = |name: &str| place.path().join(name);
    fs::create_dir(path("secret")).unwrap();
    fs::write(path("secret/file"), "old").unwrap();
    fs::set_permissions(path("secret"), Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(path("readable")).unwrap();
    fs::write(path("readable/file"), "old").unwrap();
    fs::create_dir(path("open")).unwrap();
    fs::set_permissions(path("open"), Permissions::from_mode(0o777)).unwrap();
    fs::write(path("open/of root"), "old").unwrap();
    fs::write(path("open/of all"), "old").unwrap();
    fs::set_permissions(path("open/of all"), Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::symlink("../readable/file", path("open/link")).unwrap();
    for (user, groups) in [("4711:4712", 4712), ("nobody", NOBODY)] {
        let agent = agent(Setup {
            user: Some(user.into()),
            ..rooted(place.path())
        })
        .await;
        for (what, done) in [
            (
                "list",
                within(agent.client.list("secret", &call())).await.map(drop),
            ),
            (
                "stat",
                within(agent.client.stat("secret/file", &call()))
                    .await
                    .map(drop),
            ),
            ("read", agent.read("secret/file").await.map(drop)),
            ("pack", agent.get("secret").await.map(drop)),
            ("pack from above", agent.get(".").await.map(drop)),
            ("write in a secret", agent.write("secret/new", "x").await),
            ("write", agent.write("readable/file", "x").await),
            ("write of root's", agent.write("open/of root", "x").await),
            ("write by a link", agent.write("open/link", "x").await),
            ("write anew", agent.write("readable/new", "x").await),
            ("remove", agent.remove("readable/file", false).await),
            ("remove all", agent.remove("readable", true).await),
            ("make", agent.mkdir("readable/new", None, false).await),
            ("make above", agent.mkdir("readable/a/b", None, true).await),
            ("unpack", agent.put("readable", every_kind()).await),
            ("unpack anew", agent.put("readable/new", every_kind()).await),
        ] {
            let error = done.expect_err(what);
            assert_eq!(
                error.code(),
                ErrorCode::PERMISSION_DENIED,
                "{what}: {error}"
            );
            assert!(error.message().contains("denied"), "{what}: {error}");
        }
        // What he may, he does, and nothing changes hands.
        agent.write("open/of all", "new").await.unwrap();
        agent.write("open/new", "new").await.unwrap();
        assert_eq!(path("open/new").metadata().unwrap().gid(), groups);
        agent.remove("open/new", false).await.unwrap();
        agent.stop().await;
    }
    for name in ["open/of all", "open/of root", "readable/file", "open/link"] {
        let found = path(name).symlink_metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (0, 0), "{name}");
    }
    for name in ["secret/file", "open/of root", "readable/file"] {
        assert_eq!(fs::read(path(name)).unwrap(), b"old", "{name}");
    }
    assert_eq!(fs::read(path("open/of all")).unwrap(), b"new");
}

#[tokio::test]
async fn requests_have_the_capabilities_of_commands() {
    if !is_root("requests have the capabilities of commands") {
        return;
    }
    let place = open_directory();
    let file = place.path().join("file");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    for (kept, may) in [(vec![], false), (vec!["DAC_OVERRIDE".to_owned()], true)] {
        let agent = agent(Setup {
            capabilities: Some(kept.clone()),
            ..rooted(place.path())
        })
        .await;
        let command = agent.run(Command::shell("cat file")).await;
        assert_eq!(command.exit.exit_code == 0, may, "{kept:?}");
        assert_eq!(agent.read("file").await.is_ok(), may, "{kept:?}");
        agent.write("own", "x").await.unwrap();
        // The runner has all that it needs for another user.
        assert_eq!(agent.run(as_user("nobody", "id -u")).await.out(), "65534\n");
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_acts_for_a_user_is_not_his_to_end() {
    if !is_root("a request that acts for a user is not his to end") {
        return;
    }
    let agent = agent(Setup {
        // Nobody else's, so that no agent of another test is his.
        user: Some("4713".into()),
        ..setup()
    })
    .await;
    // One that is at work until nobody reads any more.
    let (sink, source) = pipe();
    let (request, call) = (ReadFile::new("/dev/zero"), call());
    let reading = agent.client.read_file(&request, sink, &call);
    let trying = async {
        source.read(1).await.unwrap();
        let line = "for p in /proc/[0-9]*; do p=${p#/proc/}; \
            [ \"$(cat /proc/$p/comm 2>/dev/null)\" = boxyard-agent ] && \
            { kill -9 $p; cat /proc/$p/environ /proc/$p/mem | head -c 1; }; done 2>/dev/null; true";
        let output = agent.run(Command::shell(line)).await;
        assert_eq!(output.out(), "");
        assert!(!source.read(1 << 20).await.unwrap().unwrap().is_empty());
        drop(source);
    };
    let _ = within(async { tokio::join!(reading, trying) }).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_user_is_where_commands_run_though_he_could_not_find_it() {
    if !is_root("a user is where commands run") {
        return;
    }
    let place = open_directory();
    fs::set_permissions(place.path(), Permissions::from_mode(0o700)).unwrap();
    let working_dir = place.path().join("working");
    fs::create_dir(&working_dir).unwrap();
    let agent = agent(Setup {
        user: Some("4711".into()),
        working_dir: working_dir.to_str().unwrap().into(),
        ..setup()
    })
    .await;
    agent.write("file", "x").await.unwrap();
    assert_eq!(agent.sh("cat file; echo y > other").await, "x");
    assert_eq!(agent.read("other").await.unwrap(), b"y\n");
    let by_name = agent.read(working_dir.join("file").to_str().unwrap()).await;
    assert_eq!(code(by_name), ErrorCode::PERMISSION_DENIED);
    agent.stop().await;
}

#[tokio::test]
async fn a_working_directory_with_nothing_in_it_is_given_to_the_user() {
    if !is_root("a working directory with nothing in it is given to the user") {
        return;
    }
    let place = open_directory();
    let path = |name: &str| place.path().join(name);
    for name in ["empty", "full", "of another", "of root"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("full/file"), "").unwrap();
    std::os::unix::fs::chown(path("of another"), Some(1), Some(1)).unwrap();
    let mounted = Mount::tmpfs(path("mounted"), "size=1m,mode=755");
    fs::create_dir(path("above")).unwrap();
    let above = Mount::tmpfs(path("above/mounted"), "size=1m,mode=755");
    for (name, user, owner) in [
        ("empty", Some("4711:4712"), (4711, 4712)),
        ("above", Some("4711"), (4711, 0)),
        ("above/mounted", Some("4711"), (0, 0)),
        ("mounted", Some("4711"), (0, 0)),
        ("full", Some("4711"), (0, 0)),
        ("of another", Some("4711"), (1, 1)),
        ("of root", None, (0, 0)),
        ("of root", Some("nosuchuser"), (0, 0)),
    ] {
        let agent = agent(Setup {
            user: user.map(str::to_owned),
            working_dir: path(name).to_str().unwrap().into(),
            ..setup()
        })
        .await;
        // It is there once something was answered.
        let _ = agent.try_run(Command::shell("true")).await;
        let found = path(name).metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{name}");
        agent.stop().await;
    }
    drop((mounted, above));
}

/// An archive with a directory, a directory that it only implies, a file and links.
fn every_kind() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind, path, link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        // Whose it was elsewhere means nothing here.
        header.set_uid(1);
        if link.is_empty() {
            builder.append_data(&mut header, path, std::io::empty())
        } else {
            builder.append_link(&mut header, path, link)
        }
        .unwrap();
    };
    add(tar::EntryType::Directory, "directory", "");
    add(tar::EntryType::Regular, "implied/file", "");
    add(tar::EntryType::Symlink, "link", "nowhere");
    builder.into_inner().unwrap()
}

fn for_each_below(directory: &Path, work: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        work(&path);
        if path.is_dir() {
            for_each_below(&path, work);
        }
    }
}

#[tokio::test]
async fn links_of_others_are_not_given_away() {
    if !is_root("links of others are not given away") {
        return;
    }
    let place = open_directory();
    fs::write(place.path().join("outside"), "").unwrap();
    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
    fs::write(root.join("of root"), "").unwrap();
    std::os::unix::fs::symlink("../outside", root.join("link")).unwrap();
    std::os::unix::fs::symlink("of root", root.join("link2")).unwrap();
    let agent = agent(Setup {
        user: Some("4711".into()),
        ..rooted(&root)
    })
    .await;
    agent.write("link", "x").await.unwrap();
    let refused = agent.write("link2", "x").await;
    assert_eq!(code(refused), ErrorCode::PERMISSION_DENIED);
    let uid = |path: &str| place.path().join(path).symlink_metadata().unwrap().uid();
    for path in ["outside", "root/link", "root/link2", "root/of root"] {
        assert_eq!(uid(path), 0, "{path}");
    }
    // The only one that is new.
    assert_eq!(uid("root/outside"), 4711);
    agent.stop().await;
}

#[tokio::test]
async fn an_archive_leaves_directories_of_others_as_they_are() {
    if !is_root("an archive leaves directories of others as they are") {
        return;
    }
    let place = open_directory();
    fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
    let agent = agent(Setup {
        user: Some("4711".into()),
        ..setup()
    })
    .await;
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["./", "./made/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o700);
        header.set_size(0);
        builder
            .append_data(&mut header, name, std::io::empty())
            .unwrap();
    }
    let archive = builder.into_inner().unwrap();
    agent
        .put(place.path().to_str().unwrap(), archive)
        .await
        .unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(place.path()), 0o1777);
    assert_eq!(mode(&place.path().join("made")), 0o700);
    agent.stop().await;
}

#[tokio::test]
async fn another_user_neither_reads_nor_kills_the_agent() {
    if !is_root("another user neither reads nor kills the agent") {
        return;
    }
    let agent = agent(setup()).await;
    let (pid, guard) = (agent.client.pid(), agent.child.id());
    for pid in [pid, guard] {
        for line in [
            format!("cat /proc/{pid}/environ"),
            format!("head -c 1 /proc/{pid}/mem"),
            format!("cat /proc/{pid}/maps"),
            format!("ls /proc/{pid}/fd"),
            format!("head -c 1 /proc/{pid}/exe"),
            format!("kill -9 {pid}"),
            format!("kill -STOP {pid}"),
        ] {
            let output = agent.run(as_user("nobody", &line)).await;
            assert_ne!(output.exit.exit_code, 0, "{line}: {output:?}");
            assert!(output.stdout.is_empty(), "{line}: {output:?}");
            let refusal = output.err().to_lowercase();
            assert!(
                refusal.contains("not permitted") || refusal.contains("denied"),
                "{line}: {output:?}"
            );
        }
    }
    // The runner between: a command's parent.
    let output = agent
        .run(as_user(
            "nobody",
            "kill -9 $PPID || cat /proc/$PPID/environ",
        ))
        .await;
    assert_ne!(output.exit.exit_code, 0, "{output:?}");
    assert_eq!(agent.sh("echo works").await, "works\n");
    agent.stop().await;
}

/// Where the agent itself is not root it cannot hide from its user's signals; its memory, with
/// the secret that proves who it is, it hides.
#[tokio::test]
async fn the_same_user_does_not_read_the_agents_memory() {
    if !is_root("the same user does not read the agent's memory") {
        return;
    }
    let agent = agent_as(NOBODY, setup()).await;
    let (pid, guard) = (agent.client.pid(), agent.child.id());
    for pid in [pid.to_string(), guard.to_string(), "$PPID".into()] {
        for line in [
            format!("cat /proc/{pid}/environ"),
            format!("head -c 1 /proc/{pid}/mem"),
            format!("cat /proc/{pid}/maps"),
            format!("ls /proc/{pid}/fd/"),
        ] {
            let output = agent.run(Command::shell(&*line)).await;
            assert_ne!(output.exit.exit_code, 0, "{line}: {output:?}");
            assert!(output.stdout.is_empty(), "{line}: {output:?}");
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_not_root_is_itself_and_nobody_else() {
    if !is_root("an agent that is not root is itself and nobody else") {
        return;
    }
    let agent = agent_as(NOBODY, setup()).await;
    for user in ["nobody", "65534", "65534:65534", "nobody:nogroup"] {
        let output = agent.run(as_user(user, "id -u; id -G")).await;
        assert_eq!(output.out(), "65534\n65534\n", "{user}");
    }
    for user in ["root", "0", "4711", "nobody:daemon"] {
        let refused = agent.try_run(as_user(user, "id -u")).await;
        assert_eq!(code(refused), ErrorCode::PERMISSION_DENIED, "{user}");
    }
    let refused = agent.try_run(as_user("no-such-user", "id -u")).await;
    assert_eq!(code(refused), ErrorCode::INVALID_ARGUMENT);
    agent.stop().await;
    let agent = agent_as(
        NOBODY,
        Setup {
            user: Some("nobody".into()),
            ..setup()
        },
    )
    .await;
    let place = open_directory();
    std::os::unix::fs::chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let file = place.path().join("file");
    agent.write(file.to_str().unwrap(), "x").await.unwrap();
    assert_eq!(file.metadata().unwrap().uid(), NOBODY);
    agent.stop().await;
}

#[tokio::test]
async fn a_user_may_open_his_terminal_again() {
    if !is_root("a user may open his terminal again") {
        return;
    }
    let agent = agent(setup()).await;
    let mut command = as_user("nobody", "echo again > \"$(tty)\"; echo too > /dev/tty");
    command.tty = Some(TerminalSize {
        columns: 80,
        rows: 24,
    });
    let output = agent.run(command).await;
    assert_eq!(output.out(), "again\r\ntoo\r\n");
    agent.stop().await;
}

/// Says what capabilities it has, and which it could gain.
const RIGHTS: &str = "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status";

#[tokio::test]
async fn a_command_keeps_the_capabilities_that_are_named() {
    if !is_root("a command keeps the capabilities that are named") {
        return;
    }
    let agent = agent(Setup {
        capabilities: Some(vec!["CHOWN".into(), "KILL".into()]),
        no_new_privileges: true,
        ..setup()
    })
    .await;
    let (none, kept) = ("0000000000000000", "0000000000000021");
    for (user, permitted) in [("0:0", kept), ("4711:4711", none)] {
        let output = agent.run(as_user(user, RIGHTS)).await;
        let expected = format!(
            "CapInh:\t{none}\nCapPrm:\t{permitted}\nCapEff:\t{permitted}\nCapBnd:\t{kept}\n\
             CapAmb:\t{none}\nNoNewPrivs:\t1\n"
        );
        assert_eq!(output.out(), expected, "{user}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_setup_with_a_capability_that_is_none_is_refused() {
    let agent = agent(Setup {
        capabilities: Some(vec!["EVERYTHING".into()]),
        ..setup()
    })
    .await;
    let error = within(agent.client.closed()).await;
    assert_eq!(error.code(), ErrorCode::INTERNAL, "{error}");
    assert!(error.message().contains("`EVERYTHING`"), "{error}");
}
