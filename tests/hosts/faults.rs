//! Tasks and initializers that go wrong.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use offshoot::{Limit, Pool, TaskError};

use crate::support::{Stage, result};
use crate::tasks::{die, double, enter, fail_with_causes, open_ledger, panic_with, pid};

pub(crate) fn a_worker_dies() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).attempts_max(2).build()?;
    let stage = Stage::new()?;
    let bystander = pool.submit(stage.hold("bystander")).map_err(|error| error.reason)?;
    stage.await_start("bystander")?;
    for way in ["SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT", "exit(3)", "exit(0)"] {
        let told = if way.starts_with("SIG") {
            way.to_owned()
        } else {
            way.replace("exit(", "code ").replace(')', "")
        };
        match result(pool.submit(die(way.to_owned()))?) {
            Err(TaskError::Lost { attempts: 2, reason, .. }) => {
                ensure!(reason.contains(&told), "{way}: {reason}")
            }
            other => bail!("{way}: not lost, but {other:?}"),
        }
        ensure!(result(pool.submit(double(21))?)? == 42, "{way}: the pool goes on");
    }
    stage.release("bystander")?;
    result(bystander)?;
    ensure!(pool.stats().losses == 12, "{:?}", pool.stats());
    Ok(())
}

/// Cancelled, over its time, past its deadline: a task that does not look is ended with its worker, which costs
/// those behind it nothing.
pub(crate) fn a_task_does_not_stop() -> anyhow::Result<()> {
    let grace = Duration::from_millis(200);
    let pool = Pool::builder().workers(1..=1).attempts_max(1).stop_grace(grace).build()?;
    let stage = Stage::new()?;
    let mut workers = vec![result(pool.submit(pid())?)?];
    for (kills, way) in (1..).zip(["cancel", "timeout", "deadline"]) {
        let endless = stage.never_end(way);
        let endless = match way {
            "timeout" => endless.timeout(Duration::from_millis(300)),
            "deadline" => endless.deadline(Instant::now() + Duration::from_millis(300)),
            _ => endless,
        };
        let running = pool.submit(endless).map_err(|error| error.reason)?;
        stage.await_start(way)?;
        let behind = pool.submit(pid())?;
        let begun = Instant::now();
        if way == "cancel" {
            running.cancel();
        }
        match (way, result(running)) {
            ("cancel", Err(TaskError::Cancelled { .. })) => {}
            ("timeout", Err(TaskError::Overdue { limit: Limit::Timeout, .. })) => {}
            ("deadline", Err(TaskError::Overdue { limit: Limit::Deadline, .. })) => {}
            (_, other) => bail!("{way}: {other:?}"),
        }
        ensure!(begun.elapsed() >= grace, "{way}: it had no grace");
        let replacement = result(behind)?;
        ensure!(!workers.contains(&replacement), "{way}: its worker lives");
        workers.push(replacement);
        let stats = pool.stats();
        ensure!(stats.kills == kills && stats.losses == 0, "{way}: {stats:?}");
    }
    Ok(())
}

pub(crate) fn a_task_that_may_run_once_is_lost_once() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).build()?;
    for (call, expected) in [(die("SIGKILL".to_owned()).idempotent(false), 1), (die("SIGKILL".to_owned()), 3)]
    {
        match result(pool.submit(call)?) {
            Err(TaskError::Lost { attempts, .. }) => ensure!(attempts == expected, "tried {attempts} times"),
            other => bail!("not lost, but {other:?}"),
        }
    }
    Ok(())
}

/// What a task does to its own MPI.
pub(crate) fn a_task_calls_mpi_abort() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).attempts_max(2).build()?;
    let stage = Stage::new()?;
    let bystander = pool.submit(stage.hold("bystander")).map_err(|error| error.reason)?;
    stage.await_start("bystander")?;
    match result(pool.submit(die("MPI_Abort".to_owned()))?) {
        Err(TaskError::Lost { attempts: 2, reason, .. }) => println!("{reason}"),
        other => bail!("not lost, but {other:?}"),
    }
    ensure!(result(pool.submit(double(21))?)? == 42, "the pool goes on");
    stage.release("bystander")?;
    result(bystander)?;
    ensure!(pool.stats().losses == 2, "{:?}", pool.stats());
    Ok(())
}

pub(crate) fn a_task_panics() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let worker = result(pool.submit(pid())?)?;
    match result(pool.submit(panic_with("the bottom fell out".to_owned()))?) {
        Err(TaskError::Panicked { origin, message, location }) => {
            ensure!(message == "the bottom fell out");
            ensure!(origin.name.ends_with("::panic_with") && origin.place.is_some(), "{origin}");
            // File, line and column.
            let location = location.unwrap_or_default();
            ensure!(location.starts_with("tests/hosts/tasks.rs:"), "{location}");
            ensure!(
                location.split(':').filter(|part| part.parse::<u32>().is_ok()).count() == 2,
                "{location}"
            );
        }
        other => bail!("no panic, but {other:?}"),
    }
    ensure!(result(pool.submit(pid())?)? == worker, "the worker goes on");
    ensure!(pool.stats().losses == 0);
    Ok(())
}

pub(crate) fn a_task_fails_with_causes() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let error = result(pool.submit(fail_with_causes())?);
    match &error {
        Err(TaskError::Failed { origin, causes }) => {
            ensure!(causes == &["no answer today", "the table cannot be read", "the disk is on fire"]);
            ensure!(origin.place.is_some());
        }
        other => bail!("no failure, but {other:?}"),
    }
    ensure!(result(pool.submit(double(21))?)? == 42);
    Ok(())
}

pub(crate) fn an_initializer_fails() -> anyhow::Result<()> {
    initializer_ends_in(fail_with_causes(), &["no answer today", "the disk is on fire"])
}

pub(crate) fn an_initializer_panics() -> anyhow::Result<()> {
    initializer_ends_in(
        panic_with("not today".to_owned()),
        &["panicked", "not today", "tests/hosts/tasks.rs"],
    )
}

fn initializer_ends_in<T: offshoot::Task>(call: offshoot::Call<T>, words: &[&str]) -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).initializer(call).build()?;
    let handles: Vec<_> = (0..5).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    for handle in handles {
        match result(handle) {
            Err(TaskError::SpawnFailed { reason, .. }) => {
                ensure!(words.iter().all(|word| reason.contains(word)), "{reason}");
            }
            other => bail!("no failed spawn, but {other:?}"),
        }
    }
    // Some tries, not a storm.
    let stats = pool.stats();
    ensure!(stats.spawns <= 6 && stats.spawn_failures == stats.spawns, "{stats:?}");
    Ok(())
}

pub(crate) fn an_initializer_leaves_its_state() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).initializer(open_ledger("accounts".to_owned())).build()?;
    for entries in 1..=3 {
        ensure!(result(pool.submit(enter())?)? == ("accounts".to_owned(), entries));
    }
    Ok(())
}
