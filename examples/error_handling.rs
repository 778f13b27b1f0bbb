//! Tasks that fail: the caller sees which ones, where and why, and goes on with the rest.
//!
//! A seed decides which, so that two runs agree: `cargo run --example error_handling -- 42`.

use anyhow::{Context as _, ensure};
use offshoot::{Pool, TaskError};

offshoot::tasks! {
    /// The square of a number; or, for about every fourth, an error or a panic.
    fn fragile_square(seed: u64, number: u64) -> u64 {
        let dice = (seed + number).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60;
        assert!(dice != 0, "the dice show nothing");
        ensure_luck(dice).with_context(|| format!("{number} cannot be squared"))?;
        Ok(number * number)
    }
}

fn ensure_luck(dice: u64) -> anyhow::Result<()> {
    ensure!(dice > 3, "the dice show only {dice}");
    Ok(())
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let seed = std::env::args().nth(1).map_or(Ok(7), |seed| seed.parse())?;
    let pool = Pool::builder().workers(0..=2).build()?;

    let numbers = 1..=20;
    let results = pool.map(numbers.clone().map(|number| fragile_square(seed, number)));

    let (mut sum, mut failures) = (0, 0);
    for (number, result) in numbers.zip(results) {
        match result {
            Ok(square) => sum += square,
            Err(TaskError::Failed { origin, causes }) => {
                failures += 1;
                println!("{number}: {origin} failed:");
                causes.iter().for_each(|cause| println!("      {cause}"));
            }
            Err(TaskError::Panicked { origin, message, .. }) => {
                failures += 1;
                println!("{number}: {origin} panicked:\n      {message}");
            }
            // A lost worker, say: nothing that the task itself did.
            Err(other) => return Err(other.into()),
        }
    }
    println!("{failures} of 20 failed, the squares of the others sum up to {sum}");
    Ok(())
}
