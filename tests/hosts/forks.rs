//! Hosts that fork while they have a pool: what a child may do with it, by mistake or not, and that the pool does not notice.
#![allow(unsafe_code, reason = "no crate forks without it")]

use std::process;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use offshoot::{BuildError, Handle, Isolation, Pool, RejectReason, TaskError};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::support::{Stage, eventually, is_gone, result};
use crate::tasks::double;

/// A child, a copy of this process with this thread alone. It ends when `act` has returned, by `exit`: with 0 if all was well.
fn fork(act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Pid> {
    // SAFETY: the child goes on with one thread, which finds locks as they were at this moment. None of ours that it comes by is
    // held then, or else it hangs, and the test says so.
    match unsafe { libc::fork() } {
        0 => {
            let code = match act() {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("the child: {error:#}");
                    9
                }
            };
            process::exit(code)
        }
        child => Pid::from_raw(child).context("there is no child"),
    }
}

/// Its exit code. One that hangs is killed.
fn code(child: Pid) -> anyhow::Result<i32> {
    let mut status = None;
    let ended = eventually("the end of a child", || {
        status = waitpid(Some(child), WaitOptions::NOHANG).ok().flatten();
        status.is_some()
    });
    if ended.is_err() {
        kill_process(child, Signal::KILL)?;
        waitpid(Some(child), WaitOptions::empty())?;
    }
    ended?;
    let (_, status) = status.context("it has ended")?;
    status.exit_status().with_context(|| format!("it ended with {status:?}"))
}

/// Children that do nothing, that end as a process does, and that use what is not theirs; with tasks under way all the time.
pub(crate) fn the_host_forks() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(2..=2).build()?;
    let stage = Stage::new()?;
    let held = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let mut stream = pool.map((0..2000).map(double));
    ensure!(stream.next().context("there is a first")?? == 0);

    // SAFETY: as in `fork`; it does not even return.
    let still = match unsafe { libc::fork() } {
        // SAFETY: it ends the process, and runs nothing of it before.
        0 => unsafe { libc::_exit(3) },
        child => Pid::from_raw(child).context("there is no child")?,
    };
    let leaving = fork(|| Ok(()))?;
    let (mut held, mut stream) = (Some(held), Some(stream));
    let erring =
        fork(|| misuse(&pool, held.take().context("it is there")?, stream.take().into_iter().flatten()))?;
    ensure!((code(still)?, code(leaving)?, code(erring)?) == (3, 0, 0));

    // Nothing of all that has come here.
    let sum: Result<i64, TaskError> = stream.into_iter().flatten().sum();
    ensure!(sum? == 2000 * 1999, "the sum is wrong");
    stage.release("a")?;
    ensure!(result(held.context("it is there")?)? == "released");
    ensure!(result(pool.submit(double(21))?)? == 42);
    let stats = pool.stats();
    ensure!(stats.losses == 0 && stats.spawns == 2 && stats.parents <= 1, "{stats:?}");
    Ok(())
}

/// What a child gets that takes its copy of a pool for a pool.
fn misuse(
    pool: &Pool,
    held: Handle<String>,
    mut stream: impl Iterator<Item = Result<i64, TaskError>>,
) -> anyhow::Result<()> {
    match pool.submit(double(1)) {
        Err(error) => ensure!(error.reason == RejectReason::Forked, "{error}"),
        Ok(_) => bail!("a child's call was accepted"),
    }
    held.cancel();
    match held.wait() {
        Err(TaskError::PoolFailed { reason, .. }) => ensure!(reason.contains("forked"), "{reason}"),
        other => bail!("the handle of another process came to {other:?}"),
    }
    // What had come before the fork is there; what was under way is not, and nothing is taken in addition.
    match stream.find(Result::is_err) {
        Some(Err(
            TaskError::PoolFailed { .. } | TaskError::Rejected { reason: RejectReason::Forked, .. },
        )) => {}
        other => bail!("the stream of another process came to {other:?}"),
    }
    match pool.map([double(1)]).next() {
        Some(Err(TaskError::Rejected { reason: RejectReason::Forked, .. })) => {}
        other => bail!("a stream in a child came to {other:?}"),
    }
    pool.shutdown();
    if pool.stats().isolation() == Isolation::Embedded {
        match Pool::builder().isolation(Isolation::Embedded).build() {
            Err(BuildError::Forked) => {}
            other => bail!("a child without an MPI thread has a pool on it: {other:?}"),
        }
    }
    Ok(())
}

/// A child may have a pool of its own, in a parent of its own: that is what it gets if it leaves it open.
pub(crate) fn a_child_has_a_pool_of_its_own() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(1..=1).build()?;
    ensure!(result(pool.submit(double(1))?)? == 2);
    let child = fork(|| {
        let own = Pool::builder().workers(0..=1).build()?;
        ensure!(own.stats().isolation() == Isolation::Isolated, "{:?}", own.stats());
        ensure!(result(own.submit(double(21))?)? == 42);
        Ok(())
    })?;
    ensure!(code(child)? == 0);
    ensure!(result(pool.submit(double(3))?)? == 6);
    Ok(())
}

/// The host is killed, and a child of it lives on, with copies of all its descriptors.
pub(crate) fn a_host_with_a_child_is_killed() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(1..=1).build()?;
    let stage = Stage::new()?;
    let _running = pool.submit(stage.never_end("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    // On MPICH the guard waits for a last answer of the host's process manager, for up to three seconds.
    let [worker, _guard] = stage.processes("a")?;
    fork(move || {
        std::thread::sleep(Duration::from_secs(2));
        ensure!(is_gone(worker), "a child keeps {worker:?} alive");
        println!("it is gone");
        Ok(())
    })?;
    println!("the end is near");
    drop(stage);
    kill_process(
        process::id().try_into().ok().and_then(Pid::from_raw).context("it has an id")?,
        Signal::KILL,
    )?;
    Ok(())
}
