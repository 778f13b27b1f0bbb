//! A pool's numbers at one moment.

use crate::containment::Containment;
use crate::core;
use crate::isolation::Isolation;

/// How many workers and tasks a pool has at one moment, and has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks that wait for a worker.
    pub tasks_waiting: u64,
    /// Tasks that workers hold: the first of each worker's window runs, the rest are next.
    pub tasks_held: u64,
    /// Tasks answered so far, whether with a result or an error.
    pub tasks_answered: u64,
    /// Workers that are being started.
    pub workers_starting: u32,
    /// Workers that are ready and have nothing to do.
    pub workers_idle: u32,
    /// Workers that have tasks.
    pub workers_busy: u32,
    /// Workers that are on their way out.
    pub workers_retiring: u32,
    /// Spawns so far.
    pub spawns: u64,
    /// Spawns so far that gave no ready worker.
    pub spawn_failures: u64,
    /// Ready workers lost so far.
    pub losses: u64,
    /// Workers killed so far because a task had to stop and did not.
    pub kills: u64,
    /// Tasks sent so far with large arrays that their worker read where they are, in this process, so that they were not sent.
    pub arguments_lent: u64,
    /// Tasks answered so far with large arrays that this process read where they were, in the worker.
    pub results_lent: u64,
    /// Isolated parents started so far: one, as long as none has died; none in embedded mode.
    pub parents: u64,
    containment: Containment,
    isolation: Isolation,
    isolation_reason: &'static str,
}

/// What a pool has from its beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kind {
    pub(super) containment: Containment,
    pub(super) isolation: Isolation,
    pub(super) reason: &'static str,
}

impl Stats {
    pub(super) fn of(core: &core::Stats, [arguments_lent, results_lent]: [u64; 2]) -> Self {
        Self {
            arguments_lent,
            results_lent,
            tasks_waiting: core.tasks_waiting,
            tasks_held: core.tasks_held,
            tasks_answered: core.answered,
            workers_starting: core.workers_starting,
            workers_idle: core.workers_idle,
            workers_busy: core.workers_busy + core.workers_draining,
            workers_retiring: core.workers_retiring,
            spawns: core.spawns,
            spawn_failures: core.spawn_failures,
            losses: core.losses,
            kills: core.kills,
            ..Self::default()
        }
    }

    pub(super) fn with(self, kind: Kind, parents: u64) -> Self {
        let Kind { containment, isolation, reason } = kind;
        Self { containment, isolation, isolation_reason: reason, parents, ..self }
    }

    /// Whether the MPI of the pool lives in this process or in one beside it; [`Isolation::Embedded`] for workers in memory.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Why it does.
    #[must_use]
    pub fn isolation_reason(&self) -> &'static str {
        self.isolation_reason
    }

    /// What the death of a worker may do, in the middle of a transfer, to the process that has the MPI, be it this one or
    /// its isolated parent: what the pool really has,
    /// which is [`Containment::Fast`] wherever nothing better is known. That of in-memory workers is what was asked
    /// for: nothing of theirs is ever in the middle of a transfer.
    #[must_use]
    pub fn containment(&self) -> Containment {
        self.containment
    }

    /// Workers that exist or are being started.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.workers_starting + self.workers_ready() + self.workers_retiring
    }

    /// Workers that take tasks.
    #[must_use]
    pub fn workers_ready(&self) -> u32 {
        self.workers_idle + self.workers_busy
    }
}
