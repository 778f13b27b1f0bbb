//! A host without MPI: built with the feature `client` alone (`scripts/client.sh`), it has its parent and its workers from
//! an executable that has one.

mod report;

use std::env;

use anyhow::{Context, ensure};
use offshoot::{Isolation, Pool, Program};

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let other = env::args().nth(1).context("name an executable that is worker and parent")?;
    let builder = Pool::builder().workers(0..=2).program(Program::new(&other));
    let pool = builder.parent_executable(&other).build()?;
    println!("{}: {}", pool.stats().isolation(), pool.stats().isolation_reason());
    ensure!(pool.stats().isolation() == Isolation::Isolated);
    let reports =
        pool.map((0..100).map(|_| report::start(vec!["HOME".to_owned()]))).collect::<Result<Vec<_>, _>>()?;
    println!("{} reports, the first: {:?}", reports.len(), reports[0]);
    pool.shutdown();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    ensure!(!maps.contains("libmpi"), "this process has loaded an MPI");
    Ok(())
}
