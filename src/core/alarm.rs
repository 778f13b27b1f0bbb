//! Tasks whose time runs: until their deadline, until they have run for too long, or until the grace of
//! those that are to stop is over.
//!
//! A task has one alarm at most, set anew whenever it comes to another place. A task that is to stop and is
//! not the first of its window has none: it has ended, and its worker, which has been told, will skip it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::scheduler::Scheduler;
use super::task::{Limits, Place, Stop};
use super::worker::State;
use super::{Action, Resolution, Time};
use crate::ids::{TaskId, WorkerId};

/// A task that may run for no time at all still begins.
const TIMEOUT_MIN: Duration = Duration::from_nanos(1);

/// The alarms of all tasks that have one. Only these pay for it.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    order: BTreeSet<(Time, TaskId)>,
}

impl Alarms {
    /// The next that is due.
    pub(super) fn first(&self) -> Option<(Time, TaskId)> {
        self.order.first().copied()
    }

    pub(super) fn reset(&mut self, task: TaskId, from: Option<Time>, to: Option<Time>) {
        if let Some(at) = from {
            self.order.remove(&(at, task));
        }
        if let Some(at) = to {
            self.order.insert((at, task));
        }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, at: Time, task: TaskId) -> bool {
        self.order.contains(&(at, task))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

impl Scheduler {
    /// Sets the alarm of a task that has just come to where it is; `is_running` if that is the front of a window.
    pub(super) fn arm(&mut self, id: TaskId, is_running: bool) {
        let Some(task) = self.tasks.get_mut(id.0) else { return };
        let &Limits { deadline, timeout, .. } = task.limits.as_deref().unwrap_or(&Limits::NONE);
        let at = match task.place {
            Place::Held { stop: Some(_), .. } => is_running.then(|| self.now + self.config.stop_grace),
            Place::Held { stop: None, .. } if is_running => {
                let timeout = timeout.map(|timeout| self.now + timeout.max(TIMEOUT_MIN));
                [timeout, deadline].into_iter().flatten().min()
            }
            Place::Held { stop: None, .. } | Place::Waiting => deadline,
        };
        let before = task.alarm();
        if at != before {
            task.limits.get_or_insert_default().alarm = at;
            self.alarms.reset(id, before, at);
        }
    }

    /// Every alarm up to now has its consequence.
    pub(super) fn ring(&mut self) {
        while let Some((at, id)) = self.alarms.first()
            && at <= self.now
        {
            match self.tasks.get(id.0).expect("an alarm belongs to a task").place {
                Place::Waiting => self.finish_waiting(id, Resolution::Overdue { answered: false }),
                Place::Held { worker, stop: None } => self.stop(id, worker, Stop::Overdue),
                Place::Held { worker, stop: Some(_) } => self.kill(worker),
            }
        }
    }

    /// Tells a worker that a task which it holds is to stop. If it is the one that runs, its grace begins. If it
    /// waits, nobody need wait with it for the one before it.
    pub(super) fn stop(&mut self, id: TaskId, worker: WorkerId, why: Stop) {
        self.actions.push_back(Action::Recant { worker, task: id });
        let is_running = match &self.workers.get(worker.number()).expect("it holds a task").state {
            State::Busy(window) | State::Draining(window) => window.first() == Some(id),
            State::Starting { .. } | State::Idle | State::Retiring => unreachable!("it holds a task"),
        };
        let stop = if is_running {
            why
        } else {
            why.unanswered().into_iter().for_each(|resolution| self.resolve(id, resolution));
            Stop::Ended
        };
        self.tasks.get_mut(id.0).expect("a held task is known").place =
            Place::Held { worker, stop: Some(stop) };
        self.arm(id, is_running);
    }

    /// Ends a worker whose task has not stopped. That costs nobody an attempt.
    fn kill(&mut self, id: WorkerId) {
        let worker = self.forget(id).expect("it holds a task");
        self.counted.kills += 1;
        self.actions.push_back(Action::Kill { worker: id });
        match &worker.state {
            State::Busy(window) | State::Draining(window) => self.empty(worker.program, window),
            State::Starting { .. } | State::Idle | State::Retiring => unreachable!("it holds a task"),
        }
    }
}
