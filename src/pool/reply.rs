//! Where an answer goes: the slot of a handle, or the inbox of a stream; and the promise, which sees to
//! it that something always goes there.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Origin, Place, TaskError};
use crate::ids::TaskId;
use crate::task::Definition;
use crate::wire::payload::Payload;

/// How a task ended: the encoded result and where it ran, or an error.
pub(crate) type Settled = Result<Answer, Box<TaskError>>;

/// An encoded result.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: Payload,
    pub(crate) place: Option<Place>,
}

/// The driver's end of a task: it must be settled, and is settled with an error if it is dropped first,
/// by a panic for example. This is what "no handle waits for ever" rests on.
#[derive(Debug)]
pub(crate) struct Promise {
    task: TaskId,
    definition: &'static Definition,
    target: Option<Target>,
}

#[derive(Debug)]
enum Target {
    Slot(Arc<Slot>),
    /// A stream's, and which of its calls it is. One count of references serves a whole batch: that of the inbox
    /// would be fought over by the stream's thread and the driver's.
    Inbox(Arc<Batch>, usize),
}

/// Calls of a stream that are submitted together.
#[derive(Debug)]
pub(crate) struct Batch {
    inbox: Arc<Inbox>,
}

impl Batch {
    pub(crate) fn of(inbox: &Arc<Inbox>) -> Arc<Self> {
        Arc::new(Self { inbox: Arc::clone(inbox) })
    }
}

impl Promise {
    /// A promise to a handle, and the handle's side of it.
    pub(crate) fn to_slot(task: TaskId, definition: &'static Definition) -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot { state: Mutex::new(State::Pending(None)) });
        (Self { task, definition, target: Some(Target::Slot(Arc::clone(&slot))) }, slot)
    }

    /// A promise to a stream, about its call of that index.
    pub(crate) fn to_inbox(
        task: TaskId,
        definition: &'static Definition,
        batch: Arc<Batch>,
        index: usize,
    ) -> Self {
        Self { task, definition, target: Some(Target::Inbox(batch, index)) }
    }

    pub(crate) fn task(&self) -> TaskId {
        self.task
    }

    pub(crate) fn definition(&self) -> &'static Definition {
        self.definition
    }

    /// The task, for an error about it.
    pub(crate) fn origin(&self, place: Option<Place>) -> Origin {
        Origin { task: self.task, name: self.definition.name, place }
    }

    /// Fulfils the promise.
    pub(crate) fn settle(mut self, settled: Settled) {
        self.deliver(settled);
    }

    /// Fulfils many promises. Neighbours that go to one stream are delivered together.
    pub(crate) fn settle_all(promises: impl IntoIterator<Item = (Self, Settled)>) {
        let mut delivery = Delivery::default();
        for (mut promise, settled) in promises {
            match promise.target.take() {
                Some(Target::Slot(slot)) => slot.settle(settled),
                Some(Target::Inbox(batch, index)) => {
                    delivery.add(&batch.inbox, Arrival { index, task: promise.task, settled });
                }
                None => {}
            }
        }
    }

    fn deliver(&mut self, settled: Settled) {
        match self.target.take() {
            Some(Target::Slot(slot)) => slot.settle(settled),
            Some(Target::Inbox(batch, index)) => {
                batch.inbox.push(VecDeque::from([Arrival { index, task: self.task, settled }]));
            }
            None => {}
        }
    }
}

/// Arrivals on their way to one stream. They get there, whatever happens.
#[derive(Default)]
struct Delivery {
    inbox: Option<Arc<Inbox>>,
    arrivals: VecDeque<Arrival>,
}

impl Delivery {
    fn add(&mut self, inbox: &Arc<Inbox>, arrival: Arrival) {
        if !self.inbox.as_ref().is_some_and(|current| Arc::ptr_eq(current, inbox)) {
            self.push();
            self.inbox = Some(Arc::clone(inbox));
        }
        self.arrivals.push_back(arrival);
    }

    fn push(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.push(std::mem::take(&mut self.arrivals));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.push();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.target.is_some() {
            let reason = "its thread ended without an answer".into();
            self.deliver(Err(TaskError::PoolFailed { origin: self.origin(None), reason }.into()));
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
            State::Pending(waker) => wake(waker),
            State::Settled(_) | State::Taken => unreachable!("a promise is fulfilled once"),
        }
    }

    /// Takes the answer; `Ready(None)` if it was taken before. Where there is none yet, `context` is
    /// woken when it comes, instead of whoever asked before.
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Settled>> {
        let mut waker = None;
        loop {
            let mut state = lock(&self.state);
            match &mut *state {
                State::Pending(waiting) => match register(waiting, context, &mut waker) {
                    Registered::Yes => return Poll::Pending,
                    Registered::NeedsWaker => {}
                },
                State::Settled(_) | State::Taken => match std::mem::replace(&mut *state, State::Taken) {
                    State::Settled(settled) => return Poll::Ready(Some(settled)),
                    State::Taken | State::Pending(_) => return Poll::Ready(None),
                },
            }
            drop(state);
            waker = Some(context.waker().clone());
        }
    }

    /// Has `waker` woken when there is an answer; at once, if there is.
    pub(crate) fn notify(&self, waker: Waker) {
        let mut waker = Some(waker);
        // Beneath the lock the wakers only change places.
        let settled = match &mut *lock(&self.state) {
            State::Pending(waiting) => {
                std::mem::swap(waiting, &mut waker);
                false
            }
            State::Settled(_) | State::Taken => true,
        };
        if settled {
            wake(waker);
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

/// An answer to a stream.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Which of the stream's calls it answers.
    pub(crate) index: usize,
    pub(crate) task: TaskId,
    pub(crate) settled: Settled,
}

/// The answers of a stream, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<Arrivals>,
}

#[derive(Debug, Default)]
struct Arrivals {
    arrived: VecDeque<Arrival>,
    waker: Option<Waker>,
}

impl Inbox {
    fn push(&self, arrivals: VecDeque<Arrival>) {
        let waker = {
            let mut state = lock(&self.state);
            if state.arrived.is_empty() {
                state.arrived = arrivals;
            } else {
                state.arrived.extend(arrivals);
            }
            state.waker.take()
        };
        wake(waker);
    }

    /// Takes everything that has arrived.
    pub(crate) fn take_all(&self) -> VecDeque<Arrival> {
        std::mem::take(&mut lock(&self.state).arrived)
    }

    /// Takes everything that has arrived; where there is nothing, `context` is woken when there is.
    pub(crate) fn poll_take_all(&self, context: &mut Context<'_>) -> Poll<VecDeque<Arrival>> {
        let mut waker = None;
        loop {
            let mut state = lock(&self.state);
            if !state.arrived.is_empty() {
                return Poll::Ready(std::mem::take(&mut state.arrived));
            }
            match register(&mut state.waker, context, &mut waker) {
                Registered::Yes => return Poll::Pending,
                Registered::NeedsWaker => {}
            }
            drop(state);
            waker = Some(context.waker().clone());
        }
    }
}

enum Registered {
    Yes,
    /// Not before `ours` is a clone of the context's waker, which is to be made off the lock.
    NeedsWaker,
}

/// Has `context` woken instead of who waits. It runs under a lock, so wakers are only compared and
/// change places: what waited before is left in `ours`, which is to be dropped off the lock.
fn register(waiting: &mut Option<Waker>, context: &Context<'_>, ours: &mut Option<Waker>) -> Registered {
    if waiting.as_ref().is_some_and(|waiting| waiting.will_wake(context.waker())) {
        return Registered::Yes;
    }
    if ours.is_none() {
        return Registered::NeedsWaker;
    }
    std::mem::swap(waiting, ours);
    Registered::Yes
}

/// Wakes, off any lock. A waker is the user's code, and this may be the thread of all pools: a panic in
/// it is reported and goes no further.
fn wake(waker: Option<Waker>) {
    let Some(waker) = waker else { return };
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        tracing::error!("the waker of a task that has ended panicked");
        // What a panic carries is the user's too, and may panic when it is dropped.
        std::mem::forget(payload);
    }
}

/// Nothing of the user's runs under these locks, so a poisoned one is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
