//! One simulated world: users, a driver and workers around a real scheduler, in virtual time.
//!
//! The world does what the scheduler asks for, badly if its luck says so. What must hold whatever
//! happens is not its business but that of oracle.rs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::super::{Action, Event, Scheduler, ShutdownMode, Time};
use super::oracle;
use super::plan::Plan;
use super::rng::Rng;
use super::shadow::Shadow;
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};

/// More steps than this, and the world is not going to end.
const STEPS_MAX: u32 = 20_000;

/// A sloppy driver looks at the actions no later than this many nanoseconds after the events.
const SLOPPY_MAX: u64 = 1_000_000;

/// What is going to happen of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    Submit(u32),
    Cancel(u32),
    End(u32),
    Spawned(u32),
    Ready(u32),
    StartFails(u32),
    Dies(u32),
    Finishes(u32),
    Answers(u32, u32),
    /// It begins nothing more.
    Stops(u32),
    /// The driver hears of that, and what it has begun last.
    Recalled(u32, Option<u32>),
    Leaves(u32),
}

/// A worker process as it really is, whatever the scheduler believes.
#[derive(Default)]
struct Process {
    /// The driver has given it up or seen it end.
    is_closed: bool,
    is_dead: bool,
    held: VecDeque<u32>,
    /// The task that it has begun last.
    begun: Option<u32>,
    /// Whether it begins nothing more.
    is_stopped: bool,
}

/// A running world.
pub(super) struct World {
    plan: Plan,
    rng: Rng,
    now: u64,
    serial: u32,
    coming: BinaryHeap<Reverse<(u64, u32, Coming)>>,
    processes: Vec<Process>,
    scheduler: Scheduler,
    shadow: Shadow,
    is_traced: bool,
    is_ending: bool,
    /// Events handled since the actions were last looked at.
    unpolled: u32,
    fruitless_ticks: u32,
}

impl World {
    pub(super) fn new(seed: u64, is_traced: bool) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::of(&mut rng);
        let mut scheduler = Scheduler::new(plan.config, plan.programs - 1);
        scheduler.add_program();
        let mut world = World {
            shadow: Shadow::new(&plan),
            scheduler,
            plan,
            rng,
            now: 0,
            serial: 0,
            coming: BinaryHeap::new(),
            processes: Vec::new(),
            is_traced,
            is_ending: false,
            unpolled: 0,
            fruitless_ticks: 0,
        };
        if is_traced {
            eprintln!(
                "{:#?}\nkinds {:?}, sloppy {}",
                world.plan.config, world.plan.kinds, world.plan.is_sloppy
            );
        }
        world.expect_users();
        world
    }

    fn expect_users(&mut self) {
        for index in 0..self.plan.submits.len() {
            let submit = self.plan.submits[index];
            self.expect(submit.at, Coming::Submit(index as u32));
            if let Some(at) = submit.cancel_at {
                self.expect(at, Coming::Cancel(index as u32));
            }
        }
        for index in 0..self.plan.shutdowns.len() {
            self.expect(self.plan.shutdowns[index].0, Coming::End(index as u32));
        }
    }

    /// Runs to the end of the world; panics if it breaks a law on the way, or does not end.
    pub(super) fn run(mut self) {
        self.handle(Event::Tick);
        self.settle();
        for _ in 0..STEPS_MAX {
            if self.shadow.is_closed {
                return;
            }
            self.step();
        }
        oracle::the_world_ends("too many steps, and it still goes on");
    }

    fn step(&mut self) {
        let deadline = self.scheduler.next_deadline().map(Time::nanos);
        let happening = self.coming.peek().map(|&Reverse((at, _, _))| at);
        match (deadline, happening) {
            (Some(deadline), at) if at.is_none_or(|at| deadline < at) => {
                self.now = self.now.max(deadline);
                self.tick();
            }
            (_, Some(at)) => {
                self.now = self.now.max(at);
                let Reverse((_, _, coming)) = self.coming.pop().expect("it was peeked at");
                self.happen(coming);
            }
            (None, None) if !self.is_ending => self.end(ShutdownMode::Drain),
            (Some(_) | None, None) => oracle::the_world_ends("nothing is coming, but it is not over"),
        }
        let is_more_at_once =
            self.coming.peek().is_some_and(|&Reverse((at, _, _))| at < self.now + SLOPPY_MAX);
        let waits = self.plan.is_sloppy && is_more_at_once && self.unpolled < 4 && self.rng.permille(500);
        if !waits {
            self.settle();
        }
    }

    fn tick(&mut self) {
        self.handle(Event::Tick);
        self.fruitless_ticks += 1;
        let before = self.shadow.actions;
        self.settle();
        if self.shadow.actions > before {
            self.fruitless_ticks = 0;
        }
        oracle::time_is_not_wasted(self.fruitless_ticks);
    }

    fn happen(&mut self, coming: Coming) {
        self.fruitless_ticks = 0;
        match coming {
            Coming::Submit(index) => self.submit(index),
            Coming::Cancel(index) => self.handle(Event::Cancel { task: TaskId(u64::from(index)) }),
            Coming::End(index) => self.end(self.plan.shutdowns[index as usize].1),
            Coming::Spawned(worker) => self.tell(worker, Event::Spawned { worker: WorkerId(worker) }),
            Coming::Ready(worker) => self.become_ready(worker),
            Coming::StartFails(worker) => {
                let lasting = self.rng.permille(200);
                self.tell(worker, Event::SpawnFailed { worker: WorkerId(worker), lasting });
                self.processes[worker as usize].is_dead = true;
                self.processes[worker as usize].is_closed = true;
            }
            Coming::Dies(worker) => self.die(worker),
            Coming::Finishes(worker) => self.finish(worker),
            Coming::Answers(worker, task) => self.answer(worker, task),
            Coming::Stops(worker) => {
                self.processes[worker as usize].is_stopped = true;
                let (trip, begun) = (self.trip(), self.processes[worker as usize].begun);
                self.expect(self.now + trip, Coming::Recalled(worker, begun));
            }
            Coming::Recalled(worker, begun) => {
                let begun = begun.map(|task| TaskId(u64::from(task)));
                self.tell(worker, Event::Recalled { worker: WorkerId(worker), begun });
            }
            Coming::Leaves(worker) => {
                self.tell(worker, Event::Gone { worker: WorkerId(worker) });
                self.processes[worker as usize].is_dead = true;
                self.processes[worker as usize].is_closed = true;
            }
        }
    }

    fn submit(&mut self, index: u32) {
        let submit = self.plan.submits[index as usize];
        let task = TaskId(u64::from(index));
        let (program, kind) = (ProgramId(submit.program), KindId(submit.kind));
        self.handle(Event::Submit { task, program, kind, terms: submit.terms });
    }

    fn end(&mut self, mode: ShutdownMode) {
        self.is_ending = true;
        self.handle(Event::Shutdown { mode });
    }

    fn become_ready(&mut self, worker: u32) {
        self.tell(worker, Event::Ready { worker: WorkerId(worker) });
        if self.rng.permille(self.plan.luck.idle_dies) {
            let delay = self.about(self.plan.luck.start);
            self.expect(self.now + delay, Coming::Dies(worker));
        }
    }

    fn die(&mut self, worker: u32) {
        let id = WorkerId(worker);
        let lost = Event::Lost { worker: id };
        let event = if self.plan.is_sloppy {
            lost
        } else {
            // Whatever the driver makes of it.
            let others = [Event::Gone { worker: id }, Event::SpawnFailed { worker: id, lasting: false }];
            self.rng.pick(&[lost, lost, lost, others[0], others[1]])
        };
        self.tell(worker, event);
        self.processes[worker as usize].is_dead = true;
        if self.rng.permille(self.plan.luck.late / 4) {
            self.handle(Event::Lost { worker: WorkerId(worker) });
        }
    }

    /// The first task of a worker is done, one way or another.
    fn finish(&mut self, worker: u32) {
        let process = &mut self.processes[worker as usize];
        if process.is_dead || process.is_closed && !self.rng.permille(self.plan.luck.late) {
            return;
        }
        let Some(&task) = process.held.front().filter(|&&task| process.begun == Some(task)) else {
            return;
        };
        if self.plan.submits[task as usize].is_poison || self.rng.permille(self.plan.luck.task_kills) {
            self.die(worker);
            return;
        }
        if self.rng.permille(self.plan.luck.reply_broken) {
            self.reply_wrongly(worker);
            return;
        }
        self.processes[worker as usize].held.pop_front();
        self.answer(worker, task);
        self.run_first(worker);
        if self.rng.permille(self.plan.luck.task_kills / 2) {
            self.expect(self.now, Coming::Dies(worker));
        }
        if self.rng.permille(self.plan.luck.reply_broken / 2) {
            self.expect(self.now + 1, Coming::Answers(worker, task));
        }
    }

    /// Answers out of order, or something that it was never asked.
    fn reply_wrongly(&mut self, worker: u32) {
        self.settle();
        let held = &self.processes[worker as usize].held;
        let last = held.back().copied();
        let any = self.rng.below(self.plan.submits.len() as u64 + 1) as u32;
        let task = if self.rng.permille(500) { last.unwrap_or(any) } else { any };
        self.answer(worker, task);
        // If that was right by chance, it goes on as if it had been right.
        let process = &mut self.processes[worker as usize];
        if process.held.front() == Some(&task) {
            process.held.pop_front();
            self.run_first(worker);
        }
    }

    fn answer(&mut self, worker: u32, task: u32) {
        let usual = self.plan.submits.get(task as usize).map_or(1, |submit| submit.length);
        let event = Event::Answered {
            worker: WorkerId(worker),
            task: TaskId(u64::from(task)),
            ran: Duration::from_nanos(usual),
        };
        self.handle(event);
    }

    fn run_first(&mut self, worker: u32) {
        let process = &mut self.processes[worker as usize];
        if let Some(&task) = process.held.front().filter(|_| !process.is_stopped) {
            process.begun = Some(task);
            let length = self.plan.submits[task as usize].length;
            let trip = self.trip();
            self.expect(self.now + length + trip, Coming::Finishes(worker));
        }
    }

    /// What it holds and has not begun is not its business any more.
    fn go_on(&mut self, worker: u32) {
        let process = &mut self.processes[worker as usize];
        process.is_stopped = false;
        let begun = process.begun;
        process.held.retain(|&task| Some(task) == begun);
    }

    /// What a message takes.
    fn trip(&mut self) -> u64 {
        self.rng.below(20_000)
    }

    /// Something about a worker happened. If it is closed, the news usually dies with it.
    fn tell(&mut self, worker: u32, event: Event) {
        let process = &self.processes[worker as usize];
        let is_over = process.is_closed || process.is_dead;
        if !is_over || self.rng.permille(self.plan.luck.late) {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = Time::from_nanos(self.now);
        if self.is_traced {
            eprintln!("{now:?}  {event:?}");
        }
        self.unpolled += 1;
        self.shadow.on_event(now, &event);
        self.scheduler.handle(now, event);
    }

    /// Does everything that the scheduler asks for, and looks whether all is well afterwards.
    fn settle(&mut self) {
        while let Some(action) = self.scheduler.poll() {
            if self.is_traced {
                eprintln!("{:>12}  {action:?}", "");
            }
            oracle::before_action(&self.shadow, &action);
            self.shadow.on_action(&action);
            self.perform(action);
        }
        self.unpolled = 0;
        for index in 0..self.shadow.workers.len() {
            let is_draining = self.scheduler.is_draining(WorkerId(index as u32));
            self.shadow.note_draining(index, is_draining);
        }
        self.shadow.on_settled();
        oracle::when_settled(&self.shadow, &self.scheduler.stats(), self.scheduler.next_deadline());
        if oracle::is_enforced("tables_agree") {
            self.scheduler.assert_consistent();
        }
        self.shadow.on_checked();
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, program } => self.start(worker.0, program),
            Action::Send { worker, task, attempt: _ } => {
                let process = &mut self.processes[worker.0 as usize];
                process.held.push_back(task.0 as u32);
                if process.held.len() == 1 {
                    self.run_first(worker.0);
                }
            }
            // It may stop early, which differs from a short task in nothing.
            Action::Recant { .. } | Action::Resolve { .. } | Action::Close => {}
            Action::Recall { worker } => {
                let trip = self.trip();
                // One without a page to be stopped at says nothing.
                if !self.rng.permille(self.plan.luck.retire_stuck / 4) {
                    self.expect(self.now + trip, Coming::Stops(worker.0));
                }
            }
            Action::Resume { worker } => self.go_on(worker.0),
            Action::Retire { worker } => self.leave(worker.0),
            Action::Kill { worker } | Action::Abandon { worker } => {
                self.processes[worker.0 as usize].is_closed = true
            }
        }
    }

    fn start(&mut self, worker: u32, program: ProgramId) {
        assert_eq!(self.processes.len(), worker as usize, "workers are numbered in order");
        self.processes.push(Process::default());
        let takes = self.about(self.plan.luck.start);
        let at = self.now + takes;
        self.expect(self.now + takes / 2, Coming::Spawned(worker));
        let is_broken = u64::from(program.0) == self.plan.luck.broken_program;
        if is_broken || self.rng.permille(self.plan.luck.start_fails) {
            // Often the spawn is refused at once.
            let at = if self.rng.permille(500) { self.now } else { at };
            self.expect(at, Coming::StartFails(worker));
        } else if self.rng.permille(self.plan.luck.start_dies) {
            self.expect(at, Coming::Dies(worker));
        } else if self.rng.permille(self.plan.luck.start_hangs) {
            let spawn_timeout = self.plan.config.spawn_timeout.as_nanos() as u64;
            self.expect(at + spawn_timeout, Coming::Ready(worker));
        } else {
            self.expect(at, Coming::Ready(worker));
        }
    }

    fn leave(&mut self, worker: u32) {
        let delay = self.about(1_000_000);
        if !self.rng.permille(self.plan.luck.retire_stuck) {
            self.expect(self.now + delay, Coming::Leaves(worker));
        } else if self.rng.permille(300) {
            self.expect(self.now + delay, Coming::Dies(worker));
        } else if self.rng.permille(500) {
            let retire_timeout = self.plan.config.retire_timeout.as_nanos() as u64;
            self.expect(self.now + retire_timeout + delay, Coming::Leaves(worker));
        }
    }

    fn about(&mut self, nanos: u64) -> u64 {
        nanos / 2 + self.rng.below(nanos + 1)
    }

    fn expect(&mut self, at: u64, coming: Coming) {
        self.serial += 1;
        self.coming.push(Reverse((at, self.serial, coming)));
    }
}
