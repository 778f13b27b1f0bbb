//! A task between its submission and its resolution; a resolved one is forgotten.

use crate::ids::{KindId, ProgramId, WorkerId};

/// What the core knows of a task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) program: ProgramId,
    pub(super) kind: KindId,
    /// Attempts that ended in the loss of a worker for which this task was the suspect.
    pub(super) losses: u32,
    pub(super) place: Place,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its program's queue.
    Waiting,
    /// In this worker's window; recanted if the worker was told that nobody wants it any more.
    Held { worker: WorkerId, recanted: bool },
}
