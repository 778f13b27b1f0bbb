//! Who gets the next waiting task.
//!
//! An idle worker always, the most recently used first, so that the others grow old enough to retire.
//! Else a busy worker with room in its window, in turn. Tasks of a program leave in the order in which
//! they came: none overtakes one that must wait for an idle worker.

use super::estimate::Cost;
use super::meter;
use super::scheduler::Scheduler;
use super::task::{Place, Task};
use super::window::Window;
use super::worker::{Recall, State};
use crate::ids::{ProgramId, TaskId, WorkerId};

/// How many busy workers are asked before a task is left to wait for the next answer.
const ROOM_TRIES: u32 = 4;

impl Scheduler {
    /// Hands out the waiting tasks of a program as far as workers can take them.
    pub(super) fn dispatch(&mut self, id: ProgramId) {
        meter::step();
        while let Some((task, cost)) = self.next_waiting(id) {
            let Some(worker) = self.taker(id, cost) else {
                return;
            };
            self.program(id).queue.pop_first();
            self.send(worker, task, cost);
        }
    }

    fn next_waiting(&mut self, id: ProgramId) -> Option<(TaskId, Cost)> {
        let tasks = &self.tasks;
        let task = self.programs[id.0 as usize].queue.first(|task| tasks.contains(task.0))?;
        let Task { kind, terms, is_doubted, .. } = tasks.get(task.0).expect("a living task is known");
        // What may be lost only once is alone: nobody could tell whether it had begun behind another. So is what a
        // worker may have died of, or its neighbours in the window would pay for it again and again.
        let cost =
            if terms.once || *is_doubted { Cost::Unknown } else { Cost::expected(self.kinds.get(kind)) };
        Some((task, cost))
    }

    fn taker(&mut self, id: ProgramId, cost: Cost) -> Option<WorkerId> {
        self.program(id).idle.last().or_else(|| self.roomy(id, cost))
    }

    /// A busy worker that can take a task of this cost; asks a few and turns the line.
    fn roomy(&mut self, id: ProgramId, cost: Cost) -> Option<WorkerId> {
        let (now, config) = (self.now, self.config);
        for _ in 0..ROOM_TRIES {
            meter::step();
            let program = &mut self.programs[id.0 as usize];
            let (worker, _) = program.roomy.first()?;
            let window = busy_window(&self.workers[&worker].state);
            if window.overruns(now, &config) {
                // Longer than anybody thought: no room until it answers.
                program.roomy.leave(worker);
                continue;
            }
            program.roomy.rejoin(worker, now);
            if window.admits(cost, &config) {
                return Some(worker);
            }
        }
        None
    }

    fn send(&mut self, id: WorkerId, task_id: TaskId, cost: Cost) {
        let now = self.now;
        let worker = self.workers.get_mut(&id).expect("a taker is known");
        let program = &mut self.programs[worker.program.0 as usize];
        let is_running = matches!(worker.state, State::Idle);
        match &mut worker.state {
            State::Idle => {
                worker.state = State::Busy(Window::starting_with(task_id, cost, now));
                program.idle.leave(id);
                program.running.join(id, now);
            }
            State::Busy(window) => {
                window.push(task_id, cost);
                if worker.recall == Recall::Unneeded {
                    worker.recall = Recall::Possible;
                    program.crowded.join(id, now);
                }
            }
            State::Starting { .. } | State::Draining(_) | State::Retiring => {
                unreachable!("it takes no tasks")
            }
        }
        self.note_room(id);
        let task = self.tasks.get_mut(task_id.0).expect("a waiting task is known");
        task.place = Place::Held { worker: id, stop: None };
        let attempt = task.losses + 1;
        self.arm(task_id, is_running);
        self.actions.push_back(super::Action::Send { worker: id, task: task_id, attempt });
    }

    /// Puts a busy worker into the line of those with room, or out of it.
    pub(super) fn note_room(&mut self, id: WorkerId) {
        let worker = &self.workers[&id];
        let roomy = &mut self.programs[worker.program.0 as usize].roomy;
        let is_open = worker.recall != Recall::Asked;
        let has_room = is_open && busy_window(&worker.state).admits(Cost::LEAST, &self.config);
        if has_room && !roomy.contains(id) {
            roomy.join(id, self.now);
        } else if !has_room {
            roomy.leave(id);
        }
    }
}

fn busy_window(state: &State) -> &Window {
    match state {
        State::Busy(window) => window,
        State::Starting { .. } | State::Idle | State::Draining(_) | State::Retiring => {
            unreachable!("only busy workers have room")
        }
    }
}
