//! How the host has a process started ahead of its spawn: an order to the thread that is the process manager, and what
//! that says of it.
//!
//! Most of what a spawn takes is the start of the worker, up to the end of `MPI_Init`. Started ahead, a worker asks for
//! the port of its parent when it has come there, and only then the host calls `MPI_Comm_spawn`, which finds it ready.
//! So several workers start at once, nobody waits for them, and one that dies on the way has cost no call of MPI.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use super::protocol::Command;

/// What becomes of a process that was started ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits for its spawn.
    Waits,
    /// It could not be started, for this reason.
    NotStarted(String),
}

/// A process that is to be started ahead.
pub(crate) struct Order {
    pub(crate) executable: OsString,
    /// By these its spawn is known: no other process has the same.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: OsString,
    pub(crate) report: Report,
}

/// Whom to tell. Called on the manager's thread.
pub(crate) type Report = Box<dyn Fn(Standing) + Send>;

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order").field("arguments", &self.arguments).finish_non_exhaustive()
    }
}

impl Order {
    pub(super) fn into_command(self) -> (Command, Report) {
        let arguments = self.arguments.into_iter().map(OsStringExt::into_vec).collect();
        let info = vec![(b"wdir".to_vec(), self.directory.into_vec())];
        (Command { executable: self.executable.into_vec(), arguments, count: 1, info }, self.report)
    }
}

/// Where orders are given.
#[derive(Clone, Debug)]
pub(crate) struct Starter {
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
}

impl Starter {
    /// Has a process started.
    pub(crate) fn start(&self, order: Order) {
        // The manager is there as long as the process is.
        let _ = self.orders.send(order);
        // It can only fail for want of room in the counter, and then the thread is being woken anyway.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// Where they arrive.
#[derive(Debug)]
pub(super) struct Orders {
    inbox: Receiver<Order>,
    bell: Arc<OwnedFd>,
}

impl Orders {
    pub(super) fn new() -> std::io::Result<(Starter, Self)> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (orders, inbox) = unbounded();
        Ok((Starter { orders, bell: Arc::clone(&bell) }, Self { inbox, bell }))
    }

    /// Readable when there is one.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next one.
    pub(super) fn take(&self) -> Option<Order> {
        // Before the orders: one that comes now rings again.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.inbox.try_recv().ok()
    }
}
