//! What can go wrong, as types: building a pool, submitting to it, and the end of a task.
//!
//! Every text says what was tried, what came back, and, where there is something, what to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::containment::Containment;
use crate::finding::Finding;
use crate::ids::{ProgramId, TaskId, WorkerId};
use crate::slots::SlotsError;

/// Why a task has no result.
///
/// Each variant names the task, and the worker and its host where one was involved.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task returned an error.
    #[error("{origin} failed: {}", causes.join(": "))]
    Failed {
        /// Which task, where.
        origin: Origin,
        /// The error and its causes, outermost first, as text.
        causes: Vec<String>,
    },
    /// The task panicked. Its worker caught the panic and goes on.
    #[error("{origin} panicked: {message}{}", At(location))]
    Panicked {
        /// Which task, where.
        origin: Origin,
        /// What it panicked with.
        message: String,
        /// `file:line:column`.
        location: Option<String>,
    },
    /// The worker could not decode the arguments: do host and worker have the same types?
    #[error("{origin}: its arguments {reason}; were host and worker built from the same source?")]
    Arguments {
        /// Which task, where.
        origin: Origin,
        /// What the decoder said.
        reason: String,
    },
    /// The result could not be encoded by the worker, or not be decoded here.
    #[error("{origin}: its result {reason}")]
    Result {
        /// Which task, where.
        origin: Origin,
        /// What the encoder or decoder said.
        reason: String,
    },
    /// The worker's program has no task of this name, or one with other types.
    #[error("{origin} is unknown to the worker: {hint}")]
    Unknown {
        /// Which task, where.
        origin: Origin,
        /// What the worker has instead, and what to do.
        hint: String,
    },
    /// A worker was lost with the task, each time that it was tried.
    #[error("{origin} was lost with its worker after {attempts} attempt(s): {reason}")]
    Lost {
        /// Which task, and the last worker that had it.
        origin: Origin,
        /// How often it was tried.
        attempts: u32,
        /// How the last worker was lost.
        reason: String,
    },
    /// No worker of its program could be started.
    #[error("{origin} has no worker to run on: {reason}")]
    SpawnFailed {
        /// Which task.
        origin: Origin,
        /// What the last start failed of.
        cause: SpawnCause,
        /// The same at length: what was tried, what came back, what to do.
        reason: String,
    },
    /// The task was cancelled before it ran; or it ran, did not stop in the grace that it had, and its worker
    /// was killed.
    #[error("{origin} was cancelled")]
    Cancelled {
        /// Which task.
        origin: Origin,
    },
    /// The task had not ended when its time was over. If it ran then, and did not stop in the grace that it had,
    /// its worker was killed.
    #[error("{origin} had not ended {limit}")]
    Overdue {
        /// Which task.
        origin: Origin,
        /// Which of its limits it was.
        limit: Limit,
    },
    /// The wait ended before the task did. The task goes on, and its handle can be waited on again.
    #[error("{task} had not ended after {waited:?}; it goes on")]
    TimedOut {
        /// Which task.
        task: TaskId,
        /// How long the caller waited.
        waited: Duration,
    },
    /// A call of a stream was not accepted by the pool.
    #[error("{origin} was not accepted: {reason}")]
    Rejected {
        /// Which task.
        origin: Origin,
        /// Why not.
        reason: RejectReason,
    },
    /// The pool was shut down before the task ran.
    #[error("{origin} did not run: its pool was shut down")]
    ShutDown {
        /// Which task.
        origin: Origin,
    },
    /// The pool itself came to an end that nobody asked for.
    #[error("{origin} has no result: the pool failed: {reason}")]
    PoolFailed {
        /// Which task.
        origin: Origin,
        /// What happened to the pool.
        reason: Arc<str>,
    },
    /// The result was taken from this handle before.
    #[error("the result of {task} was already taken from its handle")]
    Taken {
        /// Which task.
        task: TaskId,
    },
}

impl TaskError {
    /// The task.
    #[must_use]
    pub fn task(&self) -> TaskId {
        match self.subject() {
            Ok(origin) => origin.task,
            Err(task) => task,
        }
    }

    /// The worker that ran the task last, if one did.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        self.subject().ok()?.place.as_ref().map(|place| place.worker)
    }

    /// A task of a pool that is another process's.
    pub(crate) fn forked(origin: Origin) -> Self {
        Self::PoolFailed { origin, reason: RejectReason::Forked.to_string().into() }
    }

    /// What the error is about: a task with its origin, or the bare task where only a handle is concerned.
    fn subject(&self) -> Result<&Origin, TaskId> {
        match self {
            Self::TimedOut { task, .. } | Self::Taken { task } => Err(*task),
            Self::Failed { origin, .. }
            | Self::Panicked { origin, .. }
            | Self::Arguments { origin, .. }
            | Self::Result { origin, .. }
            | Self::Unknown { origin, .. }
            | Self::Lost { origin, .. }
            | Self::SpawnFailed { origin, .. }
            | Self::Cancelled { origin }
            | Self::Overdue { origin, .. }
            | Self::Rejected { origin, .. }
            | Self::ShutDown { origin }
            | Self::PoolFailed { origin, .. } => Ok(origin),
        }
    }
}

/// A limit to the time of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// How long it may run: [`Call::timeout`](crate::Call::timeout), or
    /// [`Builder::task_timeout`](crate::Builder::task_timeout).
    Timeout,
    /// When it must have ended: [`Call::deadline`](crate::Call::deadline).
    Deadline,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "when it had run for its timeout",
            Self::Deadline => "at its deadline",
        })
    }
}

/// Which task an error is about, and where it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The task's number in its pool.
    pub task: TaskId,
    /// The task's name.
    pub name: &'static str,
    /// Where it ran last, if it ran.
    pub place: Option<Place>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.task, self.name)?;
        match &self.place {
            Some(place) => write!(f, " on {place}"),
            None => Ok(()),
        }
    }
}

/// A worker and its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The worker.
    pub worker: WorkerId,
    /// Name of its machine.
    pub host: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.worker, self.host)
    }
}

struct At<'a>(&'a Option<String>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |location| write!(f, " at {location}"))
    }
}

/// What the start of a worker can fail of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SpawnCause {
    /// Its host cannot be reached. Nothing was started.
    Host,
    /// Its executable or its working directory is not there, may not be run, is for another machine, or is
    /// linked with another MPI. Nothing was started.
    Executable,
    /// The operating system did not start it.
    NotStarted,
    /// It ended before it had initialized MPI, or before it was ready.
    Ended,
    /// It was not ready within the `spawn_timeout`, and was ended.
    Overdue,
    /// It initialized MPI, but is no offshoot worker.
    NoWorker,
    /// It is one of another version, or of another MPI, than its host, or knows no task.
    Mismatch,
    /// Its initializer failed or panicked.
    Initializer,
    /// `MPI_Comm_spawn` returned an error.
    Mpi,
    /// The program through which this MPI spawns has ended, and it starts no other one in this process.
    Launcher,
    /// The process that holds the MPI of an isolated pool could not be started, or ended again and again.
    Parent,
    /// The reason was not reported.
    Unknown,
}

impl SpawnCause {
    /// Whether another try would fail alike. The others are made a few times, with a pause between them.
    pub(crate) fn is_lasting(self) -> bool {
        match self {
            Self::Executable
            | Self::Overdue
            | Self::NoWorker
            | Self::Mismatch
            | Self::Launcher
            | Self::Parent => true,
            // Another try may be on another host.
            Self::Host => false,
            Self::NotStarted | Self::Ended | Self::Initializer | Self::Mpi | Self::Unknown => false,
        }
    }
}

/// A start that failed: [`SpawnCause`] and what to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpawnFailure {
    pub(crate) cause: SpawnCause,
    pub(crate) reason: String,
}

impl SpawnFailure {
    pub(crate) fn new(cause: SpawnCause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into() }
    }
}

/// Why a task was not accepted. `call` is what was handed in, so that nothing is lost.
#[derive(Debug, Error)]
#[error("not submitted: {reason}")]
pub struct SubmitError<C> {
    /// The call, with its arguments, as it was.
    pub call: C,
    /// Why it was not accepted.
    pub reason: RejectReason,
}

/// Why a pool does not accept a task.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The queue is full; only the `try_` methods say so, the others wait.
    #[error("the pool already holds {limit} unfinished tasks, its `queue_max`")]
    Full {
        /// The pool's `queue_max`.
        limit: usize,
    },
    /// The pool was shut down, or failed.
    #[error("the pool is closed: {reason}")]
    Closed {
        /// Why it is closed.
        reason: Arc<str>,
    },
    /// This process is a child that was forked from the pool's.
    #[error(
        "this process was forked from the one that the pool belongs to, and only that can use it: build another pool here, \
         with `isolated()`"
    )]
    Forked,
    /// The arguments could not be encoded.
    #[error("its arguments {reason}")]
    Arguments {
        /// What the encoder said.
        reason: String,
    },
    /// The encoded arguments are larger than one message may be.
    #[error("its arguments take {length} bytes, more than the {limit} that one message may have")]
    TooLarge {
        /// Length of the encoded arguments in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The program does not belong to this pool.
    #[error("{program} is not one of this pool's")]
    Program {
        /// The program that was named.
        program: ProgramId,
    },
}

/// Why there is no pool.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// [`init`](crate::init) was not called.
    #[error(
        "offshoot::init() was not called: make it the first line of `main`, so that the processes that \
         MPI starts from this executable become workers instead of running `main` again"
    )]
    NotInitialized,
    /// The host initialized MPI itself, at a level that does not let a second thread use it.
    #[error(
        "MPI is initialized at thread level {provided}, and offshoot needs {required} beside a host that \
         uses MPI itself: call MPI_Init_thread with MPI_THREAD_MULTIPLE, build the pool first, or build it with \
         `isolated()`, which keeps the pool's MPI in a process of its own"
    )]
    ThreadLevel {
        /// The level that MPI has.
        provided: String,
        /// The level that offshoot needs.
        required: String,
    },
    /// MPI was already finalized in this process; it cannot be started again.
    #[error(
        "MPI was already finalized in this process, and MPI cannot be started twice: a pool built with `isolated()` has \
         its MPI in another process"
    )]
    Finalized,
    /// This process is a child that was forked from one with an MPI, which cannot be used here.
    #[error(
        "this process was forked from one that has initialized MPI, which is of no use here: build the pool with `isolated()`, \
         which has its MPI in another process"
    )]
    Forked,
    /// This machine, or the MPI on it, lacks what spawning needs. MPI was not initialized.
    #[error("workers cannot be spawned here: {0} (`offshoot doctor` shows all checks)")]
    Preflight(Finding),
    /// An MPI call did not return, and this process makes no MPI call any more.
    #[error("{0}")]
    Stuck(String),
    /// The process that is to hold the MPI of an isolated pool could not be started, or ended before it was ready.
    #[error("there is no isolated parent: {0}")]
    Parent(String),
    /// An MPI call failed while the pool was being set up.
    #[error("MPI could not be set up: {0}")]
    Mpi(String),
    /// A program cannot be started as it is described.
    #[error("program `{program}` cannot be started: {reason}")]
    Program {
        /// The executable.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pool was to have another containment than this process has.
    #[error("a pool with {asked} containment was asked for, and this process has {has}: {reason}")]
    Containment {
        /// What [`Builder::containment`](crate::Builder::containment) asked for.
        asked: Containment,
        /// What a pool of this process has.
        has: Containment,
        /// Why, and what to do.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
    /// Hosts or slots make no sense, or do not suffice.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The operating system refused something, a thread as a rule.
    #[error("the pool's thread could not be started: {0}")]
    System(String),
}
