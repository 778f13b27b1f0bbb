//! The scheduler's state, its three calls, and how it changes with each event.
//!
//! Handlers (`on_*`) change state to what the event says. What follows from the new state is decided
//! afterwards, once for all events that came together, in `settle`: dispatch.rs hands out tasks, population.rs spawns and retires
//! workers, deadline.rs says when time alone will change something.

use std::collections::VecDeque;
use std::time::Duration;

use super::alarm::Alarms;
use super::estimate::{Kinds, Mean};
use super::event::Terms;
use super::health::Blame;
use super::line::Line;
use super::program::Program;
use super::table::Table;
use super::task::{Place, Stop, Task};
use super::window::Window;
use super::worker::{State, Worker};
use super::{Action, Config, Event, Resolution, ShutdownMode, Stats, Time, meter};
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};

/// Decides which worker gets which task, and when to spawn and retire workers.
#[derive(Debug)]
pub(crate) struct Scheduler {
    pub(super) config: Config,
    pub(super) now: Time,
    pub(super) phase: Phase,
    pub(super) programs: Vec<Program>,
    pub(super) tasks: Table<Task>,
    pub(super) workers: Table<Worker>,
    pub(super) kinds: Kinds,
    /// Workers that were asked for and not spawned yet, of all programs. How long that may take is the transport's
    /// business.
    pub(super) ordered: Line,
    /// Workers that are starting, of all programs, since their spawn.
    pub(super) starting: Line,
    /// Workers that were asked to leave, of all programs, since then.
    pub(super) retiring: Line,
    /// Tasks whose time runs.
    pub(super) alarms: Alarms,
    /// The part of [`Stats`] that only ever grows.
    pub(super) counted: Stats,
    pub(super) actions: VecDeque<Action>,
    /// Whether something has changed whose consequences are still to be drawn.
    is_unsettled: bool,
    pub(super) worker_next: u32,
}

/// The life of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Tasks are welcome.
    Open,
    /// No new tasks; those that are there come to their ends.
    Ending,
    /// `Close` has been handed out.
    Closed,
}

impl Scheduler {
    /// A scheduler for programs numbered from zero. Nothing is spawned before the first event.
    pub(crate) fn new(config: Config, programs: u32) -> Scheduler {
        let config = config.checked();
        Scheduler {
            programs: (0..programs).map(|_| Program::new(&config)).collect(),
            config,
            now: Time::ZERO,
            phase: Phase::Open,
            tasks: Table::default(),
            workers: Table::default(),
            kinds: Kinds::default(),
            ordered: Line::default(),
            starting: Line::default(),
            retiring: Line::default(),
            alarms: Alarms::default(),
            counted: Stats::default(),
            actions: VecDeque::new(),
            is_unsettled: false,
            worker_next: 0,
        }
    }

    /// One more program, which tasks may name from now on.
    pub(crate) fn add_program(&mut self) -> ProgramId {
        let id = u32::try_from(self.programs.len()).expect("programs are few");
        self.programs.push(Program::new(&self.config));
        ProgramId(id)
    }

    /// Takes in what happened. `now` never goes backwards.
    pub(crate) fn handle(&mut self, now: Time, event: Event) {
        debug_assert!(now >= self.now, "time went backwards: {now:?} after {:?}", self.now);
        self.now = self.now.max(now);
        if self.phase != Phase::Closed {
            self.on_event(event);
            self.on_time();
            self.is_unsettled = true;
        }
    }

    /// Takes in all that a worker has answered at once, in this order: the same as so many [`Event::Answered`], for less.
    pub(crate) fn handle_answers(
        &mut self,
        now: Time,
        worker: WorkerId,
        answers: impl IntoIterator<Item = (TaskId, Duration)>,
    ) {
        debug_assert!(now >= self.now, "time went backwards: {now:?} after {:?}", self.now);
        self.now = self.now.max(now);
        if self.phase != Phase::Closed {
            self.on_answers(worker, answers);
            self.on_time();
            self.is_unsettled = true;
        }
    }

    /// The next thing to do, if any.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        if self.is_unsettled {
            self.is_unsettled = false;
            self.settle();
        }
        self.actions.pop_front().or_else(|| self.close())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Submit { task, program, kind, terms } => self.on_submit(task, program, kind, terms),
            Event::Cancel { task } => self.on_cancel(task),
            Event::Spawned { worker } => self.on_spawned(worker),
            Event::SpawnFailed { worker, lasting } => self.on_spawn_failed(worker, lasting),
            Event::Ready { worker } => self.on_ready(worker),
            Event::Answered { worker, task, ran } => self.on_answers(worker, [(task, ran)]),
            Event::Recalled { worker, begun } => self.on_recalled(worker, begun),
            Event::Lost { worker } => self.on_lost(worker),
            Event::Gone { worker } => self.on_gone(worker),
            Event::Tick => {}
            Event::Shutdown { mode } => self.on_shutdown(mode),
        }
    }

    fn on_submit(&mut self, id: TaskId, program: ProgramId, kind: KindId, terms: Terms) {
        assert!((program.0 as usize) < self.programs.len(), "{program} was never added");
        if self.phase != Phase::Open {
            self.resolve(id, Resolution::ShutDown);
            return;
        }
        let terms = Terms { timeout: terms.timeout.or(self.config.task_timeout), ..terms };
        let task = Task::new(program, kind, terms);
        self.alarms.reset(id, None, task.alarm());
        let earlier = self.tasks.insert(id.0, task);
        assert!(earlier.is_none(), "{id} was submitted twice");
        self.program(program).queue.push_back(id);
    }

    fn on_cancel(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(id.0) else {
            return;
        };
        match task.place {
            Place::Waiting => self.finish_waiting(id, Resolution::Cancelled),
            Place::Held { stop: Some(_), .. } => {}
            Place::Held { worker, stop: None } => self.stop(id, worker, Stop::Cancelled),
        }
    }

    /// The worker is of use only when it is ready, but its time begins now: how long it waited for its
    /// turn to be spawned is not its fault.
    fn on_spawned(&mut self, id: WorkerId) {
        if self.ordered.leave(id) {
            self.starting.join(id, self.now);
        }
    }

    fn on_ready(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(id.number()) else {
            return;
        };
        let State::Starting { since } = worker.state else {
            return;
        };
        worker.state = State::Idle;
        let program = &mut self.programs[worker.program.0 as usize];
        let now = self.now;
        program.spawn_mean.learn(now.since(since));
        program.starting -= 1;
        program.ready.join(id, now);
        program.idle.join(id, now);
        self.leave_start(id);
    }

    /// The driver has closed the worker itself; anybody else would be abandoned.
    fn on_spawn_failed(&mut self, id: WorkerId, lasting: bool) {
        match self.workers.get(id.number()).map(|worker| &worker.state) {
            Some(State::Starting { .. }) => {
                let worker = self.forget(id).expect("it was there a line ago");
                self.on_start_failed(&worker, if lasting { Blame::Lasting } else { Blame::Program });
            }
            Some(State::Idle | State::Busy(_) | State::Draining(_) | State::Retiring) => self.on_lost(id),
            None => {}
        }
    }

    fn on_answers(&mut self, id: WorkerId, answers: impl IntoIterator<Item = (TaskId, Duration)>) {
        let Some(worker) = self.workers.get_mut(id.number()) else {
            return;
        };
        let (mut any, mut is_wrong) = (false, false);
        let mut next = None;
        for (task, ran) in answers {
            let window = match &mut worker.state {
                State::Busy(window) | State::Draining(window) if window.first() == Some(task) => window,
                // Not what it should be doing: it is broken, or was replaced by something else.
                State::Starting { .. }
                | State::Idle
                | State::Busy(_)
                | State::Draining(_)
                | State::Retiring => {
                    is_wrong = true;
                    break;
                }
            };
            any = true;
            window.pop(self.now);
            next = window.first();
            let program = &mut self.programs[worker.program.0 as usize];
            if !worker.proven {
                worker.proven = true;
                program.health.on_proof();
            }
            Mean::learn_in(&mut program.ran_mean, ran);
            self.counted.answered += 1;
            let answered = self.tasks.remove(task.0).expect("held tasks are known");
            self.alarms.reset(task, answered.alarm(), None);
            let resolution = match answered.place {
                Place::Held { stop: Some(stop), .. } => stop.answered(),
                Place::Held { stop: None, .. } | Place::Waiting => Some(Resolution::Answered),
            };
            self.actions.extend(resolution.map(|resolution| Action::Resolve { task, resolution }));
            self.kinds.learn(answered.kind, ran);
        }
        if any {
            next.into_iter().for_each(|next| self.arm(next, true));
            self.on_window_shrunk(id);
        }
        if is_wrong {
            self.on_lost(id);
        }
    }

    /// A worker's first tasks are done, or were taken back: it runs the next, or has nothing left to do.
    pub(super) fn on_window_shrunk(&mut self, id: WorkerId) {
        let is_alone = |state: &State| matches!(state, State::Busy(window) if window.len() <= 1);
        if self.workers.get(id.number()).is_some_and(|worker| is_alone(&worker.state)) {
            self.leave_crowd(id);
        }
        let worker = self.workers.get_mut(id.number()).expect("it holds a window");
        let program = &mut self.programs[worker.program.0 as usize];
        match &worker.state {
            State::Busy(window) if window.is_empty() => {
                worker.state = State::Idle;
                program.running.leave(id);
                program.roomy.leave(id);
                program.idle.join(id, self.now);
            }
            State::Busy(_) => {
                program.running.rejoin(id, self.now);
                self.note_room(id);
            }
            State::Draining(window) if window.is_empty() => {
                program.draining -= 1;
                self.enter_retirement(id);
            }
            State::Draining(_) => {}
            State::Starting { .. } | State::Idle | State::Retiring => {
                unreachable!("only a window shrinks")
            }
        }
    }

    /// Lost, by what we are told, by what it did, or by a deadline.
    pub(super) fn on_lost(&mut self, id: WorkerId) {
        let Some(worker) = self.forget(id) else {
            return;
        };
        self.actions.push_back(Action::Abandon { worker: id });
        match &worker.state {
            State::Starting { .. } => self.on_start_failed(&worker, Blame::Program),
            State::Idle => {
                self.counted.losses += 1;
                self.on_unproven_loss(&worker, Blame::Program);
            }
            State::Busy(window) | State::Draining(window) => {
                self.counted.losses += 1;
                self.on_unproven_loss(&worker, Blame::Task);
                self.on_window_lost(worker.program, window);
            }
            State::Retiring => {}
        }
    }

    /// It was not ready in time, and another would hardly be. Whoever waits has waited long enough.
    fn on_overdue(&mut self, id: WorkerId) {
        let worker = self.forget(id).expect("it stands in the line of those that start");
        self.actions.push_back(Action::Abandon { worker: id });
        self.on_start_failed(&worker, Blame::Lasting);
    }

    fn on_start_failed(&mut self, worker: &Worker, blame: Blame) {
        self.counted.spawn_failures += 1;
        let (now, config) = (self.now, self.config);
        let program = self.program(worker.program);
        program.health.on_failure(worker.round, blame, now, &config);
        if program.health.is_hopeless(&config) && program.workers() == 0 {
            self.fail_waiting(worker.program, Resolution::SpawnFailed);
        }
    }

    fn on_unproven_loss(&mut self, worker: &Worker, blame: Blame) {
        if !worker.proven {
            let (now, config) = (self.now, self.config);
            self.program(worker.program).health.on_failure(worker.round, blame, now, &config);
        }
    }

    /// The first task is the suspect and pays for it. The others may have begun all the same.
    fn on_window_lost(&mut self, program: ProgramId, window: &Window) {
        if let Some(suspect) = window.first() {
            self.tasks.get_mut(suspect.0).expect("held tasks are known").losses += 1;
        }
        for id in window.tasks() {
            self.tasks.get_mut(id.0).expect("held tasks are known").is_doubted = true;
        }
        self.empty(program, window);
    }

    /// The tasks of a window that is no more go back where they came from, unless this was their end.
    pub(super) fn empty(&mut self, program: ProgramId, window: &Window) {
        for id in window.tasks().rev() {
            meter::step();
            let task = self.tasks.get_mut(id.0).expect("held tasks are known");
            if let Place::Held { stop: Some(stop), .. } = task.place {
                self.forget_task(id);
                stop.unanswered().into_iter().for_each(|resolution| self.resolve(id, resolution));
            } else if task.is_used_up(&self.config) {
                let attempts = task.losses;
                self.finish(id, Resolution::Lost { attempts });
            } else {
                task.place = Place::Waiting;
                self.program(program).queue.push_front(id);
                self.arm(id, false);
            }
        }
    }

    /// A worker that leaves without having been asked to is as good as dead.
    fn on_gone(&mut self, id: WorkerId) {
        match self.workers.get(id.number()).map(|worker| &worker.state) {
            Some(State::Retiring) => {
                self.forget(id);
            }
            Some(State::Starting { .. } | State::Idle | State::Busy(_) | State::Draining(_)) => {
                self.on_lost(id)
            }
            None => {}
        }
    }

    fn on_shutdown(&mut self, mode: ShutdownMode) {
        self.phase = Phase::Ending;
        match mode {
            ShutdownMode::Drain => {}
            ShutdownMode::Cancel => {
                for program in 0..self.programs.len() {
                    self.fail_waiting(program_id(program), Resolution::Cancelled);
                }
                let mut held: Vec<TaskId> = self.tasks.iter().map(|(number, _)| TaskId(number)).collect();
                held.sort_unstable();
                held.into_iter().for_each(|task| self.on_cancel(task));
            }
        }
    }

    /// Deadlines that have passed. All workers of one line wait equally long, so the first is due first.
    fn on_time(&mut self) {
        let (spawn_timeout, retire_timeout) = (self.config.spawn_timeout, self.config.retire_timeout);
        while let Some((worker, since)) = self.starting.first()
            && since + spawn_timeout <= self.now
        {
            self.on_overdue(worker);
        }
        while let Some((worker, since)) = self.retiring.first()
            && since + retire_timeout <= self.now
        {
            self.on_lost(worker);
        }
        self.ring();
    }

    /// Draws the consequences of what has just changed.
    fn settle(&mut self) {
        for program in 0..self.programs.len() {
            self.dispatch(program_id(program));
            self.recall_waiting(program);
        }
        self.retire_unneeded();
        self.spawn_needed();
        self.make_room();
    }

    fn close(&mut self) -> Option<Action> {
        let is_over = self.phase == Phase::Ending && self.tasks.is_empty() && self.workers.is_empty();
        is_over.then(|| {
            self.phase = Phase::Closed;
            Action::Close
        })
    }

    fn fail_waiting(&mut self, program: ProgramId, resolution: Resolution) {
        for task in self.program(program).queue.take() {
            if self.tasks.contains(task.0) {
                self.finish(task, resolution);
            }
        }
    }

    /// Ends a task that waits.
    pub(super) fn finish_waiting(&mut self, id: TaskId, resolution: Resolution) {
        let program = self.finish(id, resolution).program;
        self.program(program).queue.bury();
    }

    /// Forgets a task and tells its end.
    fn finish(&mut self, id: TaskId, resolution: Resolution) -> Task {
        let task = self.forget_task(id);
        self.resolve(id, resolution);
        task
    }

    fn forget_task(&mut self, id: TaskId) -> Task {
        let task = self.tasks.remove(id.0).expect("a task is forgotten once");
        self.alarms.reset(id, task.alarm(), None);
        task
    }

    pub(super) fn resolve(&mut self, task: TaskId, resolution: Resolution) {
        self.actions.push_back(Action::Resolve { task, resolution });
    }

    pub(super) fn program(&mut self, id: ProgramId) -> &mut Program {
        &mut self.programs[id.0 as usize]
    }
}

/// The id of the program at this index.
pub(super) fn program_id(index: usize) -> ProgramId {
    ProgramId(u32::try_from(index).expect("programs are few"))
}
