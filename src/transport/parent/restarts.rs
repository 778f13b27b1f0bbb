//! When the next parent is started after one has died.
//!
//! The first comes at once, and so does each that follows a parent whose workers worked. Parents that die before that
//! are followed by ever longer pauses, and after some of them there is a verdict: then every start fails for a while,
//! and one more is tried.

use std::time::{Duration, Instant};

/// The first pause, which doubles with each death.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// So many parents in a row may serve nobody.
const DEATHS_MAX: u32 = 6;

#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// Parents in a row that have died, and of whose workers nothing was heard.
    deaths: u32,
    not_before: Option<Instant>,
    reason: String,
    has_served: bool,
}

impl Restarts {
    /// Something was heard of a worker of this parent.
    pub(super) fn note_service(&mut self) {
        self.has_served = true;
        self.deaths = 0;
        self.not_before = None;
    }

    /// A parent has died, or could not be started, for this reason.
    pub(super) fn note_death(&mut self, now: Instant, reason: String) {
        self.reason = reason;
        if std::mem::take(&mut self.has_served) {
            return;
        }
        self.deaths += 1;
        // The first death of all may be a mishap.
        let doublings = self.deaths.saturating_sub(2).min(16);
        let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
        self.not_before = (self.deaths > 1).then(|| now + pause);
    }

    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| not_before <= now)
    }

    /// Why no more are tried, if so. After that one more is.
    pub(super) fn verdict(&mut self) -> Option<String> {
        if self.deaths < DEATHS_MAX {
            return None;
        }
        let deaths = std::mem::replace(&mut self.deaths, DEATHS_MAX - 1);
        Some(format!(
            "{deaths} isolated parents in a row have ended before a worker was ready, the last one: {}",
            self.reason
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_there_is_a_verdict() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let mut pauses = Vec::new();
        while restarts.verdict().is_none() {
            restarts.note_death(start, "it fell".to_owned());
            let pause = (0..100).find(|tenths| restarts.may_start(start + PAUSE_MIN * *tenths));
            pauses.push(pause.expect("pauses end"));
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16]);
        restarts.note_death(start, "it fell again".to_owned());
        assert!(
            restarts.verdict().is_some_and(|reason| reason.contains("it fell again")),
            "one more is tried"
        );
    }

    #[test]
    fn a_parent_that_has_served_is_replaced_at_once() {
        let (mut restarts, now) = (Restarts::default(), Instant::now());
        for _ in 0..100 {
            restarts.note_service();
            restarts.note_death(now, "it was killed".to_owned());
            assert!(restarts.may_start(now) && restarts.verdict().is_none());
        }
    }
}
