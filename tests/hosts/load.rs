//! Much at once: many threads, many bytes.

use std::fs;
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use offshoot::Pool;
use serde_bytes::ByteBuf;

use crate::support::{Stage, eventually, result};
use crate::tasks::{double, echo, pass};

pub(crate) fn eight_threads_submit() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).build()?;
    thread::scope(|scope| {
        let submitters: Vec<_> = (0..8_i64)
            .map(|thread| {
                let pool = pool.clone();
                scope.spawn(move || -> anyhow::Result<()> {
                    let numbers = 200 * thread..200 * (thread + 1);
                    let handles: Vec<_> =
                        numbers.clone().map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
                    for (x, handle) in numbers.zip(handles) {
                        ensure!(result(handle)? == 2 * x);
                    }
                    Ok(())
                })
            })
            .collect();
        submitters.into_iter().try_for_each(|thread| thread.join().expect("no submitter panics"))
    })?;
    ensure!(pool.stats().tasks_answered == 1600, "{:?}", pool.stats());
    Ok(())
}

pub(crate) fn a_second_thread_works_while_main_waits() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(2..=2).build()?;
    let stage = Stage::new()?;
    let held = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    thread::scope(|scope| {
        let (pool, stage) = (pool.clone(), &stage);
        let second = scope.spawn(move || -> anyhow::Result<()> {
            stage.await_start("a")?;
            ensure!(result(pool.submit(double(21))?)? == 42);
            drop(pool);
            stage.release("a")
        });
        ensure!(held.wait()? == "released");
        second.join().expect("the second thread does not panic")
    })
}

/// Its worker has some of those behind it in its window. They run on the other one, each of them once.
pub(crate) fn nobody_waits_behind_a_task_that_turns_out_long() -> anyhow::Result<()> {
    const CALLS: u32 = 50;
    const HELD: u32 = 5;
    let pool = Pool::builder().workers(2..=2).build()?;
    for round in 0..3 {
        let folder = tempfile::tempdir()?;
        let marks = folder.path().join("marks");
        fs::create_dir(&marks)?;
        let call = |number, gate| pass(marks.clone(), number, gate);
        // How long one of its kind takes is known from these.
        pool.map((CALLS..20 * CALLS).map(|number| call(number, None))).collect::<Result<Vec<_>, _>>()?;
        let gate = folder.path().join("gate");
        let calls: Vec<_> =
            (0..CALLS).map(|number| call(number, (number == HELD).then(|| gate.clone()))).collect();
        let is_begun = |number: u32| marks.join(number.to_string()).exists();
        let results = thread::scope(|scope| -> anyhow::Result<_> {
            let all = scope.spawn(|| pool.map(calls).collect::<Result<Vec<_>, _>>());
            let since = Instant::now();
            let all_begun = eventually("all to begin", || (0..CALLS).all(is_begun));
            println!("round {round}: all have begun after {:?}", since.elapsed());
            fs::write(&gate, "")?;
            let results = all.join().expect("it does not panic")?;
            all_begun.map(|()| results)
        })?;
        ensure!(results == (0..CALLS).collect::<Vec<_>>());
        for mark in fs::read_dir(&marks)? {
            let mark = mark?;
            ensure!(mark.metadata()?.len() == 1, "{mark:?} did not run once");
        }
    }
    ensure!(pool.stats().losses == 0, "{:?}", pool.stats());
    Ok(())
}

const TASKS: u64 = 10_000;
const SIZE_MAX: usize = 8 << 20;
/// Around what travels by one way and what by another: eager and rendezvous messages, single frames.
const EDGES: [usize; 12] =
    [0, 1, 4095, 4096, 65_535, 65_536, 262_143, 262_144, 262_145, 1 << 20, SIZE_MAX - 1, SIZE_MAX];

pub(crate) fn ten_thousand_sizes_come_back_intact() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(2..=2).build()?;
    let calls = (0..TASKS).map(|index| echo(ByteBuf::from(bytes(index))));
    let mut total = 0;
    for (index, echoed) in (0..TASKS).zip(pool.map(calls)) {
        let echoed = echoed?;
        ensure!(echoed.len() == size(index), "task {index}: {} bytes, not {}", echoed.len(), size(index));
        ensure!(checksum(&echoed) == checksum(&bytes(index)), "task {index} came back changed");
        total += echoed.len();
    }
    println!("{} MiB there and back", total >> 20);
    ensure!(pool.stats().tasks_answered == TASKS && pool.stats().losses == 0, "{:?}", pool.stats());
    Ok(())
}

/// Mostly small: every order of magnitude below 64 KiB is as likely as any other, and one in twenty
/// tasks is from the orders above. Almost a gigabyte altogether, each way.
fn size(index: u64) -> usize {
    if let Some(edge) = EDGES.get(usize::try_from(index).expect("a small number")) {
        return *edge;
    }
    let dice = mix(index);
    let (low, high) = if dice.is_multiple_of(20) { (16.0, 23.0) } else { (0.0, 16.0) };
    let fraction = (dice >> 11) as f64 / (1_u64 << 53) as f64;
    f64::exp2(low + fraction * (high - low)) as usize - 1
}

fn bytes(index: u64) -> Vec<u8> {
    pattern(index, size(index))
}

/// So many bytes, others for each seed.
pub(crate) fn pattern(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    let mut word = mix(seed ^ 0xB175);
    while bytes.len() < size {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// FNV-1a, a word at a time.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0100_0000_01B3);
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words.fold(bytes.len() as u64 ^ 0xCBF2_9CE4_8422_2325, step)
}

/// SplitMix64.
pub(crate) fn mix(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
