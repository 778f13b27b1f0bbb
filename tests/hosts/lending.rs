//! Large arrays on their way: lent, where host and worker can read each other's memory, or sent.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use offshoot::{Pool, TaskError};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::load::{checksum, pattern};
use crate::support::{Stage, eventually, result};
use crate::tasks::{double, echo};

/// Sizes around that from which on arrays are lent, and around the slices in which they are fetched.
const SIZES: [usize; 8] = [0, 250_000, 256 << 10, 300_000, 4 << 20, (4 << 20) + 8, 9_999_999, 64 << 20];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Field {
    name: String,
    values: Vec<f64>,
    labels: Vec<u16>,
    text: String,
}

offshoot::tasks! {
    /// The numbers in reverse order, and their sum.
    fn turn_around(numbers: Vec<f64>) -> (f64, Vec<f64>) {
        Ok((numbers.iter().sum(), numbers.into_iter().rev().collect()))
    }

    fn echo_field(field: Field) -> Field {
        Ok(field)
    }

    /// Waits for a moment with what it has been given.
    fn weigh(bytes: ByteBuf) -> usize {
        std::thread::sleep(std::time::Duration::from_millis(30));
        Ok(bytes.len())
    }
}

/// Whether the test has said that they are to be sent.
fn are_sent() -> bool {
    env::var("OFFSHOOT_LENDING").is_ok_and(|wish| wish == "off")
}

/// Values of all shapes come back the same, and the pool says which way they went.
pub(crate) fn large_arrays_come_back_intact() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).build()?;
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = pattern(seed as u64, size);
        let sum = checksum(&bytes);
        ensure!(
            checksum(&result(pool.submit(echo(ByteBuf::from(bytes)))?)?) == sum,
            "{size} bytes have changed"
        );

        let numbers: Vec<f64> = (0..size / 8).map(|at| at as f64).collect();
        let (total, turned) = result(pool.submit(turn_around(numbers.clone()))?)?;
        ensure!(
            total == numbers.iter().sum::<f64>() && turned.iter().rev().eq(&numbers),
            "{size} bytes of numbers"
        );
    }
    let field = Field {
        name: "temperature".to_owned(),
        values: (0..1 << 20).map(f64::from).collect(),
        labels: (0..1 << 20).map(|at| at as u16).collect(),
        text: "é".repeat(1 << 20),
    };
    ensure!(result(pool.submit(echo_field(field.clone()))?)? == field);

    // Six sizes were large enough, twice, and the field.
    let stats = pool.stats();
    let expected = if are_sent() { 0 } else { 6 * 2 + 1 };
    ensure!((stats.arguments_lent, stats.results_lent) == (expected, expected), "{stats:?}");
    // A worker leaves when all of its results were fetched.
    let last: Vec<_> =
        (0..4).map(|_| pool.submit(echo(ByteBuf::from(vec![5; 8 << 20])))).collect::<Result<_, _>>()?;
    pool.shutdown();
    for handle in last {
        ensure!(result(handle)?.iter().all(|byte| *byte == 5), "what came last has changed");
    }
    Ok(())
}

/// Tasks that are not wanted any more take their arguments with them, whatever their worker does at that moment.
pub(crate) fn large_arguments_are_taken_back() -> anyhow::Result<()> {
    const TASKS: usize = 60;
    let pool = Pool::builder().workers(0..=2).build()?;
    ensure!(result(pool.submit(double(1))?)? == 2);
    let done = AtomicU64::new(0);
    for round in 0..TASKS {
        let handle = pool.submit(weigh(ByteBuf::from(pattern(round as u64, 8 << 20))))?;
        // From before it is sent to after it has ended.
        std::thread::sleep(std::time::Duration::from_micros(700 * round as u64));
        handle.cancel();
        match handle.wait() {
            Ok(length) => {
                ensure!(length == 8 << 20);
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(TaskError::Cancelled { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("{done:?} of {TASKS} had ended before they were cancelled");
    // Behind one that runs, too.
    let stage = Stage::new()?;
    let first = [pool.submit(stage.hold("first"))?, pool.submit(stage.hold("second"))?];
    stage.await_start("first")?;
    stage.await_start("second")?;
    let behind: Vec<_> =
        (0..8).map(|_| pool.submit(weigh(ByteBuf::from(vec![1; 1 << 20])))).collect::<Result<_, _>>()?;
    behind.iter().for_each(offshoot::Handle::cancel);
    stage.release("first")?;
    stage.release("second")?;
    for handle in first {
        result(handle)?;
    }
    for handle in behind {
        ensure!(matches!(handle.wait(), Err(TaskError::Cancelled { .. })));
    }
    ensure!(result(pool.submit(double(21))?)? == 42);
    eventually("all tasks to be forgotten", || pool.stats().tasks_held == 0)
}
