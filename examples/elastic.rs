//! A pool that breathes: workers are spawned while there is work, and retired when there is none.

use std::thread;
use std::time::Duration;

use offshoot::{Pool, Stats};

offshoot::tasks! {
    /// Stands in for work.
    fn nap(length: Duration) {
        std::thread::sleep(length);
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let pool = Pool::builder().workers(0..=3).idle_timeout(Duration::from_millis(300)).build()?;

    let naps: Vec<_> =
        (0..30).map(|_| pool.submit(nap(Duration::from_millis(50)))).collect::<Result<_, _>>()?;

    // Watches until the work is done and the last worker has left.
    let mut shown = usize::MAX;
    let mut stats = pool.stats();
    while !naps.iter().all(|nap| nap.is_finished()) || stats.workers() > 0 {
        stats = pool.stats();
        if shown != stats.workers() as usize {
            shown = stats.workers() as usize;
            show(&stats);
        }
        thread::sleep(Duration::from_millis(10));
    }
    println!("{} tasks done, {} workers came and went", stats.tasks_answered, stats.spawns);
    Ok(())
}

fn show(stats: &Stats) {
    let workers = "*".repeat(stats.workers() as usize);
    println!("{workers:3} {} workers, {} tasks answered", stats.workers(), stats.tasks_answered);
}
