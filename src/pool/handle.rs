//! One task's future.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::block::block_on;
use super::reply::{Settled, Slot};
use super::{Answer, Shared};
use crate::driver::Command;
use crate::error::{Origin, TaskError};
use crate::ids::TaskId;
use crate::wire::codec;

/// The result of a submitted task, to come.
///
/// Wait for it with a thread ([`Handle::wait`], [`Handle::wait_timeout`]), look whether it is there
/// ([`Handle::try_result`]), or `.await` it in any async runtime. Dropping a handle does not cancel its
/// task. The result is decoded where it is taken, not on the pool's thread.
#[must_use = "a handle is the only way to the task's result"]
pub struct Handle<R> {
    task: TaskId,
    name: &'static str,
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    _result: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> Handle<R> {
    pub(super) fn new(task: TaskId, name: &'static str, slot: Arc<Slot>, shared: Arc<Shared>) -> Self {
        Self { task, name, slot, shared, _result: PhantomData }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// [`TaskError`] if the task has none.
    pub fn wait(self) -> Result<R, TaskError> {
        let settled = block_on(None, |context| self.poll_take(context)).expect("there is no time-out");
        self.finish(settled)
    }

    /// Waits for the result for so long at most. Afterwards the handle can be waited on again.
    ///
    /// # Errors
    /// [`TaskError::TimedOut`] if the time is over first; another [`TaskError`] if the task has no result.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<R, TaskError> {
        let until = Instant::now().checked_add(timeout);
        match block_on(until, |context| self.poll_take(context)) {
            Some(settled) => self.finish(settled),
            None => Err(TaskError::TimedOut { task: self.task, waited: timeout }),
        }
    }

    /// The result, if the task has ended. It is given once.
    pub fn try_result(&mut self) -> Option<Result<R, TaskError>> {
        match self.poll_take(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(settled) => Some(self.finish(settled)),
            Poll::Pending => None,
        }
    }

    fn finish(&self, settled: Option<Settled>) -> Result<R, TaskError> {
        match settled {
            Some(settled) => decode(self.task, self.name, settled),
            None => Err(TaskError::Taken { task: self.task }),
        }
    }
}

impl<R> Handle<R> {
    /// The task's number, as errors and logs name it.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.is_of_another_process() || self.slot.is_settled()
    }

    /// In a child that was forked nothing comes any more, and the slot may be locked for ever.
    fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Settled>> {
        if self.shared.is_of_another_process() {
            let origin = Origin { task: self.task, name: self.name, place: None };
            return Poll::Ready(Some(Err(TaskError::forked(origin).into())));
        }
        self.slot.poll_take(context)
    }

    /// Says that the result is no longer wanted.
    ///
    /// A task that waits ends as [`TaskError::Cancelled`]. One that runs is told
    /// ([`Context::cancelled`](crate::Context::cancelled)) and may end as it sees fit; when
    /// [`Builder::stop_grace`](crate::Builder::stop_grace) is over its worker is killed and replaced, and the task
    /// is [`TaskError::Cancelled`]. The call returns at once; wait on the handle to see how it went.
    pub fn cancel(&self) {
        self.shared.send(Command::Cancel(self.task));
    }

    /// Has `waker` woken when the task has ended.
    pub(super) fn notify(&self, waker: Waker) {
        if self.shared.is_of_another_process() {
            return waker.wake();
        }
        self.slot.notify(waker);
    }
}

impl<R: DeserializeOwned> Future for Handle<R> {
    type Output = Result<R, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_take(context).map(|settled| self.finish(settled))
    }
}

impl<R> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Handle({} of {}, {})",
            self.name,
            self.task,
            if self.is_finished() { "finished" } else { "pending" }
        )
    }
}

/// From how a task ended to what its caller gets.
pub(super) fn decode<R: DeserializeOwned>(
    task: TaskId,
    name: &'static str,
    settled: Settled,
) -> Result<R, TaskError> {
    let Answer { result, place } = settled.map_err(|error| *error)?;
    codec::decode_payload(result).map_err(|error| TaskError::Result {
        origin: Origin { task, name, place },
        reason: error.to_string(),
    })
}
