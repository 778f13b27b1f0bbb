//! The numbers that a pool's owner may turn, with defaults that suit most.

use std::time::Duration;

/// A shorter pause between failing starts would be none: a spawn that is refused takes no time at all.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// In a shorter grace no worker could say that it has skipped a task.
const STOP_GRACE_MIN: Duration = Duration::from_millis(1);

/// What the scheduler is told once, at its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Workers of the default program that are kept even when there is nothing to do.
    pub(crate) workers_min: u32,
    /// Workers of all programs together, starting and retiring ones included.
    pub(crate) workers_max: u32,
    /// An idle worker is retired after this long without work.
    pub(crate) idle_timeout: Duration,
    /// A worker that is not ready this long after its spawn is given up.
    pub(crate) spawn_timeout: Duration,
    /// A worker that has not left this long after it was asked to is given up.
    pub(crate) retire_timeout: Duration,
    /// How long a task may run that brings no limit of its own.
    pub(crate) task_timeout: Option<Duration>,
    /// How long a running task has to stop of itself, once it was told to, before its worker is killed.
    pub(crate) stop_grace: Duration,
    /// Tries of one task, each ended by the loss of its worker, before it resolves as lost.
    pub(crate) attempts_max: u32,
    /// Failed starts in a row, with no worker to show for them, before the waiting tasks are failed.
    pub(crate) spawn_failures_max: u32,
    /// Pause after the first failed start; doubles with each further one.
    pub(crate) spawn_backoff: Duration,
    /// The longest that this pause becomes.
    pub(crate) spawn_backoff_max: Duration,
    /// How long a start is thought to take, until one has been measured.
    pub(crate) spawn_guess: Duration,
    /// How long a first answer may be out before its age says that tasks are long.
    pub(crate) growth_patience: Duration,
    /// Work that a worker may hold at once, if it is made of more than one task.
    pub(crate) window_budget: Duration,
    /// Tasks that a worker may hold at once.
    pub(crate) window_max: u32,
    /// How long a ready worker is left to its program while another program has none.
    pub(crate) tenure: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            workers_min: 0,
            workers_max: 8,
            idle_timeout: Duration::from_secs(10),
            spawn_timeout: Duration::from_secs(30),
            retire_timeout: Duration::from_secs(5),
            task_timeout: None,
            stop_grace: Duration::from_secs(2),
            attempts_max: 3,
            spawn_failures_max: 3,
            spawn_backoff: Duration::from_millis(100),
            spawn_backoff_max: Duration::from_secs(5),
            spawn_guess: Duration::from_millis(100),
            growth_patience: Duration::from_millis(10),
            window_budget: Duration::from_millis(1),
            window_max: 4096,
            tenure: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// The same with impossible wishes made possible: at least one worker, one attempt, one failure,
    /// no minimum above the maximum, some pause after a failure, and some grace.
    pub(super) fn checked(self) -> Config {
        let workers_max = self.workers_max.max(1);
        Config {
            workers_max,
            workers_min: self.workers_min.min(workers_max),
            attempts_max: self.attempts_max.max(1),
            spawn_failures_max: self.spawn_failures_max.max(1),
            window_max: self.window_max.max(1),
            spawn_backoff: self.spawn_backoff.max(BACKOFF_MIN),
            spawn_backoff_max: self.spawn_backoff_max.max(BACKOFF_MIN),
            stop_grace: self.stop_grace.max(STOP_GRACE_MIN),
            ..self
        }
    }
}
