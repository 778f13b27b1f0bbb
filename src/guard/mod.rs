//! The guard: the small process between an MPI runtime and a worker, and what contains the worker's death.
//!
//! What `MPI_Comm_spawn` starts is always a guard. It starts the worker as its child and stays, so what the
//! runtime watches never crashes. It tells the parent over the control channel how the worker ended, passes
//! its stderr on and keeps the last lines of it, kills it when told or when the parent is gone, and, where
//! the worker dies before it has initialized MPI, and the parent cannot help itself, does that in its place,
//! so that the parent's `MPI_Comm_spawn` returns. It runs none of the user's code, and sleeps in one `poll`.
//!
//! `child` is the worker as a process, `parent` the control channel, `output` what the worker writes, `pmi`
//! what a process manager of the MPICH family must be told in the worker's place.

mod child;
mod output;
mod parent;
mod pmi;

use std::os::fd::BorrowedFd;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::launch;
use crate::process as own;
use crate::transport::mpi;
use crate::wire::control::{Ended, FromGuard, How, Ticket};
use child::{Child, Passed};
pub(crate) use child::{NEWS_BEGUN, NEWS_BYE, NEWS_FINALIZE, NEWS_INIT, NEWS_UNFIT};
use parent::{Parent, Wish};

/// Watches over one worker from its start to its end, and ends with it.
pub(crate) fn watch(address: &str, ticket: Ticket) -> ! {
    own::outlive_worker();
    let mut parent = Parent::connect(address, ticket);
    let Some(start) = parent.await_start() else {
        // It is told all the same: the parent's spawn waits for a process that initializes MPI.
        let reason = "it was given up before it was started".to_owned();
        parent.say(&FromGuard::Ended(Ended {
            how: How::NotStarted { reason },
            stand_in: true,
            stderr: vec![],
        }));
        leave(Passed::Nothing, parent)
    };
    let mut child = match Child::start(&start) {
        Ok(child) => child,
        Err(reason) => {
            let ended = Ended { how: How::NotStarted { reason }, stand_in: true, stderr: vec![] };
            parent.say(&FromGuard::Ended(ended));
            leave(Passed::Nothing, parent)
        }
    };
    parent.say(&FromGuard::Started { pid: child.pid() });
    attend(&mut parent, &mut child);
    // It may have initialized MPI and ended before its guard was told: then nobody may do so once more.
    if child.passed() < Passed::Init && parent.is_spawned_within(SPAWN_NEWS) {
        child.count_as_ready();
    }
    let (how, stderr) = child.bury();
    let passed = child.passed();
    parent.say(&FromGuard::Ended(Ended { how, stand_in: passed < Passed::Init, stderr }));
    leave(passed, parent)
}

/// How long the news that `MPI_Comm_spawn` has returned may be on its way.
const SPAWN_NEWS: Duration = Duration::from_millis(250);

/// Passes stderr on, and does what the parent says, until the worker has ended.
fn attend(parent: &mut Parent, child: &mut Child) {
    loop {
        let [from_parent, news, stderr, ended] =
            sleep([parent.fd(), child.news(), child.stderr(), Some(child.end())]);
        if stderr {
            child.pass_stderr_on();
        }
        if news && child.read_news() {
            parent.say(&FromGuard::Ready);
        }
        if from_parent {
            for wish in parent.listen() {
                match wish {
                    Wish::Kill => child.kill(),
                    Wish::CountAsReady => child.count_as_ready(),
                    Wish::None => {}
                }
            }
        }
        if ended {
            return;
        }
    }
}

/// Sleeps until one of these can be read, and says which.
fn sleep(watched: [Option<BorrowedFd<'_>>; 4]) -> [bool; 4] {
    let mut fds: Vec<PollFd<'_>> =
        watched.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => panic!("the guard's own descriptors cannot be polled: {error}"),
    }
    let mut woken = fds.iter().map(|fd| !fd.revents().is_empty());
    watched.map(|fd| fd.is_some() && woken.next().unwrap_or(false))
}

/// How long a guard may take to initialize MPI in a worker's place, and to leave the parent.
const STAND_IN_LIMIT: Duration = Duration::from_secs(30);

/// How long it may still take when the parent has closed its end: it does once it has disconnected, too.
const PARTING: Duration = Duration::from_secs(1);

/// Whether a thread of this process has begun to say goodbye to the process manager. A second goodbye ends
/// hydra.
static GOODBYE: AtomicBool = AtomicBool::new(false);

/// Initializes MPI in the worker's place, and leaves. The other side may never answer: then, and if the parent
/// goes, this process ends all the same.
fn stand_in(mut parent: Parent) {
    let watch = move || {
        parent.await_end(STAND_IN_LIMIT);
        thread::sleep(PARTING);
        if GOODBYE.swap(true, Ordering::SeqCst) {
            // MPI_Finalize says it, and is slow.
            thread::sleep(STAND_IN_LIMIT);
        } else {
            pmi::finalize();
        }
        own::exit_now()
    };
    // Without it the guard waits for as long as its host lives.
    let _ = thread::Builder::new().spawn(watch);
    mpi::stand_in();
    while GOODBYE.swap(true, Ordering::SeqCst) {
        // The watch says it, and ends this process.
        thread::park();
    }
    mpi::finish_standing_in();
}

/// Ends the guard, so that the MPI runtime sees a clean end however the worker's was.
fn leave(passed: Passed, parent: Parent) -> ! {
    match passed {
        // The parent still waits in MPI_Comm_spawn for a process that initializes MPI, unless it can help itself.
        Passed::Nothing | Passed::Begun if launch::awaited_name().is_none() => {
            pmi::hear_out();
            stand_in(parent);
        }
        Passed::Init | Passed::Bye => pmi::finalize(),
        Passed::Nothing | Passed::Begun | Passed::Finalize => {}
    }
    process::exit(0)
}
