//! The doorbell: wakes a thread that has gone to sleep. It costs one atomic load when nobody sleeps, so that
//! whoever hands something over rings it every time.
//!
//! It is a word in memory, and the memory may be shared: so a worker wakes its host, and a host its worker,
//! without a system call unless the other sleeps, and without a process between them ([`bells`](super::bells)).

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use crate::process::Words;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// Shared by a thread, which sleeps on it, and everybody who has something for it.
#[derive(Debug)]
pub(crate) enum Doorbell {
    /// Of this process alone.
    Private(AtomicU32),
    /// In memory that other processes have, too.
    Shared(&'static AtomicU32),
    /// The same; and whoever wakes its owner wakes somebody else before: `next` says whose word it is among `all`.
    Leading { own: &'static AtomicU32, next: &'static AtomicU32, all: Words },
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::Private(AtomicU32::new(AWAKE))
    }
}

impl Doorbell {
    fn word(&self) -> (&AtomicU32, futex::Flags) {
        match self {
            Self::Private(word) => (word, futex::Flags::PRIVATE),
            Self::Shared(word) | Self::Leading { own: word, .. } => (word, futex::Flags::empty()),
        }
    }

    /// Wakes the sleeper, if there is one. Call it after the thing to be seen can be seen.
    pub(crate) fn ring(&self) {
        let (word, flags) = self.word();
        // Pairs with the fence in `sleep`: either the sleeper sees what was handed over before this, or
        // this sees that it sleeps.
        fence(Ordering::SeqCst);
        if word.load(Ordering::Relaxed) == ASLEEP && word.swap(AWAKE, Ordering::Relaxed) == ASLEEP {
            if let Self::Leading { next, all, .. } = self {
                // First: he gets the processor that is free, and the owner this one when this thread goes to sleep.
                let next = all.get(next.load(Ordering::Relaxed) as usize);
                next.into_iter().for_each(|next| Self::Shared(next).ring());
            }
            // It can only fail for a word that is not there.
            let _ = futex::wake(word, flags, u32::MAX >> 1);
        }
    }

    /// Sleeps until it is rung, or until the time is over; not at all if `is_needed` says so after
    /// everybody has been told that this thread sleeps. Only one thread may sleep. Whether it was rung.
    pub(crate) fn sleep(&self, until: Option<Instant>, is_needed: impl FnOnce() -> bool) -> bool {
        let (word, flags) = self.word();
        word.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !is_needed() {
            while word.load(Ordering::Acquire) == ASLEEP {
                let left = until.map_or(Duration::from_secs(3600), |until| {
                    until.saturating_duration_since(Instant::now())
                });
                if left.is_zero() {
                    break;
                }
                // Whatever it returns for, the word says whether somebody has rung.
                let left = futex::Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(left.subsec_nanos()),
                };
                let _ = futex::wait(word, flags, ASLEEP, Some(&left));
            }
        }
        word.swap(AWAKE, Ordering::Relaxed) != ASLEEP
    }
}
