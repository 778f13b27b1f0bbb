//! The ledger: what belongs to a task and is not the core's business. Arguments, which are kept until
//! the task has ended, because a lost worker's tasks are sent again; the promise; the answer in hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::Submission;
use crate::core::{Resolution, Table};
use crate::error::{Limit, Place, SpawnCause, SpawnFailure, TaskError};
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};
use crate::pool::{Answer, Promise, Settled};
use crate::task::{Conditions, Definition};
use crate::wire::message::{AnswerMessage, Failure, Outcome};
use crate::wire::payload::Payload;

/// How many lost workers' reasons are remembered, for the errors of their tasks.
const LOSSES_REMEMBERED: usize = 64;

/// The books of one pool.
#[derive(Default)]
pub(super) struct Ledger {
    entries: Table<Entry>,
    /// By name and signature: two tasks of one name are two kinds.
    kinds: FxHashMap<(&'static str, &'static str), KindId>,
    /// The kind that was numbered last: most tasks are of the kind of the one before.
    last_kind: Option<(&'static Definition, KindId)>,
    /// Why the last start of each program failed.
    failed_starts: FxHashMap<ProgramId, SpawnFailure>,
    losses: VecDeque<(WorkerId, String)>,
    /// What workers have said of tasks in this turn, in the order in which the core was told, until it has confirmed
    /// what of that was due.
    heard: VecDeque<(WorkerId, std::vec::IntoIter<AnswerMessage>)>,
    /// Tasks that have ended, and whose handles are told so at the end of the turn.
    pub(super) settled: Vec<(Promise, Settled)>,
    /// Large arguments of theirs: to give back their memory takes longer than to tell.
    pub(super) spent: Vec<Payload>,
}

struct Entry {
    program: ProgramId,
    kind: KindId,
    arguments: Payload,
    promise: Promise,
    conditions: Option<Box<Conditions>>,
    /// The worker that has or had the task last.
    place: Option<Place>,
}

impl Ledger {
    /// Enters a new task and numbers its kind.
    pub(super) fn enter(&mut self, submission: Submission) -> KindId {
        let Submission { program, arguments, promise, conditions } = submission;
        let kind = self.number(promise.definition());
        let task = promise.task();
        let entry = Entry { program, kind, arguments, promise, conditions, place: None };
        let doubled = self.entries.insert(task.0, entry);
        assert!(doubled.is_none(), "task ids are never reused");
        kind
    }

    fn number(&mut self, definition: &'static Definition) -> KindId {
        if let Some((last, kind)) = self.last_kind
            && std::ptr::eq(last, definition)
        {
            return kind;
        }
        let next = KindId(u32::try_from(self.kinds.len()).expect("kinds are few"));
        let kind = *self.kinds.entry((definition.name, definition.signature)).or_insert(next);
        self.last_kind = Some((definition, kind));
        kind
    }

    /// What a worker needs to be sent of a task.
    pub(super) fn send(&self, task: TaskId) -> (KindId, &'static Definition, Payload) {
        let entry = self.entries.get(task.0).expect("the core sends tasks that have not ended");
        (entry.kind, entry.promise.definition(), entry.arguments.clone())
    }

    /// Notes where a task is.
    pub(super) fn place(&mut self, task: TaskId, place: Place) {
        if let Some(entry) = self.entries.get_mut(task.0) {
            entry.place = Some(place);
        }
    }

    /// Keeps what a worker said of its tasks. It counts only where the core resolves a task as answered in the same turn.
    pub(super) fn hear(&mut self, worker: WorkerId, answers: Vec<AnswerMessage>) {
        self.heard.push_back((worker, answers.into_iter()));
    }

    /// The core has resolved all that it was told the answers to.
    pub(super) fn forget_heard(&mut self) {
        self.heard.clear();
    }

    /// What was heard of a task first, from the worker that has it. The core confirms answers in the order in which
    /// they came; those that it passes over were not due.
    fn confirm(&mut self, task: TaskId, place: Option<Place>) -> (WorkerId, Outcome) {
        while let Some((worker, answers)) = self.heard.front_mut() {
            let is_there = place.is_some_and(|place| place.worker == *worker);
            if is_there && let Some(answer) = answers.find(|answer| answer.task == task) {
                return (*worker, answer.outcome);
            }
            self.heard.pop_front();
        }
        unreachable!("the core resolves as answered what was answered")
    }

    pub(super) fn note_failed_start(&mut self, program: ProgramId, failure: SpawnFailure) {
        self.failed_starts.insert(program, failure);
    }

    pub(super) fn note_loss(&mut self, worker: WorkerId, reason: String) {
        if self.losses.len() == LOSSES_REMEMBERED {
            self.losses.pop_front();
        }
        self.losses.push_back((worker, reason));
    }

    /// Closes a task's entry; its promise is settled at the end of the turn. `hint` explains why a worker does
    /// not know a task.
    pub(super) fn resolve(
        &mut self,
        task: TaskId,
        resolution: Resolution,
        hint: impl FnOnce(WorkerId, &'static Definition) -> String,
    ) {
        let entry = self.entries.remove(task.0).expect("the core resolves each task once");
        let answer = match resolution {
            Resolution::Answered | Resolution::Overdue { answered: true } => {
                Some(self.confirm(task, entry.place))
            }
            Resolution::Cancelled
            | Resolution::Overdue { answered: false }
            | Resolution::Lost { .. }
            | Resolution::SpawnFailed
            | Resolution::ShutDown => None,
        };
        let settled = match (resolution, answer) {
            (_, Some((_, Outcome::Done(result)))) => Ok(Answer { result, place: entry.place }),
            (Resolution::Answered, Some((worker, outcome))) => {
                Err(failed(&entry, outcome, || hint(worker, entry.promise.definition())).into())
            }
            (resolution, _) => Err(self.failure(&entry, resolution).into()),
        };
        self.settled.push((entry.promise, settled));
        self.spent.extend(Some(entry.arguments).filter(Payload::is_in_pieces));
    }

    /// The error of a task that was not answered, or not in time.
    fn failure(&self, entry: &Entry, resolution: Resolution) -> TaskError {
        let origin = entry.promise.origin(entry.place);
        match resolution {
            Resolution::Answered => unreachable!("an answer says what came of the task"),
            Resolution::Cancelled => TaskError::Cancelled { origin },
            Resolution::Overdue { .. } => {
                let deadline = entry.conditions.as_ref().and_then(|conditions| conditions.deadline);
                let by_deadline = deadline.is_some_and(|deadline| deadline <= Instant::now());
                let limit = if by_deadline { Limit::Deadline } else { Limit::Timeout };
                TaskError::Overdue { origin, limit }
            }
            Resolution::ShutDown => TaskError::ShutDown { origin },
            Resolution::Lost { attempts } => {
                TaskError::Lost { origin, attempts, reason: self.reason_of_loss(entry) }
            }
            Resolution::SpawnFailed => {
                let known = self.failed_starts.get(&entry.program).cloned();
                let SpawnFailure { cause, reason } =
                    known.unwrap_or_else(|| SpawnFailure::new(SpawnCause::Unknown, unknown()));
                TaskError::SpawnFailed { origin, cause, reason }
            }
        }
    }

    fn reason_of_loss(&self, entry: &Entry) -> String {
        let lost = |worker| self.losses.iter().rev().find(|(lost, _)| *lost == worker);
        let reason = entry.place.as_ref().and_then(|place| lost(place.worker));
        reason.map_or_else(unknown, |(_, reason)| reason.clone())
    }

    /// Settles everything with an error: the pool has failed.
    pub(super) fn fail(&mut self, reason: &Arc<str>) {
        for entry in self.entries.drain() {
            let origin = entry.promise.origin(entry.place);
            let settled: Settled = Err(TaskError::PoolFailed { origin, reason: Arc::clone(reason) }.into());
            entry.promise.settle(settled);
        }
    }
}

/// The error of a task that its worker has answered without a result.
fn failed(entry: &Entry, outcome: Outcome, hint: impl FnOnce() -> String) -> TaskError {
    let origin = entry.promise.origin(entry.place);
    let failure = match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Skipped => return TaskError::Cancelled { origin },
        Outcome::Done(_) => unreachable!("that is a result"),
    };
    match failure {
        Failure::Returned { causes } => TaskError::Failed { origin, causes },
        Failure::Panicked { message, location } => TaskError::Panicked { origin, message, location },
        Failure::Arguments { reason } => TaskError::Arguments { origin, reason },
        Failure::Result { reason } => TaskError::Result { origin, reason },
        Failure::Unknown => TaskError::Unknown { origin, hint: hint() },
    }
}

fn unknown() -> String {
    "for a reason that was not reported".to_owned()
}
