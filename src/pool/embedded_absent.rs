//! In the place of `embedded`, in a program without MPI.

use std::sync::Arc;

use super::Shared;
use super::backend::Wanted;
use crate::containment::Containment;
use crate::error::BuildError;

/// Why this process makes no MPI calls.
pub(super) fn why_isolated() -> Option<&'static str> {
    Some("this program was built without MPI")
}

/// There is no MPI in this process that a pool could have.
pub(super) fn embedded(_wanted: Wanted<'_>) -> Result<(Arc<Shared>, Containment), BuildError> {
    let reason = "isolation(Embedded): this program was built without MPI; build it with the feature `mpi`, or leave it open";
    Err(BuildError::Setting(reason.to_owned()))
}
