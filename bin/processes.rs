//! The processes of this machine, as `/proc` shows them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// A process, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) id: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// It has ended, and its parent has not asked how.
    pub(crate) zombie: bool,
    /// When it started: with its id, what no other process shares.
    pub(crate) started: u64,
}

impl PartialEq for Process {
    /// Whether it is the same process, perhaps at another moment.
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.started) == (other.id, other.started)
    }
}

/// All that are there.
pub(crate) fn all() -> impl Iterator<Item = Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: i32| parse(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?))
}

/// The processes that live and have this in their environment.
pub(crate) fn with(variable: &str, value: &str) -> Vec<Process> {
    let wanted = format!("{variable}={value}");
    let has_it = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.id)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
    };
    all().filter(|process| !process.zombie && has_it(process)).collect()
}

/// The isolated parents of this host that live.
pub(crate) fn isolated_parents(host: i32) -> Vec<Process> {
    let is_parent = |process: &Process| {
        let words = fs::read(format!("/proc/{}/cmdline", process.id)).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1).is_some_and(|word| word == b"--offshoot-parent")
    };
    all().filter(|process| process.parent == host && !process.zombie && is_parent(process)).collect()
}

/// Sends a signal. Whoever is gone already is no error.
pub(crate) fn kill(id: impl TryInto<i32>, signal: i32) {
    let process = id.try_into().ok().and_then(Pid::from_raw);
    if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(signal)) {
        let _ = kill_process(process, signal);
    }
}

/// Reads `/proc/ID/stat`. The name in its second column may hold anything, the last `)` ends it.
fn parse(id: i32, stat: &str) -> Option<Process> {
    let columns: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Process {
        id,
        zombie: matches!(*columns.first()?, "Z" | "X"),
        parent: columns.get(1)?.parse().ok()?,
        group: columns.get(2)?.parse().ok()?,
        started: columns.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_call_itself_anything() {
        let stat = "12 (a) b (c) S 3 4 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 8 9";
        let process = parse(12, stat).expect("it is well formed");
        assert_eq!((process.parent, process.group, process.started, process.zombie), (3, 4, 777, false));
    }
}
