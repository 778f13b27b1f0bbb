//! What a process is told that it is, by a variable of its environment; and the environment as the user had it.

use std::ffi::OsString;

use crate::process;

/// Set in the environment of a worker or parent, and taken out again before anything of the user's runs.
pub(crate) const ROLE_VARIABLE: &str = "OFFSHOOT_ROLE";
pub(crate) const ROLE_WORKER: &str = "worker";
pub(super) const ROLE_PARENT: &str = "parent";

/// The environment as the user had it when [`init`](crate::init) was called in the host.
///
/// A worker's environment has more in it: what the MPI needs, and the variables by which it tells a process
/// who it is. Where a task starts programs that may use MPI themselves, call this in the host, pass it to
/// the workers (as an argument of their initializer, for example), and start the programs with it.
#[must_use]
pub fn user_environment() -> Vec<(OsString, OsString)> {
    process::original_environment()
}
