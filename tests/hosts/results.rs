//! Results as they are taken: streams, handles in order of completion, cancelled tasks, a full pool.

use anyhow::{Context, bail, ensure};
use offshoot::{Pool, RejectReason, TaskError, as_completed};

use crate::support::{Stage, result};
use crate::tasks::double;

pub(crate) fn streams_in_order_and_not() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(2..=2).build()?;

    let ordered: Vec<i64> = pool.map((0..500).map(double)).collect::<Result<_, _>>()?;
    ensure!(ordered == (0..500).map(|x| 2 * x).collect::<Vec<_>>());

    let mut unordered: Vec<i64> = pool.map((0..500).map(double)).unordered().collect::<Result<_, _>>()?;
    unordered.sort_unstable();
    ensure!(unordered == ordered);

    // The first task is released only when the result of the second has come: no order could do that.
    let stage = Stage::new()?;
    stage.release("second")?;
    let mut results = pool.map(["first", "second"].map(|name| stage.hold(name))).unordered();
    results.next().context("the second result")??;
    ensure!(stage.has_started("second"));
    stage.release("first")?;
    results.next().context("the first result")??;
    ensure!(results.next().is_none());
    Ok(())
}

pub(crate) fn an_endless_stream() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).build()?;
    let doubled: Vec<i64> = pool.map((0..).map(double)).take(1000).collect::<Result<_, _>>()?;
    ensure!(doubled == (0..1000).map(|x| 2 * x).collect::<Vec<_>>());
    // What the stream had under way is cancelled with it; the pool goes on.
    ensure!(pool.submit(double(21))?.wait()? == 42);
    Ok(())
}

pub(crate) fn handles_as_they_complete() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(3..=3).build()?;
    let stage = Stage::new()?;
    let names = ["a", "b", "c"];
    let handles = names.map(|name| pool.submit(stage.hold(name)).map_err(|error| error.reason));
    let handles = handles.into_iter().collect::<Result<Vec<_>, _>>()?;
    let tasks: Vec<_> = handles.iter().map(|handle| handle.task()).collect();

    let mut completed = as_completed(handles);
    for index in [2, 0, 1] {
        stage.release(names[index])?;
        let handle = completed.next().context("another handle")?;
        ensure!(handle.task() == tasks[index] && handle.wait()? == "released");
    }
    ensure!(completed.next().is_none());
    Ok(())
}

pub(crate) fn a_full_pool_gives_the_call_back() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).queue_max(2).build()?;
    let stage = Stage::new()?;
    let held = pool.try_submit(stage.hold("a")).map_err(|error| error.reason)?;
    let waiting = pool.try_submit(double(1))?;
    match pool.try_submit(double(21)) {
        Err(error) => {
            ensure!(error.reason == RejectReason::Full { limit: 2 }, "{error}");
            ensure!(error.call.args() == &(21,));
        }
        Ok(_) => bail!("a full pool took a task"),
    }
    stage.release("a")?;
    ensure!(result(held)? == "released");
    ensure!(result(waiting)? == 2);
    ensure!(result(pool.submit(double(21))?)? == 42);
    Ok(())
}

pub(crate) fn a_waiting_task_is_cancelled() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let stage = Stage::new()?;
    let running = pool.submit(stage.hold("running")).map_err(|error| error.reason)?;
    stage.await_start("running")?;
    let waiting = pool.submit(stage.hold("waiting")).map_err(|error| error.reason)?;
    let last = pool.submit(double(1))?;

    let task = waiting.task();
    waiting.cancel();
    stage.release("running")?;
    ensure!(result(running)? == "released");
    match result(waiting) {
        Err(TaskError::Cancelled { origin }) => ensure!(origin.task == task),
        other => bail!("not cancelled, but {other:?}"),
    }
    ensure!(!stage.has_started("waiting"));
    ensure!(result(last)? == 2);
    Ok(())
}

pub(crate) fn a_running_task_is_cancelled() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let stage = Stage::new()?;
    let running = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    running.cancel();
    // It noticed, and ended as it saw fit.
    ensure!(result(running)? == "cancelled");
    ensure!(result(pool.submit(double(1))?)? == 2);
    Ok(())
}
