//! A worker from the decision to spawn it until it is closed; a closed one is forgotten.
//!
//! When a state was entered is kept in the [`Line`](super::line::Line) that belongs to it.

use super::Time;
use super::window::Window;
use crate::ids::ProgramId;

/// What the core knows of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) program: ProgramId,
    /// Which round of its program's [`Health`](super::health::Health) spawned it.
    pub(super) round: u32,
    /// Whether it has ever answered.
    pub(super) proven: bool,
    pub(super) recall: Recall,
    pub(super) state: State,
}

/// Whether what waits in a worker's window may be asked back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// Nothing waits there, or nothing but what it is known to have begun.
    Unneeded,
    /// Something may wait: it stands in the line of those that are looked at now and then.
    Possible,
    /// It was asked, and is given nothing more while it is busy. Those that were sent on the way come back, too.
    Asked,
}

/// What a worker is doing. Only these exist; whatever else could be said follows from them.
#[derive(Debug)]
pub(super) enum State {
    /// Spawned, not ready yet.
    Starting { since: Time },
    /// Ready, holds nothing.
    Idle,
    /// Ready, holds at least one task, may be given more.
    Busy(Window),
    /// Holds at least one task, gets no more, and is retired when it has answered the last.
    Draining(Window),
    /// Was asked to leave, holds nothing.
    Retiring,
}
