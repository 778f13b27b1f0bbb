//! Who gets the next waiting task.
//!
//! An idle worker always, the most recently used first, so that the others grow old enough to retire.
//! Else a busy worker with room in its window, in turn. Tasks of a program leave in the order in which
//! they came: none overtakes one that must wait for an idle worker.

use super::estimate::{Cost, Kinds};
use super::meter;
use super::scheduler::Scheduler;
use super::task::{Place, Task};
use super::time::nanos;
use super::window::Window;
use super::worker::{Recall, State};
use crate::ids::{ProgramId, TaskId, WorkerId};

/// How many busy workers are asked before a task is left to wait for the next answer.
const ROOM_TRIES: u32 = 4;
/// A busy worker is given neighbours, which cost less together: so many at most, and until they are expected to take this
/// part of a window's budget. Then it is the next one's turn.
const RUN_MAX: u32 = 64;
const RUNS_OF_BUDGET: u64 = 16;

impl Scheduler {
    /// Hands out the waiting tasks of a program as far as workers can take them.
    pub(super) fn dispatch(&mut self, id: ProgramId) {
        meter::step();
        while let Some((task, cost)) = self.next_waiting(id) {
            let Some(worker) = self.taker(id, cost) else {
                return;
            };
            self.send(worker, task, cost);
        }
    }

    fn next_waiting(&mut self, id: ProgramId) -> Option<(TaskId, Cost)> {
        let queue = &mut self.programs[id.0 as usize].queue;
        let task = queue.first(|task| self.tasks.contains(task.0))?;
        let known = self.tasks.get(task.0).expect("a living task is known");
        Some((task, cost(known, &self.kinds)))
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
            let window = busy_window(&self.workers.get(worker.number()).expect("it is in a line").state);
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

    /// Sends a worker the first waiting task; and, if it is busy, some of those behind it.
    fn send(&mut self, id: WorkerId, task: TaskId, cost: Cost) {
        let now = self.now;
        let worker = self.workers.get_mut(id.number()).expect("a taker is known");
        let program = &mut self.programs[worker.program.0 as usize];
        match &mut worker.state {
            State::Idle => {
                worker.state = State::Busy(Window::starting_with(task, cost, now));
                program.idle.leave(id);
                program.running.join(id, now);
                program.queue.pop_first();
                self.hold(id, task, true);
            }
            State::Busy(_) => {
                if worker.recall == Recall::Unneeded {
                    worker.recall = Recall::Possible;
                    program.crowded.join(id, now);
                }
                self.send_run(id, task, cost);
            }
            State::Starting { .. } | State::Draining(_) | State::Retiring => {
                unreachable!("it takes no tasks")
            }
        }
        self.note_room(id);
    }

    /// Sends a busy worker waiting tasks, one after the other.
    fn send_run(&mut self, id: WorkerId, mut task: TaskId, mut cost: Cost) {
        let part = nanos(self.config.window_budget) / RUNS_OF_BUDGET;
        let mut sent = 0;
        for _ in 0..RUN_MAX {
            let worker = self.workers.get_mut(id.number()).expect("a taker is known");
            let program = worker.program;
            let State::Busy(window) = &mut worker.state else { unreachable!("it is busy") };
            window.push(task, cost);
            sent += cost.known();
            let is_full = sent >= part;
            self.program(program).queue.pop_first();
            self.hold(id, task, false);
            let Some((next, cost_of_next)) = self.next_waiting(program).filter(|_| !is_full) else { return };
            let state = &self.workers.get(id.number()).expect("a taker is known").state;
            if !busy_window(state).admits(cost_of_next, &self.config) {
                return;
            }
            (task, cost) = (next, cost_of_next);
        }
    }

    /// A task has come into a worker's window.
    fn hold(&mut self, worker: WorkerId, id: TaskId, is_running: bool) {
        let task = self.tasks.get_mut(id.0).expect("a waiting task is known");
        task.place = Place::Held { worker, stop: None };
        let attempt = task.losses + 1;
        if task.limits.is_some() {
            self.arm(id, is_running);
        }
        self.actions.push_back(super::Action::Send { worker, task: id, attempt });
    }

    /// Puts a busy worker into the line of those with room, or out of it.
    pub(super) fn note_room(&mut self, id: WorkerId) {
        let worker = self.workers.get(id.number()).expect("it is busy");
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

/// What may be lost only once is alone: nobody could tell whether it had begun behind another. So is what a worker may
/// have died of, or its neighbours in the window would pay for it again and again.
fn cost(task: &Task, kinds: &Kinds) -> Cost {
    if task.once || task.is_doubted { Cost::Unknown } else { kinds.cost(task.kind) }
}

fn busy_window(state: &State) -> &Window {
    match state {
        State::Busy(window) => window,
        State::Starting { .. } | State::Idle | State::Draining(_) | State::Retiring => {
            unreachable!("only busy workers have room")
        }
    }
}
