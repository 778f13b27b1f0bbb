//! How well the starts of a program go, and when the next may be tried.
//!
//! Starts that are under way together fail together (one `MPI_Comm_spawn` for all of them), and that
//! is one failure, not many. So starts belong to rounds: the first failure of a round counts and opens
//! the next round; later ones of the same round say nothing new.

use std::time::Duration;

use super::{Config, Time};

/// A program's record of bad starts since the last good one.
///
/// A start is good once its worker has answered a task; until then it may be part of a crash loop.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Rounds in a row whose start failed, or whose worker died before it was given anything.
    failures: u32,
    /// The same, and also rounds whose worker died in its very first task. They hold the next start
    /// back but do not end in giving up: the task may be to blame, and its attempts are bounded.
    strikes: u32,
    round: u32,
    retry_at: Option<Time>,
}

/// Who may be to blame for a bad start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Only the program, or the machine.
    Program,
    /// The same, and another try would end alike: it is hopeless at once.
    Lasting,
    /// The task that the worker was running, too.
    Task,
}

impl Health {
    /// A worker of this round failed before it had answered anything.
    pub(super) fn on_failure(&mut self, round: u32, blame: Blame, now: Time, config: &Config) {
        if round != self.round {
            return;
        }
        self.round = self.round.wrapping_add(1);
        self.strikes = self.strikes.saturating_add(1);
        match blame {
            Blame::Program => self.failures = self.failures.saturating_add(1),
            Blame::Lasting => self.failures = self.failures.max(config.spawn_failures_max),
            Blame::Task => {}
        }
        self.retry_at = Some(now + backoff(self.strikes, config));
    }

    /// A worker answered for the first time.
    pub(super) fn on_proof(&mut self) {
        self.failures = 0;
        self.strikes = 0;
        self.retry_at = None;
    }

    /// The round that a start of now belongs to.
    pub(super) fn round(&self) -> u32 {
        self.round
    }

    /// Whether so many starts have failed in a row that tasks should not wait for another.
    pub(super) fn is_hopeless(&self, config: &Config) -> bool {
        self.failures >= config.spawn_failures_max
    }

    /// When the next start may be made, if that is not yet.
    pub(super) fn held_until(&self, now: Time) -> Option<Time> {
        self.retry_at.filter(|&retry_at| retry_at > now)
    }

    /// How many starts may be made now: any number when all is well, one at a time after a failure.
    pub(super) fn allowance(&self, starting: u32, now: Time) -> u32 {
        if self.held_until(now).is_some() || self.is_probing(starting) {
            0
        } else if self.strikes == 0 {
            u32::MAX
        } else {
            1
        }
    }

    /// Whether the one start that is allowed after a failure is under way.
    pub(super) fn is_probing(&self, starting: u32) -> bool {
        self.strikes > 0 && starting > 0
    }
}

/// The pause after so many bad starts in a row.
fn backoff(strikes: u32, config: &Config) -> Duration {
    let doublings = strikes.saturating_sub(1).min(20);
    config.spawn_backoff.saturating_mul(1 << doublings).min(config.spawn_backoff_max)
}
