//! The doorbells of a host and of its workers on the same machine, in memory that all of them have.
//!
//! The host makes it; a guard finds it by the host's process and descriptor, as it finds the secret, and leaves
//! it to its worker. Where that fails, and on other machines, both sides look now and then instead
//! ([`Patience`](super::Patience)). What lies there is no secret and decides nothing: who scribbles on it wakes
//! somebody for nothing, or lets him sleep until he looks by himself.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::Doorbell;
use crate::process::{self, Words};
use crate::wire::control::BellPlace;

/// As many workers of one machine can have a bell at once. Others look now and then.
const WORKERS_MAX: u32 = 2000;
/// The words: the host's bell, a number that says which host it is, and the workers' bells. Where the MPI is in an isolated
/// parent, that is the host here, and the pool's host behind it has the third.
const HOST: u32 = 0;
const MARK: u32 = 1;
const BEHIND: u32 = 2;
/// Which word is that of the worker who was needed last, and will be next; 0 if there was none yet.
const NEXT: u32 = 3;
const FIRST_WORKER: u32 = 4;
const WORDS: usize = (FIRST_WORKER + WORKERS_MAX) as usize;

/// The bells of a host.
#[derive(Debug)]
pub(crate) struct Bells {
    words: Words,
    file: OwnedFd,
    mark: u32,
    /// Those that no worker has. The one that has been free for longest is the next: whoever had it last is
    /// certainly gone.
    free: Mutex<VecDeque<u32>>,
}

/// A worker's bell, as its host has it.
#[derive(Debug)]
pub(crate) struct WorkerBell {
    bells: Arc<Bells>,
    at: u32,
    bell: Doorbell,
}

impl Bells {
    /// Makes them.
    pub(crate) fn create() -> std::io::Result<Arc<Self>> {
        let (words, file) = process::create_words("offshoot bells", WORDS)?;
        Self::over(words, file)
    }

    /// Those that the host behind this isolated parent has made, for it and for the parents before it.
    pub(crate) fn adopt(file: OwnedFd) -> std::io::Result<Arc<Self>> {
        let words = process::open_words(&file, WORDS)?;
        Self::over(words, file)
    }

    fn over(words: Words, file: OwnedFd) -> std::io::Result<Arc<Self>> {
        let mut mark = [0; 4];
        rustix::rand::getrandom(&mut mark, rustix::rand::GetRandomFlags::empty())?;
        let mark = u32::from_ne_bytes(mark);
        word(words, MARK).store(mark, Ordering::Relaxed);
        let free = Mutex::new((FIRST_WORKER..FIRST_WORKER + WORKERS_MAX).collect());
        Ok(Arc::new(Self { words, file, mark, free }))
    }

    /// The host's own.
    pub(crate) fn of_host(&self) -> Doorbell {
        let Self { words, .. } = *self;
        Doorbell::Leading { own: word(words, HOST), next: word(words, NEXT), all: words }
    }

    /// That of the host behind an isolated parent.
    pub(crate) fn of_host_behind(&self) -> Doorbell {
        Doorbell::Shared(word(self.words, BEHIND))
    }

    /// The memory, for another process.
    pub(crate) fn file(&self) -> std::io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// A bell for a new worker, if there is one left.
    pub(crate) fn hang(self: &Arc<Self>) -> Option<WorkerBell> {
        let at = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        Some(WorkerBell { bells: Arc::clone(self), at, bell: Doorbell::Shared(word(self.words, at)) })
    }
}

impl WorkerBell {
    /// Where the worker finds it.
    pub(crate) fn place(&self) -> BellPlace {
        let Bells { file, mark, .. } = &*self.bells;
        BellPlace { pid: std::process::id(), file: file.as_raw_fd(), mark: *mark, at: self.at }
    }

    pub(crate) fn ring(&self) {
        let next = word(self.bells.words, NEXT);
        // Everybody else reads what lies beside it, for each message: it is not written for nothing.
        if next.load(Ordering::Relaxed) != self.at {
            next.store(self.at, Ordering::Relaxed);
        }
        self.bell.ring();
    }
}

impl Drop for WorkerBell {
    fn drop(&mut self) {
        self.bells.free.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.at);
    }
}

/// The file with the bells of a host on this machine, for a guard that leaves it to its worker.
pub(crate) fn open(place: BellPlace) -> std::io::Result<OwnedFd> {
    let path = format!("/proc/{}/fd/{}", place.pid, place.file);
    let file: OwnedFd = File::options().read(true).write(true).open(path)?.into();
    // In another name space of processes the number is somebody else's.
    let words = process::open_words(&file, WORDS)?;
    if word(words, MARK).load(Ordering::Relaxed) != place.mark {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

/// What a worker is told by its guard: the descriptor of the file that it inherits, and which bell is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inheritance {
    pub(crate) file: i32,
    pub(crate) at: u32,
}

impl fmt::Display for Inheritance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.at)
    }
}

impl FromStr for Inheritance {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (file, at) = text.split_once(':').ok_or(())?;
        Ok(Self { file: file.parse().map_err(drop)?, at: at.parse().map_err(drop)? })
    }
}

/// The two bells of a worker that has inherited them.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) own: Doorbell,
    pub(crate) host: Doorbell,
}

impl Pair {
    pub(crate) fn inherited(inheritance: Inheritance) -> Option<Self> {
        let file = process::inherited(inheritance.file);
        let words = process::open_words(&file, WORDS).ok()?;
        let own = words.get(inheritance.at as usize)?;
        Some(Self { own: Doorbell::Shared(own), host: Doorbell::Shared(word(words, HOST)) })
    }
}

fn word(words: Words, at: u32) -> &'static std::sync::atomic::AtomicU32 {
    words.get(at as usize).expect("there are as many words")
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Whether a sleeper was rung, rather than left to wake by himself, when `ring` was called.
    fn is_rung(sleeper: &Doorbell, ring: impl FnOnce()) -> bool {
        let is_asleep = Barrier::new(2);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let until = Instant::now() + Duration::from_millis(200);
                sleeper.sleep(Some(until), || {
                    is_asleep.wait();
                    false
                })
            });
            is_asleep.wait();
            ring();
            sleeper.join().expect("it does not panic")
        })
    }

    #[test]
    fn who_wakes_the_host_wakes_the_worker_that_was_needed_last() {
        let bells = Bells::create().expect("there is memory");
        let (first, last) = (bells.hang().expect("there is a bell"), bells.hang().expect("there is a bell"));
        let host = bells.of_host();
        let wake_host = || {
            let is_woken = is_rung(&host, || bells.of_host().ring());
            assert!(is_woken, "the host sleeps on");
        };
        assert!(!is_rung(&last.bell, wake_host), "nobody was needed yet");
        first.ring();
        last.ring();
        assert!(is_rung(&last.bell, wake_host));
        assert!(!is_rung(&first.bell, wake_host));
    }

    #[test]
    fn who_finds_the_host_awake_wakes_nobody() {
        let bells = Bells::create().expect("there is memory");
        let worker = bells.hang().expect("there is a bell");
        worker.ring();
        assert!(!is_rung(&worker.bell, || bells.of_host().ring()));
    }

    #[test]
    fn a_worker_finds_its_bell_and_the_hosts() {
        let bells = Bells::create().expect("there is memory");
        let worker = bells.hang().expect("there is a bell");
        let file = open(worker.place()).expect("it is this process's own");
        let words = process::open_words(&file, WORDS).expect("they are there");
        let theirs = Doorbell::Shared(word(words, worker.at));
        assert!(is_rung(&theirs, || worker.ring()));
        assert!(is_rung(&bells.of_host(), || Doorbell::Shared(word(words, HOST)).ring()));
        let elsewhere = BellPlace { mark: worker.place().mark.wrapping_add(1), ..worker.place() };
        assert!(open(elsewhere).is_err(), "those are somebody else's");
    }
}
