//! A task between its submission and its resolution; a resolved one is forgotten, unless a worker still holds it.

use std::time::Duration;

use super::event::{Resolution, Terms};
use super::{Config, Time};
use crate::ids::{KindId, ProgramId, WorkerId};

/// What the core knows of a task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) program: ProgramId,
    pub(super) kind: KindId,
    /// Attempts that ended in the loss of a worker for which this task was the suspect.
    pub(super) losses: u32,
    /// It was in the window of a worker that was lost. Answers come in batches, and those to the tasks before it may
    /// have been lost, too: so it is next tried alone, where it is clear who is to blame.
    pub(super) is_doubted: bool,
    /// It begins on one worker at most.
    pub(super) once: bool,
    pub(super) place: Place,
    /// Only of a task whose time runs, or may: the others need not be larger for it.
    pub(super) limits: Option<Box<Limits>>,
}

/// When a task is to end.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) deadline: Option<Time>,
    /// How long it may run.
    pub(super) timeout: Option<Duration>,
    /// When its time, or its grace, is over: its entry among the alarms.
    pub(super) alarm: Option<Time>,
}

impl Limits {
    pub(super) const NONE: Limits = Limits { deadline: None, timeout: None, alarm: None };
}

impl Task {
    /// A task that waits, on these terms. Its alarm is set for its deadline.
    pub(super) fn new(program: ProgramId, kind: KindId, terms: Terms) -> Task {
        let Terms { deadline, timeout, once } = terms;
        let is_limited = deadline.is_some() || timeout.is_some();
        let limits = is_limited.then(|| Box::new(Limits { deadline, timeout, alarm: deadline }));
        Task { program, kind, losses: 0, is_doubted: false, once, place: Place::Waiting, limits }
    }

    /// Its entry among the alarms.
    pub(super) fn alarm(&self) -> Option<Time> {
        self.limits.as_ref()?.alarm
    }

    /// Whether it has been lost with as many workers as it may be.
    pub(super) fn is_used_up(&self, config: &Config) -> bool {
        self.losses >= if self.once { 1 } else { config.attempts_max }
    }
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its program's queue.
    Waiting,
    /// In this worker's window; the worker was told if it is to stop.
    Held { worker: WorkerId, stop: Option<Stop> },
}

/// Why a task that a worker holds is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nobody wants it any more.
    Cancelled,
    /// Its time is over.
    Overdue,
    /// It has ended already, because it waited behind another one. What its worker says of it means nothing.
    Ended,
}

impl Stop {
    /// How it ends if its worker does not answer it; not at all if it has ended.
    pub(super) fn unanswered(self) -> Option<Resolution> {
        match self {
            Self::Cancelled => Some(Resolution::Cancelled),
            Self::Overdue => Some(Resolution::Overdue { answered: false }),
            Self::Ended => None,
        }
    }

    /// How it ends if its worker answers it.
    pub(super) fn answered(self) -> Option<Resolution> {
        match self {
            Self::Cancelled => Some(Resolution::Answered),
            Self::Overdue => Some(Resolution::Overdue { answered: true }),
            Self::Ended => None,
        }
    }
}
