//! The core's whole vocabulary: what it may be told (`Event`) and what it may ask for (`Action`).
//!
//! Both carry ids and durations only. Payloads, replies, error texts, processes and communicators
//! belong to the driver, which keeps them in its ledger under these ids.

use std::time::Duration;

use super::Time;
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};

/// Something that happened, told to [`Scheduler::handle`](super::Scheduler::handle).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A user handed in a task for a program.
    Submit { task: TaskId, program: ProgramId, kind: KindId, terms: Terms },
    /// A user no longer wants a task.
    Cancel { task: TaskId },
    /// The spawn of a worker returned: its process exists, its hello is still to come.
    /// Its time to become ready begins now; before, it has waited for its turn, and time was the transport's business.
    Spawned { worker: WorkerId },
    /// A worker did not come to be: the spawn failed, its hello was refused, or its initializer failed.
    /// The driver has already closed whatever there was of it. `lasting`: the next one would fail alike.
    SpawnFailed { worker: WorkerId, lasting: bool },
    /// Hello accepted, initializer done: the worker takes tasks.
    Ready { worker: WorkerId },
    /// The worker answered a task, in whatever way; `ran` is the time that it took there.
    Answered { worker: WorkerId, task: TaskId, ran: Duration },
    /// What a `Recall` came to: the worker begins nothing more before it is told to `Resume`, and this is the last
    /// task that it has begun.
    Recalled { worker: WorkerId, begun: Option<TaskId> },
    /// The worker died, was killed, or broke the protocol.
    Lost { worker: WorkerId },
    /// A worker that was asked to retire has left and is disconnected.
    Gone { worker: WorkerId },
    /// Time passed; nothing else happened.
    Tick,
    /// The pool is to end. A second one may only tighten: `Drain`, then `Cancel`.
    Shutdown { mode: ShutdownMode },
}

/// On what terms a task is handed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// When it must have ended, whether it has run or not.
    pub(crate) deadline: Option<Time>,
    /// How long it may run, each time that it is tried.
    pub(crate) timeout: Option<Duration>,
    /// It begins on one worker at most: with that worker it is lost.
    pub(crate) once: bool,
}

/// What becomes of the tasks that wait when a pool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShutdownMode {
    /// They still run.
    Drain,
    /// They are cancelled; those that a worker already holds are asked to stop.
    Cancel,
}

/// Something to be done, taken from [`Scheduler::poll`](super::Scheduler::poll).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a worker. `Spawned` or `SpawnFailed` follows, however long it takes. Closed by exactly one of
    /// `SpawnFailed` (while it starts), `Gone` (while it retires), our own `Kill`, or our own `Abandon`, which also
    /// answers `Lost`.
    /// Neighbouring spawns of one program may share one `MPI_Comm_spawn` (a cohort).
    Spawn { worker: WorkerId, program: ProgramId },
    /// Put a task at the end of a worker's window; `attempt` counts from 1.
    Send { worker: WorkerId, task: TaskId, attempt: u32 },
    /// Tell a worker that a task of its window is no longer wanted. It still answers it, which means nothing if the
    /// task is resolved meanwhile.
    Recant { worker: WorkerId, task: TaskId },
    /// Stop a worker from beginning another task. `Recalled` follows, unless it is lost before or leaves; or never, if
    /// it cannot be stopped.
    Recall { worker: WorkerId },
    /// Let a stopped worker go on: what it was sent before this and has not begun is not its business any more.
    Resume { worker: WorkerId },
    /// Ask a healthy worker with an empty window to leave.
    Retire { worker: WorkerId },
    /// Give a worker up, without a collective: it was lost, or missed a deadline.
    Abandon { worker: WorkerId },
    /// End a healthy worker by force: what it runs was to stop, and has not.
    Kill { worker: WorkerId },
    /// A task has reached its end.
    Resolve { task: TaskId, resolution: Resolution },
    /// After a shutdown: every task is resolved and every worker closed. The last action of all.
    Close,
}

/// How a task ended, as far as the core can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// A worker answered it; the driver holds the answer.
    Answered,
    /// Cancelled while no worker held it or while it waited behind another one, or its worker was lost after it had
    /// been recanted.
    Cancelled,
    /// Its time was over. If it was `answered` after that, the driver holds the answer.
    Overdue { answered: bool },
    /// Its worker was lost in each of this many attempts.
    Lost { attempts: u32 },
    /// No worker of its program could be started.
    SpawnFailed,
    /// It was submitted after the shutdown.
    ShutDown,
}
