//! What a wall costs: the same work on a pool whose MPI is in a parent of its own, beside one whose MPI is in this process.
//! Here `raw` is the embedded pool.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use offshoot::{Isolation, Pool};
use serde_bytes::ByteBuf;

use super::figure::{Better, Sample};
use super::{bandwidth, latency, tasks, throughput};
use crate::processes;

/// One after the other, so that the pool that is not measured sleeps.
pub(crate) fn measure(time: Duration, count: u64, bytes: u64) -> anyhow::Result<Vec<Sample>> {
    let embedded = start(Isolation::Embedded, count)?;
    let isolated = start(Isolation::Isolated, count)?;
    let [raw, ours] = [&embedded, &isolated].map(|pool| measure_one(pool, time, count, bytes));
    let restart = restart(&isolated);
    embedded.shutdown();
    isolated.shutdown();
    let (raw, ours) = (raw?, ours?);
    let size = super::work::size(bytes);
    Ok(vec![
        Sample::new("isolated-roundtrip", "us", Better::Lower).ours(ours.trips).raw(raw.trips),
        Sample::new(format!("isolated-map-{count}"), "tasks/s", Better::Higher)
            .ours([ours.map])
            .raw([raw.map]),
        Sample::new(format!("isolated-bandwidth-{size}"), "MB/s", Better::Higher)
            .ours(ours.rates)
            .raw(raw.rates),
        Sample::new("isolated-restart", "ms", Better::Lower).ours([restart?.as_secs_f64() * 1e3]),
    ])
}

struct Figures {
    trips: Vec<f64>,
    map: f64,
    rates: Vec<f64>,
}

fn start(isolation: Isolation, count: u64) -> anyhow::Result<Pool> {
    let queue = usize::try_from(count)?.max(throughput::QUEUE_MIN);
    tasks::start(tasks::settings(1).isolation(isolation).queue_max(queue), 1)
}

fn measure_one(pool: &Pool, time: Duration, count: u64, bytes: u64) -> anyhow::Result<Figures> {
    let trips = latency::repeat(time, || tasks::round_trip(pool))?;
    throughput::map(pool, count / 10)?;
    let map = throughput::rate(count, || throughput::map(pool, count))?;
    let length = usize::try_from(bytes)?;
    let echoes = bandwidth::echoes(pool, time, || tasks::echo_bytes(ByteBuf::from(vec![7; length])))?;
    Ok(Figures { trips: latency::micros(trips).collect(), map, rates: bandwidth::rates(bytes, echoes) })
}

/// From the death of the parent to the first answer of a worker of the next.
fn restart(pool: &Pool) -> anyhow::Result<Duration> {
    let parents = processes::isolated_parents(i32::try_from(std::process::id())?);
    let parent = parents.first().context("the isolated pool has no parent")?;
    let begun = Instant::now();
    processes::kill(parent.id, libc::SIGKILL);
    pool.submit(tasks::nothing())?.wait()?;
    // It may have been answered by a worker that was about to end.
    while pool.stats().parents < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    pool.submit(tasks::nothing())?.wait()?;
    Ok(begun.elapsed())
}
