//! Process control: environment, signals, the end of the process. With `transport/mpi/ffi.rs` the only
//! file with `unsafe` in it.
#![allow(unsafe_code)]

use std::env;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static ORIGINAL: OnceLock<Vec<(OsString, OsString)>> = OnceLock::new();

/// Remembers the environment as it is. The first call counts.
pub(crate) fn remember_environment() {
    ORIGINAL.get_or_init(|| env::vars_os().collect());
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

/// Makes the calling process, a worker, live through the terminal's Ctrl-C: its host decides what
/// becomes of it. A handler, not `SIG_IGN`, so that what a task starts gets the default back.
pub(crate) fn outlive_terminal_signals() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the handler does nothing, so it is async-signal-safe; the mask of this thread may have
        // been inherited blocked, which tasks' children must not inherit in turn.
        unsafe {
            libc::signal(signal, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t);
            let mut set = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
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

static AT_EXIT: AtomicUsize = AtomicUsize::new(0);

/// Has `action` called when the process ends through `exit` or a return from `main`. Once per process.
///
/// Register it after `MPI_Init`: such functions run in reverse order, so it comes before those that MPI
/// and its network libraries registered, and may still use MPI.
pub(crate) fn at_exit(action: fn()) {
    extern "C" fn run() {
        let action = AT_EXIT.load(Ordering::Acquire);
        // SAFETY: only `at_exit` stores here, and it stores a `fn()`, before it registers this.
        let action: fn() = unsafe { std::mem::transmute(action) };
        // Unwinding must not reach C.
        let _ = std::panic::catch_unwind(action);
    }
    let previous = AT_EXIT.swap(action as usize, Ordering::AcqRel);
    assert_eq!(previous, 0, "at_exit is for one action");
    // SAFETY: `run` is a plain function that lives as long as the process.
    let refused = unsafe { libc::atexit(run) };
    assert_eq!(refused, 0, "the C library has room for 32 exit functions at least");
}
