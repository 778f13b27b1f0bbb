//! Which processes belong to the line that runs, and how they are ended.
//!
//! A line is a shell in a process group of its own. Its descendants may leave the group (`setsid`) and
//! may lose their parent; so a worker is a *subreaper*: orphans become its children and stay in sight.
//! All descendants of the worker are then the line's, except those that earlier lines have left behind
//! on purpose, and that are to be left alone.
//!
//! The shell itself is not reaped before the others are gone: as long as it is there, if only as a
//! zombie, its id is not given to anybody else.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::process::{getpid, kill_process, kill_process_group, set_child_subreaper, wait, waitpid};

use crate::processes::{self, Process};

/// From the request to end to the order.
const GRACE: Duration = Duration::from_millis(1000);
/// How long processes that were killed may take to go; longer if the kernel holds them.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked who is still there.
const STEP: Duration = Duration::from_millis(20);

/// What a worker knows of its descendants.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// Left behind by earlier lines: process id and start time, which no other process shares.
    strangers: HashSet<(i32, u64)>,
    /// Their process groups, by which a child of theirs is known.
    stranger_groups: HashSet<i32>,
}

impl Family {
    /// Keeps orphans of this process's descendants in sight. What is there already belongs to no line.
    pub(crate) fn gather() -> Self {
        // It fails on kernels older than any that runs the rest of this.
        let _ = set_child_subreaper(Some(getpid()));
        let mut family = Self::default();
        family.part();
        family
    }

    /// Between two lines: reaps what has ended, and notes what lives on. That is a line's no longer.
    pub(crate) fn part(&mut self) {
        self.strangers.clear();
        self.stranger_groups.clear();
        let living = loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        // Hardly ever: most lines leave nothing.
        if living {
            for process in descendants(|_| true) {
                self.strangers.insert((process.id, process.started));
                self.stranger_groups.insert(process.group);
            }
        }
    }

    /// Ends all processes of the line whose shell is `leader`: asks them first, and orders after a
    /// grace. `meanwhile` is called again and again, to wait a little and to empty the line's pipes.
    pub(crate) fn end(&self, leader: Pid, mut meanwhile: impl FnMut(Duration)) {
        let asked = Instant::now();
        self.signal_all(leader, Signal::TERM);
        // One that is stopped would not hear of it.
        self.signal_all(leader, Signal::CONT);
        while !self.members(leader).is_empty() {
            let waited = asked.elapsed();
            if waited > GRACE + KILL_PATIENCE {
                return;
            }
            if waited > GRACE {
                // Again and again: one that forks meanwhile has children that were not there before.
                self.signal_all(leader, Signal::KILL);
            }
            meanwhile(STEP);
        }
    }

    fn signal_all(&self, leader: Pid, signal: Signal) {
        // The group in one go, then those that have left it. Whoever is gone already is no error.
        let _ = kill_process_group(leader, signal);
        let outside = |process: &Process| process.group != leader.as_raw_nonzero().get();
        for process in self.members(leader).into_iter().filter(outside) {
            if let Some(id) = Pid::from_raw(process.id) {
                let _ = kill_process(id, signal);
            }
        }
    }

    /// The processes of the line that live. Zombies that are this process's own are reaped by the way.
    fn members(&self, leader: Pid) -> Vec<Process> {
        let me = getpid().as_raw_nonzero().get();
        let mut members = descendants(|process| !self.is_stranger(process));
        for zombie in members.iter().filter(|process| process.zombie && process.parent == me) {
            if let Some(id) = Pid::from_raw(zombie.id).filter(|id| *id != leader) {
                let _ = waitpid(Some(id), WaitOptions::NOHANG);
            }
        }
        members.retain(|process| !process.zombie);
        members
    }

    fn is_stranger(&self, process: &Process) -> bool {
        self.strangers.contains(&(process.id, process.started))
            || self.stranger_groups.contains(&process.group)
    }
}

/// The descendants of this process; not the branches whose first process is not `wanted`.
fn descendants(wanted: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in processes::all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![getpid().as_raw_nonzero().get()];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).into_iter().flatten().filter(&wanted) {
            parents.push(child.id);
            found.push(child);
        }
    }
    found
}
