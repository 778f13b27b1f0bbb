//! When a program deserves more workers: a pure function of a few numbers.
//!
//! A worker costs a spawn, tenths of a second. So the first one is spawned as soon as a task waits, and
//! another only if those there are (or are coming) would need longer for the waiting work than a spawn
//! takes; a thousand tasks of a microsecond never justify a second worker. How much work is waiting is
//! the number of tasks times what one takes: the program's mean or, when nothing has been measured or
//! the tasks have become longer, the age of the task that has been running longest. The age grows while
//! nothing happens, so [`due`] says when it will have grown enough. An age below the patience says
//! nothing: it may be the round trip of a first answer.
//!
//! There are never more starting workers than waiting tasks.

use std::time::Duration;

use super::Time;
use super::time::nanos;

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Tasks that no worker holds.
    pub(super) waiting: usize,
    /// Workers that can take tasks.
    pub(super) ready: u32,
    /// Workers that will.
    pub(super) starting: u32,
    /// Mean nanoseconds that a task takes, if any was answered.
    pub(super) ran_mean: Option<u64>,
    /// Mean nanoseconds from spawn to ready.
    pub(super) spawn_mean: u64,
    /// Since when the longest running task runs.
    pub(super) oldest_since: Option<Time>,
    /// The age from which on it counts.
    pub(super) patience: Duration,
}

/// How many more workers the program should have now.
pub(super) fn wanted(demand: &Demand, now: Time) -> u32 {
    let workers = u64::from(demand.ready) + u64::from(demand.starting);
    let justified = justified(demand, now).max(u128::from(demand.waiting > 0));
    let more = justified.saturating_sub(u128::from(workers));
    u32::try_from(more.min(unserved(demand))).unwrap_or(u32::MAX)
}

/// When [`wanted`] will be more than nothing if only time passes; may lie in the past.
pub(super) fn due(demand: &Demand) -> Option<Time> {
    if unserved(demand) == 0 {
        return None;
    }
    let workers = u128::from(demand.ready) + u128::from(demand.starting);
    let age = u128::from(demand.spawn_mean) * workers / demand.waiting as u128 + 1;
    let age = Duration::from_nanos(u64::try_from(age).unwrap_or(u64::MAX)).max(demand.patience);
    demand.oldest_since.map(|since| since + age)
}

/// How many workers would get through the waiting work in the time of one spawn.
fn justified(demand: &Demand, now: Time) -> u128 {
    let work = demand.waiting as u128 * u128::from(task_length(demand, now));
    work.div_ceil(u128::from(demand.spawn_mean.max(1)))
}

/// What a waiting task is thought to take.
fn task_length(demand: &Demand, now: Time) -> u64 {
    let age = demand.oldest_since.map_or(Duration::ZERO, |since| now.since(since));
    let age = if age >= demand.patience { nanos(age) } else { 0 };
    age.max(demand.ran_mean.unwrap_or(0))
}

/// Waiting tasks for which no worker is starting yet.
fn unserved(demand: &Demand) -> u128 {
    (demand.waiting as u128).saturating_sub(u128::from(demand.starting))
}
