//! The work of peer.py, done by this library: `peer_offshoot offshoot WORKERS SECONDS`, started by run.py.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use offshoot::Pool;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const TRIPS_MAX: usize = 2_000;
/// run.py waits for one second, and looks for five.
const IDLE: Duration = Duration::from_secs(8);

offshoot::tasks! {
    in "peers";

    fn nothing() {
        Ok(())
    }

    fn echo(payload: ByteBuf) -> ByteBuf {
        Ok(payload)
    }
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let arguments: Vec<String> = env::args().skip(2).collect();
    let [workers, seconds] = &arguments[..] else { anyhow::bail!("run.py starts this") };
    measure(workers.parse()?, seconds.parse()?)
}

fn tell(figures: &Value) {
    println!("PEER {figures}");
}

fn measure(workers: u32, seconds: f64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let pool = Pool::builder().workers(workers..=workers).oversubscribe(true).build()?;
    pool.submit(nothing())?.wait()?;
    let cold_start = begun.elapsed().as_secs_f64() * 1e3;
    tell(&json!({ "cold_start_ms": cold_start, "version": env!("CARGO_PKG_VERSION") }));
    while pool.stats().workers_ready() < workers {
        thread::sleep(Duration::from_millis(1));
    }

    one_by_one(&pool, 100)?;
    let trips = repeated(seconds, || Ok(pool.submit(nothing())?.wait()?))?;
    tell(&json!({ "round_trip_us": median(trips) * 1e6 }));
    // A task that may run once only is alone in its worker's window: one message for each, one under way to each
    // worker, as with the peers.
    tell(&json!({ "unbatched_per_s": rate(seconds, 200, 50_000, |count| one_by_one(&pool, count))? }));
    // What a user writes, and the library makes frames of.
    tell(&json!({ "submitted_per_s": rate(seconds, 2_000, 1_000_000, |count| submit(&pool, count))? }));
    tell(&json!({ "batched_per_s": rate(seconds, 2_000, 1_000_000, |count| map(&pool, count))? }));
    let payload = ByteBuf::from(vec![7; MIB]);
    let echoes = repeated(seconds, || {
        pool.submit(echo(payload.clone()))?.wait()?;
        Ok(())
    })?;
    tell(&json!({ "payload_mb_per_s": 2.0 * MIB as f64 / 1e6 / median(echoes) }));
    tell(&json!({ "idle": true }));
    thread::sleep(IDLE);
    pool.shutdown();
    tell(&json!({ "done": true }));
    Ok(())
}

fn one_by_one(pool: &Pool, count: usize) -> anyhow::Result<()> {
    let handles: Result<Vec<_>, _> = (0..count).map(|_| pool.submit(nothing().idempotent(false))).collect();
    handles?.into_iter().try_for_each(|handle| Ok(handle.wait()?))
}

fn submit(pool: &Pool, count: usize) -> anyhow::Result<()> {
    let handles: Result<Vec<_>, _> = (0..count).map(|_| pool.submit(nothing())).collect();
    handles?.into_iter().try_for_each(|handle| Ok(handle.wait()?))
}

fn map(pool: &Pool, count: usize) -> anyhow::Result<()> {
    pool.map((0..count).map(|_| nothing())).try_for_each(|result| Ok(result?))
}

/// The seconds that an action takes which is repeated for a while, the first few left out.
fn repeated(seconds: f64, mut action: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    (0..3).try_for_each(|_| action())?;
    let (mut times, begun) = (Vec::new(), Instant::now());
    while times.is_empty() || begun.elapsed().as_secs_f64() < seconds && times.len() < TRIPS_MAX {
        let begun = Instant::now();
        action()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// Tasks a second: first a few, to learn how many fill the time, then so many.
fn rate(
    seconds: f64,
    guess: usize,
    most: usize,
    mut action: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    action(guess)?;
    let count = (guess as f64 * seconds / begun.elapsed().as_secs_f64()) as usize;
    let count = count.min(most).max(guess);
    let begun = Instant::now();
    action(count).context("many tasks")?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
