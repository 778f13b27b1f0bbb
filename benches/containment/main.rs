//! What `Containment::Survivable` costs against `Containment::Fast`: the round trip of a small task, and how fast
//! 64 MiB are echoed. Each is measured in a process of its own, in turn. `cargo bench --bench containment`.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use offshoot::Pool;
use serde_bytes::ByteBuf;

const ROUNDS: usize = 3;
const TRIPS: usize = 2_000;
const ECHOES: usize = 5;
const BYTES: usize = 64 << 20;

offshoot::tasks! {
    fn nothing() -> () { Ok(()) }

    fn echo(bytes: ByteBuf) -> ByteBuf { Ok(bytes) }
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    if env::args().nth(1).is_some_and(|argument| argument == "measure") {
        return measure();
    }
    println!("{}", mpi::environment::library_version()?.lines().next().unwrap_or_default());
    let (mut survivable, mut fast) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        survivable.push(measure_in("survivable")?);
        fast.push(measure_in("fast")?);
    }
    let (survivable, fast) = (median_of(&survivable), median_of(&fast));
    println!("                survivable       fast   ratio");
    for (what, unit, at) in [("round trip", "us", 0), ("64 MiB echo", "ms", 1)] {
        println!(
            "{what:<12}{:>12.1} {unit}{:>8.1} {unit}{:>8.1}",
            survivable[at],
            fast[at],
            survivable[at] / fast[at]
        );
    }
    Ok(())
}

/// Microseconds of a round trip, and milliseconds of an echo.
type Times = [f64; 2];

fn measure_in(containment: &str) -> anyhow::Result<Times> {
    let mut command = Command::new(env::current_exe()?);
    // What `init` has set here is not what the other containment needs.
    command.env_clear().envs(offshoot::user_environment());
    let output = command.arg("measure").env("OFFSHOOT_CONTAINMENT", containment).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{containment}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || Ok::<f64, anyhow::Error>(numbers.next().context("a number is missing")??);
    Ok([next()?, next()?])
}

fn measure() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(1..=1).build()?;
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let begun = Instant::now();
        pool.submit(nothing())?.wait()?;
        trips.push(begun.elapsed());
    }
    let payload = ByteBuf::from(vec![7; BYTES]);
    let mut echoes = Vec::with_capacity(ECHOES);
    for _ in 0..=ECHOES {
        let payload = payload.clone();
        let begun = Instant::now();
        let echoed = pool.submit(echo(payload))?.wait()?;
        echoes.push(begun.elapsed());
        ensure!(echoed.len() == BYTES, "{} bytes came back", echoed.len());
    }
    pool.shutdown();
    // The first has everything's first costs in it.
    echoes.remove(0);
    println!("{} {}", median(&mut trips).as_secs_f64() * 1e6, median(&mut echoes).as_secs_f64() * 1e3);
    Ok(())
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn median_of(rounds: &[Times]) -> Times {
    [0, 1].map(|at| {
        let mut times: Vec<f64> = rounds.iter().map(|times| times[at]).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}
