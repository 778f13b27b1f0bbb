//! A task with its arguments, ready to be submitted.

use std::fmt;

use super::Task;

/// A task with its arguments: what [`Pool::submit`](crate::Pool::submit) takes. Nothing has run yet.
///
/// The functions that [`tasks!`](crate::tasks) writes return one. A rejected submit gives it back.
pub struct Call<T: Task> {
    args: T::Args,
}

impl<T: Task> Call<T> {
    /// A call of `T` with these arguments.
    #[must_use]
    pub fn new(args: T::Args) -> Self {
        Self { args }
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
        Self { args: self.args.clone() }
    }
}
