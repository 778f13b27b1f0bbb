//! The tasks that one worker holds: the first runs, the others wait behind it.
//!
//! A window exists to hide the round trip of short tasks. So it holds about a millisecond of work, and a
//! task that may be long is always alone: nothing must wait behind it while another worker is idle.

use std::collections::VecDeque;
use std::time::Duration;

use super::estimate::Cost;
use super::time::nanos;
use super::{Config, Time};
use crate::ids::TaskId;

/// A worker's tasks in the order in which it runs them, with what they are expected to cost.
#[derive(Debug)]
pub(super) struct Window {
    held: VecDeque<(TaskId, Cost)>,
    /// Sum of the known costs, each as it was when its task was sent.
    load: u64,
    /// Since when the first task runs, as far as we can know.
    running_since: Time,
}

impl Window {
    /// The window of a worker that was idle until now.
    pub(super) fn starting_with(task: TaskId, cost: Cost, now: Time) -> Window {
        let mut window = Window { held: VecDeque::new(), load: 0, running_since: now };
        window.push(task, cost);
        window
    }

    /// Adds a task behind all others.
    pub(super) fn push(&mut self, task: TaskId, cost: Cost) {
        self.held.push_back((task, cost));
        self.load += cost.known();
    }

    /// The task that the worker is running.
    pub(super) fn first(&self) -> Option<TaskId> {
        self.held.front().map(|&(task, _)| task)
    }

    /// Removes the first task, which was answered; the next one runs from now on.
    pub(super) fn pop(&mut self, now: Time) {
        let (_, cost) = self.held.pop_front().expect("only a held task is answered");
        self.load -= cost.known();
        self.running_since = now;
    }

    /// Whether a task of this cost may go behind what is there.
    pub(super) fn admits(&self, cost: Cost, config: &Config) -> bool {
        let Cost::Known(cost) = cost else {
            return false;
        };
        self.len() < config.window_max as usize
            && !self.holds_unknown()
            && self.load.saturating_add(cost) <= nanos(config.window_budget)
    }

    /// Whether the first task has run for longer than a whole window should: whatever was estimated,
    /// nothing more should wait behind it.
    pub(super) fn overruns(&self, now: Time, config: &Config) -> bool {
        now.since(self.running_since) > config.window_budget
    }

    /// Whether the first task has run for so long.
    pub(super) fn stalls(&self, now: Time, patience: Duration) -> bool {
        now.since(self.running_since) >= patience
    }

    /// Takes out what is behind the last task that has begun; all, if that is not there any more. None if that is
    /// nothing.
    pub(super) fn give_back(&mut self, begun: Option<TaskId>, now: Time) -> Option<Window> {
        let last = begun.and_then(|begun| self.held.iter().position(|&(task, _)| task == begun));
        let held = self.held.split_off(last.map_or(0, |last| last + 1));
        let load = held.iter().map(|&(_, cost)| cost.known()).sum();
        self.load -= load;
        (!held.is_empty()).then_some(Window { held, load, running_since: now })
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many tasks there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// All tasks, first to last.
    pub(super) fn tasks(&self) -> impl DoubleEndedIterator<Item = TaskId> + '_ {
        self.held.iter().map(|&(task, _)| task)
    }

    /// A task of unknown cost is alone in its window, so looking at the first is enough.
    fn holds_unknown(&self) -> bool {
        self.held.front().is_some_and(|&(_, cost)| cost == Cost::Unknown)
    }

    #[cfg(test)]
    pub(super) fn assert_consistent(&self, config: &Config) {
        assert!(!self.is_empty(), "an empty window belongs to an idle worker");
        assert!(self.len() <= config.window_max as usize, "window_max exceeded");
        assert_eq!(
            self.load,
            self.held.iter().map(|&(_, cost)| cost.known()).sum::<u64>(),
            "load of a window"
        );
        if self.len() > 1 {
            assert!(self.load <= nanos(config.window_budget), "window over its budget");
            assert!(self.held.iter().all(|&(_, cost)| cost != Cost::Unknown), "an unknown task has company");
        }
    }
}
