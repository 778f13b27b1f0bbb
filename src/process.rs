//! Process control: environment, signals, children, the end of the process. What it has of memory, the secret of its
//! guards and the machine's other processes are below.
#![allow(unsafe_code)]

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

mod heap;
mod peer;
mod sealed;
mod secret;
mod shared;
mod table;

pub(crate) use heap::{give_back_freed_memory, keep_freed_memory, prefer_large_pages};
pub(crate) use peer::{LENDING, Probe, address_of, is_lending, probe, read_memory};
pub(crate) use sealed::{Sealed, seal};
pub(crate) use secret::{make_secret, read_secret, secret, secret_file, secret_setting, take_secret};
pub(crate) use shared::{Board, Words, create_words, open_words};
pub(crate) use table::{Entry, has_ended, processes};

static ORIGINAL: OnceLock<Vec<(OsString, OsString)>> = OnceLock::new();

/// Remembers the environment as it is. The first call counts.
///
/// # Panics
/// If the process has more than one thread: it is to be changed next.
pub(crate) fn remember_environment() {
    assert_single_thread();
    forks();
    ORIGINAL.get_or_init(|| env::vars_os().collect());
}

/// Whether the environment was remembered, which [`init`](crate::init) does first in a host.
pub(crate) fn is_environment_remembered() -> bool {
    ORIGINAL.get().is_some()
}

/// The environment as it was remembered, or as it is.
pub(crate) fn original_environment() -> Vec<(OsString, OsString)> {
    ORIGINAL.get().cloned().unwrap_or_else(|| env::vars_os().collect())
}

/// Sets an environment variable.
///
/// # Panics
/// If the process has more than one thread: another one might be reading the environment.
pub(crate) fn set_variable(name: &str, value: &OsStr) {
    assert_single_thread();
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    unsafe { env::set_var(name, value) };
}

/// Removes an environment variable.
///
/// # Panics
/// If the process has more than one thread: another one might be reading the environment.
pub(crate) fn remove_variable(name: &str) {
    assert_single_thread();
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    unsafe { env::remove_var(name) };
}

/// Variables that this process's environment has while this lives, although it has other threads.
///
/// The environment cannot be changed while others may read it. These entries are in it from the start, under names that
/// nobody looks for; one byte makes such a name the right one, and hides it again. A reader finds the one or the other.
pub(crate) struct PassingVariables(());

/// The entries, each with its terminating zero; and where their values begin.
static PASSING: OnceLock<Vec<(&'static [AtomicU8], usize)>> = OnceLock::new();

/// What the names begin with while they are hidden.
const HIDING: u8 = b'_';
/// Values are numbers of so many digits.
const PASSING_DIGITS: usize = 10;

impl PassingVariables {
    /// Keeps a place for these. Once per process.
    ///
    /// # Panics
    /// If the process has more than one thread, or a name begins with the byte that hides it.
    pub(crate) fn reserve(variables: &[(&str, u32)]) {
        assert_single_thread();
        PASSING.get_or_init(|| variables.iter().map(|(name, value)| Self::put(name, *value)).collect());
    }

    fn put(name: &str, value: u32) -> (&'static [AtomicU8], usize) {
        assert_ne!(name.as_bytes().first(), Some(&HIDING), "a hidden name differs from the real one");
        let text = format!("{name}={value:0PASSING_DIGITS$}\0");
        let entry: &'static [AtomicU8] = text.bytes().map(AtomicU8::new).collect::<Vec<_>>().leak();
        entry[0].store(HIDING, Ordering::Relaxed);
        // SAFETY: this process has one thread, so nobody reads the environment meanwhile. The string is terminated, has
        // a `=`, and lives for ever; after this it is changed byte by byte only, and keeps its length.
        unsafe { libc::putenv(entry.as_ptr().cast_mut().cast()) };
        (entry, name.len() + 1)
    }

    /// Has the environment show them all, this one with this value.
    pub(crate) fn show(name: &str, value: RawFd) -> io::Result<Self> {
        let all = PASSING.get().map(Vec::as_slice).unwrap_or_default();
        let is_it = |(entry, begin): &&(&[AtomicU8], usize)| {
            // Its first byte hides it.
            let rest = entry[1..begin - 1].iter().map(|byte| byte.load(Ordering::Relaxed));
            rest.eq(name.bytes().skip(1))
        };
        let (entry, begin) = all.iter().find(is_it).ok_or(io::ErrorKind::NotFound)?;
        for (byte, digit) in entry[*begin..].iter().zip(format!("{value:0PASSING_DIGITS$}").bytes()) {
            byte.store(digit, Ordering::Relaxed);
        }
        let first = name.bytes().next().unwrap_or_default();
        all.iter().for_each(|(entry, _)| entry[0].store(first, Ordering::SeqCst));
        let shown = Self(());
        // Whoever has rebuilt the environment since has thrown them out.
        if env::var(name).is_ok_and(|text| text.parse() == Ok(value)) {
            Ok(shown)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// The names under which they are hidden.
    pub(crate) fn hidden() -> Vec<String> {
        let all = PASSING.get().map(Vec::as_slice).unwrap_or_default();
        let name = |(entry, begin): &(&[AtomicU8], usize)| {
            let rest = entry[1..begin - 1].iter().map(|byte| char::from(byte.load(Ordering::Relaxed)));
            std::iter::once(char::from(HIDING)).chain(rest).collect()
        };
        all.iter().map(name).collect()
    }
}

impl Drop for PassingVariables {
    fn drop(&mut self) {
        PASSING.get().into_iter().flatten().for_each(|(entry, _)| entry[0].store(HIDING, Ordering::SeqCst));
    }
}

fn assert_single_thread() {
    // Where /proc cannot be read the documentation of `init` has to do.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert!(threads <= 1, "offshoot::init() must be the first line of `main`: {threads} threads run already");
}

/// Blocks the signals of a terminal in the calling thread.
///
/// Called on the thread that initializes MPI, before it does: the daemons that MPI starts there inherit
/// the mask, and a Ctrl-C, which goes to every process of the terminal's foreground group, leaves them
/// alone. Otherwise they end all workers, and on MPICH the host, before the host can end in order.
pub(crate) fn block_terminal_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set, the other calls take an initialized set and valid
    // signal numbers, and pthread_sigmask changes the calling thread's mask only.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGQUIT);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Blocks SIGPIPE in the calling thread, which writes where perhaps nobody reads any more: that is an error,
/// and not the end of a host that has not been told so.
pub(crate) fn block_pipe_signal() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initializes the set, the other calls take an initialized set and a valid signal
    // number, and pthread_sigmask changes the calling thread's mask only.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Waits for a child to end. Returns how it did, and the most memory that it, or a process that it had started
/// and waited for, had in use at once, in KiB.
pub(crate) fn wait_for(child: rustix::process::Pid) -> io::Result<(ExitStatus, u64)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to values of ours that outlive the call.
        let waited = unsafe { libc::wait4(child.as_raw_nonzero().get(), &mut status, 0, usage.as_mut_ptr()) };
        if waited > 0 {
            // SAFETY: all of it was zero, which is a valid value, and the kernel has filled it in.
            let peak = unsafe { usage.assume_init() }.ru_maxrss;
            return Ok((ExitStatus::from_raw(status), u64::try_from(peak).unwrap_or(0)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A descriptor that this process inherited under this number.
pub(crate) fn inherited(fd: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: our own guard opened it for this process alone and named it; it is asked for once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes the calling process, a worker, live through the terminal's Ctrl-C: its host decides what
/// becomes of it.
pub(crate) fn outlive_terminal_signals() {
    handle_and_forget(&[libc::SIGINT, libc::SIGQUIT]);
}

/// Makes the calling process, a guard, live through what would end its worker, and adopt its orphans.
pub(crate) fn outlive_worker() {
    // Open MPI's and hydra's daemons pass SIGUSR1 on to what they started.
    handle_and_forget(&[libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2]);
    // Where the kernel is too old for it, orphans are init's.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Handles signals by doing nothing. Handlers, not `SIG_IGN`, so that what this process starts gets the
/// defaults back; and unblocked, because a mask is inherited too.
fn handle_and_forget(signals: &[libc::c_int]) {
    extern "C" fn nothing(_signal: libc::c_int) {}
    for &signal in signals {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the handler does nothing, so it is async-signal-safe; sigemptyset initializes the set,
        // and pthread_sigmask changes the mask of the calling thread only.
        unsafe {
            libc::signal(signal, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t);
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
        }
    }
}

/// A pipe's end that this process inherited under this number.
pub(crate) fn inherited_pipe(fd: RawFd) -> std::io::PipeWriter {
    inherited(fd).into()
}

/// A signal's name, `SIGKILL`, or its number where it has none.
pub(crate) fn signal_name(signal: i32) -> String {
    const NAMES: [(libc::c_int, &str); 14] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    let named = NAMES.iter().find(|(number, _)| *number == signal);
    named.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// Whether the system ends processes by this signal when memory runs out.
pub(crate) fn may_be_for_memory(signal: i32) -> bool {
    signal == libc::SIGKILL
}

/// The time from now until then, for a `poll`; a millisecond more, so that it has passed when that returns.
pub(crate) fn timespec_until(until: std::time::Instant) -> rustix::event::Timespec {
    let left = until.saturating_duration_since(std::time::Instant::now()) + Duration::from_millis(1);
    rustix::event::Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

/// Has the process that `command` starts killed when the calling thread's process ends, in whatever way.
pub(crate) fn die_with_this_one(command: &mut Command) {
    let parent = rustix::process::getpid();
    let arm = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have ended before the signal was armed.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(arm) };
}

/// Has the process that `command` starts lead a session and process group of its own: no terminal's signal reaches it, and
/// nobody who kills this process's group.
pub(crate) fn in_own_session(command: &mut Command) {
    let leave = || rustix::process::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(leave) };
}

/// Has the process that `command` starts inherit this descriptor, under its number, and none other that is open here
/// but the standard ones.
pub(crate) fn hand_over(command: &mut Command, fd: BorrowedFd<'_>) {
    let fd = fd.as_raw_fd();
    let mark = move || {
        // Where the kernel is too old for it, the others are inherited as they would be without it.
        keep_descriptors_to_ourselves();
        // SAFETY: whoever starts the process has it open until then.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(mark) };
}

/// Takes what stands in for this process's standard input to another number, for itself and for what it starts, and
/// closes everything else that it has inherited but standard output and error. First thing in a guard, which
/// opened none of it.
pub(crate) fn take_standard_input() -> io::Result<RawFd> {
    // SAFETY: it closes what the process has inherited; nothing of it has opened anything yet. In kernels before 5.9
    // there is no such call, and it stays open.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, 0) };
    let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::io::fcntl_setfd(&taken, rustix::io::FdFlags::empty())?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(std::os::fd::IntoRawFd::into_raw_fd(taken))
}

/// Forks a process that does nothing, in a session and process group of its own, until it is killed or this
/// process ends. Returns its id.
///
/// # Panics
/// If this process has more than one thread: only the one that forks would be there in the child.
pub(crate) fn fork_decoy() -> Option<u32> {
    assert_single_thread();
    // SAFETY: this process has one thread, so the child may do anything; it makes five system calls.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: plain system calls of a process that has nothing to lose. Its descriptors would keep
            // pipes open that somebody waits for the end of.
            unsafe {
                libc::setsid();
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::syscall(libc::SYS_close_range, 0 as libc::c_uint, libc::c_uint::MAX, 0);
                loop {
                    libc::pause();
                }
            }
        }
        decoy => u32::try_from(decoy).ok(),
    }
}

/// Has these processes killed when this one has ended, by a process that is there for that only; asked to end a
/// second before, if so wished; and then these folders removed. It may be called while other threads are caught
/// somewhere for ever.
pub(crate) fn kill_after_this_process(victims: &[i32], ask_first: bool, folders: &[PathBuf]) {
    let own = std::process::id();
    // All that needs memory, before there is a process that may not ask for any.
    let text = |path: &PathBuf| CString::new(path.as_os_str().as_bytes()).ok();
    let folders: Vec<CString> = folders.iter().filter_map(text).collect();
    let words = [c"rm", c"-rf", c"--"].into_iter().chain(folders.iter().map(CString::as_c_str));
    let words: Vec<_> = words.map(CStr::as_ptr).chain([ptr::null()]).collect();
    let no_variables = [ptr::null()];
    // SAFETY: a child as `fork` makes it, but without the handlers that libraries have registered for that,
    // which might wait for a thread that is caught.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child != 0 {
        return;
    }
    let signal_all = |signal: libc::c_int| {
        for &victim in victims {
            // SAFETY: a system call; whoever has ended by himself is no error.
            unsafe { libc::kill(victim, signal) };
        }
    };
    let pause = |millis: libc::c_long| {
        let time = libc::timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        // SAFETY: a system call with a valid time.
        unsafe { libc::nanosleep(&time, ptr::null_mut()) };
    };
    // SAFETY: the child has one thread, a copy of its parent's memory, and makes system calls only. Its
    // descriptors would keep pipes open that somebody waits for the end of.
    unsafe {
        libc::setsid();
        libc::syscall(libc::SYS_close_range, 0 as libc::c_uint, libc::c_uint::MAX, 0);
        while u32::try_from(libc::getppid()) == Ok(own) {
            pause(5);
        }
    }
    if ask_first {
        signal_all(libc::SIGTERM);
        signal_all(libc::SIGCONT);
        // SAFETY: a system call that looks whether there is such a process.
        let is_there = |victim: &i32| unsafe { libc::kill(*victim, 0) } == 0;
        for _ in 0..200 {
            if !victims.iter().any(is_there) {
                break;
            }
            pause(5);
        }
    }
    signal_all(libc::SIGKILL);
    if !folders.is_empty() {
        // SAFETY: both arrays end with a null pointer, and the strings live. It returns only if it fails.
        unsafe { libc::execve(c"/bin/rm".as_ptr(), words.as_ptr(), no_variables.as_ptr()) };
    }
    exit_now()
}

/// Ends this process at once, with success and without anything that is to happen at its end.
pub(crate) fn exit_now() -> ! {
    // SAFETY: it ends the process, and runs nothing of it before.
    unsafe { libc::_exit(0) }
}

/// Becomes another program, in the same process. Returns only if that fails, and why.
pub(crate) fn become_program(path: &std::path::Path, arguments: &[OsString]) -> io::Error {
    Command::new(path).args(arguments).exec()
}

/// Writes a line to a descriptor that this process inherited, and waits up to three seconds for an answer.
pub(crate) fn converse(fd: RawFd, line: &[u8]) -> Option<Vec<u8>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // SAFETY: whoever started this process left the descriptor open for it; nothing here closes it.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::write(fd, line).ok()?;
    let patience = Timespec { tv_sec: 3, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&patience))
        .ok()
        .filter(|ready| *ready > 0)?;
    let mut answer = vec![0; 4096];
    let length = rustix::io::read(fd, &mut answer[..]).ok()?;
    answer.truncate(length);
    Some(answer)
}

/// Reads and drops what comes over an inherited descriptor, until nothing has come for a while.
pub(crate) fn drain(fd: RawFd, silence: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // SAFETY: whoever started this process left the descriptor open for it; nothing here closes it.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let silence = Timespec { tv_sec: 0, tv_nsec: i64::from(silence.subsec_nanos()) };
    while poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&silence))
        .is_ok_and(|ready| ready > 0)
    {
        if !rustix::io::read(fd, &mut [0_u8; 1024]).is_ok_and(|length| length > 0) {
            return;
        }
    }
}

/// Marks all descriptors but the standard ones to be closed in programs that this process starts.
///
/// Called in a worker when MPI is up. An MPI opens dozens, most without the mark; a program that a task
/// leaves running would keep the daemons of the MPI alive with them, long after host and worker are gone.
pub(crate) fn keep_descriptors_to_ourselves() {
    // The constant is a bit mask for an `int` argument. The function is missing in older C libraries,
    // and the call in kernels before 5.11, where descriptors are inherited as they would be without it.
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: with this flag the call closes nothing; it sets a flag of descriptors that are open.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, flags) };
}

/// How often this process has been forked off since somebody first asked. Whoever remembers the number knows later whether
/// it is in a child that has its memory, and none of its threads.
pub(crate) fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static WATCHED: Once = Once::new();
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    WATCHED.call_once(|| {
        // SAFETY: `count` lives as long as the process, and does what a child may do: it changes a number.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(count)) };
        assert_eq!(refused, 0, "the C library has memory for one more");
    });
    FORKS.load(Ordering::Relaxed)
}

/// What is to be done at the end of the process, in the order in which it was registered.
static AT_EXIT: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Has `action` called when the process ends through `exit` or a return from `main`, the last one first.
///
/// What uses MPI is registered after `MPI_Init`, so that it comes before what MPI and its network libraries have registered.
pub(crate) fn at_exit(action: fn()) {
    extern "C" fn run() {
        let action = AT_EXIT.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(action) = action {
            // Unwinding must not reach C.
            let _ = std::panic::catch_unwind(action);
        }
    }
    let mut actions = AT_EXIT.lock().unwrap_or_else(PoisonError::into_inner);
    actions.push(action);
    // SAFETY: `run` is a plain function that lives as long as the process.
    let refused = unsafe { libc::atexit(run) };
    assert_eq!(refused, 0, "the C library has room for 32 exit functions at least");
}
