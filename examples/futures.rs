//! Handles are futures: await them in any async runtime, or, as here, in none.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use offshoot::Pool;

offshoot::tasks! {
    fn square(x: f64) -> f64 { Ok(x * x) }
    fn root(x: f64) -> f64 { Ok(x.sqrt()) }
}

/// The long side of a right triangle, the long way round.
async fn hypotenuse(pool: &Pool, a: f64, b: f64) -> anyhow::Result<f64> {
    // Both are under way before the first is awaited.
    let (a, b) = (pool.submit(square(a))?, pool.submit(square(b))?);
    let sum = a.await? + b.await?;
    Ok(pool.submit(root(sum))?.await?)
}

fn main() -> anyhow::Result<()> {
    offshoot::init();
    let pool = Pool::builder().workers(0..=2).build()?;
    println!("3 and 4 make {}", block_on(hypotenuse(&pool, 3.0, 4.0))?);
    println!("5 and 12 make {}", block_on(hypotenuse(&pool, 5.0, 12.0))?);
    Ok(())
}

/// The smallest runtime there is: a thread that sleeps until its one future can go on.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
