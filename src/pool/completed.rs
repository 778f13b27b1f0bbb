//! Handles in the order in which their tasks end.

use std::sync::Arc;
use std::task::{Wake, Waker};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Handle;

/// Yields handles as their tasks end; each can be waited on without waiting.
///
/// ```no_run
/// # offshoot::tasks! { fn square(x: f64) -> f64 { Ok(x * x) } }
/// # fn main() -> anyhow::Result<()> {
/// # let pool = offshoot::Pool::builder().build()?;
/// let handles: Vec<_> = (0..4).map(|x| pool.submit(square(f64::from(x)))).collect::<Result<_, _>>()?;
/// for handle in offshoot::as_completed(handles) {
///     println!("{}: {}", handle.task(), handle.wait()?);
/// }
/// # Ok(())
/// # }
/// ```
pub fn as_completed<R>(handles: impl IntoIterator<Item = Handle<R>>) -> AsCompleted<R> {
    let (done, finished) = unbounded();
    let handles: Vec<_> = handles.into_iter().map(Some).collect();
    for (index, handle) in handles.iter().flatten().enumerate() {
        handle.notify(Waker::from(Arc::new(Done { index, done: done.clone() })));
    }
    AsCompleted { left: handles.len(), handles, finished }
}

/// The iterator of [`as_completed`].
#[derive(Debug)]
pub struct AsCompleted<R> {
    handles: Vec<Option<Handle<R>>>,
    left: usize,
    finished: Receiver<usize>,
}

impl<R> Iterator for AsCompleted<R> {
    type Item = Handle<R>;

    fn next(&mut self) -> Option<Handle<R>> {
        while self.left > 0 {
            // Every promise is kept or dropped, and both wake: a waker for each handle that is left exists.
            let index = self.finished.recv().ok()?;
            if let Some(handle) = self.handles[index].take() {
                self.left -= 1;
                return Some(handle);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<R> ExactSizeIterator for AsCompleted<R> {}

struct Done {
    index: usize,
    done: Sender<usize>,
}

impl Wake for Done {
    fn wake(self: Arc<Self>) {
        // The iterator may have been dropped.
        let _ = self.done.send(self.index);
    }
}
