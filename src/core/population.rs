//! How many workers there should be, and of which program.
//!
//! In this order: leave what nobody needs; spawn for a program that has none, longest starving first;
//! spawn for programs whose work justifies more; refill the minimum. What could not be spawned for want
//! of room makes room: an idle worker of another program goes at once, a busy one after its tenure.

use super::growth;
use super::program::Program;
use super::scheduler::{Phase, Scheduler, program_id};
use super::{Time, meter};
use crate::ids::{ProgramId, WorkerId};

/// The program that `workers_min` is about.
const DEFAULT_PROGRAM: usize = 0;

impl Scheduler {
    /// Retires idle workers: all when the pool is ending, else those that have been idle for too long.
    pub(super) fn retire_unneeded(&mut self) {
        for index in 0..self.programs.len() {
            while let Some((worker, until)) = self.unneeded_until(index)
                && until <= self.now
            {
                self.retire(worker);
            }
        }
    }

    /// The idle worker of a program that goes first, and when; none while the minimum needs it.
    pub(super) fn unneeded_until(&self, index: usize) -> Option<(WorkerId, Time)> {
        let program = &self.programs[index];
        let (worker, since) = program.idle.first()?;
        match self.phase {
            Phase::Open if program.ready.len() <= self.workers_min(index) => None,
            Phase::Open => Some((worker, since + self.config.idle_timeout)),
            Phase::Ending | Phase::Closed => Some((worker, since)),
        }
    }

    /// Spawns what is needed and fits.
    pub(super) fn spawn_needed(&mut self) {
        self.note_starving();
        while self.room() > 0
            && let Some(program) = self.most_starving()
        {
            self.spawn(program);
            self.program(program).starving_since = None;
        }
        for index in 0..self.programs.len() {
            self.spawn_up_to(index, self.wanted(index));
        }
        if self.may_refill() {
            self.spawn_up_to(DEFAULT_PROGRAM, self.refill_wanted());
        }
    }

    fn spawn_up_to(&mut self, index: usize, wanted: u32) {
        for _ in 0..wanted.min(self.room()) {
            self.spawn(program_id(index));
        }
    }

    fn note_starving(&mut self) {
        let now = self.now;
        for program in &mut self.programs {
            // One that has just given way waits for its next turn until that worker is gone.
            let is_starving = program.is_unserved() && program.draining == 0;
            program.starving_since = is_starving.then(|| program.starving_since.unwrap_or(now));
        }
    }

    /// The program that has had no worker for longest and may spawn one now.
    fn most_starving(&self) -> Option<ProgramId> {
        let starving = self.programs.iter().enumerate().filter(|(_, program)| self.is_starving(program));
        let longest = starving.min_by_key(|(_, program)| program.starving_since);
        longest.map(|(index, _)| program_id(index))
    }

    fn is_starving(&self, program: &Program) -> bool {
        program.starving_since.is_some() && program.health.allowance(program.starting, self.now) > 0
    }

    /// How many more workers the demand for a program justifies and its health allows.
    fn wanted(&self, index: usize) -> u32 {
        meter::step();
        let program = &self.programs[index];
        let allowance = program.health.allowance(program.starting, self.now);
        growth::wanted(&program.demand(&self.config), self.now).min(allowance)
    }

    fn refill_wanted(&self) -> u32 {
        let program = &self.programs[DEFAULT_PROGRAM];
        let allowance = program.health.allowance(program.starting, self.now);
        self.refill_missing().min(allowance)
    }

    /// How many workers the default program is below its minimum.
    pub(super) fn refill_missing(&self) -> u32 {
        self.workers_min(DEFAULT_PROGRAM).saturating_sub(self.programs[DEFAULT_PROGRAM].workers())
    }

    /// Whether the minimum may be refilled: nobody needs the room more, and starts are not hopeless.
    pub(super) fn may_refill(&self) -> bool {
        let is_served = |program: &Program| program.queue.is_empty() || !program.ready.is_empty();
        self.phase == Phase::Open
            && !self.programs.is_empty()
            && !self.programs[DEFAULT_PROGRAM].health.is_hopeless(&self.config)
            && self.programs.iter().all(is_served)
    }

    fn workers_min(&self, index: usize) -> u32 {
        if index == DEFAULT_PROGRAM { self.config.workers_min } else { 0 }
    }

    /// How many workers may be spawned before `workers_max` is reached.
    pub(super) fn room(&self) -> u32 {
        let workers = u32::try_from(self.workers.len()).expect("worker ids have 32 bits");
        self.config.workers_max - workers
    }

    /// Asks workers to leave so that those who need one more can have it.
    pub(super) fn make_room(&mut self) {
        let wanted =
            (0..self.programs.len()).fold(0, |sum: u32, index| sum.saturating_add(self.wanted(index)));
        let mut shortage = wanted.saturating_sub(self.room() + self.retiring.len());
        while shortage > 0
            && let Some(worker) = self.least_recently_used()
        {
            self.retire(worker);
            shortage -= 1;
        }
        while let Some((worker, until)) = self.gives_way_at()
            && until <= self.now
        {
            self.drain(worker);
        }
    }

    /// The worker that has been idle for longest. Its program has no waiting tasks, or it would not be.
    fn least_recently_used(&self) -> Option<WorkerId> {
        let idle = self.programs.iter().filter_map(|program| program.idle.first());
        idle.min_by_key(|&(_, since)| since).map(|(worker, _)| worker)
    }

    /// The busy worker that must give way to a program that has none, and when: the longest serving of
    /// the program that has most. None while enough others are leaving.
    pub(super) fn gives_way_at(&self) -> Option<(WorkerId, Time)> {
        let starving = self.programs.iter().filter(|program| self.is_starving(program)).count();
        let draining: u32 = self.programs.iter().map(|program| program.draining).sum();
        let leaving = self.retiring.len() + draining;
        if starving <= leaving as usize {
            return None;
        }
        let served = self.programs.iter().filter_map(|program| {
            let (worker, since) = program.ready.first()?;
            Some((program.ready.len(), worker, since))
        });
        let (_, worker, since) = served.min_by_key(|&(ready, _, since)| (std::cmp::Reverse(ready), since))?;
        Some((worker, since + self.config.tenure))
    }
}
