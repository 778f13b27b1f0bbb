//! From nothing to the first result, and what a running worker notices while others are spawned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use offshoot::Program;

use super::figure::{Better, Sample};
use super::work::Side;
use super::{raw, tasks};

/// Workers that are spawned, one after the other, while another one works.
const OTHERS: u32 = 3;

/// MPI is initialized, workers are spawned, and one has answered; then all are there.
pub(crate) fn cold_start(workers: u32, side: Side) -> anyhow::Result<Vec<Sample>> {
    let (first, all) = match side {
        Side::Ours => our_cold_start(workers)?,
        Side::Raw => raw_cold_start(workers),
    };
    let sample = |what, time: Duration| {
        let name = format!("spawn-{workers}w-to-{what}");
        of_side(Sample::new(name, "ms", Better::Lower), side, time)
    };
    Ok(vec![sample("first-result", first), sample("all-ready", all)])
}

fn our_cold_start(workers: u32) -> anyhow::Result<(Duration, Duration)> {
    let begun = Instant::now();
    let pool = tasks::settings(workers).build()?;
    tasks::round_trip(&pool)?;
    let first = begun.elapsed();
    tasks::await_workers(&pool, workers)?;
    let all = begun.elapsed();
    pool.shutdown();
    Ok((first, all))
}

fn raw_cold_start(workers: u32) -> (Duration, Duration) {
    let begun = Instant::now();
    raw::initialize();
    let peers = raw::Workers::spawn(workers);
    peers.ping(0);
    let first = begun.elapsed();
    for rank in 1..workers {
        peers.ping(rank);
    }
    let all = begun.elapsed();
    peers.leave();
    raw::finalize();
    (first, all)
}

/// The longest time between two answers of a worker, each task sent when the one before was answered, while others are
/// spawned.
pub(crate) fn gap(side: Side) -> anyhow::Result<Vec<Sample>> {
    let gap = match side {
        Side::Ours => our_gap()?,
        Side::Raw => raw_gap()?,
    };
    Ok(vec![of_side(Sample::new("spawn-longest-gap", "ms", Better::Lower), side, gap)])
}

fn our_gap() -> anyhow::Result<Duration> {
    let pool = tasks::start(tasks::settings(1).workers(1..=1 + OTHERS), 1)?;
    // Each program needs a worker of its own, and the one that works is not taken for it.
    let programs: Result<Vec<_>, _> =
        (0..OTHERS).map(|_| pool.add_program(Program::this_executable())).collect();
    let programs = programs?;
    let longest = longest_during(
        || tasks::round_trip(&pool),
        || {
            for program in programs {
                pool.submit_to(program, tasks::nothing())?.wait()?;
            }
            Ok(())
        },
    );
    pool.shutdown();
    longest
}

fn raw_gap() -> anyhow::Result<Duration> {
    raw::initialize();
    let peers = raw::Workers::spawn(1);
    let longest = longest_during(
        || Ok(peers.ping(0)),
        || {
            (0..OTHERS).for_each(|_| {
                let others = raw::Workers::spawn(1);
                others.ping(0);
                others.leave();
            });
            Ok(())
        },
    );
    peers.leave();
    raw::finalize();
    longest
}

/// The longest of the trips that this thread makes while another one is busy.
fn longest_during(
    trip: impl Fn() -> anyhow::Result<Duration>,
    busy: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<Duration> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let done = busy();
            over.store(true, Ordering::Release);
            done
        });
        let mut longest = Duration::ZERO;
        while !over.load(Ordering::Acquire) && !other.is_finished() {
            longest = longest.max(trip()?);
        }
        other.join().ok().context("the thread that spawns panicked")??;
        Ok(longest)
    })
}

fn of_side(sample: Sample, side: Side, time: Duration) -> Sample {
    let millis = time.as_secs_f64() * 1e3;
    match side {
        Side::Ours => sample.ours([millis]),
        Side::Raw => sample.raw([millis]),
    }
}
