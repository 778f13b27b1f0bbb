//! One pool, two worker executables: one knows words, the other primes. Neither is started before its
//! first task comes.
//!
//! `words.rs` and `primes.rs` declare the tasks; this host includes both, each worker
//! (`words_worker.rs`, `primes_worker.rs`) only its own.

mod primes;
mod words;

use std::env;

use offshoot::{Pool, Program};

fn main() -> anyhow::Result<()> {
    offshoot::init();
    // The workers' executables lie beside this one.
    let here = env::current_exe()?;
    let beside = |name| Program::new(here.with_file_name(name));

    let pool = Pool::builder().workers(0..=2).program(beside("two_programs_words")).build()?;
    let primes = pool.add_program(beside("two_programs_primes"))?;
    println!("{} spawned before the first task", pool.stats().spawns);

    let words = pool.submit(words::count("the quick brown fox".to_owned()))?.wait()?;
    println!("{} words; {} spawned", words, pool.stats().spawns);

    let below = pool.submit_to(primes, primes::count_below(100))?.wait()?;
    println!("{} primes below 100; {} spawned", below, pool.stats().spawns);
    Ok(())
}
