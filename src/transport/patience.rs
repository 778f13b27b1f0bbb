//! How to wait for something that has to be looked for: briefly at full speed, then ever more slowly.

use std::thread;
use std::time::{Duration, Instant};

/// For so long after the last activity the processor is only yielded, not given up: the answer to a
/// short task comes within this time, and sleeping would more than double its round trip.
const EAGER: Duration = Duration::from_millis(1);
/// The first sleep after that.
const SLEEP_MIN: Duration = Duration::from_micros(50);

/// What there is beside looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attention {
    /// Nothing: bytes are under way that move only while somebody looks.
    Close,
    /// Nothing, but all that may come is a message from another machine.
    Remote,
    /// A bell is rung when something comes. It may be there before that, so a look is needed now and then.
    Rung,
}

impl Attention {
    /// The longest sleep.
    fn sleep_max(self) -> Duration {
        match self {
            Self::Close => Duration::from_millis(1),
            Self::Remote => Duration::from_millis(4),
            Self::Rung => Duration::from_millis(100),
        }
    }
}

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
    pub(crate) fn pause(&mut self, attention: Attention) -> Option<Duration> {
        if self.active.elapsed() < EAGER {
            thread::yield_now();
            return None;
        }
        let sleep = self.sleep.min(attention.sleep_max());
        self.sleep = sleep * 2;
        Some(sleep)
    }
}
