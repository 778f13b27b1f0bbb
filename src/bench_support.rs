//! What `offshoot bench` needs and no user of the library does: the scheduler under a simulated load.
//!
//! The core is private, and its vocabulary changes with it. So nothing of it shows here: whoever measures puts
//! tasks in, has them answered, and holds the clock himself.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::{Action, Config, Event, Resolution, Scheduler, Terms, Time};
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};

/// Virtual time between two events, and what a task is said to have taken.
const STEP: Duration = Duration::from_nanos(500);

/// A scheduler, and workers that are nothing but their numbers: they answer the oldest task first.
#[derive(Debug)]
pub struct SimulatedPool {
    scheduler: Scheduler,
    now: Time,
    /// What workers hold, in the order in which it was sent.
    held: VecDeque<(WorkerId, TaskId)>,
    submitted: u64,
    answered: u64,
}

impl SimulatedPool {
    /// So many workers, all of them ready.
    ///
    /// # Panics
    /// If the scheduler does not start them: a bug of ours.
    #[must_use]
    pub fn new(workers: u32) -> Self {
        let config = Config { workers_min: workers, workers_max: workers, ..Config::default() };
        let scheduler = Scheduler::new(config, 1);
        let mut pool = Self { scheduler, now: Time::ZERO, held: VecDeque::new(), submitted: 0, answered: 0 };
        pool.handle(Event::Tick);
        (0..workers).map(WorkerId).for_each(|worker| pool.handle(Event::Ready { worker }));
        let ready = pool.scheduler.stats().workers_idle;
        assert_eq!(ready, workers, "workers that were asked for are ready");
        pool
    }

    /// Hands in so many tasks, of one kind.
    pub fn submit(&mut self, tasks: u64) {
        for _ in 0..tasks {
            let (task, terms) = (TaskId(self.submitted), Terms::default());
            self.submitted += 1;
            self.handle(Event::Submit { task, program: ProgramId(0), kind: KindId(0), terms });
        }
    }

    /// Has workers answer until nothing waits any more.
    ///
    /// # Panics
    /// If a task is left, or ends otherwise: a bug of ours.
    pub fn work(&mut self) {
        while let Some((worker, task)) = self.held.pop_front() {
            self.handle(Event::Answered { worker, task, ran: STEP });
        }
        assert_eq!(self.answered, self.submitted, "every task is answered");
    }

    fn handle(&mut self, event: Event) {
        self.now = self.now + STEP;
        self.scheduler.handle(self.now, event);
        while let Some(action) = self.scheduler.poll() {
            match action {
                Action::Send { worker, task, .. } => self.held.push_back((worker, task)),
                Action::Resolve { resolution: Resolution::Answered, .. } => self.answered += 1,
                // Nobody is stopped: it is a matter of moments until they answer.
                Action::Spawn { .. } | Action::Recall { .. } => {}
                Action::Resolve { .. }
                | Action::Resume { .. }
                | Action::Recant { .. }
                | Action::Retire { .. }
                | Action::Abandon { .. }
                | Action::Kill { .. }
                | Action::Close => panic!("nothing asks for {action:?}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_workers_answer_everything() {
        for workers in [1, 7] {
            let mut pool = SimulatedPool::new(workers);
            for tasks in [10_000, 3, 0] {
                pool.submit(tasks);
                pool.work();
            }
            assert_eq!(pool.answered, 10_003);
        }
    }
}
