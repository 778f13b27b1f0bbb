//! Which mode a pool gets, embedded or isolated, and why.

use std::env;

use crate::error::BuildError;
use crate::isolation::{Isolation, VARIABLE};
use crate::launch;
use crate::transport::mpi;

/// What was decided: never `Auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) isolation: Isolation,
    pub(crate) reason: &'static str,
}

/// Decides for a pool that was asked to be so.
///
/// # Errors
/// If the environment variable says what makes no sense.
pub(crate) fn decide(asked: Isolation) -> Result<Decision, BuildError> {
    let chosen = match env::var(VARIABLE) {
        Ok(name) if asked == Isolation::Auto && !name.is_empty() => Some(
            name.parse().map_err(|error| BuildError::Setting(format!("the variable {VARIABLE}: {error}")))?,
        ),
        _ => None,
    };
    let (isolation, reason) = match (asked, chosen) {
        (Isolation::Auto, None | Some(Isolation::Auto)) => return Ok(decide_alone()),
        (Isolation::Auto, Some(chosen)) => (chosen, "the variable OFFSHOOT_ISOLATION says so"),
        (asked, _) => (asked, "the pool was built so"),
    };
    Ok(Decision { isolation, reason })
}

/// What is safe in this process.
pub(crate) fn decide_alone() -> Decision {
    match why_isolated() {
        Some(reason) => Decision { isolation: Isolation::Isolated, reason },
        None => Decision {
            isolation: Isolation::Embedded,
            reason: "nothing in this process speaks against its having the MPI",
        },
    }
}

/// Why this process should not make MPI calls of ours, if so.
fn why_isolated() -> Option<&'static str> {
    // What one pool has done, the next one may do.
    if mpi::facts().is_some() {
        return mpi::is_finalized().then_some("MPI was finalized in this process");
    }
    if launch::has_two_mpis() {
        return Some("this process has loaded two MPI libraries");
    }
    if let Some(reason) = mpi::why_unfit() {
        return Some(reason);
    }
    let is_of_larger_job = launch::Job::of_this_process().is_some_and(|job| job.size > 1);
    is_of_larger_job.then_some("this process is a rank of a job of several")
}
