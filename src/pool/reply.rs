//! Where an answer goes: the slot of a handle, or the inbox of a stream; and the promise, which sees to
//! it that something always goes there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::error::{Origin, Place, TaskError};
use crate::ids::TaskId;

/// How a task ended: the encoded result and where it ran, or an error.
pub(crate) type Settled = Result<Answer, TaskError>;

/// An encoded result.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Bytes,
    pub(crate) place: Option<Place>,
}

/// The driver's end of a task: it must be settled, and is settled with an error if it is dropped first,
/// by a panic for example. This is what "no handle waits for ever" rests on.
#[derive(Debug)]
pub(crate) struct Promise {
    task: TaskId,
    name: &'static str,
    target: Option<Target>,
}

#[derive(Debug)]
enum Target {
    Slot(Arc<Slot>),
    Inbox(Arc<Inbox>),
}

impl Promise {
    /// A promise to a handle, and the handle's side of it.
    pub(crate) fn to_slot(task: TaskId, name: &'static str) -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot { state: Mutex::new(State::Pending(None)) });
        (Self { task, name, target: Some(Target::Slot(Arc::clone(&slot))) }, slot)
    }

    /// A promise to a stream.
    pub(crate) fn to_inbox(task: TaskId, name: &'static str, inbox: Arc<Inbox>) -> Self {
        Self { task, name, target: Some(Target::Inbox(inbox)) }
    }

    pub(crate) fn task(&self) -> TaskId {
        self.task
    }

    /// The task, for an error about it.
    pub(crate) fn origin(&self, place: Option<Place>) -> Origin {
        Origin { task: self.task, name: self.name, place }
    }

    /// Fulfils the promise.
    pub(crate) fn settle(mut self, settled: Settled) {
        self.deliver(settled);
    }

    fn deliver(&mut self, settled: Settled) {
        match self.target.take() {
            Some(Target::Slot(slot)) => slot.settle(settled),
            Some(Target::Inbox(inbox)) => inbox.push(self.task, settled),
            None => {}
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.target.is_some() {
            let reason = "its thread ended without an answer".into();
            self.deliver(Err(TaskError::PoolFailed { origin: self.origin(None), reason }));
        }
    }
}

/// What a handle and a promise share.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// No answer yet; who waits for it, if anybody does.
    Pending(Option<Waker>),
    Settled(Settled),
    /// The answer was taken.
    Taken,
}

impl Slot {
    fn settle(&self, settled: Settled) {
        let previous = std::mem::replace(&mut *lock(&self.state), State::Settled(settled));
        match previous {
            State::Pending(Some(waker)) => waker.wake(),
            State::Pending(None) => {}
            State::Settled(_) | State::Taken => unreachable!("a promise is fulfilled once"),
        }
    }

    /// Takes the answer; `Ready(None)` if it was taken before. Where there is none yet, `context` is
    /// woken when it comes, instead of whoever asked before.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Settled>> {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Pending(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Settled(_) | State::Taken => match std::mem::replace(&mut *state, State::Taken) {
                State::Settled(settled) => Poll::Ready(Some(settled)),
                State::Taken | State::Pending(_) => Poll::Ready(None),
            },
        }
    }

    /// Has `waker` woken when there is an answer; at once, if there is.
    pub(crate) fn notify(&self, waker: Waker) {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Pending(waiting) => *waiting = Some(waker),
            State::Settled(_) | State::Taken => {
                drop(state);
                waker.wake();
            }
        }
    }

    /// Whether there is an answer, or was one.
    pub(crate) fn is_settled(&self) -> bool {
        match &*lock(&self.state) {
            State::Pending(_) => false,
            State::Settled(_) | State::Taken => true,
        }
    }
}

/// The answers of a stream, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<Arrivals>,
}

#[derive(Debug, Default)]
struct Arrivals {
    arrived: VecDeque<(TaskId, Settled)>,
    waker: Option<Waker>,
}

impl Inbox {
    fn push(&self, task: TaskId, settled: Settled) {
        let mut state = lock(&self.state);
        state.arrived.push_back((task, settled));
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    /// Takes everything that has arrived; where there is nothing, `context` is woken when there is.
    pub(crate) fn poll_take_all(&self, context: &mut Context<'_>) -> Poll<VecDeque<(TaskId, Settled)>> {
        let mut state = lock(&self.state);
        if state.arrived.is_empty() {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.arrived))
    }
}

/// Nothing of the user's runs under these locks, so a poisoned one is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
