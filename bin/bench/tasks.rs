//! What workers do while they are measured, and the pool that they are in.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use offshoot::{Builder, Pool};
use serde_bytes::ByteBuf;

/// How long workers may take until all are ready.
const READY_LIMIT: Duration = Duration::from_secs(100);

offshoot::tasks! {
    in "offshoot bench";

    /// The least that there is to do.
    pub(crate) fn nothing() {
        Ok(())
    }

    /// Sends bytes back.
    pub(crate) fn echo_bytes(bytes: ByteBuf) -> ByteBuf {
        Ok(bytes)
    }

    /// Sends numbers back.
    pub(crate) fn echo_numbers(numbers: Vec<f64>) -> Vec<f64> {
        Ok(numbers)
    }
}

/// The settings of a pool with so many workers, however few cores there are.
pub(crate) fn settings(workers: u32) -> Builder {
    Pool::builder().workers(workers..=workers).oversubscribe(true)
}

/// A pool with so many workers, all of them ready and asked once.
pub(crate) fn pool(workers: u32) -> anyhow::Result<Pool> {
    start(settings(workers), workers)
}

pub(crate) fn start(settings: Builder, workers: u32) -> anyhow::Result<Pool> {
    let pool = settings.build()?;
    pool.submit(nothing())?.wait()?;
    await_workers(&pool, workers)?;
    Ok(pool)
}

/// Waits until so many workers are ready.
pub(crate) fn await_workers(pool: &Pool, workers: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    while pool.stats().workers_ready() < workers {
        ensure!(begun.elapsed() < READY_LIMIT, "of {workers} workers not all came: {:?}", pool.stats());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// One no-op task, there and back.
pub(crate) fn round_trip(pool: &Pool) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    pool.submit(nothing())?.wait().context("a task that does nothing failed")?;
    Ok(begun.elapsed())
}
