//! The processes through which an MPI spawns, children of this one: whether they live, and their end.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::decoy::SINGLETON_FLAG;
use super::family::Family;
use super::preflight::Job;
use super::prepare::prepared;
use super::scratch;
use crate::process::{self, Entry};

/// The launchers that this process has started.
#[derive(Debug, Default)]
pub(crate) struct Launchers {
    seen: BTreeMap<i32, String>,
}

impl Launchers {
    /// Looks which there are. A spawn may start one, and later ones go through it.
    pub(crate) fn look(&mut self) {
        let own = own_daemons(&process::processes());
        let living = own.into_iter().filter(|launcher| !launcher.has_ended);
        self.seen.extend(living.map(|launcher| (launcher.id, launcher.name)));
    }

    /// Whether one of those that were seen has ended, so that what waits for it waits in vain.
    pub(crate) fn loss(&self) -> Option<String> {
        let (id, name) = self.seen.iter().find(|(id, _)| process::has_ended(**id))?;
        Some(format!("its launcher `{name}` (process {id}) has ended"))
    }
}

/// Whether the end of the launcher would end this process, host or worker, by an event of PMIx, and is not to. A host that
/// the user has started through the launcher ends with it.
pub(crate) fn launcher_ends_process() -> bool {
    let is_of_job = prepared().is_some() && Job::of_this_process().is_some();
    !is_of_job && Family::of_this_process().is_some_and(|family| family.launcher.is_told_by_pmix)
}

/// Has the daemons that this process's MPI has started end after it. Only where that cannot be finalized, and
/// not before: a thread that is caught in MPI crashes when its launcher goes.
pub(crate) fn end_daemons() {
    let all = process::processes();
    let direct: Vec<_> = own_daemons(&all).into_iter().filter(|daemon| !daemon.has_ended).collect();
    let family = prepared().and_then(|prepared| prepared.family);
    let is_hydra = family.is_some_and(|family| family.launcher.needs_decoy);
    let mut victims: Vec<i32> = Vec::new();
    if is_hydra {
        // A hydra that is left to notice by itself kills whole process groups. It stands still until what it
        // watches has been killed, or it would act on that.
        for launcher in direct.iter().filter_map(|launcher| Pid::from_raw(launcher.id)) {
            // It may have ended by itself.
            let _ = kill_process(launcher, Signal::STOP);
        }
        let is_direct = |id| direct.iter().any(|launcher| launcher.id == id);
        let proxies = all.iter().filter(|process| is_direct(process.parent) && is_daemon(&process.name));
        victims.extend(proxies.map(|proxy| proxy.id));
    }
    victims.extend(direct.iter().map(|launcher| launcher.id));
    let folders = scratch::launcher_folders();
    if victims.is_empty() {
        // They have ended by themselves, or have been killed.
        folders.iter().for_each(|folder| scratch::remove_launcher_folder(folder));
    } else {
        // Others have files to remove.
        process::kill_after_this_process(&victims, !is_hydra, &folders);
    }
}

/// In the argument list of a launcher that serves one process, started plainly, and nobody else (Open MPI 4, `orted`).
const SINGLETONS: &[u8] = b"--singleton-died-pipe";
/// How long a process that was killed may take to go.
const DEATH: Duration = Duration::from_millis(200);

/// In a guard whose host is dead, and whose worker is: ends the launcher that has started it, if that was the host's
/// alone. Left to itself it goes too, but waits for a whole second in between.
pub(super) fn end_widowed_launcher() {
    let launcher = rustix::process::getppid().filter(|launcher| serves_one(launcher.as_raw_nonzero().get()));
    launcher.into_iter().for_each(kill_launcher);
}

/// In a host that has finalized MPI and lost workers before: ends its launcher, if that is its alone. Left to itself it sleeps
/// for two seconds if it learns of the host's end before it has taken note of all that were lost.
pub(crate) fn end_useless_launcher() {
    let own = own_daemons(&process::processes());
    let launchers = own.iter().filter(|launcher| !launcher.has_ended && serves_one(launcher.id));
    let launchers: Vec<_> = launchers.filter_map(|launcher| Pid::from_raw(launcher.id)).collect();
    // In a job the folder is that of the job's launcher.
    if launchers.is_empty() {
        return;
    }
    launchers.into_iter().for_each(kill_launcher);
    scratch::launcher_folders().iter().for_each(|folder| scratch::remove_launcher_folder(folder));
}

fn serves_one(launcher: i32) -> bool {
    let words = fs::read(format!("/proc/{launcher}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == SINGLETONS)
}

fn kill_launcher(launcher: Pid) {
    // Somebody else may have done so.
    let _ = kill_process(launcher, Signal::KILL);
    let until = Instant::now() + DEATH;
    while !process::has_ended(launcher.as_raw_nonzero().get()) && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The daemons among this process's children.
fn own_daemons(all: &[Entry]) -> Vec<Entry> {
    let own = std::process::id();
    let is_own = |process: &&Entry| u32::try_from(process.parent) == Ok(own);
    let is_ours = |process: &&Entry| is_daemon(&process.name) && is_for_spawns(process.id);
    all.iter().filter(is_own).filter(is_ours).cloned().collect()
}

/// Whether a launcher is the one that this process's spawns go through, not one of a job that the user has
/// started from here.
fn is_for_spawns(id: i32) -> bool {
    let family = prepared().and_then(|prepared| prepared.family);
    if !family.is_some_and(|family| family.launcher.needs_decoy) {
        // `orted` and `prte` are nothing else: jobs are started with `mpirun`.
        return true;
    }
    let words = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| word == SINGLETON_FLAG.as_bytes())
}

fn is_daemon(name: &str) -> bool {
    let family = prepared().and_then(|prepared| prepared.family);
    // The kernel keeps 15 bytes of a name.
    let is_called =
        |daemon: &&str| daemon.starts_with(name) && (name.len() >= 15 || daemon.len() == name.len());
    family.is_some_and(|family| family.launcher.daemons.iter().any(is_called))
}
