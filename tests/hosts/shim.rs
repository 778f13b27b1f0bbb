//! A library for a host that is no Rust program: a pool in an isolated parent, behind two C functions. For a test with
//! Python; what it is to use is in the environment, so that nothing but numbers crosses.
#![allow(unsafe_code, reason = "the functions keep their names")]

use std::env;

use offshoot::{Pool, Program, TaskError};

mod report;

/// The sum of so many answers of workers, of which each is 1; below zero if something failed.
#[unsafe(no_mangle)]
extern "C" fn offshoot_count(tasks: i64) -> i64 {
    count(tasks).unwrap_or_else(|error| {
        eprintln!("the pool in Python: {error:#}");
        -1
    })
}

fn count(tasks: i64) -> anyhow::Result<i64> {
    let executable = env::var("OFFSHOOT_SHIM_WORKER")?;
    let builder = Pool::builder().isolated().parent_executable(&executable);
    let pool = builder.program(Program::new(&executable)).workers(0..=2).build()?;
    let answers = pool.map((0..tasks).map(|_| report::start(Vec::new())));
    let count: Result<i64, TaskError> = answers.map(|answer| answer.map(|_start| 1)).sum();
    pool.shutdown();
    Ok(count?)
}
