//! The whole-state check of tests: everything that must hold between two events, however it came about.

use super::Time;
use super::line::Line;
use super::scheduler::{Phase, Scheduler};
use super::task::Place;
use super::worker::{Recall, State};
use crate::ids::{TaskId, WorkerId};

impl Scheduler {
    /// Panics unless every table and line agrees with every other.
    pub(super) fn assert_consistent(&self) {
        self.assert_workers_consistent();
        self.assert_tasks_consistent();
        self.assert_deadlines_ahead();
        self.ordered.assert_consistent();
        self.starting.assert_consistent();
        self.retiring.assert_consistent();
        for program in &self.programs {
            let lines = [&program.ready, &program.idle, &program.running, &program.roomy, &program.crowded];
            lines.into_iter().for_each(Line::assert_consistent);
            program.queue.assert_consistent(|task| self.tasks.contains(task.0));
            let is_starving = program.is_unserved() && program.draining == 0;
            assert!(is_starving || program.starving_since.is_none(), "a served program starves");
        }
    }

    /// Whether a worker gets no more tasks although it is ready.
    pub(super) fn is_draining(&self, worker: WorkerId) -> bool {
        self.workers.get(worker.number()).is_some_and(|worker| matches!(worker.state, State::Draining(_)))
    }

    fn assert_workers_consistent(&self) {
        assert!(self.workers.len() <= self.config.workers_max as usize, "more workers than workers_max");
        let mut counts = [0; 5];
        for (number, worker) in self.workers.iter() {
            let id = WorkerId(u32::try_from(number).expect("worker ids have 32 bits"));
            let program = &self.programs[worker.program.0 as usize];
            let lines = [
                self.ordered.contains(id) != self.starting.contains(id),
                program.idle.contains(id),
                program.running.contains(id),
                self.retiring.contains(id),
                program.ready.contains(id),
                program.roomy.contains(id),
                program.crowded.contains(id),
            ];
            let (state, expected) = match &worker.state {
                State::Starting { .. } => (0, [true, false, false, false, false, false, false]),
                State::Idle => (1, [false, true, false, false, true, false, false]),
                State::Busy(window) => {
                    window.assert_consistent(&self.config);
                    let is_crowded = worker.recall == Recall::Possible;
                    assert!(!is_crowded || window.len() > 1, "{id} is crowded with one task");
                    let is_roomy = lines[5] && worker.recall != Recall::Asked;
                    (2, [false, false, true, false, true, is_roomy, is_crowded])
                }
                State::Retiring => (3, [false, false, false, true, false, false, false]),
                State::Draining(window) => {
                    window.assert_consistent(&self.config);
                    (4, [false; 7])
                }
            };
            assert_eq!(lines, expected, "{id} stands in the wrong lines");
            counts[state] += 1;
        }
        let stats = self.stats();
        let told = [
            stats.workers_starting,
            stats.workers_idle,
            stats.workers_busy,
            stats.workers_retiring,
            stats.workers_draining,
        ];
        assert_eq!(counts, told, "a line holds workers that are no more");
        let starting: u32 = self.programs.iter().map(|program| program.starting).sum();
        assert_eq!(starting, stats.workers_starting, "starting workers per program");
    }

    fn assert_tasks_consistent(&self) {
        for (id, task) in self.tasks.iter().map(|(number, task)| (TaskId(number), task)) {
            assert!(!task.is_used_up(&self.config), "{id} should have been resolved as lost");
            assert!(
                task.alarm().is_none_or(|at| self.alarms.contains(at, id)),
                "the alarm of {id} is not set"
            );
            match task.place {
                Place::Waiting => {}
                Place::Held { worker, .. } => {
                    assert!(self.holds(worker, id), "{worker} does not hold {id}")
                }
            }
        }
        let armed = self.tasks.iter().filter(|(_, task)| task.alarm().is_some()).count();
        assert_eq!(armed, self.alarms.len(), "an alarm belongs to a task that has ended");
        let waiting = self.tasks.iter().filter(|(_, task)| task.place == Place::Waiting).count();
        let queued: usize = self.programs.iter().map(|program| program.queue.len()).sum();
        assert_eq!(waiting, queued, "a waiting task is in its queue");
    }

    fn holds(&self, worker: WorkerId, task: TaskId) -> bool {
        match self.workers.get(worker.number()).map(|worker| &worker.state) {
            Some(State::Busy(window) | State::Draining(window)) => window.tasks().any(|held| held == task),
            Some(State::Starting { .. } | State::Idle | State::Retiring) | None => false,
        }
    }

    fn assert_deadlines_ahead(&self) {
        let is_ahead = self.next_deadline().is_none_or(|deadline| deadline > self.now);
        assert!(is_ahead || self.now == Time::ZERO || self.phase == Phase::Closed, "a deadline was missed");
    }
}
