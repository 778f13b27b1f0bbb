//! What a running task can ask about itself and its worker, and what it can keep there.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::{TaskId, WorkerId};

/// What a running task knows: who runs it, which try this is, whether it is still wanted; and the
/// worker's state, which lives from the initializer to the worker's end.
///
/// ```
/// offshoot::tasks! {
///     /// How many tasks this worker has counted so far.
///     fn count(context: &mut Context) -> u64 {
///         let counter = context.state::<u64>();
///         *counter += 1;
///         Ok(*counter)
///     }
/// }
/// # fn main() {}
/// ```
pub struct Context {
    pub(crate) worker: WorkerId,
    pub(crate) rank: i32,
    pub(crate) host: Arc<str>,
    pub(crate) task: Option<TaskId>,
    pub(crate) attempt: u32,
    pub(crate) recanted: Box<dyn FnMut(TaskId) -> bool>,
    pub(crate) state: HashMap<TypeId, Box<dyn Any>>,
}

impl Context {
    /// The worker that runs this task.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The worker's MPI rank in its own `MPI_COMM_WORLD`; 0 where there is no MPI.
    #[must_use]
    pub fn rank(&self) -> i32 {
        self.rank
    }

    /// Name of the machine on which the worker runs.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// This task; `None` in an initializer.
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        self.task
    }

    /// Which try of the task this is, from 1. More than 1 means that a worker was lost with it.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the task is to stop: its handle was cancelled, its time is over, or its pool is being dropped.
    ///
    /// A task that takes long should ask now and then, and return early: one that has not returned after
    /// [`Builder::stop_grace`](crate::Builder::stop_grace) is ended with its worker.
    /// The call looks into the worker's mailbox, which costs well under a microsecond with most MPIs.
    pub fn cancelled(&mut self) -> bool {
        self.task.is_some_and(|task| (self.recanted)(task))
    }

    /// The worker's value of type `T`, made with `T::default()` when it is first asked for.
    ///
    /// It stays from task to task. A task that panics leaves it as it was at that moment.
    pub fn state<T: Default + 'static>(&mut self) -> &mut T {
        self.state_or_insert_with(T::default)
    }

    /// The worker's value of type `T`, made by `make` when it is first asked for.
    ///
    /// # Panics
    /// If `make` does.
    pub fn state_or_insert_with<T: 'static>(&mut self, make: impl FnOnce() -> T) -> &mut T {
        self.state
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::new(make()))
            .downcast_mut()
            .expect("values are kept under their own type")
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("worker", &self.worker)
            .field("host", &self.host)
            .field("task", &self.task)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
