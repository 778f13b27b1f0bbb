//! Finds processes by what their environment says, without asking the pool, and kills them.

use std::collections::BTreeSet;
use std::fs;

/// In the environment of everything that the host starts, and of the host: which chaos it belongs to.
pub(crate) const CHAOS: &str = "OFFSHOOT_CHAOS";
/// In the environment of workers.
pub(crate) const WORKER: &str = "OFFSHOOT_CHAOS_WORKER";

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) parent: u32,
}

/// The processes that live and have this in their environment.
pub(crate) fn with(variable: &str, value: &str) -> Vec<Process> {
    let wanted = format!("{variable}={value}");
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = listed.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
    })
    .filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let mut columns = stat.rsplit(')').next()?.split_whitespace();
        let is_dead = columns.next()? == "Z";
        let parent = columns.next()?.parse().ok()?;
        (!is_dead).then_some(Process { id, parent })
    })
    .collect()
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
pub(crate) fn kill(id: u32, signal: i32) {
    use rustix::process::{Pid, Signal, kill_process};
    let process = i32::try_from(id).ok().and_then(Pid::from_raw);
    if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(signal)) {
        let _ = kill_process(process, signal);
    }
}
