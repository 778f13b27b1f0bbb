//! A second, simple-minded account of the world, kept from events and actions alone.
//!
//! It shares no code with the scheduler and scans where the scheduler keeps lines, so that the two are
//! unlikely to be wrong in the same way. oracle.rs compares what the scheduler does with it.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::{Action, Config, Event, Resolution, ShutdownMode, Terms, Time};
use super::oracle;
use super::plan::{Plan, Submit};
use crate::ids::{ProgramId, TaskId, WorkerId};

/// Where a task is, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskPlace {
    Unknown,
    Waiting,
    Held(usize),
    Answered,
    Refused,
    Resolved,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) place: TaskPlace,
    pub(super) program: usize,
    pub(super) kind: usize,
    pub(super) losses: u32,
    /// It was in a window that was lost.
    pub(super) is_doubted: bool,
    pub(super) terms: Terms,
    pub(super) is_cancelled: bool,
    pub(super) is_recanted: bool,
    /// It was recanted because its time was over, and when it was recanted at all.
    pub(super) is_overdue: bool,
    pub(super) recanted_at: Time,
}

impl Task {
    /// How often it may be lost.
    pub(super) fn attempts_max(&self, config: &Config) -> u32 {
        if self.terms.once { 1 } else { config.attempts_max }
    }

    /// Whether no other may be in its window, however short it is.
    pub(super) fn is_loner(&self) -> bool {
        self.terms.once || self.is_doubted
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerPlace {
    Starting,
    Ready,
    Retiring,
    Closed,
}

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) program: usize,
    pub(super) place: WorkerPlace,
    /// Since when it is there.
    pub(super) since: Time,
    /// Since when it holds nothing, or its first task runs; while it starts, since when its time runs.
    pub(super) turn_since: Time,
    /// Whether the transport has said that it is there.
    pub(super) is_spawned: bool,
    pub(super) held: VecDeque<(usize, Option<f64>)>,
    pub(super) is_draining: bool,
    /// It must be abandoned.
    pub(super) is_lost: bool,
    /// It is lost because it was not ready in time.
    pub(super) is_overdue: bool,
    /// Closed by an event after the actions were last looked at.
    pub(super) is_fresh_corpse: bool,
    pub(super) recall: Recall,
    /// How many of those that it holds it is known to have begun, beside the first.
    pub(super) begun: usize,
    is_proven: bool,
    round: u32,
}

/// How far it has come with asking a worker for what it has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    No,
    Asked,
    /// It has been stopped, and is to go on.
    Stopped,
}

impl Worker {
    /// Whether it holds what it may not have begun, and was not asked for.
    pub(super) fn is_crowded(&self) -> bool {
        self.takes_tasks() && self.recall == Recall::No && self.held.len() > self.begun.max(1)
    }

    pub(super) fn takes_tasks(&self) -> bool {
        self.place == WorkerPlace::Ready && !self.is_draining
    }

    pub(super) fn is_idle(&self) -> bool {
        self.takes_tasks() && self.held.is_empty()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    pub(super) queue: VecDeque<usize>,
    pub(super) failures: u32,
    pub(super) strikes: u32,
    pub(super) not_before: Time,
    pub(super) ran_mean: Option<f64>,
    pub(super) spawn_mean: f64,
    pub(super) starving_since: Option<Time>,
    /// When a worker was last started, and how many were in that instant.
    pub(super) starts_now: (Time, u32),
    /// A start of it has failed since the actions were last looked at.
    pub(super) has_just_failed: bool,
    round: u32,
}

pub(super) struct Shadow {
    pub(super) config: Config,
    pub(super) now: Time,
    pub(super) is_sloppy: bool,
    pub(super) is_ending: bool,
    pub(super) is_closed: bool,
    pub(super) tasks: Vec<Task>,
    pub(super) workers: Vec<Worker>,
    /// Indices of workers that are not closed.
    pub(super) living: Vec<usize>,
    pub(super) programs: Vec<Program>,
    pub(super) kinds: Vec<Option<f64>>,
    pub(super) actions: u32,
    /// No program is without a worker for longer than this.
    pub(super) starving_max: Duration,
}

impl Shadow {
    pub(super) fn new(plan: &Plan) -> Shadow {
        let config = plan.config;
        let config = Config { workers_min: config.workers_min.min(config.workers_max), ..config };
        let stop_grace = config.stop_grace.max(Duration::from_millis(1));
        let config = Config { stop_grace, ..config };
        let task = |submit: &Submit| Task {
            place: TaskPlace::Unknown,
            program: submit.program as usize,
            kind: submit.kind as usize,
            losses: 0,
            is_doubted: false,
            terms: Terms {
                timeout: submit
                    .terms
                    .timeout
                    .or(config.task_timeout)
                    .map(|timeout| timeout.max(Duration::from_nanos(1))),
                ..submit.terms
            },
            is_overdue: false,
            recanted_at: Time::ZERO,
            is_cancelled: false,
            is_recanted: false,
        };
        let spawn_mean = config.spawn_guess.as_nanos() as f64;
        let longest = plan.submits.iter().map(|submit| submit.length).max().unwrap_or(0);
        let windows = Duration::from_nanos(longest) * config.window_max.min(plan.submits.len() as u32);
        let turn = config.tenure + windows + config.retire_timeout + config.spawn_timeout;
        Shadow {
            now: Time::ZERO,
            is_sloppy: plan.is_sloppy,
            is_ending: false,
            is_closed: false,
            tasks: plan.submits.iter().map(task).collect(),
            workers: Vec::new(),
            living: Vec::new(),
            programs: vec![Program { spawn_mean, ..Program::default() }; plan.programs as usize],
            kinds: vec![None; plan.kinds.len()],
            actions: 0,
            starving_max: config.spawn_backoff_max + turn * (plan.programs + 1) + Duration::from_secs(1),
            config,
        }
    }

    pub(super) fn living(&self) -> impl Iterator<Item = &Worker> {
        self.living.iter().map(|&index| &self.workers[index])
    }

    pub(super) fn ready(&self, program: usize) -> u32 {
        self.living().filter(|worker| worker.program == program && worker.takes_tasks()).count() as u32
    }

    pub(super) fn starting(&self, program: usize) -> u32 {
        let is_starting =
            |worker: &&Worker| worker.program == program && worker.place == WorkerPlace::Starting;
        self.living().filter(is_starting).count() as u32
    }

    pub(super) fn room(&self) -> u32 {
        self.config.workers_max.saturating_sub(self.living.len() as u32)
    }

    /// Whether back-off lets a program start one more worker now.
    pub(super) fn may_start(&self, index: usize) -> bool {
        let program = &self.programs[index];
        self.now >= program.not_before && (program.strikes == 0 || self.starting(index) == 0)
    }

    /// Whether somebody could run what waits in a window of this program, or could be started for it.
    pub(super) fn has_hands_free(&self, index: usize) -> bool {
        let is_idle = |worker: &Worker| worker.program == index && worker.is_idle();
        self.programs[index].queue.is_empty() && (self.room() > 0 || self.living().any(is_idle))
    }

    /// How long the first task of a window may run before those behind it are asked for.
    pub(super) fn patience(&self) -> Duration {
        self.config.window_budget * 2
    }

    pub(super) fn is_starving(&self, index: usize) -> bool {
        !self.programs[index].queue.is_empty() && self.ready(index) + self.starting(index) == 0
    }

    /// Nanoseconds that a waiting task of a program must be expected to take, and then those of one spawn.
    pub(super) fn lengths(&self, index: usize) -> (f64, f64) {
        let busy =
            |worker: &&Worker| worker.program == index && worker.takes_tasks() && !worker.held.is_empty();
        let age = self.living().filter(busy).map(|worker| self.now.since(worker.turn_since)).max();
        let age = age.filter(|&age| age >= self.config.growth_patience).unwrap_or_default();
        let program = &self.programs[index];
        (program.ran_mean.unwrap_or(0.0).max(age.as_nanos() as f64), program.spawn_mean)
    }

    pub(super) fn on_event(&mut self, now: Time, event: &Event) {
        self.now = now;
        match *event {
            Event::Submit { task, .. } => self.on_submit(task.0 as usize),
            Event::Cancel { task } => self.tasks[task.0 as usize].is_cancelled = true,
            Event::Spawned { worker } => self.on_spawned(worker),
            Event::Tick => {}
            Event::SpawnFailed { worker, lasting } => self.on_end(worker, WorkerPlace::Starting, lasting),
            Event::Ready { worker } => self.on_ready(worker),
            Event::Answered { worker, task, ran } => self.on_answered(worker, task, ran),
            Event::Recalled { worker, begun } => self.on_recalled(worker, begun),
            Event::Lost { worker } => self.lose(worker),
            Event::Gone { worker } => self.on_end(worker, WorkerPlace::Retiring, false),
            Event::Shutdown { mode } => self.on_shutdown(mode),
        }
        if !self.is_sloppy {
            self.lose_the_late();
        }
    }

    fn on_submit(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        task.is_cancelled = false;
        if self.is_ending {
            task.place = TaskPlace::Refused;
        } else {
            task.place = TaskPlace::Waiting;
            self.programs[task.program].queue.push_back(index);
        }
    }

    fn on_ready(&mut self, WorkerId(id): WorkerId) {
        let now = self.now;
        let worker = &mut self.workers[id as usize];
        if worker.place != WorkerPlace::Starting || worker.is_lost {
            return;
        }
        worker.place = WorkerPlace::Ready;
        let mean = &mut self.programs[worker.program].spawn_mean;
        *mean += (now.since(worker.since).as_nanos() as f64 - *mean) / 8.0;
        (worker.since, worker.turn_since) = (now, now);
    }

    fn on_answered(&mut self, WorkerId(id): WorkerId, TaskId(task): TaskId, ran: Duration) {
        let worker = &mut self.workers[id as usize];
        let is_right = worker.place == WorkerPlace::Ready
            && !worker.is_lost
            && worker.held.front().is_some_and(|&(held, _)| held as u64 == task);
        if !is_right {
            self.lose(WorkerId(id));
            return;
        }
        worker.held.pop_front();
        worker.begun = worker.begun.saturating_sub(1);
        worker.turn_since = self.now;
        let program = &mut self.programs[worker.program];
        if !worker.is_proven {
            worker.is_proven = true;
            (program.failures, program.strikes, program.not_before) = (0, 0, Time::ZERO);
        }
        let task = &mut self.tasks[task as usize];
        // One that waited behind another when it was to stop has its end already.
        if task.place != TaskPlace::Resolved {
            task.place = TaskPlace::Answered;
        }
        learn(&mut program.ran_mean, ran);
        learn(&mut self.kinds[task.kind], ran);
    }

    /// What is behind the task that it has begun last goes back.
    fn on_recalled(&mut self, id: WorkerId, begun: Option<TaskId>) {
        let now = self.now;
        let worker = &mut self.workers[id.0 as usize];
        if worker.is_lost || worker.place == WorkerPlace::Closed || worker.recall != Recall::Asked {
            return self.lose(id);
        }
        if worker.place == WorkerPlace::Retiring {
            worker.recall = Recall::No;
            return;
        }
        worker.recall = Recall::Stopped;
        let is_last = |&(held, _): &(usize, Option<f64>)| begun.is_some_and(|begun| begun.0 == held as u64);
        worker.begun = worker.held.iter().position(is_last).map_or(0, |last| last + 1);
        let back = worker.held.split_off(worker.begun);
        if worker.held.is_empty() && !back.is_empty() {
            worker.turn_since = now;
        }
        self.take_back(self.workers[id.0 as usize].program, &back);
    }

    /// A worker ended; that is in order if it was in this place, and a loss otherwise.
    fn on_end(&mut self, WorkerId(id): WorkerId, from: WorkerPlace, lasting: bool) {
        let worker = &mut self.workers[id as usize];
        if worker.place != from || worker.is_lost {
            self.lose(WorkerId(id));
            return;
        }
        worker.is_fresh_corpse = true;
        let (program, round) = (worker.program, worker.round);
        self.close(id as usize);
        if from == WorkerPlace::Starting {
            self.fail(program, round, if lasting { self.config.spawn_failures_max } else { 1 });
            self.programs[program].has_just_failed = true;
        }
    }

    fn on_shutdown(&mut self, mode: ShutdownMode) {
        self.is_ending = true;
        if mode == ShutdownMode::Cancel {
            for task in &mut self.tasks {
                task.is_cancelled |= matches!(task.place, TaskPlace::Waiting | TaskPlace::Held(_));
            }
        }
    }

    /// Its time to become ready begins.
    fn on_spawned(&mut self, WorkerId(id): WorkerId) {
        let worker = &mut self.workers[id as usize];
        if worker.place == WorkerPlace::Starting {
            (worker.is_spawned, worker.turn_since) = (true, self.now);
        }
    }

    fn lose(&mut self, WorkerId(id): WorkerId) {
        let worker = &mut self.workers[id as usize];
        worker.is_lost |= worker.place != WorkerPlace::Closed;
    }

    fn lose_the_late(&mut self) {
        let (now, config) = (self.now, self.config);
        for &index in &self.living {
            let worker = &mut self.workers[index];
            worker.is_overdue |= !worker.is_lost
                && worker.place == WorkerPlace::Starting
                && worker.is_spawned
                && worker.turn_since + config.spawn_timeout <= now;
            worker.is_lost |= match worker.place {
                WorkerPlace::Starting => worker.is_spawned && worker.turn_since + config.spawn_timeout <= now,
                WorkerPlace::Retiring => worker.since + config.retire_timeout <= now,
                WorkerPlace::Ready | WorkerPlace::Closed => false,
            };
        }
    }

    pub(super) fn on_action(&mut self, action: &Action) {
        self.actions += 1;
        match *action {
            Action::Spawn { worker: _, program } => self.on_spawn(program),
            Action::Send { worker, task, attempt: _ } => self.on_send(worker.0 as usize, task.0 as usize),
            Action::Recant { worker: _, task } => self.on_recant(task.0 as usize),
            Action::Recall { worker } => self.workers[worker.0 as usize].recall = Recall::Asked,
            Action::Resume { worker } => self.workers[worker.0 as usize].recall = Recall::No,
            Action::Retire { worker } => {
                let worker = &mut self.workers[worker.0 as usize];
                (worker.place, worker.since, worker.is_draining) = (WorkerPlace::Retiring, self.now, false);
            }
            Action::Abandon { worker } => self.on_abandon(worker.0 as usize),
            Action::Kill { worker } => self.on_kill(worker.0 as usize),
            Action::Resolve { task, resolution } => self.on_resolve(task.0 as usize, resolution),
            Action::Close => self.is_closed = true,
        }
    }

    fn on_spawn(&mut self, ProgramId(program): ProgramId) {
        let starts = &mut self.programs[program as usize].starts_now;
        *starts = if starts.0 == self.now { (self.now, starts.1 + 1) } else { (self.now, 1) };
        self.living.push(self.workers.len());
        self.workers.push(Worker {
            program: program as usize,
            place: WorkerPlace::Starting,
            since: self.now,
            turn_since: self.now,
            is_spawned: false,
            held: VecDeque::new(),
            is_draining: false,
            is_lost: false,
            is_overdue: false,
            is_fresh_corpse: false,
            recall: Recall::No,
            begun: 0,
            is_proven: false,
            round: self.programs[program as usize].round,
        });
    }

    fn on_send(&mut self, worker: usize, index: usize) {
        let task = &mut self.tasks[index];
        task.place = TaskPlace::Held(worker);
        self.programs[task.program].queue.retain(|&waiting| waiting != index);
        let cost = self.kinds[task.kind].filter(|_| !task.is_loner());
        let worker = &mut self.workers[worker];
        if worker.held.is_empty() {
            worker.turn_since = self.now;
        }
        worker.held.push_back((index, cost));
    }

    fn on_recant(&mut self, index: usize) {
        let now = self.now;
        let task = &mut self.tasks[index];
        (task.is_recanted, task.recanted_at) = (true, now);
        task.is_overdue = !task.is_cancelled;
    }

    fn on_kill(&mut self, index: usize) {
        let held = std::mem::take(&mut self.workers[index].held);
        let program = self.workers[index].program;
        self.close(index);
        self.take_back(program, &held);
    }

    fn take_back(&mut self, program: usize, held: &VecDeque<(usize, Option<f64>)>) {
        let is_over = |task: usize| self.tasks[task].place == TaskPlace::Resolved;
        let back: Vec<usize> =
            held.iter().rev().map(|&(task, _)| task).filter(|&task| !is_over(task)).collect();
        for task in back {
            self.tasks[task].place = TaskPlace::Waiting;
            self.tasks[task].is_recanted = false;
            self.programs[program].queue.push_front(task);
        }
    }

    /// Whether a held task should stop now, if it has not been told to.
    pub(super) fn is_to_stop(&self, worker: &Worker, index: usize) -> bool {
        let Task { terms, is_cancelled, .. } = &self.tasks[index];
        let is_running = worker.held.front().is_some_and(|&(first, _)| first == index);
        let runs_out = terms.timeout.map(|timeout| worker.turn_since + timeout).filter(|_| is_running);
        *is_cancelled || [terms.deadline, runs_out].into_iter().flatten().any(|at| at <= self.now)
    }

    /// When a worker is to be killed, if what it runs was told to stop.
    pub(super) fn kill_at(&self, worker: &Worker) -> Option<Time> {
        let &(first, _) = worker.held.front()?;
        let task = &self.tasks[first];
        task.is_recanted.then(|| task.recanted_at.max(worker.turn_since) + self.config.stop_grace)
    }

    fn on_abandon(&mut self, index: usize) {
        if self.workers[index].place == WorkerPlace::Closed {
            return;
        }
        let held = std::mem::take(&mut self.workers[index].held);
        let Worker { program, round, place, is_proven, is_overdue, .. } = self.workers[index];
        self.close(index);
        if let Some(&(suspect, _)) = held.front() {
            self.tasks[suspect].losses += 1;
        }
        held.iter().for_each(|&(task, _)| self.tasks[task].is_doubted = true);
        self.take_back(program, &held);
        match place {
            WorkerPlace::Starting => {
                self.fail(program, round, if is_overdue { self.config.spawn_failures_max } else { 1 });
                self.programs[program].has_just_failed = true;
            }
            WorkerPlace::Ready if !is_proven => self.fail(program, round, u32::from(held.is_empty())),
            WorkerPlace::Ready | WorkerPlace::Retiring | WorkerPlace::Closed => {}
        }
    }

    fn on_resolve(&mut self, index: usize, _: Resolution) {
        let task = &mut self.tasks[index];
        if task.place == TaskPlace::Waiting {
            self.programs[task.program].queue.retain(|&waiting| waiting != index);
        }
        task.place = TaskPlace::Resolved;
    }

    /// The first failure of a round counts, for so many.
    fn fail(&mut self, index: usize, round: u32, weight: u32) {
        let config = &self.config;
        let program = &mut self.programs[index];
        if program.round == round {
            program.round += 1;
            program.strikes += 1;
            program.failures += weight;
            let pause = (1..program.strikes)
                .fold(config.spawn_backoff, |pause, _| (pause * 2).min(config.spawn_backoff_max));
            program.not_before = self.now + pause.min(config.spawn_backoff_max);
        }
    }

    fn close(&mut self, index: usize) {
        self.workers[index].place = WorkerPlace::Closed;
        self.workers[index].is_lost = false;
        self.living.retain(|&living| living != index);
    }

    /// The scheduler's own word on who is draining; it cannot be seen in actions.
    pub(super) fn note_draining(&mut self, index: usize, is_draining: bool) {
        if is_draining && !self.workers[index].is_draining {
            oracle::gives_way_for_a_reason(self, index);
        }
        self.workers[index].is_draining = is_draining;
    }

    pub(super) fn on_settled(&mut self) {
        for index in 0..self.programs.len() {
            let since = self.programs[index].starving_since.unwrap_or(self.now);
            self.programs[index].starving_since = self.is_starving(index).then_some(since);
        }
    }

    pub(super) fn on_checked(&mut self) {
        for program in &mut self.programs {
            program.has_just_failed = false;
        }
        for worker in &mut self.workers {
            worker.is_fresh_corpse = false;
        }
    }
}

fn learn(mean: &mut Option<f64>, sample: Duration) {
    let sample = sample.as_nanos() as f64;
    match mean {
        Some(mean) => *mean += (sample - *mean) / 8.0,
        None => *mean = Some(sample),
    }
}
