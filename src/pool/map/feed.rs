//! The feed of a stream: its calls on their way from the source into the pool, and their answers back.
//!
//! The source and the encoding of arguments are the user's code: they may be slow, block, panic, or use
//! the same pool. So nothing that others wait for is held across them: a call that has been encoded is
//! `ready` and has no place in the pool yet; it enters the gate when it is sent. And because the source
//! may block, it is asked only while no answer is there to be given, and what it gave before is sent
//! first, except for a part that is small beside what is under way.

use std::collections::VecDeque;
use std::fmt;
use std::iter::Fuse;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::Table;
use crate::driver::{Command, Submission};
use crate::error::{Origin, RejectReason, TaskError};
use crate::ids::{ProgramId, TaskId};
use crate::pool::block::block_on;
use crate::pool::handle::decode;
use crate::pool::reply::{Arrival, Batch, Inbox, Promise, Settled};
use crate::pool::{Answer, Pool, encode, finish};
use crate::task::{Call, Conditions, Task};
use crate::wire::payload::Payload;

/// Calls that a stream is ahead of its user at most: enough to fill the windows of many workers with the
/// shortest tasks.
const AHEAD: usize = 8192;
/// Bytes of arguments and results that a stream holds at most, so that large ones are not all held at once.
const AHEAD_BYTES: usize = 64 << 20;
/// So many calls are taken however large they are: two a worker, to hide the round trip.
const AHEAD_PER_WORKER: usize = 2;
/// Calls that are sent together at most.
const BATCH: usize = 64;
/// One call may wait to be sent for each so many that are under way, because they keep the workers busy.
const UNDER_WAY_PER_UNSENT: usize = 16;
/// A source that has taken so long has it looked after what else there is to do.
const PATIENCE: Duration = Duration::from_micros(100);
/// Calls between two looks at the clock, which costs as much as half a call.
const CALLS_A_LOOK: usize = 8;
/// How often a stream whose calls find the pool full looks for room, while it waits for its own answers.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The calls of a stream on their way.
pub(super) struct Feed<T: Task, I> {
    pool: Pool,
    program: ProgramId,
    calls: Fuse<I>,
    ahead: usize,
    /// Calls taken so far.
    taken: usize,
    /// Calls that are taken and whose results have not been given, and their bytes: of the arguments
    /// until a call has ended, of the result from then on.
    pub(super) held: Load,
    /// Results so far. Those to come are taken to be as large.
    answered: Load,
    /// Encoded and not sent; they hold no place in the pool.
    pub(super) ready: VecDeque<Ready>,
    /// Sent and not answered, by the index of the call.
    pub(super) under_way: Table<UnderWay>,
    inbox: Arc<Inbox>,
    arrived: VecDeque<Arrival>,
    _task: PhantomData<fn() -> T>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) calls: usize,
    bytes: usize,
}

pub(super) struct Ready {
    index: usize,
    arguments: Payload,
    conditions: Option<Box<Conditions>>,
}

pub(super) struct UnderWay {
    task: TaskId,
    bytes: usize,
}

impl<T: Task, I: Iterator<Item = Call<T>>> Feed<T, I> {
    pub(super) fn new(pool: Pool, program: ProgramId, calls: I) -> Self {
        Self {
            pool,
            program,
            calls: calls.fuse(),
            ahead: AHEAD,
            taken: 0,
            held: Load::default(),
            answered: Load::default(),
            ready: VecDeque::new(),
            under_way: Table::default(),
            inbox: Arc::default(),
            arrived: VecDeque::new(),
            _task: PhantomData,
        }
    }

    pub(super) fn limit(&mut self, calls: usize) {
        self.ahead = calls.max(1);
    }

    /// What has ended since the last time, after a wait if need be; none when nothing is left to come.
    pub(super) fn arrivals(&mut self) -> Option<VecDeque<Arrival>> {
        loop {
            if self.pool.inner.shared.is_of_another_process() {
                self.give_up();
            } else {
                self.collect();
            }
            if self.arrived.is_empty() {
                self.top_up();
            }
            if !self.arrived.is_empty() {
                return Some(mem::take(&mut self.arrived));
            }
            if !self.under_way.is_empty() {
                self.wait();
            } else if !self.ready.is_empty() {
                self.enter();
            } else {
                return None;
            }
        }
    }

    /// Turns an arrival into what the stream yields: it is no longer held.
    pub(super) fn give(&mut self, arrival: Arrival) -> Result<T::Output, TaskError> {
        let Arrival { task, settled, .. } = arrival;
        self.held.calls -= 1;
        self.held.bytes -= length(&settled);
        decode(task, T::NAME, settled)
    }

    /// Takes calls from the source and sends them, until enough are, or something has arrived. It does
    /// not begin until half of them are done, if that leaves the workers enough: many at once cost less.
    fn top_up(&mut self) {
        let margin = if self.to_come() < self.few() { 0 } else { self.ahead / 2 };
        if !self.flush() || !self.has_room(margin) {
            return;
        }
        let mut since = Instant::now();
        while self.arrived.is_empty() && self.has_room(0) {
            let due = self.is_due();
            if due && !self.flush() || !self.take() {
                break;
            }
            let look = due || self.taken.is_multiple_of(CALLS_A_LOOK);
            if look && since.elapsed() > PATIENCE {
                self.flush();
                self.collect();
                since = Instant::now();
            }
        }
        self.flush();
    }

    /// Takes a call from the source, and encodes it. Whether there was one.
    fn take(&mut self) -> bool {
        let Some(mut call) = self.calls.next() else { return false };
        let admitted = self.pool.check(self.program).and_then(|()| encode(&mut call));
        let index = self.taken;
        self.taken += 1;
        self.held.calls += 1;
        match admitted {
            Ok(draft) => {
                let arguments = finish(draft, &mut call);
                self.held.bytes += arguments.len();
                self.ready.push_back(Ready { index, arguments, conditions: call.conditions() });
            }
            Err(reason) => self.reject(index, reason),
        }
        true
    }
}

impl<T: Task, I> Feed<T, I> {
    /// Whether `margin` more calls and another one may be taken.
    ///
    /// How large results are is known when some have come; until then few are asked for.
    fn has_room(&self, margin: usize) -> bool {
        let few = self.few();
        let ahead = if self.answered.calls == 0 { few.max(BATCH).min(self.ahead) } else { self.ahead };
        let bytes = self.held.bytes + self.to_come() * (self.answered.bytes / self.answered.calls.max(1));
        let calls = self.held.calls;
        calls < few.min(ahead) || calls + margin < ahead && bytes < AHEAD_BYTES
    }

    /// Calls whose results have not come.
    fn to_come(&self) -> usize {
        self.ready.len() + self.under_way.len()
    }

    fn few(&self) -> usize {
        AHEAD_PER_WORKER * self.pool.workers_max() as usize
    }

    /// Whether what is ready must be sent before the source is asked for more.
    fn is_due(&self) -> bool {
        let under_way = self.under_way.len();
        under_way < self.few() || self.ready.len() >= BATCH.min(under_way / UNDER_WAY_PER_UNSENT)
    }

    /// Sends what is ready, as far as the pool has room. Whether all of it has gone.
    fn flush(&mut self) -> bool {
        if self.ready.is_empty() {
            return true;
        }
        let shared = &self.pool.inner.shared;
        if let Some(reason) = shared.gate.closed() {
            self.reject_ready(&reason);
            return true;
        }
        let entered = shared.gate.try_enter(self.ready.len());
        self.send(entered);
        self.ready.is_empty()
    }

    /// Waits until the pool has room for one call, and sends it.
    fn enter(&mut self) {
        match self.pool.inner.shared.gate.enter() {
            Ok(()) => self.send(1),
            Err(reason) => self.reject_ready(&reason),
        }
    }

    /// Sends the first of what is ready. They have entered.
    fn send(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let shared = Arc::clone(&self.pool.inner.shared);
        let batch = Batch::of(&self.inbox);
        let submissions = self.ready.drain(..count).map(|Ready { index, arguments, conditions }| {
            let task = shared.number_task();
            self.under_way.insert(index as u64, UnderWay { task, bytes: arguments.len() });
            let promise = Promise::to_inbox(task, T::DEFINITION, Arc::clone(&batch), index);
            Submission { program: self.program, arguments, promise, conditions }
        });
        let submissions = submissions.collect();
        shared.send(Command::SubmitAll(submissions));
    }

    fn reject_ready(&mut self, reason: &Arc<str>) {
        while let Some(Ready { index, arguments, .. }) = self.ready.pop_front() {
            self.held.bytes -= arguments.len();
            self.reject(index, RejectReason::Closed { reason: Arc::clone(reason) });
        }
    }

    /// This is a child that was forked while the stream was under way: its answers go to the process that it is a copy of.
    fn give_up(&mut self) {
        while let Some(Ready { index, arguments, .. }) = self.ready.pop_front() {
            self.held.bytes -= arguments.len();
            self.reject(index, RejectReason::Forked);
        }
        let under_way = mem::take(&mut self.under_way);
        for (index, &UnderWay { task, bytes }) in under_way.iter() {
            self.held.bytes -= bytes;
            let settled = Err(TaskError::forked(Origin { task, name: T::NAME, place: None }).into());
            self.arrived.push_back(Arrival { index: index as usize, task, settled });
        }
    }

    /// The call's result is that it was not accepted.
    fn reject(&mut self, index: usize, reason: RejectReason) {
        let task = self.pool.inner.shared.number_task();
        let origin = Origin { task, name: T::NAME, place: None };
        let settled = Err(TaskError::Rejected { origin, reason }.into());
        self.arrived.push_back(Arrival { index, task, settled });
    }

    /// Takes what is in the inbox.
    fn collect(&mut self) {
        let arrived = self.inbox.take_all();
        self.note(arrived);
    }

    /// Waits until something is in the inbox, and takes it; or until it may be that the pool has room.
    fn wait(&mut self) {
        let until = (!self.ready.is_empty()).then(|| Instant::now() + LOOK_EVERY);
        let arrived = block_on(until, |context| self.inbox.poll_take_all(context));
        self.note(arrived.unwrap_or_default());
    }

    fn note(&mut self, arrived: VecDeque<Arrival>) {
        for arrival in &arrived {
            let sent = self.under_way.remove(arrival.index as u64).expect("what is answered has been sent");
            let length = length(&arrival.settled);
            self.held.bytes = self.held.bytes - sent.bytes + length;
            self.answered.calls += 1;
            self.answered.bytes += length;
        }
        if self.arrived.is_empty() {
            self.arrived = arrived;
        } else {
            self.arrived.extend(arrived);
        }
    }

    pub(super) fn describe(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("task", &T::NAME)
            .field("under_way", &self.under_way.len())
            .field("held", &self.held.calls)
            .finish_non_exhaustive()
    }
}

impl<T: Task, I> Drop for Feed<T, I> {
    fn drop(&mut self) {
        if !self.under_way.is_empty() {
            let tasks = self.under_way.iter().map(|(_, sent)| sent.task).collect();
            self.pool.inner.shared.send(Command::CancelAll(tasks));
        }
    }
}

/// The bytes of a result.
fn length(settled: &Settled) -> usize {
    match settled {
        Ok(Answer { result, .. }) => result.len(),
        Err(_) => 0,
    }
}
