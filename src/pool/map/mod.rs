//! Streams: many calls in, their results out, some way ahead of who takes them.

use std::collections::VecDeque;
use std::fmt;
use std::iter::Fuse;
use std::mem;
use std::sync::Arc;

use super::block::block_on;
use super::handle::decode;
use super::reply::{Inbox, Promise, Settled};
use super::{Pool, encode};
use crate::driver::{Command, Submission};
use crate::error::{Origin, RejectReason, TaskError};
use crate::ids::{ProgramId, TaskId};
use crate::task::{Call, Task};

/// Calls that a stream has under way at most: enough to fill the windows of many workers with the
/// shortest tasks.
const AHEAD: usize = 8192;
/// Bytes of arguments that a stream has under way at most, so that large tasks are not all held at once.
const AHEAD_BYTES: usize = 64 << 20;
/// So many calls are under way however large they are: two a worker, to hide the round trip.
const AHEAD_PER_WORKER: usize = 2;

/// Results of [`Pool::map`], in the order of the calls.
///
/// Dropping it cancels the calls that are under way and have not begun.
pub struct Map<T: Task, I> {
    feed: Feed<T, I>,
}

/// Results of [`Map::unordered`], in the order in which the tasks end.
///
/// Dropping it cancels the calls that are under way and have not begun.
pub struct Unordered<T: Task, I> {
    feed: Feed<T, I>,
    arrived: VecDeque<(TaskId, Settled)>,
}

impl<T: Task, I: Iterator<Item = Call<T>>> Map<T, I> {
    pub(super) fn new(pool: Pool, program: ProgramId, calls: I) -> Self {
        Self { feed: Feed::new(pool, program, calls) }
    }

    /// The same results in the order in which the tasks end.
    pub fn unordered(self) -> Unordered<T, I> {
        Unordered { feed: self.feed, arrived: VecDeque::new() }
    }

    /// Limits how many calls are under way at once; 1 means one after the other.
    #[must_use]
    pub fn ahead(mut self, calls: usize) -> Self {
        self.feed.ahead = calls.max(1);
        self
    }
}

impl<T: Task, I: Iterator<Item = Call<T>>> Iterator for Map<T, I> {
    type Item = Result<T::Output, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.feed.top_up();
            let settled = self.feed.take_first()?;
            match settled {
                Some((task, settled)) => return Some(decode(task, T::NAME, settled)),
                None => {
                    self.feed.wait().into_iter().for_each(|(task, settled)| self.feed.place(task, settled))
                }
            }
        }
    }
}

impl<T: Task, I: Iterator<Item = Call<T>>> Iterator for Unordered<T, I> {
    type Item = Result<T::Output, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((task, settled)) = self.arrived.pop_front() {
                return Some(decode(task, T::NAME, settled));
            }
            self.feed.top_up();
            // Whatever was refused stands settled at its place already.
            self.arrived = match self.feed.take_first()? {
                Some(first) => VecDeque::from([first]),
                None => self.feed.wait(),
            };
            self.arrived.iter().for_each(|(task, _)| self.feed.strike(*task));
        }
    }
}

/// The calls of a stream on their way: a source, and the places of those under way, in order.
struct Feed<T: Task, I> {
    pool: Pool,
    program: ProgramId,
    calls: Fuse<I>,
    inbox: Arc<Inbox>,
    ahead: usize,
    places: VecDeque<Place>,
    /// Places that are under way, and the bytes of their arguments.
    under_way: usize,
    under_way_bytes: usize,
    _task: std::marker::PhantomData<fn() -> T>,
}

struct Place {
    task: TaskId,
    bytes: usize,
    state: PlaceState,
}

enum PlaceState {
    UnderWay,
    Settled(Settled),
    /// Its result has been given to the stream's user.
    Given,
}

impl<T: Task, I> Feed<T, I> {
    fn new(pool: Pool, program: ProgramId, calls: I) -> Self
    where
        I: Iterator,
    {
        Self {
            pool,
            program,
            calls: calls.fuse(),
            inbox: Arc::default(),
            ahead: AHEAD,
            places: VecDeque::new(),
            under_way: 0,
            under_way_bytes: 0,
            _task: std::marker::PhantomData,
        }
    }

    fn has_room(&self, limit: usize) -> bool {
        let few = AHEAD_PER_WORKER * self.pool.workers_max() as usize;
        self.under_way < limit && (self.under_way < few || self.under_way_bytes < AHEAD_BYTES)
    }

    /// Submits calls until enough are under way. It waits until half of them are done before it starts
    /// to, so that calls travel to the driver in batches.
    fn top_up(&mut self)
    where
        I: Iterator<Item = Call<T>>,
    {
        if !self.has_room(self.ahead.div_ceil(2)) {
            return;
        }
        let mut batch = Vec::new();
        while self.has_room(self.ahead) {
            let entered = self.pool.inner.shared.gate.try_enter(1) == 1;
            if !entered {
                // Others fill the pool. What is under way here will make room; if that is nothing, wait.
                self.submit(&mut batch);
                if self.under_way > 0 {
                    return;
                }
            }
            let Some(call) = self.calls.next() else {
                if entered {
                    self.pool.inner.shared.gate.leave(1);
                }
                break;
            };
            self.add(&call, entered, &mut batch);
        }
        self.submit(&mut batch);
    }

    fn add(&mut self, call: &Call<T>, entered: bool, batch: &mut Vec<Submission>) {
        let shared = Arc::clone(&self.pool.inner.shared);
        let task = shared.number_task();
        let admitted = self.pool.check(self.program).and_then(|()| encode(call)).and_then(|arguments| {
            if !entered {
                shared.gate.enter().map_err(|reason| RejectReason::Closed { reason })?;
            }
            Ok(arguments)
        });
        match admitted {
            Ok(arguments) => {
                let bytes = arguments.len();
                self.under_way += 1;
                self.under_way_bytes += bytes;
                self.places.push_back(Place { task, bytes, state: PlaceState::UnderWay });
                let promise = Promise::to_inbox(task, T::NAME, Arc::clone(&self.inbox));
                batch.push(Submission {
                    program: self.program,
                    definition: T::DEFINITION,
                    arguments,
                    promise,
                });
            }
            Err(reason) => {
                if entered {
                    shared.gate.leave(1);
                }
                let origin = Origin { task, name: T::NAME, place: None };
                let state = PlaceState::Settled(Err(TaskError::Rejected { origin, reason }));
                self.places.push_back(Place { task, bytes: 0, state });
            }
        }
    }

    fn submit(&self, batch: &mut Vec<Submission>) {
        if !batch.is_empty() {
            self.pool.inner.shared.send(Command::SubmitAll(mem::take(batch)));
        }
    }

    /// Takes the first result in order: `None` at the end of the stream, `Some(None)` if it is not there.
    fn take_first(&mut self) -> Option<Option<(TaskId, Settled)>> {
        while matches!(self.places.front(), Some(Place { state: PlaceState::Given, .. })) {
            self.places.pop_front();
        }
        match self.places.front()? {
            Place { state: PlaceState::UnderWay, .. } => Some(None),
            Place { state: PlaceState::Settled(_) | PlaceState::Given, .. } => {
                let Place { task, state, .. } = self.places.pop_front()?;
                match state {
                    PlaceState::Settled(settled) => Some(Some((task, settled))),
                    PlaceState::UnderWay | PlaceState::Given => Some(None),
                }
            }
        }
    }

    fn wait(&self) -> VecDeque<(TaskId, Settled)> {
        block_on(None, |context| self.inbox.poll_take_all(context)).expect("there is no time-out")
    }

    /// Puts a result that has come to its place.
    fn place(&mut self, task: TaskId, settled: Settled) {
        self.end(task, PlaceState::Settled(settled));
    }

    /// Marks a result as given out of order.
    fn strike(&mut self, task: TaskId) {
        self.end(task, PlaceState::Given);
    }

    fn end(&mut self, task: TaskId, state: PlaceState) {
        // Tasks are numbered in the order in which they are handed in, so the places are sorted.
        let Ok(index) = self.places.binary_search_by_key(&task, |place| place.task) else { return };
        let place = &mut self.places[index];
        if matches!(place.state, PlaceState::UnderWay) {
            self.under_way -= 1;
            self.under_way_bytes -= place.bytes;
        }
        place.state = state;
    }
}

impl<T: Task, I> Drop for Feed<T, I> {
    fn drop(&mut self) {
        let under_way = |place: &Place| matches!(place.state, PlaceState::UnderWay).then_some(place.task);
        let tasks: Vec<TaskId> = self.places.iter().filter_map(under_way).collect();
        if !tasks.is_empty() {
            self.pool.inner.shared.send(Command::CancelAll(tasks));
        }
    }
}

impl<T: Task, I> fmt::Debug for Map<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("task", &T::NAME)
            .field("under_way", &self.feed.under_way)
            .finish_non_exhaustive()
    }
}

impl<T: Task, I> fmt::Debug for Unordered<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unordered")
            .field("task", &T::NAME)
            .field("under_way", &self.feed.under_way)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
