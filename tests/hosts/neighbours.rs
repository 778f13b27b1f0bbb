//! Hosts that use MPI themselves, on a communicator that is none of ours.

use std::env;

use anyhow::{Context, bail, ensure};
use mpi::collective::SystemOperation;
use mpi::environment::{is_finalized, threading_support};
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
        Err(BuildError::ThreadLevel { provided, required }) => {
            ensure!(provided == level && required == "MPI_THREAD_MULTIPLE", "{provided}, {required}");
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
    let stage = Stage::new()?;
    let held = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let waiting: Vec<_> = (0..10).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    // Whether it waits for the worker, which is connected, is the MPI's business; that ends in a while.
    let release = stage.release("a");
    drop(universe);
    release?;
    ensure!(is_finalized(), "it is the host's to finalize");
    for (task, outcome) in [("held", result(held).map(drop))]
        .into_iter()
        .chain(waiting.into_iter().map(|handle| ("waiting", result(handle).map(drop))))
    {
        println!("{task}: {outcome:?}");
        ensure!(!matches!(outcome, Err(TaskError::TimedOut { .. })), "{task} has no end");
    }
    let isolated = Pool::builder().workers(0..=1).build()?;
    ensure!(isolated.stats().isolation() == Isolation::Isolated, "{:?}", isolated.stats());
    ensure!(result(isolated.submit(double(21))?)? == 42);
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
