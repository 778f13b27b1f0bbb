//! The processes through which an MPI spawns, children of this one: whether they live, and their end.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::prepare::prepared;

/// One process, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    name: String,
    ended: bool,
}

/// The launchers that this process has started, as they were seen last.
#[derive(Debug, Default)]
pub(crate) struct Launchers {
    seen: BTreeMap<i32, String>,
    /// How often in a row one of them was missed.
    missed: u32,
}

impl Launchers {
    /// Whether a launcher that was there has gone, so that a spawn that waits for it waits in vain. Ask
    /// again and again: one that is gone twice in a row counts.
    pub(crate) fn loss(&mut self) -> Option<String> {
        let children = own_daemons(&processes());
        let is_alive = |id: &i32| children.iter().any(|child| child.id == *id && !child.ended);
        let lost = self.seen.iter().find(|(id, _)| !is_alive(id)).map(|(id, name)| (*id, name.clone()));
        // One that this look sees for the first time, ended, has ended as well.
        let lost = lost.or_else(|| {
            children.iter().find(|child| child.ended).map(|child| (child.id, child.name.clone()))
        });
        self.missed = if lost.is_some() { self.missed + 1 } else { 0 };
        let living = children.iter().filter(|child| !child.ended);
        self.seen.extend(living.map(|child| (child.id, child.name.clone())));
        let (id, name) = lost.filter(|_| self.missed >= 2)?;
        Some(format!("its launcher `{name}` (process {id}) has ended"))
    }
}

/// Kills the daemons that this process's MPI has started. Only when it cannot be finalized: a hydra that is
/// left to notice by itself kills this process's whole group.
pub(crate) fn kill_daemons() {
    let all = processes();
    let direct = own_daemons(&all);
    let signal = |process: &Process, signal| {
        if let Some(id) = Pid::from_raw(process.id) {
            let _ = kill_process(id, signal);
        }
    };
    // The launcher stands still while what it watches is killed, or it would act on that.
    direct.iter().for_each(|launcher| signal(launcher, Signal::STOP));
    let is_direct = |id| direct.iter().any(|launcher| launcher.id == id);
    all.iter()
        .filter(|process| is_direct(process.parent) && is_daemon(&process.name))
        .for_each(|proxy| signal(proxy, Signal::KILL));
    direct.iter().for_each(|launcher| signal(launcher, Signal::KILL));
}

/// The daemons among this process's children.
fn own_daemons(all: &[Process]) -> Vec<Process> {
    let own = std::process::id();
    let is_own = |process: &&Process| u32::try_from(process.parent) == Ok(own);
    all.iter().filter(is_own).filter(|process| is_daemon(&process.name)).cloned().collect()
}

fn is_daemon(name: &str) -> bool {
    let family = prepared().and_then(|prepared| prepared.family);
    // The kernel keeps 15 bytes of a name.
    let is_called =
        |daemon: &&str| daemon.starts_with(name) && (name.len() >= 15 || daemon.len() == name.len());
    family.is_some_and(|family| family.launcher.daemons.iter().any(|daemon| is_called(&daemon)))
}

fn processes() -> Vec<Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: i32| parse(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?)).collect()
}

/// Reads `/proc/ID/stat`. The name in its second column may hold anything, the last `)` ends it.
fn parse(id: i32, stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let mut columns = after.split_ascii_whitespace();
    Some(Process {
        id,
        name: before.split_once('(')?.1.to_owned(),
        ended: matches!(columns.next()?, "Z" | "X"),
        parent: columns.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_process_table_is_understood() {
        let process = parse(12, "12 (hydra (x) proxy) Z 3 4 5 0 -1").expect("it is well formed");
        let expected = Process { id: 12, parent: 3, name: "hydra (x) proxy".to_owned(), ended: true };
        assert_eq!(process, expected);
        assert_eq!(parse(12, "nonsense"), None);
    }
}
