//! What a host has in use after many workers have come and gone, in order and not: no more than after a few.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mpi::environment::library_version;
use offshoot::{Pool, TaskError};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{eventually, result};
use crate::tasks::{double, never_end, pid};

/// Rounds before the first look: an MPI makes itself at home in its first spawns.
const WARM_UP: u64 = 5;
/// What it may grow by besides: pages are not given back at once.
const NOISE: u64 = 2 << 10;

/// Argument: how many workers are to come and go.
pub(crate) fn workers_that_retire_leave_nothing() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).idle_timeout(Duration::from_millis(1)).build()?;
    stay_flat(|round| {
        ensure!(result(pool.submit(double(21))?)? == 42, "round {round}");
        eventually("the worker to leave", || pool.stats().workers() == 0)?;
        // Open MPI 4.1 forgets a worker that connects in the moment in which it sees another one off.
        eventually("nothing to be left of it", || guards() == 0)
    })?;
    let stats = pool.stats();
    ensure!(stats.losses == 0, "{stats:?}");
    // Each round is a worker of its own.
    ensure!(stats.spawns >= rounds()?, "{stats:?}");
    pool.shutdown();
    Ok(())
}

/// Argument: how many workers are to be killed, half of them while they run a task.
pub(crate) fn workers_that_are_killed_leave_nothing() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let started = folder.path().join("started");
    let pool = Pool::builder().workers(0..=1).attempts_max(1).build()?;
    let mut killed = 0;
    stay_flat(|round| {
        let worker = i32::try_from(result(pool.submit(pid())?)?)?;
        let worker = Pid::from_raw(worker).context("it has an id")?;
        if round % 2 == 0 {
            kill_process(worker, Signal::KILL)?;
        } else {
            let endless = pool.submit(never_end(started.clone())).map_err(|error| error.reason)?;
            eventually("a task to start", || started.exists())?;
            kill_process(worker, Signal::KILL)?;
            match result(endless) {
                Err(TaskError::Lost { .. }) => {}
                other => bail!("not lost, but {other:?}"),
            }
            fs::remove_file(&started)?;
        }
        killed += 1;
        eventually("the loss to be noticed", || pool.stats().losses == killed)
    })?;
    pool.shutdown();
    Ok(())
}

/// What the host may grow by in a round, in KiB. An MPI keeps something of each spawn: a loop in C, of the same calls
/// and nothing else, grew by 200 KiB a spawn on Open MPI 4.1, and by 35 KiB on MPICH 5.
fn growth_max() -> u64 {
    if library_version().is_ok_and(|version| version.starts_with("Open MPI")) { 300 } else { 100 }
}

fn rounds() -> anyhow::Result<u64> {
    Ok(env::args().nth(2).context("how many rounds?")?.parse()?)
}

/// Goes through all rounds, and compares what is in use at the begin, in the middle, and at the end.
fn stay_flat(mut round: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let rounds = rounds()?;
    let mut inventory = Inventory::default();
    let (mut looks, begun) = (Vec::new(), Instant::now());
    let mut look = |inventory: &mut Inventory, when: &str| {
        let look = inventory.look()?;
        println!("{when}, after {:?}: {look}", begun.elapsed());
        looks.push(look);
        anyhow::Ok(())
    };
    for number in 0..WARM_UP + rounds {
        if number == WARM_UP {
            look(&mut inventory, "begin")?;
        } else if number == WARM_UP + rounds / 2 {
            look(&mut inventory, "middle")?;
        }
        round(number)?;
        inventory.note_shared_memory();
    }
    look(&mut inventory, "end")?;
    let [begin, middle, end] = &looks[..] else { bail!("it was looked three times") };
    for (what, of) in COUNTED {
        let counts = [of(begin), of(middle), of(end)];
        let descriptors = (&begin.descriptors, &end.descriptors);
        ensure!(counts[2] <= counts[0], "{what} grow: {counts:?}; descriptors: {descriptors:?}");
    }
    // The first half may still reach what the second one uses again.
    let half = rounds - rounds / 2;
    let grown = end.resident.saturating_sub(middle.resident);
    ensure!(grown <= NOISE + growth_max() * half, "{grown} KiB more after {half} rounds");
    Ok(())
}

/// A figure of a look.
type Count = fn(&Look) -> usize;

/// What is counted, and must not become more.
const COUNTED: [(&str, Count); 5] = [
    ("descriptors", |look| look.descriptors.len()),
    ("threads", |look| look.threads),
    ("processes", |look| look.processes),
    ("segments of shared memory", |look| look.segments),
    ("temporary files", |look| look.files),
];

/// What the host has in use at one moment, when no worker is there.
struct Look {
    descriptors: Vec<PathBuf>,
    threads: usize,
    /// KiB of memory.
    resident: u64,
    /// The host, and what the MPI has started and keeps.
    processes: usize,
    segments: usize,
    /// What lies in the folder for temporary files.
    files: usize,
    /// The same with all that lies below: Open MPI keeps something of every worker, in one folder, as long as its
    /// daemon lives.
    files_below: usize,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, threads, resident, processes, segments, files, files_below } = self;
        write!(
            f,
            "{} descriptors, {threads} threads, {resident} KiB, {processes} processes, {segments} \
             segments of shared memory, {files} temporary files, with all below {files_below}",
            descriptors.len(),
        )
    }
}

/// Sees what there is.
#[derive(Default)]
struct Inventory {
    /// Segments that processes of this host have had.
    segments: BTreeSet<PathBuf>,
}

impl Inventory {
    fn look(&mut self) -> anyhow::Result<Look> {
        // Workers, guards and what an MPI has started for them need a moment to leave, and so do connections to them. What
        // is only there at times, as a folder is while another thread reads it, does not count.
        let (mut count, mut links, mut since) = (usize::MAX, Vec::new(), Instant::now());
        eventually("all to leave that do", || {
            let now = descriptors();
            if processes().len() + now.len() < count {
                (count, since) = (processes().len() + now.len(), Instant::now());
                links = now;
            }
            since.elapsed() > Duration::from_millis(500)
        })?;
        self.note_shared_memory();
        let status = fs::read_to_string("/proc/self/status")?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
            anyhow::Ok(line.trim().trim_end_matches(" kB").parse::<u64>()?)
        };
        Ok(Look {
            descriptors: links,
            threads: usize::try_from(number("Threads:")?)?,
            resident: number("VmRSS:")?,
            processes: processes().len(),
            segments: self.segments.iter().filter(|segment| segment.exists()).count(),
            files: fs::read_dir(env::temp_dir())?.count(),
            files_below: files_below(&env::temp_dir()),
        })
    }

    fn note_shared_memory(&mut self) {
        let maps =
            processes().into_iter().filter_map(|process| fs::read_to_string(process.join("maps")).ok());
        let is_named = |line: &&str| line.contains(" /dev/shm/") && !line.ends_with(" (deleted)");
        let segment = |line: &str| line.split_whitespace().last().map(PathBuf::from);
        self.segments.extend(
            maps.flat_map(|maps| maps.lines().filter(is_named).filter_map(segment).collect::<Vec<_>>()),
        );
    }
}

/// The processes of this host, itself among them: they have its mark in their environment.
fn processes() -> Vec<PathBuf> {
    const MARK: &str = "OFFSHOOT_SCENARIO";
    let mark = format!("{MARK}={}", env::var(MARK).unwrap_or_default());
    let is_ours = |process: &PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(is_ours).collect()
}

/// What the descriptors of this process are of.
fn descriptors() -> Vec<PathBuf> {
    let links = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    links.filter_map(|link| fs::read_link(link.path()).ok()).collect()
}

/// How many guards there are, which are the first processes of a worker and the last.
fn guards() -> usize {
    let is_guard = |process: &PathBuf| {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == b"--offshoot-guard")
    };
    processes().iter().filter(|process| is_guard(process)).count()
}

fn files_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| 1 + if entry.path().is_symlink() { 0 } else { files_below(&entry.path()) }).sum()
}
