//! System calls that the libraries do not wrap: the only `unsafe` of this program.
#![expect(unsafe_code, reason = "this is the room for it")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
    ptr,
};

use rustix::{
    io::Errno,
    process::Pid,
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set,
    },
};

fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Allocates nothing.
fn last_errno() -> Errno {
    let errno = io::Error::last_os_error().raw_os_error();
    errno.map_or(Errno::IO, Errno::from_raw_os_error)
}

fn no_signals() -> libc::sigset_t {
    // SAFETY: the set is plain numbers, for which all zeros is a value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is ours to write.
    unsafe { libc::sigemptyset(&mut set) };
    set
}

fn signals(numbers: &[c_int]) -> libc::sigset_t {
    let mut set = no_signals();
    for number in numbers {
        // SAFETY: `set` is ours to write; a number that is no signal is an error and no harm.
        unsafe { libc::sigaddset(&mut set, *number) };
    }
    set
}

/// Blocks signals and returns a descriptor that they are read from.
pub(crate) fn signal_descriptor(numbers: &[c_int]) -> io::Result<OwnedFd> {
    let set = signals(numbers);
    // SAFETY: `set` is an initialised set, and the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()) })?;
    // SAFETY: `set` is an initialised set; -1 asks for a new descriptor.
    let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel just gave us the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes every signal that is pending; returns whether one of them was `number`.
pub(crate) fn take_signals(from: BorrowedFd<'_>, number: u32) -> bool {
    let mut seen = false;
    // SAFETY: the record is plain numbers, for which all zeros is a value.
    let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&info);
    loop {
        // SAFETY: the kernel writes at most `size` bytes into `info`, which has as many.
        let read = unsafe { libc::read(from.as_raw_fd(), (&raw mut info).cast(), size) };
        if usize::try_from(read) != Ok(size) {
            return seen;
        }
        seen |= info.ssi_signo == number;
    }
}

/// Splits the process in two; returns the child's pid in the parent, `None` in the child.
///
/// Only for a process with one thread, which every process of this program has.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with a single thread, the child's memory is as consistent as the parent's.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid))
}

/// Ends the process at once: a forked child must not run what its parent registered.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Signals that this process ignores; a command must not inherit that.
pub(crate) fn ignored_signals() -> Vec<c_int> {
    let is_ignored = |number: &c_int| {
        // SAFETY: the record is plain numbers, for which all zeros is a value.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: nothing is set, and `action` is ours to write.
        let result = unsafe { libc::sigaction(*number, ptr::null(), &mut action) };
        result == 0 && action.sa_sigaction == libc::SIG_IGN
    };
    (1..=64).filter(is_ignored).collect()
}

/// Whom a command runs as, and with whose rights files are acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// A program to start, with everything it needs made before: between the kernel's copy of the
/// process and the program nothing may be allocated.
#[derive(Debug)]
pub(crate) struct Launch {
    /// What to execute, tried in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) envp: Vec<CString>,
    pub(crate) directory: CString,
    /// Standard input, output and error.
    pub(crate) streams: [OwnedFd; 3],
    /// Whether the streams are a terminal to control.
    pub(crate) terminal: bool,
    pub(crate) credentials: Option<Credentials>,
    /// What it keeps of our capabilities; all where `None`.
    pub(crate) capabilities: Option<CapabilitySet>,
    pub(crate) no_new_privileges: bool,
    pub(crate) limits: Vec<(rustix::process::Resource, rustix::process::Rlimit)>,
    /// A number as text.
    pub(crate) oom_score_adj: Option<CString>,
    /// Signals to stop ignoring.
    pub(crate) ignored: Vec<c_int>,
}

/// What a launch failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Terminal,
    Limit(usize),
    Privileges,
    User,
    Directory,
    Program,
}

/// A launch as the child sees it, in memory that it shares with its parent.
struct Shared<'a> {
    launch: &'a Launch,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    parent: Pid,
    failure: Option<(Stage, Errno)>,
}

/// The stack of the child before it becomes the program.
const STACK: usize = 64 * 1024;

/// Starts a program, as `vfork` and `execve` do; returns once it runs or could not.
///
/// The child leads a session of its own and is killed with the calling process.
pub(crate) fn launch(launch: &Launch) -> io::Result<Result<Pid, (Stage, Errno)>> {
    let pointers = |strings: &[CString]| {
        let pointers = strings.iter().map(|string| string.as_ptr());
        pointers.chain([ptr::null()]).collect()
    };
    let mut shared = Shared {
        launch,
        argv: pointers(&launch.argv),
        envp: pointers(&launch.envp),
        parent: rustix::process::getpid(),
        failure: None,
    };
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / mem::size_of::<u128>());
    let spare = stack.spare_capacity_mut().as_mut_ptr_range();
    // SAFETY: a full set is as good as an empty one.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `all` is ours to write.
    unsafe { libc::sigfillset(&mut all) };
    let mut before = no_signals();
    // No signal may be handled on the child's stack in memory that both use.
    // SAFETY: both sets are initialised and ours.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &all, &mut before) })?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is `STACK` bytes, aligned to 16, and lives until the child has left our
    // memory, because the kernel stops us until then; so does `shared`, which nobody else uses.
    let pid = unsafe {
        libc::clone(
            child,
            spare.end.cast::<c_void>(),
            flags,
            (&raw mut shared).cast(),
        )
    };
    let error = io::Error::last_os_error();
    // SAFETY: `before` was filled above.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &before, ptr::null_mut()) })?;
    let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        return Err(error);
    };
    match shared.failure {
        None => Ok(Ok(pid)),
        Some(failure) => {
            // It ended already; what it returned is in `failure`.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Ok(Err(failure))
        }
    }
}

/// Becomes the program. Runs in the parent's memory while the parent waits: it allocates
/// nothing, takes no lock and does not unwind.
extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: `launch` passes its own `Shared`, which outlives us and which it does not touch
    // while it is stopped.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>() };
    if let Err(failure) = become_program(shared) {
        shared.failure = Some(failure);
    }
    // Returning from the function ends the child.
    127
}

fn become_program(shared: &Shared<'_>) -> Result<(), (Stage, Errno)> {
    let launch = shared.launch;
    let [stdin, stdout, stderr] = &launch.streams;
    let at = |stage: Stage| move |errno: Errno| (stage, errno);
    rustix::process::setsid().map_err(at(Stage::Terminal))?;
    rustix::stdio::dup2_stdin(stdin).map_err(at(Stage::Terminal))?;
    rustix::stdio::dup2_stdout(stdout).map_err(at(Stage::Terminal))?;
    rustix::stdio::dup2_stderr(stderr).map_err(at(Stage::Terminal))?;
    if launch.terminal {
        rustix::process::ioctl_tiocsctty(stdin).map_err(at(Stage::Terminal))?;
    }
    for number in &launch.ignored {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(*number, libc::SIG_DFL) };
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Some(score) = &launch.oom_score_adj {
        raise_oom_score(score);
    }
    for (index, (resource, limit)) in launch.limits.iter().enumerate() {
        rustix::process::setrlimit(*resource, *limit).map_err(at(Stage::Limit(index)))?;
    }
    // As ourselves: a user may be given a directory that he cannot find by himself.
    rustix::process::chdir(&*launch.directory).map_err(at(Stage::Directory))?;
    if launch.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(at(Stage::Privileges))?;
    }
    if let Some(kept) = launch.capabilities {
        bound(kept).map_err(at(Stage::Privileges))?;
    }
    if let Some(credentials) = &launch.credentials {
        become_user(credentials, Term::ForGood).map_err(at(Stage::User))?;
    }
    if let Some(kept) = launch.capabilities {
        keep(kept).map_err(at(Stage::Privileges))?;
    }
    // After the user, which forgets it.
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill).map_err(at(Stage::Program))?;
    if rustix::process::getppid() != Some(shared.parent) {
        return Err((Stage::Program, Errno::CHILD));
    }
    let none = no_signals();
    // SAFETY: `none` is an initialised set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) };
    Err((Stage::Program, execute(shared)))
}

/// Tries the candidates as `execvp` does: the first that can be executed wins, and one that
/// cannot is remembered.
fn execute(shared: &Shared<'_>) -> Errno {
    let mut remembered = Errno::NOENT;
    for candidate in &shared.launch.candidates {
        let (argv, envp) = (shared.argv.as_ptr(), shared.envp.as_ptr());
        // SAFETY: the path and everything in both arrays are C strings that live in `Shared`
        // and its `Launch`, and both arrays end with a null pointer.
        unsafe { libc::execve(candidate.as_ptr(), argv, envp) };
        let errno = last_errno();
        match errno {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => remembered = errno,
            _ => return errno,
        }
    }
    remembered
}

/// That this cannot be done costs the agent its precedence and nothing else.
fn raise_oom_score(score: &CStr) {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(
        c"/proc/self/oom_score_adj",
        flags,
        rustix::fs::Mode::empty(),
    );
    if let Ok(file) = file {
        let _ = rustix::io::write(file, score.to_bytes());
    }
}

/// Leaves no program a capability but these, whoever runs it. Before the user, who may not.
fn bound(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    clear_ambient_capability_set()
}

/// Gives up what is not kept of what is left.
fn keep(kept: CapabilitySet) -> Result<(), Errno> {
    let now = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: now.effective & kept,
            permitted: now.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Acts as a command of this user does, with what that keeps of capabilities, until
/// [`Actor::return_to_itself`]; as itself with those where there is no user.
///
/// The real and the saved user stay its own, so that the other can neither signal nor trace it.
pub(crate) fn act_as(
    user: Option<&Credentials>,
    kept: Option<CapabilitySet>,
) -> Result<Actor, Errno> {
    let groups = rustix::process::getgroups()?;
    let actor = Actor {
        own: Credentials {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        },
        is_other: user.is_some(),
        capabilities: rustix::thread::capabilities(None)?.effective,
    };
    let change = || {
        if let Some(user) = user {
            become_user(user, Term::ForNow)?;
        }
        match kept {
            // Who is not root has lost them all.
            Some(kept) => use_capabilities(rustix::thread::capabilities(None)?.effective & kept),
            None => Ok(()),
        }
    };
    match change() {
        Ok(()) => Ok(actor),
        // A part of it may be done.
        Err(errno) => actor.return_to_itself().and(Err(errno)),
    }
}

/// A process that acts as somebody else.
#[must_use]
#[derive(Debug)]
pub(crate) struct Actor {
    own: Credentials,
    is_other: bool,
    /// What it uses as itself.
    capabilities: CapabilitySet,
}

impl Actor {
    /// Acts as itself again.
    ///
    /// # Errors
    ///
    /// It is neither of both, and must end.
    pub(crate) fn return_to_itself(self) -> Result<(), Errno> {
        use_capabilities(self.capabilities)?;
        if self.is_other {
            become_user(&self.own, Term::ForNow)?;
            // The system gives whoever is root again all that it may have.
            use_capabilities(self.capabilities)?;
        }
        Ok(())
    }
}

/// Uses these of the capabilities that it has, and keeps all.
fn use_capabilities(effective: CapabilitySet) -> Result<(), Errno> {
    let now = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective, ..now })
}

/// How long somebody is another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    ForGood,
    /// The way back is open.
    ForNow,
}

/// By the system calls themselves: the library's functions would tell other threads.
fn become_user(credentials: &Credentials, term: Term) -> Result<(), Errno> {
    let Credentials { uid, gid, groups } = credentials;
    // Of the largest number the system leaves as it is.
    let (own_uid, own_gid) = match term {
        Term::ForGood => (*uid, *gid),
        Term::ForNow => (u32::MAX, u32::MAX),
    };
    let call = |result: libc::c_long| {
        if result == -1 {
            return Err(last_errno());
        }
        Ok(())
    };
    // SAFETY: the pointer and the length are those of one slice of group numbers.
    call(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: plain numbers.
    call(unsafe { libc::syscall(libc::SYS_setresgid, own_gid, *gid, own_gid) })?;
    // SAFETY: plain numbers.
    call(unsafe { libc::syscall(libc::SYS_setresuid, own_uid, *uid, own_uid) })
}

/// Moves a descriptor to a number above standard error, whatever was open there, and closes
/// every other from there on. Needs no free descriptor.
///
/// Only for a fork that uses nothing of what its parent had open.
pub(crate) fn keep_only(descriptor: OwnedFd, number: c_int) -> io::Result<OwnedFd> {
    // It is moved or closed below, in either case not by being dropped.
    let descriptor = descriptor.into_raw_fd();
    if descriptor != number {
        // SAFETY: plain numbers; nothing in this process owns what was open there.
        check(unsafe { libc::dup3(descriptor, number, libc::O_CLOEXEC) })?;
    }
    close_from(number.unsigned_abs() + 1);
    // SAFETY: the descriptor is open, and nothing else here knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on.
fn close_from(first: u32) {
    let (last, flags) = (u32::MAX, 0);
    // SAFETY: the caller forked off and uses no descriptor that it did not move below.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        return;
    }
    // A kernel before 5.9.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(65_536).min(1 << 20);
    for fd in u64::from(first)..limit {
        if let Ok(fd) = c_int::try_from(fd) {
            // SAFETY: as above; closing what is not open is an error and no harm.
            unsafe { libc::close(fd) };
        }
    }
}
