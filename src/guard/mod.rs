//! The guard: the small process between an MPI runtime and a worker, and what contains the worker's death.
//!
//! What `MPI_Comm_spawn` starts is always a guard. It starts the worker as its child and stays, so what the
//! runtime watches never crashes. It tells the parent over the control channel how the worker ended, sends there
//! what it writes, line by line, and keeps the last lines of its stderr, ends it and all that it started when told
//! or when the parent is gone, and, where the worker dies before it has initialized MPI and the parent cannot
//! help itself, does that in its place, so that the parent's `MPI_Comm_spawn` returns. It runs none of the user's
//! code, and sleeps in one `poll`.
//!
//! `child` is the worker as a process, `parent` the control channel, `output` what the worker writes, `pmi`
//! what a process manager of the MPICH family is asked and told in the worker's place, `sockets` the worker's connections.

mod child;
mod output;
mod parent;
mod pmi;
mod sockets;

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::launch;
use crate::process as own;
use crate::transport::mpi;
use crate::wire::control::{Ended, FromGuard, How, Ticket};
use child::{Child, Passed};
pub(crate) use child::{NEWS_BEGUN, NEWS_BYE, NEWS_FINALIZE, NEWS_INIT, NEWS_UNFIT};
#[cfg(any(test, fuzzing))]
pub(crate) use output::output_property;
use parent::{Parent, Wish};
use pmi::Manager;

/// Watches over one worker from its start to its end, and ends with it.
pub(crate) fn watch(address: &str, ticket: Ticket) -> ! {
    let manager = Manager::meet();
    let job = manager.job_name();
    own::outlive_worker();
    let order = orders_to_end();
    let mut parent = Parent::connect(address, ticket);
    let Some(start) = parent.await_start() else {
        // It is told all the same: the parent's spawn waits for a process that initializes MPI.
        let reason = "it was given up before it was started".to_owned();
        parent.say(&FromGuard::Ended(Ended { stand_in: true, ..Ended::of(How::NotStarted { reason }) }));
        leave(Passed::Nothing, parent, manager, job)
    };
    let mut child = match Child::start(&start) {
        Ok(child) => child,
        Err(reason) => {
            parent.say(&FromGuard::Ended(Ended { stand_in: true, ..Ended::of(How::NotStarted { reason }) }));
            leave(Passed::Nothing, parent, manager, job)
        }
    };
    parent.say(&FromGuard::Started { pid: child.pid(), host: launch::own_name() });
    attend(&mut parent, &mut child, order.as_ref());
    // It may have initialized MPI and ended before its guard was told: then nobody may do so once more.
    if child.passed() < Passed::Init && manager.is_awaited() && parent.is_spawned_within(SPAWN_NEWS) {
        child.count_as_ready();
    }
    parent.make_room_for_the_rest();
    let ended = child.bury(&mut parent);
    let passed = child.passed();
    parent.say(&FromGuard::Ended(Ended { stand_in: passed < Passed::Init, ..ended }));
    child.end_orphans();
    if passed < Passed::Init {
        child.let_go_of_connections();
        job.iter().for_each(|job| launch::unlink_segments_of(job));
    }
    // Who waits for a process in the worker's place waits for no other's end.
    let is_replaced = passed < Passed::Init && !parent.helps_itself();
    if passed < Passed::Finalize && !is_replaced {
        linger(&mut parent, order.as_ref());
    }
    drop(child);
    leave(passed, parent, manager, job)
}

/// Stays until the parent has done with the worker, and for a while after, where the MPI may still ask for it: as long as
/// the guard is there, so is the worker's job.
fn linger(parent: &mut Parent, order: Option<&PipeReader>) {
    let time = launch::linger();
    let mut until = Instant::now() + if time.is_zero() { time } else { LINGER_LIMIT };
    let mut is_known = false;
    while Instant::now() < until {
        let look = Instant::now() + LINGER_STEP;
        let watched = [parent.fd(), order.map(AsFd::as_fd)];
        let [from_parent, is_ordered] = sleep(watched, Some(until.min(look)));
        if is_ordered || parent.is_dead() {
            return;
        }
        if from_parent {
            parent.listen();
        }
        if parent.is_gone() && !is_known {
            is_known = true;
            until = Instant::now() + time;
        }
    }
}

/// How long the parent may take to know that a worker has died: its MPI thread may be in a spawn.
const LINGER_LIMIT: Duration = Duration::from_secs(30);
/// How often a guard that lingers looks whether its parent is still there.
const LINGER_STEP: Duration = Duration::from_millis(20);

/// Readable when a daemon of the MPI has told this guard to end. It tells the worker's process tree first, as far as
/// it has the time: an order that cannot be caught may follow.
fn orders_to_end() -> Option<PipeReader> {
    let (order, ordered) = std::io::pipe().ok()?;
    for signal in [Signal::TERM, Signal::HUP] {
        signal_hook::low_level::pipe::register(signal.as_raw(), ordered.try_clone().ok()?).ok()?;
    }
    Some(order)
}

/// How long the news that `MPI_Comm_spawn` has returned may be on its way.
const SPAWN_NEWS: Duration = Duration::from_millis(250);

/// Sends on what the worker writes, and does what the parent says, until the worker has ended.
fn attend(parent: &mut Parent, child: &mut Child, order: Option<&PipeReader>) {
    loop {
        let now = Instant::now();
        parent.tend(now);
        if parent.is_gone() && !child.is_killed() {
            child.kill();
        }
        if child.kill_at().is_some_and(|kill_at| kill_at <= now) {
            child.kill();
        }
        child.outlet.note_room(parent, now);
        let look = child.keep_connections(now);
        let deadlines =
            parent.deadline().into_iter().chain(child.kill_at()).chain(child.outlet.deadline(now));
        let until = deadlines.chain(look).min();
        let [stdout, stderr] = child.outlet.watched(now);
        let order = order.filter(|_| !child.is_killed()).map(AsFd::as_fd);
        let watched = [parent.fd(), parent.end(), child.news(), stdout, stderr, Some(child.end()), order];
        let [from_parent, no_parent, news, stdout, stderr, ended, is_ordered] = sleep(watched, until);
        let now = Instant::now();
        for which in [stdout, stderr].into_iter().enumerate().filter_map(|(which, any)| any.then_some(which))
        {
            child.outlet.read(which, parent, now);
        }
        if is_ordered {
            child.kill();
        }
        if news {
            let before = child.passed();
            if child.read_news() {
                parent.say(&FromGuard::Ready);
            }
            if before < Passed::Bye && child.passed() >= Passed::Bye {
                child.outlet.flush(parent);
                parent.say(&FromGuard::Leaving);
            }
        }
        if from_parent {
            for wish in parent.listen() {
                match wish {
                    Wish::Kill { grace } => child.ask_to_end(grace),
                    Wish::CountAsReady => child.count_as_ready(),
                    // One that cannot be stopped goes on, and nothing is said.
                    Wish::Recall => {
                        let begun = child.recall();
                        begun.into_iter().for_each(|begun| parent.say(&FromGuard::Recalled { begun }));
                    }
                    Wish::None => {}
                }
            }
        }
        if no_parent {
            parent.note_end();
        }
        if ended {
            return;
        }
    }
}

/// Sleeps until one of these can be read, or until then, and says which.
fn sleep<const N: usize>(watched: [Option<BorrowedFd<'_>>; N], until: Option<Instant>) -> [bool; N] {
    let mut fds: Vec<PollFd<'_>> =
        watched.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut fds, until.map(own::timespec_until).as_ref()) {
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
fn stand_in(mut parent: Parent, manager: Manager, job: Option<String>) {
    let watch = move || {
        parent.await_end(STAND_IN_LIMIT);
        thread::sleep(PARTING);
        if GOODBYE.swap(true, Ordering::SeqCst) {
            // MPI_Finalize says it, and is slow.
            thread::sleep(STAND_IN_LIMIT);
        } else {
            manager.finalize();
        }
        // It may have come no further than the worker.
        job.iter().for_each(|job| launch::unlink_segments_of(job));
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
fn leave(passed: Passed, parent: Parent, manager: Manager, job: Option<String>) -> ! {
    let host = parent.process();
    match passed {
        // The parent still waits in MPI_Comm_spawn for a process that initializes MPI, unless it can help itself.
        Passed::Nothing | Passed::Begun if !parent.helps_itself() && manager.is_awaited() => {
            manager.hear_out();
            stand_in(parent, manager, job);
        }
        Passed::Init | Passed::Bye => manager.finalize(),
        Passed::Nothing | Passed::Begun | Passed::Finalize => {}
    }
    host.into_iter().for_each(launch::clear_up_after);
    process::exit(0)
}
