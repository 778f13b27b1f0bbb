//! What marks the processes of a chaos, so that they are found without asking the pool, and what they share.

use std::collections::BTreeSet;
use std::fs;

use crate::processes::Process;
pub(crate) use crate::processes::{kill, with};

/// In the environment of everything that the host starts, and of the host: which chaos it belongs to.
pub(crate) const CHAOS: &str = "OFFSHOOT_CHAOS";
/// In the environment of workers.
pub(crate) const WORKER: &str = "OFFSHOOT_CHAOS_WORKER";

/// The daemons of an MPI among them.
pub(crate) fn daemons(token: &str) -> Vec<Process> {
    const NAMES: [&str; 6] = ["orted", "prte", "prted", "mpiexec", "mpiexec.hydra", "hydra_pmi_proxy"];
    let is_daemon = |process: &Process| {
        let name = fs::read_to_string(format!("/proc/{}/comm", process.id)).unwrap_or_default();
        // The kernel keeps 15 bytes of a name.
        NAMES.iter().any(|daemon| name.trim_end() == &daemon[..daemon.len().min(15)])
    };
    with(CHAOS, token).into_iter().filter(is_daemon).collect()
}

/// The segments of shared memory that these have mapped and that have a name.
pub(crate) fn shared_memory(processes: &[Process]) -> BTreeSet<String> {
    let maps =
        processes.iter().filter_map(|process| fs::read_to_string(format!("/proc/{}/maps", process.id)).ok());
    let is_shared = |line: &&str| line.contains(" /dev/shm/") && !line.ends_with(" (deleted)");
    let name = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
    maps.flat_map(|maps| maps.lines().filter(is_shared).map(name).collect::<Vec<_>>()).collect()
}
