//! What a process is whose program has no MPI: a host, and nothing else.

use super::fail;
use crate::launch;
use crate::process;
use crate::task::Registry;

/// Whether this process was started by its user. It can be nothing that needs MPI.
pub(super) fn is_host(_registry: &Registry) -> bool {
    if std::env::var_os(launch::ROLE_VARIABLE).is_some() {
        fail(
            "this program was built without MPI, and can be neither worker nor parent: name others, with \
             `Builder::program` and `Builder::parent_executable`",
        );
    }
    true
}

/// A host without MPI needs nothing but to know its own environment.
pub(super) fn prepare_host() {
    process::remember_environment();
}
