//! Tasks: functions that a worker can run, known to host and worker by the same name.
//!
//! [`tasks!`](crate::tasks) writes a [`Task`] for each function given to it; the trait can be
//! implemented by hand as well. A [`Call`] is a task with its arguments, not yet submitted.
//! `definition` has what remains of a task when its types are gone, `registry` the set of those
//! that a worker knows, `context` what a running task can ask about itself.

mod call;
mod context;
mod definition;
mod macros;
mod registry;

pub use call::Call;
pub(crate) use call::Conditions;
pub use context::Context;
pub use definition::{Definition, Task};
pub use registry::Registry;

pub(crate) use definition::{panic_message, run_guarded};

#[doc(hidden)]
pub use registry::Linked;
