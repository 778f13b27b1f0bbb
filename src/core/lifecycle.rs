//! The steps of a worker's life that we decide: spawned, asked to leave, drained, forgotten.
//!
//! Each moves a worker from one state to the next and, with it, from one set of lines to another; check.rs
//! says which state stands in which. What workers do of themselves is in the handlers of scheduler.rs.

use super::Action;
use super::scheduler::Scheduler;
use super::worker::{Recall, State, Worker};
use crate::ids::{ProgramId, WorkerId};

impl Scheduler {
    /// Starts one more worker of a program.
    pub(super) fn spawn(&mut self, id: ProgramId) {
        let worker = WorkerId(self.worker_next);
        self.worker_next = self.worker_next.checked_add(1).expect("four billion workers are enough");
        let now = self.now;
        let program = self.program(id);
        program.starting += 1;
        let round = program.health.round();
        let state = State::Starting { since: now };
        self.workers.insert(
            worker.number(),
            Worker { program: id, round, proven: false, recall: Recall::Unneeded, state },
        );
        self.ordered.join(worker, now);
        self.counted.spawns += 1;
        self.actions.push_back(Action::Spawn { worker, program: id });
    }

    /// It is ready, or will never be.
    pub(super) fn leave_start(&mut self, id: WorkerId) {
        if !self.ordered.leave(id) {
            self.starting.leave(id);
        }
    }

    /// Asks an idle worker to leave.
    pub(super) fn retire(&mut self, id: WorkerId) {
        let worker = self.workers.get(id.number()).expect("only a known worker is retired");
        assert!(matches!(worker.state, State::Idle), "only an idle worker is retired");
        let program = &mut self.programs[worker.program.0 as usize];
        program.idle.leave(id);
        program.ready.leave(id);
        self.enter_retirement(id);
    }

    /// Lets a busy worker finish what it holds and then leave.
    pub(super) fn drain(&mut self, id: WorkerId) {
        self.leave_crowd(id);
        let worker = self.workers.get_mut(id.number()).expect("only a known worker is drained");
        let State::Busy(window) = std::mem::replace(&mut worker.state, State::Retiring) else {
            unreachable!("only a busy worker is drained");
        };
        worker.state = State::Draining(window);
        let program = &mut self.programs[worker.program.0 as usize];
        program.ready.leave(id);
        program.running.leave(id);
        program.roomy.leave(id);
        program.draining += 1;
    }

    /// From idle or draining, whose lines it has left, to retiring.
    pub(super) fn enter_retirement(&mut self, id: WorkerId) {
        self.workers.get_mut(id.number()).expect("only a known worker retires").state = State::Retiring;
        self.retiring.join(id, self.now);
        self.actions.push_back(Action::Retire { worker: id });
    }

    /// The worker is closed: removes it from everywhere.
    pub(super) fn forget(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(id.number())?;
        let program = &mut self.programs[worker.program.0 as usize];
        match worker.state {
            State::Starting { .. } => {
                program.starting -= 1;
                self.leave_start(id);
            }
            State::Idle => {
                program.ready.leave(id);
                program.idle.leave(id);
            }
            State::Busy(_) => {
                program.ready.leave(id);
                program.running.leave(id);
                program.roomy.leave(id);
                program.crowded.leave(id);
            }
            State::Draining(_) => program.draining -= 1,
            State::Retiring => {
                self.retiring.leave(id);
            }
        }
        Some(worker)
    }
}
