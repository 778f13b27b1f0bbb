//! One no-op task at a time, beside one message of eight bytes at a time.

use std::thread;
use std::time::{Duration, Instant};

use super::figure::{Better, Sample};
use super::{raw, tasks};

/// Not counted: the first ones have everything's first costs in them.
const WARM_UP: u32 = 200;
/// More tell no more.
const TRIPS_MAX: usize = 50_000;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// So long for each side.
pub(crate) fn round_trips(workers: u32, time: Duration) -> anyhow::Result<Vec<Sample>> {
    raw::initialize();
    let peers = raw::Workers::spawn(workers);
    let raw = repeat(time, || Ok(peers.ping(0)))?;
    peers.leave();
    let pool = tasks::pool(workers)?;
    let ours = repeat(time, || tasks::round_trip(&pool))?;
    pool.shutdown();
    raw::finalize();
    Ok(vec![Sample::new("roundtrip", "us", Better::Lower).ours(micros(ours)).raw(micros(raw))])
}

/// So many for each side, each after a second. The raw worker waits in MPI meanwhile, as one does in C.
pub(crate) fn after_idle(workers: u32, times: u32) -> anyhow::Result<Vec<Sample>> {
    raw::initialize();
    let peers = raw::Workers::spawn(workers);
    let raw = rarely(times, || Ok(peers.ping(0)))?;
    peers.leave();
    let pool = tasks::pool(workers)?;
    let ours = rarely(times, || tasks::round_trip(&pool))?;
    pool.shutdown();
    raw::finalize();
    Ok(vec![Sample::new("roundtrip-after-idle", "us", Better::Lower).ours(micros(ours)).raw(micros(raw))])
}

pub(crate) fn repeat(
    time: Duration,
    mut trip: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Vec<Duration>> {
    warm_up(&mut trip)?;
    let begun = Instant::now();
    let mut trips = Vec::new();
    while trips.is_empty() || begun.elapsed() < time && trips.len() < TRIPS_MAX {
        trips.push(trip()?);
    }
    Ok(trips)
}

fn rarely(times: u32, mut trip: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Vec<Duration>> {
    warm_up(&mut trip)?;
    let later = |_| {
        thread::sleep(IDLE);
        trip()
    };
    (0..times).map(later).collect()
}

fn warm_up(trip: &mut impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<()> {
    (0..WARM_UP).try_for_each(|_| trip().map(drop))
}

pub(crate) fn micros(times: Vec<Duration>) -> impl Iterator<Item = f64> {
    times.into_iter().map(|time| time.as_secs_f64() * 1e6)
}
