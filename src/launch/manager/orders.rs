//! Orders: how this process has another one started by its own process manager, and hears of it, without a call of its MPI.
//! What was ordered knows no difference: it finds a parent, at a port.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{EventfdFlags, eventfd};

use super::jobs::PARENT_PORT;
use super::ports::PortNames;
use super::protocol::{Command, Spawn};

/// Is called once, on the thread of the process manager.
pub(super) type Tell = Box<dyn FnOnce(bool) + Send>;

pub(super) struct Order {
    pub(super) spawn: Spawn,
    pub(super) tell: Tell,
}

/// What is to be started.
pub(crate) struct Wanted<'a> {
    pub(crate) executable: &'a [u8],
    pub(crate) arguments: Vec<&'a [u8]>,
    /// What `MPI_Comm_spawn` would be told in its info.
    pub(crate) info: Vec<(&'a [u8], &'a [u8])>,
}

/// Where orders are given.
pub(crate) struct Office {
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
    port: Arc<OnceLock<Vec<u8>>>,
}

/// Where they come.
pub(super) struct Inbox {
    orders: Receiver<Order>,
    bell: Arc<OwnedFd>,
    /// A port of the host's library, as soon as that has named one.
    port: Arc<OnceLock<Vec<u8>>>,
}

pub(super) fn open() -> std::io::Result<(Office, Inbox)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (give, take) = unbounded();
    let port = Arc::new(OnceLock::new());
    let office = Office { orders: give, bell: Arc::clone(&bell), port: Arc::clone(&port) };
    Ok((office, Inbox { orders: take, bell, port }))
}

impl Office {
    /// Names of ports, once a spawn with [`super::ASKS_FOR_PORT`] has returned.
    pub(crate) fn port_names(&self) -> Option<PortNames> {
        PortNames::like(self.port.get()?)
    }

    /// Has one process started whose parent is at this port. `tell` is told true when it asks for the port, and is about to
    /// come there; false if it has ended before, or could not be started.
    pub(crate) fn order(&self, wanted: &Wanted<'_>, port: &[u8], tell: impl FnOnce(bool) + Send + 'static) {
        let command = Command {
            executable: wanted.executable.to_vec(),
            arguments: wanted.arguments.iter().map(|argument| argument.to_vec()).collect(),
            count: 1,
            info: wanted.info.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect(),
        };
        let values = vec![(PARENT_PORT.to_vec(), port.to_vec())];
        let spawn = Spawn { commands: vec![command], values };
        // The thread that takes it ends with the process.
        let _ = self.orders.send(Order { spawn, tell: Box::new(tell) });
        // It can only fail for want of room in the counter, and then the thread is being woken anyway.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }
}

impl Inbox {
    /// Readable when there is something.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn take(&self) -> Vec<Order> {
        // Nothing there is as good as something: what has come is in the channel.
        let _ = rustix::io::read(&*self.bell, &mut [0_u8; 8]);
        self.orders.try_iter().collect()
    }

    /// The host's library has named a port.
    pub(super) fn learn(&self, name: Vec<u8>) {
        // All of its names differ in the number alone.
        let _ = self.port.set(name);
    }
}
