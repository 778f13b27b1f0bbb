//! Pools from beginning to end, however that comes.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use offshoot::{BuildError, Pool, RejectReason, TaskError};
use rustix::process::{Signal, getpid, kill_process};

use crate::spawn::launchers;
use crate::support::{Stage, eventually, result};
use crate::tasks::{double, meet, pid, print_lines};

pub(crate) fn dropped_with_work_pending() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let stage = Stage::new()?;
    let running = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let waiting: Vec<_> = (0..50).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;

    let begun = Instant::now();
    drop(pool);
    ensure!(begun.elapsed() < Duration::from_secs(5), "the drop took {:?}", begun.elapsed());
    ensure!(result(running)? == "cancelled");
    for handle in waiting {
        match result(handle) {
            Err(TaskError::ShutDown { .. } | TaskError::Cancelled { .. }) => {}
            other => bail!("neither shut down nor cancelled, but {other:?}"),
        }
    }
    Ok(())
}

pub(crate) fn dropped_while_a_task_never_ends() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let stage = Stage::new()?;
    let endless = pool.submit(stage.never_end("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let begun = Instant::now();
    drop(pool);
    ensure!(begun.elapsed() < Duration::from_secs(10), "the drop took {:?}", begun.elapsed());
    // It had its grace.
    let end = result(endless);
    ensure!(matches!(end, Err(TaskError::Cancelled { .. })), "{end:?}");
    Ok(())
}

pub(crate) fn two_pools_one_after_the_other() -> anyhow::Result<()> {
    let mut workers = BTreeSet::new();
    for _ in 0..2 {
        let pool = Pool::builder().workers(0..=2).build()?;
        workers.insert(result(pool.submit(pid())?)?);
    }
    ensure!(workers.len() == 2, "the second pool has workers of its own");
    Ok(())
}

pub(crate) fn two_pools_at_once() -> anyhow::Result<()> {
    let one = Pool::builder().workers(0..=1).build()?;
    let other = Pool::builder().workers(0..=1).build()?;
    let stage = Stage::new()?;
    let held = one.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    // The other pool works while this one is busy, and its end leaves this one alone.
    ensure!(result(other.submit(double(21))?)? == 42);
    drop(other);
    stage.release("a")?;
    ensure!(result(held)? == "released");
    ensure!(result(one.submit(double(21))?)? == 42);
    Ok(())
}

pub(crate) fn grows_to_four_and_shrinks_to_none_twice() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=4).idle_timeout(Duration::from_millis(100)).build()?;
    for round in 1..=2 {
        // No task ends before all four run, each on a worker of its own.
        let folder = tempfile::tempdir()?;
        let meetings: Vec<_> =
            (0..4).map(|_| pool.submit(meet(folder.path().to_owned(), 4))).collect::<Result<_, _>>()?;
        let met: BTreeSet<u64> = meetings.into_iter().map(result).collect::<Result<_, _>>()?;
        ensure!(met.len() == 4, "only workers {met:?} met");
        eventually("all workers to leave", || pool.stats().workers() == 0)?;
        let stats = pool.stats();
        ensure!(stats.spawns == 4 * round && stats.spawn_failures == 0 && stats.losses == 0, "{stats:?}");
    }
    Ok(())
}

pub(crate) fn shutdown_finishes_everything() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).build()?;
    let clone = pool.clone();
    let handles: Vec<_> = (0..300).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    pool.shutdown();
    ensure!(handles.iter().all(|handle| handle.is_finished()));
    for (x, handle) in (0..).zip(handles) {
        ensure!(handle.wait()? == 2 * x);
    }
    ensure!(pool.stats().workers() == 0, "{:?}", pool.stats());

    match clone.submit(double(21)) {
        Err(error) => {
            ensure!(matches!(error.reason, RejectReason::Closed { .. }), "{error}");
            ensure!(error.call.args() == &(21,));
        }
        Ok(_) => bail!("a pool that was shut down took a task"),
    }
    let rejected = clone.map([double(21)]).next();
    ensure!(matches!(rejected, Some(Err(TaskError::Rejected { .. }))), "{rejected:?}");
    // Once more is harmless.
    clone.shutdown();
    Ok(())
}

pub(crate) fn shutdown_now_finishes_what_runs() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let stage = Stage::new()?;
    let running = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let waiting = pool.submit(double(1))?;
    pool.shutdown_now();
    ensure!(result(running)? == "cancelled");
    let waited = result(waiting);
    ensure!(matches!(waited, Err(TaskError::ShutDown { .. } | TaskError::Cancelled { .. })), "{waited:?}");
    Ok(())
}

pub(crate) fn exits_with_a_live_pool() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(2..=2).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    let _pending: Vec<_> = (0..50).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    process::exit(7)
}

/// What a worker wrote before its answer comes out, although nobody shuts the pool down.
pub(crate) fn exits_when_an_answer_is_there() -> anyhow::Result<()> {
    const LINES: usize = 2000;
    let pool = Pool::builder().workers(1..=1).build()?;
    let text: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
    result(pool.submit(print_lines(text, String::new()))?)?;
    process::exit(7)
}

pub(crate) fn panics_with_a_live_pool() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(2..=2).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    let _pending: Vec<_> = (0..50).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    panic!("this is the end of the host")
}

/// Ends itself in the way that is asked for, with so many workers that run a task, and names before what it and they
/// have of shared memory.
pub(crate) fn ends() -> anyhow::Result<()> {
    let way = env::args().nth(2).context("name a way")?;
    let workers: usize = env::args().nth(3).context("name a number of workers")?.parse()?;
    let pool = Pool::builder().workers(0..=2).idle_timeout(Duration::from_millis(50)).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    let stage = Stage::new()?;
    let names: Vec<_> = (0..workers).map(|at| at.to_string()).collect();
    let endless = |name: &String| pool.submit(stage.never_end(name)).map_err(|error| error.reason);
    let _running: Vec<_> = names.iter().map(endless).collect::<Result<_, _>>()?;
    let mut processes = vec![process::id().to_string()];
    for name in &names {
        processes.extend(stage.processes(name)?.map(|process| process.as_raw_nonzero().to_string()));
    }
    eventually("all others to leave", || pool.stats().workers() as usize == workers)?;
    for process in processes {
        let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
        let files = maps.lines().filter_map(|line| line.find("/dev/shm/").map(|at| &line[at..]));
        files.filter(|file| !file.ends_with(" (deleted)")).for_each(|file| println!("{file}"));
    }
    println!("the end is near");
    let launchers = launchers()?;
    // Nobody removes the folder of a host that is killed.
    drop(stage);
    let kill_launchers = || launchers.iter().try_for_each(|launcher| kill_process(*launcher, Signal::KILL));
    match way.as_str() {
        "drop" => drop(pool),
        "exit" => process::exit(7),
        "panic" => panic!("this is the end of the host"),
        "SIGTERM" => kill_process(getpid(), Signal::TERM)?,
        "SIGKILL" => kill_process(getpid(), Signal::KILL)?,
        "launcher" => kill_launchers()?,
        "launcher and host" => {
            kill_launchers()?;
            kill_process(getpid(), Signal::KILL)?;
        }
        other => bail!("there is no way `{other}`"),
    }
    Ok(())
}

pub(crate) fn without_init() -> anyhow::Result<()> {
    match Pool::builder().build() {
        Err(BuildError::NotInitialized) => Ok(()),
        other => bail!("built {other:?}"),
    }
}
