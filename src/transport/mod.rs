//! The port between the driver and whatever carries frames: MPI, or memory.
//!
//! `mpi` spawns processes, `loopback` starts threads in this process; both really serialize. The
//! driver knows only this file, and nothing here knows tasks.

use bytes::Bytes;

use crate::error::SpawnFailure;
use crate::ids::{TaskId, WorkerId};
use crate::launch::Program;
use crate::wire::frame::Parcel;

pub(crate) mod bells;
pub(crate) mod claim;
#[cfg(feature = "mpi")]
pub(crate) mod control;
mod doorbell;
#[cfg(feature = "mpi")]
pub(crate) mod heartbeat;
pub(crate) mod loopback;
#[cfg(feature = "mpi")]
pub(crate) mod mpi;
pub(crate) mod output;
pub(crate) mod parent;
mod patience;
pub(crate) mod pulse;
#[cfg(feature = "mpi")]
pub(crate) mod stream;

pub(crate) use doorbell::Doorbell;
pub use output::Output;
pub(crate) use patience::{Attention, Patience};
pub(crate) use pulse::{Call, Pulse};

/// What the driver asks of a transport. No method blocks on a worker, except `poll` where MPI can only spawn on the
/// thread that polls, and `disconnect`.
pub(crate) trait Transport {
    /// Starts a worker. [`Report::Spawned`] or [`Report::SpawnFailed`] follows from `poll`, within bounded time of its
    /// turn.
    fn spawn(&mut self, worker: WorkerId, program: &Program);
    /// Sends a frame. Frames to one worker arrive in the order in which they were sent.
    fn send(&mut self, worker: WorkerId, frame: Parcel);
    /// Stops a worker from beginning another task. [`Report::Recalled`] follows, if it can be stopped.
    fn recall(&mut self, worker: WorkerId);
    /// Closes the connection to a worker that said goodbye: both sides do so at the same time.
    fn disconnect(&mut self, worker: WorkerId);
    /// Forgets a worker that is lost; nothing is sent to it and nothing is expected of it.
    fn abandon(&mut self, worker: WorkerId);
    /// Makes progress and collects what happened. Returns whether anything did.
    fn poll(&mut self, reports: &mut Vec<Report>) -> bool;
    /// Gives up the spawns that have not begun, and says whose they were. Nothing is reported of them.
    fn cancel_spawns(&mut self) -> Vec<WorkerId>;
    /// Whether something was started that only further polling can finish (a send, a spawn).
    fn is_pending(&self) -> bool;
    /// How many bytes it is sending and receiving.
    fn bytes_under_way(&self) -> usize {
        0
    }
    /// Whether the next poll has something to report. Asked just before the driver sleeps.
    fn has_arrived(&mut self) -> bool;
    /// Whether it rings the driver's doorbell when something arrives. One that does not must be polled
    /// for as long as anything is expected of a worker.
    fn rings(&self) -> Rings;
}

/// How the driver learns that something has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rings {
    /// Its doorbell is rung.
    Always,
    /// It is rung, but what rings may be there before what it rings for.
    Mostly,
    /// It has to look.
    Never,
}

/// What a transport reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// The worker's process exists.
    Spawned { worker: WorkerId },
    /// The worker's process could not be started.
    SpawnFailed { worker: WorkerId, failure: SpawnFailure },
    /// A frame came from the worker.
    Frame { worker: WorkerId, bytes: Bytes },
    /// The worker was stopped, when this was the last task that it had begun.
    Recalled { worker: WorkerId, begun: Option<TaskId> },
    /// The connection to the worker broke.
    Lost { worker: WorkerId, reason: String },
}

/// The worker's end of a transport: what the worker's loop asks for.
pub(crate) trait Link {
    /// Sends a frame to the host.
    ///
    /// # Errors
    /// [`LinkError`] if the host cannot be reached any more.
    fn send(&mut self, frame: Parcel) -> Result<(), LinkError>;
    /// Takes the next frame from the host if there is one, and makes progress.
    ///
    /// # Errors
    /// [`LinkError`] if the host cannot be reached any more.
    fn try_receive(&mut self) -> Result<Option<Bytes>, LinkError>;
    /// Waits for the next frame from the host. It sleeps where the transport can be woken, and polls
    /// ever more slowly where it cannot.
    ///
    /// # Errors
    /// [`LinkError`] if the host cannot be reached any more.
    fn receive(&mut self) -> Result<Bytes, LinkError>;
    /// Waits until what was sent has left this process.
    ///
    /// # Errors
    /// [`LinkError`] if the host cannot be reached any more.
    fn flush(&mut self) -> Result<(), LinkError>;
}

/// The host is out of reach: nothing is left to do for this worker.
#[derive(Debug, thiserror::Error)]
#[error("the host cannot be reached any more: {0}")]
pub(crate) struct LinkError(pub(crate) String);
