//! The pool: what a host holds. It submits, maps, counts and ends; it never makes an MPI call.
//!
//! `builder` makes one, `handle` is one task's future, `map` streams many, `completed` takes handles
//! as they finish. Beneath: `reply` (where answers go), `gate` (how many may be under way), `shared`
//! (what API threads and the driver share).

mod backend;
mod block;
mod builder;
mod completed;
#[cfg(feature = "mpi")]
mod embedded;
#[cfg(not(feature = "mpi"))]
#[path = "embedded_absent.rs"]
mod embedded;
mod exit;
mod gate;
mod handle;
mod isolation;
mod map;
mod reply;
mod shared;
mod stats;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use builder::Builder;
pub use completed::{AsCompleted, as_completed};
pub use handle::Handle;
pub use map::{Indexed, Map, Unordered};
use stats::Kind;
pub use stats::Stats;

pub(crate) use gate::Gate;
#[cfg(feature = "mpi")]
pub(crate) use isolation::{decide, decide_alone};
pub(crate) use reply::{Answer, Promise, Settled};
pub(crate) use shared::Shared;

use crate::core::ShutdownMode;
use crate::driver::{Command, Submission};
use crate::error::{BuildError, RejectReason, SubmitError};
use crate::ids::ProgramId;
use crate::launch::Program;
use crate::slots::{Slots, Source};
use crate::task::{Call, Task};
use crate::wire::codec::Draft;
use crate::wire::message::PAYLOAD_MAX;
use crate::wire::payload::Payload;

/// How long the drop of a pool waits for tasks that run, before it leaves them alone.
const DROP_GRACE: Duration = Duration::from_secs(5);

/// Workers that grow on demand, and the tasks handed to them.
///
/// Clones share one pool; any number of threads may use them. A pool ends with [`Pool::shutdown`],
/// which lets all tasks finish, or when its last clone is dropped, which cancels what waits, asks what
/// runs to stop ([`Context::cancelled`](crate::Context::cancelled)), ends the workers of what does not in its
/// grace ([`Builder::stop_grace`]), and waits up to five seconds for the workers to leave. Handles stay valid either way. The
/// end of the process, by a return from `main` or `exit`, does the same with pools that are left.
///
/// A child that the process forks has no part in its pools: there each call is an error at once
/// ([`RejectReason::Forked`], [`TaskError::PoolFailed`](crate::TaskError::PoolFailed)), and the pool goes on where it was built.
///
/// ```no_run
/// offshoot::tasks! {
///     /// Sum of a vector.
///     pub fn sum(values: Vec<f64>) -> f64 { Ok(values.iter().sum()) }
/// }
///
/// fn main() -> anyhow::Result<()> {
///     offshoot::init();
///     let pool = offshoot::Pool::builder().workers(0..=8).build()?;
///     let one = pool.submit(sum(vec![1.0, 2.0]))?;
///     println!("{}", one.wait()?);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    workers_max: u32,
    workers_max_source: Source,
    kind: Kind,
    slots: Slots,
    programs: AtomicU32,
    /// Held while a program is numbered and announced, so that numbers and announcements agree.
    adding: Mutex<()>,
}

impl Pool {
    /// The settings of a pool, each with a default.
    pub fn builder() -> Builder {
        Builder::default()
    }

    #[cfg(test)]
    pub(crate) fn new(shared: Arc<Shared>, workers_max: u32) -> Self {
        Self::on(Slots::of_cores(), shared, workers_max, Source::User, Kind::default())
    }

    fn on(
        slots: Slots,
        shared: Arc<Shared>,
        workers_max: u32,
        workers_max_source: Source,
        kind: Kind,
    ) -> Self {
        let (programs, adding) = (AtomicU32::new(1), Mutex::new(()));
        let inner = Inner { shared, workers_max, workers_max_source, kind, slots, programs, adding };
        Self { inner: Arc::new(inner) }
    }

    /// Submits a task to the default program. Waits while the pool holds `queue_max` unfinished tasks.
    ///
    /// # Errors
    /// [`SubmitError`], with the call in it, if the arguments cannot be encoded or are too large, or
    /// if the pool is closed.
    pub fn submit<T: Task>(&self, call: Call<T>) -> Result<Handle<T::Output>, SubmitError<Call<T>>> {
        self.submit_to(ProgramId(0), call)
    }

    /// Submits a task to a program of this pool. Waits while the pool holds `queue_max` unfinished tasks.
    ///
    /// # Errors
    /// As [`Pool::submit`]; and if the program is not one of this pool's.
    pub fn submit_to<T: Task>(
        &self,
        program: ProgramId,
        call: Call<T>,
    ) -> Result<Handle<T::Output>, SubmitError<Call<T>>> {
        self.admit(program, call, |gate| gate.enter().map_err(|reason| RejectReason::Closed { reason }))
    }

    /// Submits a task to the default program, if the pool has room for it now.
    ///
    /// # Errors
    /// As [`Pool::submit`]; and [`RejectReason::Full`].
    pub fn try_submit<T: Task>(&self, call: Call<T>) -> Result<Handle<T::Output>, SubmitError<Call<T>>> {
        self.try_submit_to(ProgramId(0), call)
    }

    /// Submits a task to a program of this pool, if the pool has room for it now.
    ///
    /// # Errors
    /// As [`Pool::submit_to`]; and [`RejectReason::Full`].
    pub fn try_submit_to<T: Task>(
        &self,
        program: ProgramId,
        call: Call<T>,
    ) -> Result<Handle<T::Output>, SubmitError<Call<T>>> {
        self.admit(program, call, |gate| match gate.try_enter(1) {
            0 => Err(RejectReason::Full { limit: gate.limit() }),
            _ => Ok(()),
        })
    }

    fn admit<T: Task>(
        &self,
        program: ProgramId,
        mut call: Call<T>,
        enter: impl FnOnce(&Gate) -> Result<(), RejectReason>,
    ) -> Result<Handle<T::Output>, SubmitError<Call<T>>> {
        let shared = &self.inner.shared;
        let admitted = self.check(program).and_then(|()| encode(&mut call)).and_then(|draft| {
            enter(&shared.gate)?;
            Ok(draft)
        });
        let draft = match admitted {
            Ok(draft) => draft,
            Err(reason) => return Err(SubmitError { call, reason }),
        };
        // From here on nobody wants the call back.
        let arguments = finish(draft, &mut call);
        let task = shared.number_task();
        let (promise, slot) = Promise::to_slot(task, T::DEFINITION);
        let conditions = call.conditions();
        shared.send(Command::Submit(Submission { program, arguments, promise, conditions }));
        Ok(Handle::new(task, T::NAME, slot, Arc::clone(shared)))
    }

    /// Whether this pool takes tasks for a program.
    fn check(&self, program: ProgramId) -> Result<(), RejectReason> {
        if self.inner.shared.is_of_another_process() {
            return Err(RejectReason::Forked);
        }
        if let Some(reason) = self.inner.shared.gate.closed() {
            return Err(RejectReason::Closed { reason });
        }
        if program.0 >= self.inner.programs.load(Ordering::Acquire) {
            return Err(RejectReason::Program { program });
        }
        Ok(())
    }

    /// Submits all calls of an iterator to the default program and streams their results, in the order
    /// of the calls. Turn it into [`Map::unordered`] for results as they come.
    ///
    /// Calls are taken as results are, some way ahead, so that an endless iterator works. It is asked by
    /// whoever takes results, and only when none is there: it may wait, or use this pool itself, but
    /// results that come while it waits are given after it. A call that is not accepted ends up as an
    /// error in its place.
    ///
    /// ```no_run
    /// # offshoot::tasks! {
    /// #     fn square(x: f64) -> f64 { Ok(x * x) }
    /// #     fn add(x: f64, y: f64) -> f64 { Ok(x + y) }
    /// # }
    /// # fn main() -> anyhow::Result<()> {
    /// # let pool = offshoot::Pool::builder().build()?;
    /// for result in pool.map((0..100).map(|x| square(f64::from(x)))) {
    ///     println!("{}", result?);
    /// }
    /// let pairs = [(1.0, 2.0), (3.0, 4.0)];
    /// for sum in pool.map(pairs.map(|(x, y)| add(x, y))).unordered() {
    ///     println!("{}", sum?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<T: Task, I: IntoIterator<Item = Call<T>>>(&self, calls: I) -> Map<T, I::IntoIter> {
        self.map_to(ProgramId(0), calls)
    }

    /// As [`Pool::map`], for a program of this pool.
    pub fn map_to<T: Task, I: IntoIterator<Item = Call<T>>>(
        &self,
        program: ProgramId,
        calls: I,
    ) -> Map<T, I::IntoIter> {
        Map::new(self.clone(), program, calls.into_iter())
    }

    /// Adds a program. Its first worker is spawned when its first task comes; all programs of a pool
    /// share its `workers` limit.
    ///
    /// # Errors
    /// [`BuildError::Program`] if it cannot be started as it is described.
    pub fn add_program(&self, program: Program) -> Result<ProgramId, BuildError> {
        program.check()?;
        let _adding = self.inner.adding.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.shared.send(Command::AddProgram(program));
        Ok(ProgramId(self.inner.programs.fetch_add(1, Ordering::AcqRel)))
    }

    /// The program that tasks go to unless told otherwise.
    #[must_use]
    pub fn default_program(&self) -> ProgramId {
        ProgramId(0)
    }

    /// How many workers the pool may have.
    #[must_use]
    pub fn workers_max(&self) -> u32 {
        self.inner.workers_max
    }

    /// Where [`Pool::workers_max`] comes from.
    #[must_use]
    pub fn workers_max_source(&self) -> &Source {
        &self.inner.workers_max_source
    }

    /// The hosts that workers are started on.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        &self.inner.slots
    }

    /// How many workers and tasks there are, as of the driver's last turn.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        shared.stats().with(self.inner.kind, shared.parents())
    }

    /// Ends the pool: takes no more tasks, lets those that it has finish, and waits until the workers
    /// have left. All clones are closed with it.
    pub fn shutdown(&self) {
        self.inner.shut_down(ShutdownMode::Drain);
    }

    /// Ends the pool: cancels the tasks that wait, asks those that run to stop, and waits until they
    /// have and the workers have left. All clones are closed with it.
    pub fn shutdown_now(&self) {
        self.inner.shut_down(ShutdownMode::Cancel);
    }
}

impl Inner {
    fn shut_down(&self, mode: ShutdownMode) {
        // In a child that the host has forked there is no driver that could end.
        if self.shared.is_of_another_process() {
            return;
        }
        self.shared.close("it was shut down", mode);
        self.shared.wait_for_end(None);
        self.shared.wait_for_the_rest();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // In a child that the host has forked there is no driver that could end.
        if self.shared.is_of_another_process() {
            return;
        }
        self.shared.close("it was dropped", ShutdownMode::Cancel);
        // A waker may own the last clone, and be woken and dropped by the driver itself.
        if self.shared.is_driver() {
            return;
        }
        if self.shared.wait_for_end(Some(DROP_GRACE)) {
            self.shared.wait_for_the_rest();
        } else {
            tracing::warn!(
                "a task still runs {DROP_GRACE:?} after its pool was dropped; its worker is left to it"
            );
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers_max", &self.workers_max())
            .field("stats", &self.stats())
            .finish()
    }
}

/// The arguments of a call that nobody wants back. The driver sends copies of them, which share their memory: what it takes
/// to share it is made here, and not on its thread.
fn finish<T: Task>(draft: Draft, call: &mut Call<T>) -> Payload {
    let arguments = draft.finish(call.args_mut(), T::show_arguments);
    drop(arguments.clone());
    arguments
}

fn encode<T: Task>(call: &mut Call<T>) -> Result<Draft, RejectReason> {
    let draft = Draft::of(call.args_mut(), T::show_arguments)
        .map_err(|error| RejectReason::Arguments { reason: error.to_string() })?;
    if draft.len() > PAYLOAD_MAX {
        return Err(RejectReason::TooLarge { length: draft.len(), limit: PAYLOAD_MAX });
    }
    Ok(draft)
}

#[cfg(test)]
mod tests;
