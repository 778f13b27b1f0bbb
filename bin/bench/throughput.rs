//! Many no-op tasks, beside as many messages of eight bytes and their answers, 64 under way to each worker.

use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use offshoot::Pool;

use super::figure::{Better, Sample};
use super::{raw, tasks};

/// What a pool holds by default.
pub(crate) const QUEUE_MIN: usize = 65_536;
/// Threads that submit at once.
const THREADS: u64 = 4;
/// Raw messages: their rate does not depend on how many there are.
const RAW_MAX: u64 = 100_000;

pub(crate) fn measure(workers: u32, count: u64) -> anyhow::Result<Vec<Sample>> {
    raw::initialize();
    let peers = raw::Workers::spawn(workers);
    let messages = count.min(RAW_MAX);
    peers.pings(messages / 10);
    let raw = messages as f64 / peers.pings(messages).as_secs_f64();
    peers.leave();

    // All of them wait in the pool at once: nobody who submits has to wait for room.
    let queue = usize::try_from(count)?.max(QUEUE_MIN);
    let pool = tasks::start(tasks::settings(workers).queue_max(queue), workers)?;
    map(&pool, count / 10)?;
    let rates = [
        ("map", rate(count, || map(&pool, count))?),
        ("submit", rate(count, || submit(&pool, count))?),
        ("submit-4-threads", rate(count, || submit_from_threads(&pool, count))?),
    ];
    pool.shutdown();
    raw::finalize();
    let sample = |(how, rate)| {
        let name = format!("throughput-{how}-{workers}w-{count}");
        Sample::new(name, "tasks/s", Better::Higher).ours([rate]).raw([raw])
    };
    Ok(rates.map(sample).to_vec())
}

pub(crate) fn rate(count: u64, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

pub(crate) fn map(pool: &Pool, count: u64) -> anyhow::Result<()> {
    for result in pool.map((0..count).map(|_| tasks::nothing())) {
        result?;
    }
    Ok(())
}

/// One by one, and then all are waited for.
fn submit(pool: &Pool, count: u64) -> anyhow::Result<()> {
    let handles: Result<Vec<_>, _> = (0..count).map(|_| pool.submit(tasks::nothing())).collect();
    for handle in handles? {
        handle.wait()?;
    }
    Ok(())
}

fn submit_from_threads(pool: &Pool, count: u64) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| submit(pool, count / THREADS))).collect();
        for thread in threads {
            thread.join().ok().context("a thread that submits panicked")??;
        }
        Ok(())
    })
}
