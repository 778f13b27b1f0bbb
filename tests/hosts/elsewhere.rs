//! Workers on other hosts, and how many of them. `scripts/fake-hosts.sh` and the test set the scene.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use offshoot::{BuildError, Pool, SlotsError, Source, TaskError};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Stage, eventually, is_gone, result};
use crate::tasks::{double, meet_at};

pub(crate) fn tasks_run_on_two_hosts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |text: &str| {
        let path = folder.path().join("hosts");
        fs::write(&path, text).map(|()| path)
    };
    let two = file("h1 slots=1\nh2:2 # the other spelling\n")?;
    let version = mpi::environment::library_version().unwrap_or_default();
    if version.starts_with("Open MPI v5") || version.starts_with("Intel") {
        match Pool::builder().hostfile(two).build() {
            Err(BuildError::Slots(error @ SlotsError::OwnHostOnly { .. })) => println!("refused: {error}"),
            other => bail!("not refused, but {other:?}"),
        }
        return Ok(());
    }

    match Pool::builder().hostfile(&two).workers(0..=4).build() {
        Err(BuildError::Slots(SlotsError::TooMany { workers: 4, slots: 3, .. })) => {}
        other => bail!("four workers are too many, but {other:?}"),
    }
    match Pool::builder().hostfile(file("h1\nh3\n")?).build() {
        Err(BuildError::Preflight(finding)) => {
            ensure!(finding.found.contains("`h3`"), "{finding}");
            ensure!(finding.remedy.as_ref().is_some_and(|remedy| remedy.contains("h3 true`")), "{finding}");
        }
        other => bail!("h3 does not answer, but {other:?}"),
    }

    let pool = Pool::builder().hostfile(file("h1 slots=1\nh2:2\n")?).build()?;
    ensure!(pool.workers_max() == 3 && pool.slots().total() == 3);
    ensure!(matches!(pool.workers_max_source(), Source::HostFile(_)), "{:?}", pool.workers_max_source());
    let expected = BTreeMap::from([("h1".to_owned(), 1), ("h2".to_owned(), 2)]);
    let begun = Instant::now();
    ensure!(hosts_that_meet(&pool, &folder.path().join("first"), None)? == expected);
    println!("three workers after {:?}", begun.elapsed());
    ensure!(!stands_in_an_argument_list(&env::var("OFFSHOOT_SECRET")?)?, "others can read the secret");

    let begun = Instant::now();
    for (x, doubled) in pool.map((0..2000).map(double)).enumerate() {
        ensure!(doubled? == 2 * x as i64);
    }
    println!("2000 tasks in {:?}", begun.elapsed());

    let begun = Instant::now();
    ensure!(hosts_that_meet(&pool, &folder.path().join("second"), Some("h2".to_owned()))? == expected);
    println!("a worker replaced after {:?}", begun.elapsed());
    let stats = pool.stats();
    ensure!(stats.losses == 1 && stats.spawns == 4, "{stats:?}");
    pool.shutdown();
    Ok(())
}

/// A cable is cut: the worker behind it is lost in time, and ends itself, while a slow one is left alone.
pub(crate) fn a_silent_host_is_lost() -> anyhow::Result<()> {
    let version = mpi::environment::library_version().unwrap_or_default();
    if version.starts_with("Open MPI v5") || version.starts_with("Intel") {
        println!("refused on this MPI");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "h1 slots=1\nh2 slots=1\n")?;
    let timeout = Duration::from_secs(2);
    let builder = Pool::builder().hostfile(&hosts).attempts_max(1).heartbeat_timeout(timeout);
    let pool = builder.build()?;
    let stage = Stage::new()?;
    // The two hosts share the file system.
    let bystander = pool.submit(stage.hold("here")).map_err(|error| error.reason)?;
    stage.await_start("here")?;
    let far = pool.submit(stage.never_end("there")).map_err(|error| error.reason)?;
    let [worker, guard] = stage.processes("there")?;
    let (worker, guard) = (seen_from_here(worker)?, seen_from_here(guard)?);

    // A worker that stands still is slow, and no more.
    kill_process(worker, Signal::STOP)?;
    thread::sleep(2 * timeout);
    ensure!(!far.is_finished() && pool.stats().losses == 0, "a slow worker was lost");
    kill_process(worker, Signal::CONT)?;

    let cable = |state: &str| -> anyhow::Result<()> {
        let status = Command::new("ip").args(["link", "set", "eth0", state]).status()?;
        ensure!(status.success(), "the cable cannot be put {state}");
        Ok(())
    };
    let begun = Instant::now();
    cable("down")?;
    let lost = result(far);
    let took = begun.elapsed();
    eventually("the worker to end itself", || is_gone(worker))?;
    let ended = begun.elapsed();
    cable("up")?;
    match lost {
        Err(TaskError::Lost { reason, .. }) => {
            ensure!(reason.contains("nothing was heard at h2 for 2s"), "{reason}")
        }
        other => bail!("not lost, but {other:?}"),
    }
    println!("lost after {took:?}, and ended after {ended:?}, with a timeout of {timeout:?}");
    ensure!(took > timeout / 2 && took < timeout + Duration::from_secs(1), "it took {took:?}");
    ensure!(ended < timeout + Duration::from_secs(2), "its worker ended after {ended:?}");
    eventually("its guard to end", || is_gone(guard))?;
    stage.release("here")?;
    ensure!(result(bystander)? == "released");
    Ok(())
}

/// A process of the other host, as this one numbers it.
fn seen_from_here(process: Pid) -> anyhow::Result<Pid> {
    let theirs = process.to_string();
    for folder in fs::read_dir("/proc")?.flatten() {
        let status = fs::read_to_string(folder.path().join("status")).unwrap_or_default();
        let Some(ids) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else { continue };
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.len() > 1 && ids.last() == Some(&&*theirs) {
            return Pid::from_raw(ids[0].parse()?).context("it has an id");
        }
    }
    bail!("process {process} of the other host is not seen")
}

/// How many workers each host has when three are there at once.
fn hosts_that_meet(
    pool: &Pool,
    folder: &Path,
    victim: Option<String>,
) -> anyhow::Result<BTreeMap<String, u32>> {
    fs::create_dir(folder)?;
    let meet = |_| pool.submit(meet_at(folder.to_owned(), 3, victim.clone()));
    let handles: Vec<_> = (0..3).map(meet).collect::<Result<_, _>>()?;
    let mut hosts = BTreeMap::new();
    for handle in handles {
        *hosts.entry(result(handle)?).or_insert(0) += 1;
    }
    Ok(hosts)
}

/// Whether a process of either host has this in its arguments. Here the processes of h2 are seen too.
fn stands_in_an_argument_list(secret: &str) -> anyhow::Result<bool> {
    ensure!(secret.len() == 32);
    let folders = fs::read_dir("/proc")?.flatten();
    let mut lists = folders.filter_map(|folder| fs::read(folder.path().join("cmdline")).ok());
    Ok(lists.any(|list| list.windows(secret.len()).any(|part| part == secret.as_bytes())))
}

/// The test has set the variables of Slurm to three cores on this host, in a step that has one task.
pub(crate) fn slots_come_from_slurm() -> anyhow::Result<()> {
    let pool = Pool::builder().build()?;
    ensure!(pool.workers_max() == 3 && pool.workers_max_source() == &Source::Slurm, "{:?}", pool.slots());
    ensure!(!pool.slots().has_other_hosts(), "{:?}", pool.slots());
    match Pool::builder().workers(0..=4).build() {
        Err(BuildError::Slots(error @ SlotsError::TooMany { .. })) => {
            ensure!(error.to_string().contains("oversubscribe"), "{error}");
        }
        other => bail!("four workers are too many, but {other:?}"),
    }
    let pool = Pool::builder().workers(0..=4).oversubscribe(true).build()?;
    ensure!(pool.workers_max() == 4 && pool.workers_max_source() == &Source::User);
    Ok(())
}
