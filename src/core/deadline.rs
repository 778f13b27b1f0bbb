//! When time alone will change something.
//!
//! After `handle(now, ..)` every deadline up to `now` has been acted upon, so what is reported here lies
//! ahead; what waits for an event rather than for time is not reported, so the driver never spins.

use super::Time;
use super::growth;
use super::meter;
use super::program::Program;
use super::scheduler::{Phase, Scheduler};

impl Scheduler {
    /// When to call [`Scheduler::handle`] with a tick, if nothing else happens before.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        if self.phase == Phase::Closed {
            return None;
        }
        let start = self.starting.first().map(|(_, since)| since + self.config.spawn_timeout);
        let retirement = self.retiring.first().map(|(_, since)| since + self.config.retire_timeout);
        let way = self.gives_way_at().map(|(_, until)| until);
        let programs = (0..self.programs.len()).filter_map(|index| self.program_deadline(index));
        let alarm = self.alarms.first().map(|(at, _)| at);
        [start, retirement, way, alarm, self.refill_at()].into_iter().flatten().chain(programs).min()
    }

    fn program_deadline(&self, index: usize) -> Option<Time> {
        meter::step();
        let unneeded = self.unneeded_until(index).map(|(_, until)| until);
        let recall = self.crowd_due(index).map(|(_, at)| at);
        [unneeded, self.growth_at(&self.programs[index]), recall].into_iter().flatten().min()
    }

    /// When a program may have one more worker, or ask another program for one.
    fn growth_at(&self, program: &Program) -> Option<Time> {
        let held_until = program.health.held_until(self.now);
        if program.is_unserved() {
            return held_until;
        }
        let is_possible = self.room() > 0 || self.somebody_is_idle();
        if !is_possible || program.health.is_probing(program.starting) {
            return None;
        }
        let due = growth::due(&program.demand(&self.config))?;
        // `None` is less than any time. What is due already lacks something else than time.
        Some(due).max(held_until).filter(|&at| at > self.now)
    }

    /// When a start that only the minimum asks for may be tried again.
    fn refill_at(&self) -> Option<Time> {
        let is_due = self.room() > 0 && self.may_refill() && self.refill_missing() > 0;
        if is_due { self.programs[0].health.held_until(self.now) } else { None }
    }

    fn somebody_is_idle(&self) -> bool {
        self.programs.iter().any(|program| !program.idle.is_empty())
    }
}
