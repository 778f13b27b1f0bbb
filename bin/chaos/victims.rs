//! Finds processes by what their environment says, without asking the pool, and kills them.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::processes::{self, Process};

/// In the environment of everything that the host starts, and of the host: which chaos it belongs to.
pub(crate) const CHAOS: &str = "OFFSHOOT_CHAOS";
/// In the environment of workers.
pub(crate) const WORKER: &str = "OFFSHOOT_CHAOS_WORKER";

/// The processes that live and have this in their environment.
pub(crate) fn with(variable: &str, value: &str) -> Vec<Process> {
    let wanted = format!("{variable}={value}");
    let has_it = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.id)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
    };
    processes::all().filter(|process| !process.zombie && has_it(process)).collect()
}

/// The segments of shared memory that these have mapped and that have a name.
pub(crate) fn shared_memory(processes: &[Process]) -> BTreeSet<String> {
    let maps =
        processes.iter().filter_map(|process| fs::read_to_string(format!("/proc/{}/maps", process.id)).ok());
    let is_shared = |line: &&str| line.contains(" /dev/shm/") && !line.ends_with(" (deleted)");
    let name = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
    maps.flat_map(|maps| maps.lines().filter(is_shared).map(name).collect::<Vec<_>>()).collect()
}

/// Sends a signal. Whoever is gone already is no error.
pub(crate) fn kill(id: impl TryInto<i32>, signal: i32) {
    let process = id.try_into().ok().and_then(Pid::from_raw);
    if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(signal)) {
        let _ = kill_process(process, signal);
    }
}
