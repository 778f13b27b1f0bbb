//! The core alone, with simulated workers: what a task costs in time and in memory. No MPI, no other process.
//!
//! The time is that of the CPU: one thread does everything, and whatever else runs on this machine is not counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use offshoot::bench_support::SimulatedPool;
use rustix::time::{ClockId, clock_gettime};

use super::bandwidth::memory_available;
use super::figure::{Better, Sample};

/// A first guess, for whether there is memory enough.
const BYTES_A_TASK: u64 = 400;
/// With fewer the allocator's own habits would be measured.
const TASKS_FOR_BYTES: u64 = 100_000;
/// In all, in samples of as many tasks as are queued.
const TASKS_IN_ALL: u64 = 200_000;

pub(crate) fn measure(workers: u32, tasks: u64) -> anyhow::Result<Vec<Sample>> {
    let available = memory_available()?;
    ensure!(tasks * BYTES_A_TASK < available, "{} MiB of memory are not enough", available >> 20);
    let mut pool = SimulatedPool::new(workers);
    let before = memory()?;
    let begun = cpu_time()?;
    pool.submit(tasks);
    let (submitted, queued) = (cpu_time()?, memory()?);
    let resumed = cpu_time()?;
    pool.work();
    let mut times = vec![submitted - begun + (cpu_time()? - resumed)];
    for _ in 1..TASKS_IN_ALL / tasks {
        let begun = cpu_time()?;
        pool.submit(tasks);
        pool.work();
        times.push(cpu_time()? - begun);
    }
    let nanos = times.into_iter().map(|time| time.as_secs_f64() * 1e9 / tasks as f64);
    let name = |what| format!("scheduler-{what}-{workers}w-{tasks}");
    let mut samples = vec![Sample::new(name("time"), "ns/task", Better::Lower).ours(nanos)];
    if tasks >= TASKS_FOR_BYTES {
        let bytes = queued.saturating_sub(before) as f64 / tasks as f64;
        samples.push(Sample::new(name("memory"), "bytes/task", Better::Lower).ours([bytes]));
    }
    Ok(samples)
}

/// CPU that this thread has used.
fn cpu_time() -> anyhow::Result<Duration> {
    clock_gettime(ClockId::ThreadCPUTime).try_into().context("a clock shows a time before its beginning")
}

/// Bytes that this process holds.
fn memory() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("/proc is not there")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(kib.context("the memory of this process is not known")? << 10)
}
