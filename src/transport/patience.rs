//! How to wait for something that can only be polled: briefly at full speed, then ever more slowly.

use std::thread;
use std::time::{Duration, Instant};

/// For so long after the last activity the processor is only yielded, not given up: the answer to a
/// short task comes within this time, and sleeping would more than double its round trip.
const EAGER: Duration = Duration::from_millis(1);
/// The first sleep after that, and the longest.
const SLEEP_MIN: Duration = Duration::from_micros(50);
const SLEEP_MAX: Duration = Duration::from_millis(1);

/// Paces a polling loop.
#[derive(Debug)]
pub(crate) struct Patience {
    active: Instant,
    sleep: Duration,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { active: Instant::now(), sleep: SLEEP_MIN }
    }

    /// Something happened: back to full speed.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Nothing happened: yields, or says for how long to sleep before the next look.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        if self.active.elapsed() < EAGER {
            thread::yield_now();
            return None;
        }
        let sleep = self.sleep;
        self.sleep = (sleep * 2).min(SLEEP_MAX);
        Some(sleep)
    }
}
