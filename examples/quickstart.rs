//! The smallest program: one task, one pool, one result, and a stream of more.

offshoot::tasks! {
    /// Sum of a vector.
    pub fn sum(values: Vec<f64>) -> f64 {
        Ok(values.iter().sum())
    }
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let pool = offshoot::Pool::builder().workers(0..=2).build()?;

    let one = pool.submit(sum(vec![1.0, 2.0]))?;
    println!("1 + 2 = {}", one.wait()?);

    let chunks = (1..=5).map(|size| vec![1.0; size]);
    for total in pool.map(chunks.map(sum)) {
        println!("a chunk sums to {}", total?);
    }
    Ok(())
}
