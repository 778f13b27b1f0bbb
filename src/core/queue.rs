//! The waiting tasks of one program, first come first served.
//!
//! A cancelled task stays behind as a tombstone, which its owner's task table tells from a living entry,
//! until it comes to the front or tombstones are more than half of the queue. So every operation is
//! amortized O(1) and the memory is at most twice what the living need.

use std::collections::VecDeque;

use super::meter;
use crate::ids::TaskId;

/// Waiting tasks and tombstones.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<TaskId>,
    tombstones: usize,
}

impl Queue {
    /// Living tasks.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.tombstones
    }

    /// Whether no living task waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a task at the end.
    pub(super) fn push_back(&mut self, task: TaskId) {
        meter::step();
        self.entries.push_back(task);
    }

    /// Adds a task that had been waiting before, at the front.
    pub(super) fn push_front(&mut self, task: TaskId) {
        meter::step();
        self.entries.push_front(task);
    }

    /// The first living task; clears tombstones away.
    pub(super) fn first(&mut self, is_alive: impl Fn(TaskId) -> bool) -> Option<TaskId> {
        if self.tombstones * 2 > self.entries.len() {
            self.clear_tombstones(&is_alive);
        }
        while let Some(&task) = self.entries.front() {
            meter::step();
            if is_alive(task) {
                return Some(task);
            }
            self.entries.pop_front();
            self.tombstones -= 1;
        }
        None
    }

    /// Removes what [`Queue::first`] has just returned.
    pub(super) fn pop_first(&mut self) {
        meter::step();
        self.entries.pop_front().expect("`first` has just seen it");
    }

    /// One entry has just died.
    pub(super) fn bury(&mut self) {
        self.tombstones += 1;
    }

    /// Pays for itself: of the entries it looks at, more than half are removed.
    fn clear_tombstones(&mut self, is_alive: impl Fn(TaskId) -> bool) {
        self.entries.retain(|&task| {
            meter::step();
            is_alive(task)
        });
        self.tombstones = 0;
    }

    /// Takes everything out, tombstones included.
    pub(super) fn take(&mut self) -> VecDeque<TaskId> {
        self.tombstones = 0;
        std::mem::take(&mut self.entries)
    }

    #[cfg(test)]
    pub(super) fn assert_consistent(&self, is_alive: impl Fn(TaskId) -> bool) {
        let dead = self.entries.iter().filter(|&&task| !is_alive(task)).count();
        assert_eq!(dead, self.tombstones, "tombstones of a queue");
        assert!(dead * 2 <= self.entries.len().max(1), "too many tombstones");
    }
}
