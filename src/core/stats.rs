//! A few numbers about a scheduler at one moment, cheap enough to ask for at any time.

use super::scheduler::Scheduler;

/// What is there now, and what has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Tasks in queues.
    pub(crate) tasks_waiting: u64,
    /// Tasks in workers' windows.
    pub(crate) tasks_held: u64,
    /// Workers asked for and not ready yet.
    pub(crate) workers_starting: u32,
    /// Workers that hold nothing.
    pub(crate) workers_idle: u32,
    /// Workers that hold tasks and may be given more.
    pub(crate) workers_busy: u32,
    /// Workers that hold tasks and will be retired after them.
    pub(crate) workers_draining: u32,
    /// Workers asked to leave.
    pub(crate) workers_retiring: u32,
    /// Workers whose spawn was asked for, ever.
    pub(crate) spawns: u64,
    /// Workers that never became ready.
    pub(crate) spawn_failures: u64,
    /// Workers that were lost after they had become ready.
    pub(crate) losses: u64,
    /// Workers that were killed because what they ran did not stop.
    pub(crate) kills: u64,
    /// Tasks that were answered.
    pub(crate) answered: u64,
}

impl Scheduler {
    /// The numbers of this moment.
    pub(crate) fn stats(&self) -> Stats {
        let waiting: usize = self.programs.iter().map(|program| program.queue.len()).sum();
        Stats {
            tasks_waiting: waiting as u64,
            tasks_held: (self.tasks.len() - waiting) as u64,
            workers_starting: self.ordered.len() + self.starting.len(),
            workers_idle: self.programs.iter().map(|program| program.idle.len()).sum(),
            workers_busy: self.programs.iter().map(|program| program.running.len()).sum(),
            workers_draining: self.programs.iter().map(|program| program.draining).sum(),
            workers_retiring: self.retiring.len(),
            ..self.counted
        }
    }
}
