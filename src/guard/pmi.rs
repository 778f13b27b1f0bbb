//! The process manager of the MPICH family, told that a worker has finalized that could not say so itself.
//!
//! Hydra's proxy hands each process that it starts a socket, `PMI_FD`, and takes a close of it without
//! `cmd=finalize` for a crash, after which it kills everything that it started and the host's process group.
//! The protocol is PMI-1, line by line (MPICH, `src/pmi`).

use std::env;
use std::time::Duration;

use crate::process;

/// Says goodbye to the process manager, if there is one of that kind.
pub(super) fn finalize() {
    let Some(fd) = env::var("PMI_FD").ok().and_then(|fd| fd.parse().ok()) else { return };
    process::converse(fd, b"cmd=finalize\n");
}

/// Hears what the process manager still had to say to a worker that has died in the middle of a
/// conversation, so that whoever speaks next is not answered what was not asked.
pub(super) fn hear_out() {
    if let Some(fd) = env::var("PMI_FD").ok().and_then(|fd| fd.parse().ok()) {
        process::drain(fd, SILENCE);
    }
}

/// An answer comes within a fraction of this.
const SILENCE: Duration = Duration::from_millis(50);
