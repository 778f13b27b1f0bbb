//! What waits in a window behind a task that turns out long is asked back, once somebody else could run it.
//!
//! A worker whose window holds more than one task stands in the line of its program's `crowded`, from when the second
//! came or since it was last looked at. So nothing is to be done there with each answer: only when others could run
//! what waits, those are looked at whose turn it is. One whose first task has run for long is asked; the others wait
//! for their next turn. Nobody waits for longer than two patiences.

use std::time::Duration;

use super::scheduler::Scheduler;
use super::worker::{Recall, State};
use super::{Action, Config, Time, meter};
use crate::ids::{TaskId, WorkerId};

/// For how long the first task of a window may run before those behind it are asked back: twice what all of them
/// together were to take.
pub(super) fn patience(config: &Config) -> Duration {
    config.window_budget * 2
}

impl Scheduler {
    /// Asks for what waits behind long tasks and could run elsewhere.
    pub(super) fn recall_waiting(&mut self, index: usize) {
        meter::step();
        while let Some((id, at)) = self.crowd_due(index)
            && at <= self.now
        {
            let (now, config) = (self.now, self.config);
            let worker = self.workers.get_mut(id.number()).expect("who stands in a line is known");
            let State::Busy(window) = &worker.state else { unreachable!("only the busy are crowded") };
            let program = &mut self.programs[index];
            program.crowded.leave(id);
            if window.stalls(now, patience(&config)) {
                worker.recall = Recall::Asked;
                program.roomy.leave(id);
                self.actions.push_back(Action::Recall { worker: id });
            } else {
                program.crowded.join(id, now);
            }
        }
    }

    /// The worker of a program whose window is to be looked at next, and when; none while nobody could run what
    /// waits there.
    pub(super) fn crowd_due(&self, index: usize) -> Option<(WorkerId, Time)> {
        let program = &self.programs[index];
        let is_of_use = program.queue.is_empty() && (!program.idle.is_empty() || self.room() > 0);
        let (worker, since) = program.crowded.first().filter(|_| is_of_use)?;
        Some((worker, since + patience(&self.config)))
    }

    /// Nothing waits in a worker's window any more, or nothing is to be asked back.
    pub(super) fn leave_crowd(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(id.number()).expect("it holds tasks");
        if worker.recall == Recall::Possible {
            worker.recall = Recall::Unneeded;
            self.programs[worker.program.0 as usize].crowded.leave(id);
        }
    }

    /// A worker was stopped from beginning another task, when `begun` was the last that it had begun: what it holds
    /// behind that goes back to the front of the queue, and then it may go on.
    pub(super) fn on_recalled(&mut self, id: WorkerId, begun: Option<TaskId>) {
        let Some(worker) = self.workers.get_mut(id.number()) else {
            return;
        };
        if worker.recall != Recall::Asked {
            // Nobody has asked for that, so it is not what we think it is.
            self.on_lost(id);
            return;
        }
        worker.recall = Recall::Unneeded;
        let program = worker.program;
        let back = match &mut worker.state {
            State::Busy(window) | State::Draining(window) => window.give_back(begun, self.now),
            State::Idle => None,
            // It has been told to leave, and begins nothing anyway.
            State::Starting { .. } | State::Retiring => return,
        };
        self.actions.push_back(Action::Resume { worker: id });
        back.iter().for_each(|back| self.empty(program, back));
        self.on_given_back(id);
    }

    /// It has the same first task as before, or nothing left to do.
    fn on_given_back(&mut self, id: WorkerId) {
        match &self.workers.get(id.number()).expect("it was there").state {
            State::Busy(window) | State::Draining(window) if window.is_empty() => self.on_window_shrunk(id),
            State::Busy(_) => self.note_room(id),
            State::Draining(_) | State::Idle => {}
            State::Starting { .. } | State::Retiring => unreachable!("those are not asked to go on"),
        }
    }
}
