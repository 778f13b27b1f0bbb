//! What API threads ask of a driver, and what becomes of it when the pool has ended meanwhile.

use crate::core::ShutdownMode;
use crate::error::TaskError;
use crate::ids::{ProgramId, TaskId};
use crate::launch::Program;
use crate::pool::Promise;
use crate::task::Conditions;
use crate::wire::payload::Payload;

/// What API threads ask of a driver.
pub(crate) enum Command {
    Submit(Submission),
    /// Many at once, from a stream.
    SubmitAll(Vec<Submission>),
    Cancel(TaskId),
    CancelAll(Vec<TaskId>),
    /// Programs are numbered in the order in which they are added.
    AddProgram(Program),
    Shutdown(ShutdownMode),
}

/// A task on its way into the pool.
pub(crate) struct Submission {
    pub(crate) program: ProgramId,
    pub(crate) arguments: Payload,
    pub(crate) promise: Promise,
    pub(crate) conditions: Option<Box<Conditions>>,
}

impl Submission {
    /// It was on its way in when the pool ended.
    pub(super) fn shut_out(self) {
        let origin = self.promise.origin(None);
        self.promise.settle(Err(TaskError::ShutDown { origin }.into()));
    }
}

impl Command {
    /// The pool has ended: what is submitted with this ends too.
    pub(crate) fn shut_out(self) {
        match self {
            Self::Submit(submission) => submission.shut_out(),
            Self::SubmitAll(submissions) => submissions.into_iter().for_each(Submission::shut_out),
            Self::Cancel(_) | Self::CancelAll(_) | Self::AddProgram(_) | Self::Shutdown(_) => {}
        }
    }
}
