//! When to say that one is there, and when the other side has been silent for too long. Only for two on different
//! hosts: on one host the kernel tells at once.
//!
//! Pure: each end of the control channel has one, asks it what is to be done now, and when to ask again. Who
//! was stopped itself has to read first what has come meanwhile, and to judge then.

use std::time::{Duration, Instant};

/// So many signs of life fit into the time that one side may be silent.
const BEATS: u32 = 4;

/// A longer time makes no difference, and no clock need show it.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

#[derive(Debug)]
pub(crate) struct Heartbeat {
    timeout: Duration,
    heard: Instant,
    beat_at: Instant,
}

impl Heartbeat {
    pub(crate) fn new(timeout: Duration, now: Instant) -> Self {
        Self { timeout: timeout.min(TIMEOUT_MAX), heard: now, beat_at: now }
    }

    /// How long the other side may be silent.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Something came from the other side.
    pub(crate) fn note_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether a sign of life is due. It is taken to be sent then.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.beat_at;
        if is_due {
            self.beat_at = now + self.timeout / BEATS;
        }
        is_due
    }

    /// Whether the other side has been silent for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= self.timeout
    }

    /// When to ask again.
    pub(crate) fn deadline(&self) -> Instant {
        self.beat_at.min(self.heard + self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn it_beats_four_times_in_the_time_that_one_may_be_silent() {
        let begun = Instant::now();
        let mut heart = Heartbeat::new(TIMEOUT, begun);
        let beats = (0..10_000).filter(|&at| heart.is_due(begun + Duration::from_millis(at))).count();
        assert_eq!(beats, 4);
    }

    #[test]
    fn who_is_silent_is_lost_then_and_not_before() {
        let begun = Instant::now();
        let mut heart = Heartbeat::new(TIMEOUT, begun);
        let at = |millis| begun + Duration::from_millis(millis);
        assert!(!heart.is_silent(at(9_999)));
        heart.note_heard(at(9_999));
        assert!(!heart.is_silent(at(19_998)), "a slow one is not lost");
        assert!(heart.is_silent(at(19_999)));
    }

    #[test]
    fn it_sleeps_until_the_next_of_the_two() {
        let begun = Instant::now();
        let mut heart = Heartbeat::new(TIMEOUT, begun);
        assert!(heart.is_due(begun));
        assert_eq!(heart.deadline(), begun + TIMEOUT / 4);
        for beat in 1..4 {
            assert!(heart.is_due(begun + beat * TIMEOUT / 4));
        }
        assert_eq!(heart.deadline(), begun + TIMEOUT, "nothing was heard");
    }
}
