//! Hosts that use MPI themselves, on a communicator that is none of ours.

use std::env;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mpi::collective::SystemOperation;
use mpi::environment::{Universe, is_finalized, library_version, threading_support};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use mpi::{Threading, initialize_with_threading};
use offshoot::{BuildError, Containment, Isolation, Pool, TaskError};

use crate::support::{Stage, result};
use crate::tasks::double;

pub(crate) fn the_host_uses_mpi_too() -> anyhow::Result<()> {
    let (universe, provided) =
        initialize_with_threading(Threading::Multiple).context("MPI was not initialized before")?;
    ensure!(provided == Threading::Multiple, "this MPI provides only {provided:?}");
    let world = universe.world();
    add_up(&world)?;

    match Pool::builder().isolation(Isolation::Embedded).containment(Containment::Survivable).build() {
        Err(BuildError::Containment { has: Containment::Fast, .. }) => {}
        other => bail!("nothing is known of the host's own MPI, but {other:?}"),
    }
    let pool = Pool::builder().isolation(Isolation::Embedded).workers(0..=2).build()?;
    ensure!(pool.stats().containment() == Containment::Fast, "{:?}", pool.stats());
    let stage = Stage::new()?;
    let held = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    let handles: Vec<_> = (0..200).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    // Both threads are in MPI at once.
    for (x, handle) in (0..).zip(handles) {
        add_up(&world)?;
        ensure!(result(handle)? == 2 * x);
    }
    stage.release("a")?;
    ensure!(result(held)? == "released");
    drop(pool);

    ensure!(!is_finalized(), "the pool has finalized an MPI that is not its own");
    add_up(&world)?;
    drop(universe);
    ensure!(is_finalized(), "the host finalizes its MPI itself");
    match Pool::builder().isolation(Isolation::Embedded).build() {
        Err(BuildError::Finalized) => Ok(()),
        other => bail!("MPI is finalized, and a pool was built: {other:?}"),
    }
}

pub(crate) fn the_host_has_mpi_at_a_low_level() -> anyhow::Result<()> {
    let level = env::args().nth(2).context("name a thread level")?;
    let wanted = match level.as_str() {
        "MPI_THREAD_SINGLE" => Threading::Single,
        "MPI_THREAD_FUNNELED" => Threading::Funneled,
        "MPI_THREAD_SERIALIZED" => Threading::Serialized,
        other => bail!("{other} is not a low thread level"),
    };
    let (universe, _) = initialize_with_threading(wanted).context("MPI was not initialized before")?;
    ensure!(threading_support() == wanted, "this MPI provides {:?}", threading_support());
    match Pool::builder().isolation(Isolation::Embedded).build() {
        Err(error @ BuildError::ThreadLevel { .. }) => {
            let text = error.to_string();
            let words = [level.as_str(), "MPI_THREAD_MULTIPLE", "isolated()"];
            ensure!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        other => bail!("no complaint about {level}, but {other:?}"),
    }
    add_up(&universe.world())
}

/// Each handle resolves, nothing crashes, and another pool goes on in a parent of its own.
pub(crate) fn the_host_finalizes_mpi_under_a_pool() -> anyhow::Result<()> {
    let (universe, _) =
        initialize_with_threading(Threading::Multiple).context("MPI was not initialized before")?;
    let pool = Pool::builder().isolation(Isolation::Embedded).workers(0..=1).build()?;
    ensure!(result(pool.submit(double(1))?)? == 2);
    // MPICH leaves a lock locked if another thread is in a call while it begins to finalize, and aborts: there the pool
    // rests, and its thread sleeps.
    let is_mpich = library_version().is_ok_and(|version| version.starts_with("MPICH"));
    if is_mpich {
        thread::sleep(Duration::from_millis(300));
        drop(universe);
    } else {
        finalize_under_tasks(&pool, universe)?;
    }
    ensure!(is_finalized(), "it is the host's to finalize");
    ensure!(pool.submit(double(1)).is_err(), "the pool goes on without MPI");
    let isolated = Pool::builder().workers(0..=1).build()?;
    ensure!(isolated.stats().isolation() == Isolation::Isolated, "{:?}", isolated.stats());
    ensure!(result(isolated.submit(double(21))?)? == 42);
    Ok(())
}

/// What runs comes to its end, and what waits does not hang.
fn finalize_under_tasks(pool: &Pool, universe: Universe) -> anyhow::Result<()> {
    let stage = Stage::new()?;
    let held = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let waiting: Vec<_> = (0..10).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    let release = stage.release("a");
    drop(universe);
    release?;
    ensure!(result(held)? == "released");
    for handle in waiting {
        match result(handle) {
            Err(TaskError::ShutDown { .. } | TaskError::Cancelled { .. }) => {}
            other => bail!("it waited when MPI ended, and {other:?}"),
        }
    }
    Ok(())
}

pub(crate) fn the_host_has_finalized_mpi() -> anyhow::Result<()> {
    drop(initialize_with_threading(Threading::Multiple));
    match Pool::builder().isolation(Isolation::Embedded).build() {
        Err(BuildError::Finalized) => Ok(()),
        other => bail!("MPI is finalized, and a pool was built: {other:?}"),
    }
}

/// Something collective on the host's own communicator.
fn add_up(world: &SimpleCommunicator) -> anyhow::Result<()> {
    let mut sum = 0;
    world.all_reduce_into(&7, &mut sum, SystemOperation::sum());
    world.barrier();
    ensure!(world.size() == 1 && sum == 7, "the host's own MPI does not work: {sum}");
    Ok(())
}
