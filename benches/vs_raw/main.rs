//! How far from raw MPI: a no-op task's round trip, and the rate of a long `map` of no-ops, beside a
//! raw ping-pong on an intercommunicator, in turn, in one process. `cargo bench`, or `make bench`.

mod raw;

use std::time::{Duration, Instant};

use offshoot::Pool;

const ROUNDS: usize = 5;
const PINGS: usize = 5_000;
const MAPPED: usize = 100_000;

offshoot::tasks! {
    fn nothing() -> () { Ok(()) }
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).is_some_and(|argument| argument == raw::FLAG) {
        raw::serve();
        return Ok(());
    }
    offshoot::init();
    raw::initialize();
    println!(
        "{}",
        mpi::environment::library_version()?
            .lines()
            .next()
            .unwrap_or_default()
            .trim_end_matches(char::from(0))
    );

    let (mut raw, mut ours, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.extend(raw_round_trips());
        let pool = Pool::builder().workers(1..=1).build()?;
        ours.extend(round_trips(&pool)?);
        rates.push(map_rate(&pool)?);
        pool.shutdown();
    }
    raw::finalize();
    report(&mut raw, &mut ours, &mut rates);
    Ok(())
}

fn raw_round_trips() -> Vec<Duration> {
    let peer = raw::Peer::spawn();
    for _ in 0..PINGS / 10 {
        peer.ping();
    }
    let samples = (0..PINGS).map(|_| peer.ping()).collect();
    peer.leave();
    samples
}

fn round_trips(pool: &Pool) -> anyhow::Result<Vec<Duration>> {
    let mut samples = Vec::with_capacity(PINGS);
    for index in 0..PINGS + PINGS / 10 {
        let begun = Instant::now();
        pool.submit(nothing())?.wait()?;
        if index >= PINGS / 10 {
            samples.push(begun.elapsed());
        }
    }
    Ok(samples)
}

/// Tasks a second.
fn map_rate(pool: &Pool) -> anyhow::Result<f64> {
    let begun = Instant::now();
    for result in pool.map((0..MAPPED).map(|_| nothing())) {
        result?;
    }
    Ok(MAPPED as f64 / begun.elapsed().as_secs_f64())
}

fn report(raw: &mut [Duration], ours: &mut [Duration], rates: &mut [f64]) {
    raw.sort_unstable();
    ours.sort_unstable();
    rates.sort_unstable_by(f64::total_cmp);
    let (raw_median, ours_median, rate) = (middle(raw), middle(ours), middle(rates));
    println!("{:<42} {:>10} {:>10} {:>10}", "one worker", "median", "p99", "samples");
    let row = |name: &str, samples: &[Duration]| {
        let micros = |time: Duration| format!("{:.2} us", time.as_secs_f64() * 1e6);
        let high = samples[samples.len() * 99 / 100];
        println!("{name:<42} {:>10} {:>10} {:>10}", micros(middle(samples)), micros(high), samples.len());
    };
    row("raw ping-pong of 8 bytes", raw);
    row("round trip of a no-op task", ours);
    println!("{:<42} {:>9.2}x", "  to raw", ours_median.as_secs_f64() / raw_median.as_secs_f64());
    println!("{:<42} {rate:>8.0}/s {:>21}", format!("map of {MAPPED} no-op tasks"), rates.len());
    println!("{:<42} {:>9.2}x", "  tasks in the time of one raw ping-pong", rate * raw_median.as_secs_f64());
}

fn middle<T: Copy>(sorted: &[T]) -> T {
    sorted[sorted.len() / 2]
}
