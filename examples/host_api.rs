//! A library that hides the pool: its callers see a struct with a method, and none of them knows of MPI.

use std::thread;

use offshoot::Pool;

offshoot::tasks! {
    /// Twice each number.
    fn double(data: Vec<f64>) -> Vec<f64> {
        Ok(data.iter().map(|x| 2.0 * x).collect())
    }
}

/// What the library offers.
struct Api {
    pool: Pool,
}

impl Api {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { pool: Pool::builder().workers(0..=2).build()? })
    }

    /// Doubles the data, a part of it on each worker.
    fn perform_operation(&self, data: &[f64]) -> anyhow::Result<Vec<f64>> {
        let workers = self.pool.workers_max() as usize;
        let parts = data.chunks(data.len().div_ceil(workers).max(1));
        let mut doubled = Vec::with_capacity(data.len());
        for part in self.pool.map(parts.map(|part| double(part.to_vec()))) {
            doubled.extend(part?);
        }
        Ok(doubled)
    }
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let api = Api::new()?;

    // Callers come from any thread, and several at once.
    thread::scope(|scope| {
        let callers: Vec<_> = (1..=4)
            .map(|caller| {
                let api = &api;
                scope.spawn(move || api.perform_operation(&[f64::from(caller), 0.5, -1.0]))
            })
            .collect();
        for (caller, thread) in (1..).zip(callers) {
            let doubled = thread.join().expect("no caller panics")?;
            println!("caller {caller} got {doubled:?}");
        }
        Ok(())
    })
}
