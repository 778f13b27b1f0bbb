//! Burials: a daemon is to hear that a guard has ended only when it knows that the worker has.
//!
//! `orted` learns of a worker's end by two ways: the worker's connection to it closes, and its own child, the guard, ends
//! and closes what it writes to. If it comes to the second first, it closes its end of the connection without
//! forgetting the descriptor's number; the next worker whose connection gets that number is never heard, and waits in
//! `MPI_Init` for ever. Both a guard that is killed and a daemon that is busy make that likely. So the parent holds
//! each guard's standard error open, too: without its end the daemon does not believe in the guard's. When the worker
//! is gone, the parent asks the daemon for something. Whoever answers has looked at all connections since, and seen
//! the worker's close. Then the parent lets go.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process;

/// How long a worker may take to end whose guard has.
const WORKER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the last question to the daemon is waited for.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);

/// What is held of one guard on this host, and its worker.
#[derive(Debug)]
pub(super) struct Grave {
    /// The guard's standard error.
    _held: File,
    /// Readable when the worker has ended.
    worker: Option<OwnedFd>,
}

impl Grave {
    /// Holds what this guard writes to, if the daemon waits for its end.
    pub(super) fn of(guard: Pid) -> Option<Self> {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        // It may be gone already; then there is no worker yet.
        let held = options.open(format!("/proc/{guard}/fd/2")).ok()?;
        held.metadata()
            .is_ok_and(|what| what.file_type().is_fifo())
            .then_some(Self { _held: held, worker: None })
    }

    /// Notes which process the worker is.
    pub(super) fn note_worker(&mut self, worker: u32) {
        let worker = i32::try_from(worker).ok().and_then(Pid::from_raw);
        self.worker = worker.and_then(|worker| pidfd_open(worker, PidfdFlags::empty()).ok());
    }

    /// Waits until the worker has ended, but not for ever.
    fn await_worker(&self, until: Instant) {
        if let Some(worker) = &self.worker {
            let mut fds = [PollFd::new(worker, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&process::timespec_until(until)));
        }
    }
}

/// Buries, on a thread of its own: a daemon that stands still answers no question.
#[derive(Debug)]
pub(super) struct Burials {
    graves: Sender<Grave>,
    /// Taken for each question; true when there are to be no more.
    is_over: Arc<Mutex<bool>>,
}

impl Burials {
    /// `ask` asks the daemon something, and returns when it has answered.
    pub(super) fn start(ask: fn()) -> std::io::Result<Self> {
        let (graves, dug) = unbounded();
        let is_over = Arc::new(Mutex::new(false));
        let over = Arc::clone(&is_over);
        thread::Builder::new().name("offshoot burial".to_owned()).spawn(move || bury(&dug, &over, ask))?;
        Ok(Self { graves, is_over })
    }

    pub(super) fn bury(&self, grave: Grave) {
        // The thread ends after this.
        let _ = self.graves.send(grave);
    }

    /// No question is asked from now on: MPI is about to be finalized. One that gets no answer is not waited for.
    pub(super) fn end(&self) {
        let until = Instant::now() + QUESTION_PATIENCE;
        loop {
            match self.is_over.try_lock() {
                Ok(mut is_over) => return *is_over = true,
                Err(TryLockError::Poisoned(poisoned)) => return *poisoned.into_inner() = true,
                Err(TryLockError::WouldBlock) if Instant::now() > until => return,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

fn bury(graves: &Receiver<Grave>, is_over: &Mutex<bool>, ask: fn()) {
    while let Ok(first) = graves.recv() {
        // Several that are gone at once need one question.
        let gone: Vec<Grave> = std::iter::once(first).chain(graves.try_iter()).collect();
        let until = Instant::now() + WORKER_PATIENCE;
        gone.iter().for_each(|grave| grave.await_worker(until));
        let is_over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_over {
            ask();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn start_one(stderr: Stdio) -> Child {
        Command::new("sleep").arg("60").stderr(stderr).spawn().expect("there is a `sleep`")
    }

    fn end(mut one: Child) {
        one.kill().expect("it is our child");
        one.wait().expect("it is our child");
    }

    fn id(one: &Child) -> Pid {
        Pid::from_child(one)
    }

    #[test]
    fn the_end_of_a_guard_is_not_known_before_the_daemon_has_seen_that_of_its_worker() {
        static QUESTIONS: AtomicU32 = AtomicU32::new(0);
        let ask = || {
            QUESTIONS.fetch_add(1, Ordering::SeqCst);
        };
        let burials = Burials::start(ask).expect("a thread starts");
        let (mut guard, worker) = (start_one(Stdio::piped()), start_one(Stdio::null()));
        let mut read_by_daemon = guard.stderr.take().expect("it is a pipe");
        let mut grave = Grave::of(id(&guard)).expect("its standard error is a pipe");
        grave.note_worker(worker.id());
        burials.bury(grave);
        end(guard);
        let mut fds = [PollFd::new(&read_by_daemon, PollFlags::IN)];
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        assert_eq!(poll(&mut fds, Some(&moment)), Ok(0), "the worker lives");
        assert_eq!(QUESTIONS.load(Ordering::SeqCst), 0, "there is nothing to ask yet");
        end(worker);
        assert_eq!(read_by_daemon.read(&mut [0]).expect("it is a pipe"), 0, "nobody holds it any more");
        assert_eq!(QUESTIONS.load(Ordering::SeqCst), 1, "the daemon was asked before");
    }

    #[test]
    fn nothing_is_asked_when_that_was_ended() {
        let burials = Burials::start(|| panic!("MPI is finalized")).expect("a thread starts");
        burials.end();
        let mut guard = start_one(Stdio::piped());
        let mut read_by_daemon = guard.stderr.take().expect("it is a pipe");
        burials.bury(Grave::of(id(&guard)).expect("its standard error is a pipe"));
        end(guard);
        assert_eq!(read_by_daemon.read(&mut [0]).expect("it is a pipe"), 0);
        let is_over = burials.is_over.lock();
        assert!(is_over.is_ok_and(|over| *over), "the thread has not panicked");
    }

    #[test]
    fn what_is_no_pipe_is_not_held() {
        let guard = start_one(Stdio::null());
        assert!(Grave::of(id(&guard)).is_none());
        end(guard);
    }
}
