//! What a command tries on what holds it: nothing of it works, and what can be done harms nobody
//! but its own sandbox.
//!
//! Commands are root in the container, without the capabilities that would make that dangerous.
//! As its root they can list which descriptors the agent has, though not what they are; offer the
//! agent to the kernel when memory runs out, and ask it to end. All that ends their own sandbox at
//! most.

use std::{collections::BTreeMap, sync::Arc};

use boxyard_host::{Command, CommandResult, Sandbox, ToolStatus};
use serde_json::{Value, json};

use super::{Dock, IMAGE, PYTHON, SOON, container, engine};
use crate::world::bounded;

/// What must fail, as the container's root: a line each.
const FORBIDDEN: &[&str] = &[
    // The meeting place: only the host writes there.
    "echo x > /.boxyard/x",
    "echo x > /.boxyard/agent",
    "rm -f /.boxyard/socket",
    "mv /.boxyard/socket /.boxyard/other",
    "chmod 777 /.boxyard",
    "chown 1 /.boxyard/socket",
    "ln -s /tmp /.boxyard/link",
    "mount -o remount,rw /.boxyard",
    "mount -o remount,bind,rw /.boxyard",
    "umount /.boxyard",
    "mount -t tmpfs none /.boxyard",
    "mv /.boxyard /elsewhere",
    // The agent: neither its memory nor what it holds.
    "cat /proc/1/environ",
    "head -c 1 /proc/1/mem",
    "cat /proc/1/maps",
    "for fd in /proc/1/fd/*; do readlink $fd && exit 0; done; false",
    "for fd in /proc/1/fd/*; do echo garbage > $fd && exit 0; done; false",
    "ls /proc/1/cwd/",
    "ls /proc/1/root/",
    "echo -1000 > /proc/1/oom_score_adj",
    // The kernel and the machine.
    "mount -t tmpfs none /mnt",
    "mount -t proc none /mnt",
    "mount --bind / /mnt",
    "umount /proc",
    "mknod /tmp/memory c 1 1",
    "mknod /tmp/disk b 8 0",
    "chroot / true",
    "unshare -m true",
    "unshare -r true",
    "nsenter -t 1 -m true",
    "hostname other",
    "date -s 2020-01-01; test $(date +%Y) = 2020",
    "dmesg",
    "insmod /x",
    "echo 1 > /proc/sys/kernel/core_pattern",
    "echo b > /proc/sysrq-trigger",
    "echo 99999 > /sys/fs/cgroup/pids/pids.max",
    "mkdir /sys/fs/cgroup/mine /sys/fs/cgroup/memory/mine",
    "renice -n -5 $$",
    "echo -1000 > /proc/self/oom_score_adj",
    "test -e /var/run/docker.sock || test -e /run/docker.sock",
];

async fn shell(sandbox: &Arc<Sandbox>, line: &str) -> CommandResult {
    sandbox.run(Command::shell(line), None).await.unwrap()
}

async fn says(sandbox: &Arc<Sandbox>, line: &str) -> String {
    let result = shell(sandbox, line).await;
    assert_eq!(result.exit.exit_code, 0, "{line}: {}", result.stderr_text());
    result.stdout_text().trim_end().to_owned()
}

/// Runs a program of Python's.
async fn python(sandbox: &Arc<Sandbox>, program: &str, user: Option<&str>) -> String {
    let mut command = Command::argv(["python3", "-c", program]);
    command.user = user.map(str::to_owned);
    let result = sandbox.run(command, None).await.unwrap();
    assert_eq!(result.exit.exit_code, 0, "{}", result.stderr_text());
    result.stdout_text().trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_containers_root_changes_nothing_that_holds_it() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        for transport in ["socket", "attach"] {
            let sandbox = dock.sandbox(json!({ "transport": transport })).await;
            assert_eq!(says(&sandbox, "id -u").await, "0");
            // Over attach there is no meeting place: the agent is a file of the container's own.
            let of_socket = |line: &&&str| transport == "socket" || !line.contains("/.boxyard");
            let mut worked = Vec::new();
            for line in FORBIDDEN.iter().filter(of_socket) {
                let result = shell(&sandbox, line).await;
                if result.exit.exit_code == 0 {
                    worked.push(format!("{line}: {}", result.stdout_text()));
                }
            }
            assert_eq!(worked, <[String; 0]>::default(), "over {transport}");
            assert_eq!(says(&sandbox, "echo on").await, "on");
            dock.delete(&sandbox).await;
        }
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_have_the_documented_rights_and_gain_no_others() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        let status = says(&sandbox, "cat /proc/self/status").await;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE; SETPCAP is
        // the agent's alone.
        for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
            let set = u64::from_str_radix(&field(name), 16).unwrap();
            let documented = [0, 1, 3, 4, 5, 6, 7, 10].map(|bit| 1_u64 << bit);
            let documented: u64 = documented.iter().sum();
            assert_eq!(set & !documented, 0, "{name} {set:x}");
        }
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_of_the_agent_is_nowhere_to_be_read() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        // It is 32 bytes in hexadecimal, and no other word here is.
        let look = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ /.boxyard/[!a]* 2>/dev/null \
                    | tr '\\0' '\\n' | grep -E '[0-9a-f]{64}'; env | grep -E '[0-9a-f]{64}'; true";
        assert_eq!(says(&sandbox, look).await, "");
        let format = "{{json .Args}} {{json .Config.Env}} {{json .Config.Labels}} \
                      {{json .Config.Entrypoint}}";
        let seen = engine(&["inspect", "--format", format, &container(&sandbox)]).unwrap();
        let is_long = |word: &str| word.len() >= 64;
        let hex = seen
            .split(|c: char| !c.is_ascii_hexdigit())
            .find(|word| is_long(word));
        assert_eq!(hex, None, "{seen}");
        assert!(seen.contains("/.boxyard/agent"), "{seen}");
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_an_end_is_not_read_to_it() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        let params = json!({ "operation": "read", "file_path": "/dev/zero" });
        let result = sandbox.execute_tool("file_operation", params, None).await;
        let result = result.unwrap();
        assert_eq!(result.status, ToolStatus::Error);
        let error = result.error.unwrap();
        assert!(error.contains("/dev/zero is longer than"), "{error}");
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_acted_on_as_the_sandboxs_user() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({ "user": "1000" })).await;
        let call = async |params: Value| {
            let result = sandbox.execute_tool("file_operation", params, None).await;
            result.unwrap()
        };
        let mut secret = Command::shell("mkdir -m 700 /secret && echo x > /secret/file");
        secret.user = Some("0".into());
        assert_eq!(sandbox.run(secret, None).await.unwrap().exit.exit_code, 0);
        for operation in [
            json!({ "operation": "write", "file_path": "/etc/passwd", "content": "x" }),
            json!({ "operation": "write", "file_path": "/etc/new", "content": "x" }),
            json!({ "operation": "delete", "file_path": "/etc/passwd" }),
            json!({ "operation": "read", "file_path": "/secret/file" }),
            json!({ "operation": "list", "file_path": "/secret" }),
        ] {
            let result = call(operation.clone()).await;
            let error = result.error.unwrap_or_default();
            assert!(error.contains("ermission denied"), "{operation}: {error}");
        }
        // Where it works is its own, though it is nobody's in the image.
        let written = json!({ "operation": "write", "file_path": "new", "content": "x" });
        assert_eq!(call(written).await.error, None);
        let seen = says(
            &sandbox,
            "stat -c '%u %g' new .; echo > also; stat -c %u /etc/passwd",
        )
        .await;
        assert_eq!(seen, "1000 1000\n1000 1000\n0");
        // What a command may not as root is not done for one.
        let bare = json!({ "capabilities": { "drop": ["ALL"] }, "user": "0" });
        let bare = dock.sandbox(bare).await;
        shell(&bare, "chmod 000 /etc/passwd").await;
        let read = json!({ "operation": "read", "file_path": "/etc/passwd" });
        let read = bare
            .execute_tool("file_operation", read, None)
            .await
            .unwrap();
        assert!(
            read.error
                .is_some_and(|error| error.contains("ermission denied"))
        );
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_kills_everything_in_a_container_ends_his_own_sandbox_at_most() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let (victim, other) = (dock.sandbox(json!({})).await, dock.sandbox(json!({})).await);
        // PID 1 does not hear what it did not ask for.
        shell(&victim, "kill -9 1; kill -STOP 1; kill -SEGV 1; true").await;
        assert_eq!(says(&victim, "echo on").await, "on");
        let all = Command::shell("kill -STOP -1; kill -9 -1; true");
        // It may take its own answer with it.
        let _ = victim.run(all, None).await;
        assert_eq!(says(&other, "echo on").await, "on");
        dock.delete(&victim).await;
        assert_eq!(dock.containers().len(), 1);
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_let_in_at_the_socket() {
    let Some(dock) = Dock::new(PYTHON) else {
        return;
    };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({ "image": PYTHON })).await;
        let program = r#"
import os, socket
answers = {}
for _ in range(1000):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(2)
        s.connect("/.boxyard/socket")
        s.send(os.urandom(65536))
        answer = "got %d bytes" % len(s.recv(100))
    except OSError as error:
        answer = type(error).__name__
    answers[answer] = answers.get(answer, 0) + 1
print(answers)
"#;
        for user in [None, Some("65534:65534")] {
            let answers = python(&sandbox, program, user).await;
            assert_eq!(answers, "{'ConnectionRefusedError': 1000}", "{user:?}");
        }
        assert_eq!(says(&sandbox, "echo on").await, "on");
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_tracing_nor_set_user_id_programs_help() {
    let Some(dock) = Dock::new(PYTHON) else {
        return;
    };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({ "image": PYTHON })).await;
        // ptrace(ATTACH), ptrace(SEIZE), process_vm_readv, and a copy of a descriptor of the
        // agent's by pidfd_getfd.
        let program = r#"
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
for agent in [int(p) for p in os.listdir("/proc") if p.isdigit()]:
    name = open(f"/proc/{agent}/comm").read().strip()
    if agent == os.getpid() or name != "boxyard-agent": continue
    zero = ctypes.c_void_p(0)
    buffer = ctypes.create_string_buffer(8)
    class iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    local = iovec(ctypes.addressof(buffer), 8)
    remote = iovec(0x400000, 8)
    tries = {
        "attach": libc.ptrace(16, agent, zero, zero),
        "seize": libc.ptrace(0x4206, agent, zero, zero),
        "read": libc.process_vm_readv(agent, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0),
    }
    pidfd = libc.syscall(434, agent, 0)
    for fd in range(10):
        tries[f"getfd {fd}"] = libc.syscall(438, pidfd, fd, 0) if pidfd >= 0 else -1
    for path in ("mem", "environ", "maps", "syscall", "stack"):
        try: open(f"/proc/{agent}/{path}", "rb").read(1); tries[path] = 0
        except OSError: tries[path] = -1
    worked = [name for name, answer in tries.items() if answer != -1]
    print(agent, worked)
"#;
        for user in [None, Some("65534:65534")] {
            let tried = python(&sandbox, program, user).await;
            assert!(tried.lines().any(|line| line.starts_with("1 ")), "{tried}");
            for line in tried.lines() {
                assert!(line.ends_with("[]"), "{user:?}: {line}");
            }
        }
        // A root of the container leaves a program for others to become root with.
        says(
            &sandbox,
            "cp -L $(command -v python3) /tmp/p && chmod 6755 /tmp/p",
        )
        .await;
        let mut command = Command::argv(["/tmp/p", "-c", "import os; print(os.geteuid())"]);
        command.user = Some("65534:65534".into());
        let result = sandbox.run(command, None).await.unwrap();
        assert_eq!(result.stdout_text(), "65534\n", "{}", result.stderr_text());
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forking_without_end_stays_within_the_limit_and_ends_with_its_command() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let (bomb, other) = (
            dock.sandbox(json!({ "pids_limit": 64 })).await,
            dock.sandbox(json!({})).await,
        );
        let fork = "i=0; while [ $i -lt 200 ]; do (sleep 300 &) 2>/dev/null; i=$((i+1)); done";
        let forking = Command::shell(format!("{fork}; set -- /proc/[0-9]*; echo $#; sleep 300"));
        let forking = bomb.run(forking.timeout(SOON), None);
        let (forked, meanwhile) = tokio::join!(forking, says(&other, "echo on"));
        assert_eq!(meanwhile, "on");
        let forked = forked.unwrap();
        // Where there is no room to fork, the shell gives up before it counts.
        if let Ok(count) = forked.stdout_text().trim().parse::<u32>() {
            assert!(count <= 64, "{count} processes");
        }
        // What a command leaves to itself lives on; whoever wants it gone stops the sandbox.
        if forked.exit.timed_out {
            assert!(
                forked.exit.killed.is_some_and(|killed| killed > 40),
                "{forked:?}"
            );
            assert_eq!(says(&bomb, "ls / | grep -c proc").await, "1");
        }
        let limits: Value = bomb.info().await.backend["limits"].clone();
        let limits: BTreeMap<String, i64> = serde_json::from_value(limits).unwrap();
        assert_eq!(limits["pids"], 64);
        dock.end().await;
    })
    .await;
}
