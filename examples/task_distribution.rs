//! Many parts of one job: the numbers 0..1000 are split over the workers, each part is summed where it
//! lands, and the partial sums are added here.

use offshoot::{Pool, WorkerId};

offshoot::tasks! {
    /// Sum of the numbers from `start` up to, but without, `end`; and who added them up.
    fn partial_sum(context: &mut Context, start: u64, end: u64) -> (u64, WorkerId) {
        Ok(((start..end).sum(), context.worker()))
    }
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let pool = Pool::builder().workers(2..=2).build()?;

    let starts = (0..1000).step_by(100);
    let sums = pool.map(starts.clone().map(|start| partial_sum(start, start + 100)));

    let mut total = 0;
    for (start, sum) in starts.zip(sums) {
        let (sum, worker) = sum?;
        println!("{start:3}..{:<4} = {sum:5} by {worker}", start + 100);
        total += sum;
    }
    println!("total = {total}");
    Ok(())
}
