//! Echoes of large arguments, bytes and numbers, beside raw echoes of as many bytes.
//!
//! The rate counts both ways: two bytes for each byte of an argument.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use offshoot::{Call, Pool, Task};
use serde_bytes::ByteBuf;

use super::figure::{Better, Sample};
use super::work::size;
use super::{raw, tasks};

/// More tell no more.
const ECHOES_MAX: u64 = 2_000;
/// Copies of an argument that exist at once, in host and worker: one of each, the result, and what earlier ones have left.
const COPIES: u64 = 5;

pub(crate) fn measure(bytes: u64, time: Duration) -> anyhow::Result<Vec<Sample>> {
    let available = memory_available()?;
    ensure!(bytes.saturating_mul(COPIES) < available, "{} MiB of memory are not enough", available >> 20);
    let length = usize::try_from(bytes)?;
    raw::initialize();
    let raw = rates(bytes, raw_echoes(length, time));

    let pool = tasks::pool(1)?;
    let of_bytes = echoes(&pool, time, || tasks::echo_bytes(ByteBuf::from(vec![7; length])));
    let of_numbers = echoes(&pool, time, || tasks::echo_numbers(vec![0.5; length / size_of::<f64>()]));
    pool.shutdown();
    raw::finalize();
    let sample = |kind: &str, ours: anyhow::Result<Vec<Duration>>| {
        let name = format!("bandwidth-{kind}-{}", size(bytes));
        let ours = ours.map(|times| rates(bytes, times));
        Sample::new(name, "MB/s", Better::Higher).raw(raw.iter().copied()).ours_or(ours)
    };
    Ok(vec![sample("bytes", of_bytes), sample("f64", of_numbers)])
}

fn raw_echoes(length: usize, time: Duration) -> Vec<Duration> {
    let peers = raw::Workers::spawn(1);
    let mut bulk = vec![7; length];
    let warm = peers.echoes(&mut bulk, 1)[0];
    let times = (time.as_secs_f64() / warm.as_secs_f64()) as u64;
    let echoes = peers.echoes(&mut bulk, times.clamp(1, ECHOES_MAX));
    peers.leave();
    echoes
}

/// The user's own work, making the argument and dropping the result, is not counted.
pub(crate) fn echoes<T: Task>(
    pool: &Pool,
    time: Duration,
    call: impl Fn() -> Call<T>,
) -> anyhow::Result<Vec<Duration>> {
    let echo = || {
        let call = call();
        let begun = Instant::now();
        // The error brings the call back, with all its bytes.
        let handle = pool.submit(call).map_err(|error| anyhow::Error::new(error.reason))?;
        let result = handle.wait()?;
        let took = begun.elapsed();
        drop(result);
        Ok::<_, anyhow::Error>(took)
    };
    echo()?;
    let begun = Instant::now();
    let mut echoes = Vec::new();
    while echoes.is_empty() || begun.elapsed() < time && (echoes.len() as u64) < ECHOES_MAX {
        echoes.push(echo()?);
    }
    Ok(echoes)
}

/// Megabytes, of 10^6 bytes, a second.
pub(crate) fn rates(bytes: u64, times: Vec<Duration>) -> Vec<f64> {
    times.into_iter().map(|time| 2.0 * bytes as f64 / 1e6 / time.as_secs_f64()).collect()
}

/// Bytes of memory that processes can still have.
pub(crate) fn memory_available() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("the memory of this machine is not known")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(kib.context("the memory of this machine is not known")? << 10)
}
