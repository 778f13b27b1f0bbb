//! How to wait for something that has to be looked for: briefly at full speed, then ever more slowly.

use std::cmp::Reverse;
use std::thread;
use std::time::{Duration, Instant};

/// For so long after the last activity the processor is only yielded, not given up: the answer to a
/// short task comes within this time, and sleeping would more than double its round trip.
const EAGER: Duration = Duration::from_millis(1);
/// And for so many nanoseconds more for each byte that is under way. What is large moves only while both sides look, by as
/// much as the system has room for between two looks, and nothing tells of it before all of it has moved.
const EAGER_NANOS_A_BYTE: u64 = 2;
/// But not for more than this: the other side may be busy.
const EAGER_MORE_MAX: Duration = Duration::from_secs(1);
/// Where waits take longer than this as a rule, to be woken costs little beside them, and whoever yields takes his share of
/// the processors from those that he waits for.
const LONG: Duration = Duration::from_micros(150);
/// What a longer wait counts, so that it takes several to make a rule.
const LONG_COUNTS: Duration = Duration::from_micros(300);
/// A longer wait was none for an answer, and says nothing of the next.
const IDLE: Duration = Duration::from_millis(20);
/// The first sleep after that.
const SLEEP_MIN: Duration = Duration::from_micros(50);

/// What there is beside looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attention {
    /// Nothing: so many bytes are under way that move only while somebody looks, or something else is that does.
    Close(Reverse<usize>),
    /// Nothing, but all that may come is a message from another machine.
    Remote,
    /// A bell is rung when something comes. It may be there before that, so a look is needed now and then.
    Rung,
}

impl Attention {
    /// The closest, for so many bytes.
    pub(crate) fn to(under_way: usize) -> Self {
        Self::Close(Reverse(under_way))
    }

    /// For how long after the last activity no processor is given up.
    fn eager(self) -> Duration {
        match self {
            Self::Close(Reverse(bytes)) => {
                let more = Duration::from_nanos(EAGER_NANOS_A_BYTE.saturating_mul(bytes as u64));
                EAGER + more.min(EAGER_MORE_MAX)
            }
            Self::Remote | Self::Rung => EAGER,
        }
    }

    /// The longest sleep.
    fn sleep_max(self) -> Duration {
        match self {
            Self::Close(_) => Duration::from_millis(1),
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
    has_waited: bool,
    /// How long waits have taken of late.
    usual: Duration,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { active: Instant::now(), sleep: SLEEP_MIN, has_waited: false, usual: Duration::ZERO }
    }

    /// Something happened: back to full speed.
    pub(crate) fn reset(&mut self) {
        let fresh = Self::new();
        if self.has_waited {
            self.learn(fresh.active.saturating_duration_since(self.active));
        }
        *self = Self { usual: self.usual, ..fresh };
    }

    fn learn(&mut self, waited: Duration) {
        if waited < IDLE {
            self.usual = (self.usual * 7 + waited.min(LONG_COUNTS)) / 8;
        }
    }

    fn sleeps_at_once(&self, attention: Attention) -> bool {
        attention == Attention::Rung && self.usual > LONG
    }

    /// Nothing happened: yields, or says for how long to sleep before the next look.
    pub(crate) fn pause(&mut self, attention: Attention) -> Option<Duration> {
        self.has_waited = true;
        if !self.sleeps_at_once(attention) && self.active.elapsed() < attention.eager() {
            thread::yield_now();
            return None;
        }
        let sleep = self.sleep.min(attention.sleep_max());
        self.sleep = sleep * 2;
        Some(sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_moves_much_stays_awake_for_longer() {
        assert_eq!(Attention::Rung.eager(), EAGER);
        assert_eq!(Attention::to(0).eager(), EAGER);
        assert!(Attention::to(64 << 20).eager() > 100 * EAGER);
        assert_eq!(Attention::to(usize::MAX).eager(), EAGER + EAGER_MORE_MAX);
        assert!(
            Attention::to(2) < Attention::to(1) && Attention::to(0) < Attention::Remote,
            "the closest counts"
        );
    }

    #[test]
    fn several_long_waits_make_a_rule_and_idleness_does_not() {
        let mut patience = Patience::new();
        let rung = |patience: &Patience| patience.sleeps_at_once(Attention::Rung);
        patience.learn(Duration::from_millis(15));
        assert!(!rung(&patience), "one says nothing");
        (0..20).for_each(|_| patience.learn(Duration::from_secs(1)));
        assert!(!rung(&patience), "that was no wait for an answer");
        (0..7).for_each(|_| patience.learn(Duration::from_micros(400)));
        assert!(rung(&patience));
        assert!(!patience.sleeps_at_once(Attention::to(0)), "nobody would ring");
        patience.reset();
        assert!(rung(&patience), "what was learnt stays");
        (0..7).for_each(|_| patience.learn(Duration::from_micros(20)));
        assert!(!rung(&patience));
    }
}
