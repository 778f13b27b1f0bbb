//! A task with its arguments, ready to be submitted.

use std::fmt;
use std::time::{Duration, Instant};

use super::Task;

/// A task with its arguments: what [`Pool::submit`](crate::Pool::submit) takes. Nothing has run yet.
///
/// The functions that [`tasks!`](crate::tasks) writes return one. A rejected submit gives it back.
///
/// ```
/// # offshoot::tasks! { fn render(frame: u32) -> u32 { Ok(frame) } }
/// # fn main() -> anyhow::Result<()> {
/// # use std::time::Duration;
/// # let pool = offshoot::Pool::builder().loopback().build()?;
/// let frame = pool.submit(render(7).timeout(Duration::from_secs(60)).idempotent(false))?;
/// # assert_eq!(frame.wait()?, 7);
/// # Ok(())
/// # }
/// ```
pub struct Call<T: Task> {
    args: T::Args,
    conditions: Conditions,
}

/// On what conditions a call is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) deadline: Option<Instant>,
    pub(crate) timeout: Option<Duration>,
    /// It must never run twice.
    pub(crate) once: bool,
}

impl<T: Task> Call<T> {
    /// A call of `T` with these arguments.
    #[must_use]
    pub fn new(args: T::Args) -> Self {
        Self { args, conditions: Conditions::default() }
    }

    /// How long the task may run, each time that it is tried; else what
    /// [`Builder::task_timeout`](crate::Builder::task_timeout) says.
    ///
    /// When the time is over the task is told ([`Context::cancelled`](crate::Context::cancelled)); after
    /// [`Builder::stop_grace`](crate::Builder::stop_grace) its worker is killed and replaced. The result is
    /// [`TaskError::Overdue`](crate::TaskError::Overdue), unless the task has returned one in that grace. Other
    /// tasks of that worker are not harmed. It counts from when the pool takes the task to be the one that its
    /// worker runs, the way there included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.conditions.timeout = Some(timeout);
        self
    }

    /// When the task must have ended, whether it waits or runs then. A task that waits does not run any more; one
    /// that runs is treated as by [`Call::timeout`].
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.conditions.deadline = Some(deadline);
        self
    }

    /// Whether the task may run again when its worker was lost with it; it may, unless this says no.
    ///
    /// One that may not is handed to one worker only, by itself, and is
    /// [`TaskError::Lost`](crate::TaskError::Lost) with that worker, whether it had begun or not.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.conditions.once = !idempotent;
        self
    }

    /// None where there are none, as with most tasks, which need not be larger for it.
    pub(crate) fn conditions(&self) -> Option<Box<Conditions>> {
        (self.conditions != Conditions::default()).then(|| Box::new(self.conditions))
    }

    pub(crate) fn args_mut(&mut self) -> &mut T::Args {
        &mut self.args
    }

    /// The arguments.
    #[must_use]
    pub fn args(&self) -> &T::Args {
        &self.args
    }

    /// The arguments, by value.
    #[must_use]
    pub fn into_args(self) -> T::Args {
        self.args
    }
}

impl<T: Task> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({})", T::NAME)
    }
}

impl<T: Task> Clone for Call<T>
where
    T::Args: Clone,
{
    fn clone(&self) -> Self {
        Self { args: self.args.clone(), conditions: self.conditions }
    }
}
