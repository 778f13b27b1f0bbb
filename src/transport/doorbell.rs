//! The doorbell: wakes a driver's thread that has gone to sleep. It costs one atomic load when nobody
//! sleeps, so that whoever hands something over rings it every time.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared by a driver's thread, which sleeps on it, and everybody who has something for it.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    asleep: AtomicBool,
    rung: Mutex<bool>,
    woken: Condvar,
}

impl Doorbell {
    /// Wakes the sleeper, if there is one. Call it after the thing to be seen can be seen.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `sleep`: either the sleeper sees what was handed over before this, or
        // this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.woken.notify_one();
        }
    }

    /// Sleeps until it is rung, or until the time is over; not at all if `is_needed` says so after
    /// everybody has been told that this thread sleeps. Only one thread may sleep.
    pub(crate) fn sleep(&self, until: Option<Instant>, is_needed: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !is_needed() {
            self.wait(until);
        }
        self.asleep.store(false, Ordering::Relaxed);
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    fn wait(&self, until: Option<Instant>) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            let left = until
                .map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            rung = self.woken.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
