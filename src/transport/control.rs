//! The parent's end of the control channel: what is known of the guards of this process, and one thread
//! (`listener`) that listens to them.
//!
//! It exists beside the MPI thread because that one is blocked while `MPI_Comm_spawn` runs, and whether a
//! spawn returns may depend on what is done meanwhile: a worker that does not reach `MPI_Init` in time must
//! be killed for it. The channel is a Unix socket in the abstract name space, which leaves no file behind;
//! who connects must be of the same user and know the secret. Only where workers are on other hosts it listens
//! on the network too, at the addresses that these hosts reach; there the secret alone decides, and both sides
//! say now and then that they are there, because nobody else tells when a host is gone.
//!
//! What workers write passes through here to `output.rs`, and the thread never waits for those who take it.

mod burial;
mod listener;

use std::net::{IpAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, eventfd};

use super::Doorbell;
use super::output::Voice;
use super::stream::{Address, Stream};
use crate::ids::TaskId;
use crate::launch;
use crate::process as own;
use crate::wire::control::{Ended, How, Secret, Start, Ticket, ToGuard, WINDOW};
use burial::Burials;
use listener::Listener;

/// A guard is told that it has room when it is so much.
const TELL_ROOM: usize = WINDOW / 4;

/// What is told of a guard's worker.
#[derive(Debug)]
pub(crate) enum Notice {
    /// It passed `MPI_Init`.
    Ready,
    /// It was stopped, when this was the last task that it had begun.
    Recalled { begun: Option<TaskId> },
    /// It ended, or its guard did.
    Ended(Ended, Option<Whereabouts>),
}

/// A worker as its guard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    pub(crate) pid: u32,
    pub(crate) host: Arc<str>,
}

/// A spawn that is to be asked for.
pub(crate) struct Expectation {
    pub(crate) start: Start,
    /// When the worker is killed, unless it has passed `MPI_Init`.
    pub(crate) deadline: Instant,
    /// How long a worker that is to be ended may take to do so by itself.
    pub(crate) kill_grace: Duration,
    pub(crate) notices: Sender<(Ticket, Notice)>,
    /// Where what it writes goes.
    pub(crate) voice: Option<Voice>,
}

/// The parent's end of the control channel.
#[derive(Clone)]
pub(crate) struct Control {
    address: String,
    state: Arc<State>,
}

struct State {
    secret: Secret,
    guards: Mutex<Guards>,
    /// Sockets on the network: where there are any, and those that the thread has not taken over yet.
    networks: Mutex<Networks>,
    /// Wakes the thread.
    bell: OwnedFd,
    doorbell: Arc<Doorbell>,
    /// Makes a spawn return that waits at this port.
    release: fn(&str),
    /// Where the daemon must not hear of a guard's end too early.
    burials: Option<Burials>,
}

/// What the control thread may ask of MPI, beside the thread that owns it.
#[derive(Clone, Copy)]
pub(crate) struct Aid {
    /// Makes a spawn return that waits for what was to be published under this name.
    pub(crate) release: fn(&str),
    /// Asks the daemon through which it spawns for something, and returns when that has answered; where burials are
    /// needed.
    pub(crate) ask: Option<fn()>,
}

#[derive(Default)]
struct Guards {
    next: u64,
    expected: FxHashMap<Ticket, Expected>,
    /// When a worker was last gone.
    last_death: Option<Instant>,
}

#[derive(Default)]
struct Networks {
    addresses: Vec<std::net::SocketAddr>,
    fresh: Vec<TcpListener>,
}

/// A spawn that was asked for, from before it to the end of its worker.
struct Expected {
    start: Option<Start>,
    notices: Sender<(Ticket, Notice)>,
    /// The port that `MPI_Comm_spawn` waits at, while it does and where that can be helped.
    awaited: Option<String>,
    /// The guard's connection, once it has proved who it is.
    stream: Option<Stream>,
    whereabouts: Option<Whereabouts>,
    /// When the worker is killed, unless it has passed `MPI_Init`.
    deadline: Option<Instant>,
    is_overdue: bool,
    /// When it is given up because another worker has died while it starts.
    jam: Option<Instant>,
    /// It was, and is killed then.
    linger: Option<Instant>,
    kill_grace: Duration,
    /// Its end was asked for, perhaps before there was anybody to ask.
    is_killed: bool,
    /// Nobody is interested in its end any more, only in what it writes until then.
    is_forgotten: bool,
    /// Its guard has said all.
    is_over: bool,
    voice: Option<Arc<Voice>>,
    /// What of its output has not been taken yet, by its cost.
    under_way: usize,
    /// What has been taken, and its guard was not told yet.
    owed: usize,
}

impl Control {
    /// Starts to listen.
    pub(crate) fn start(secret: [u8; 16], doorbell: Arc<Doorbell>, aid: Aid) -> std::io::Result<Self> {
        let file = own::secret_file().map_or("none".to_owned(), |file| file.to_string());
        let address = format!("offshoot-{}-{file}-{:08x}", process::id(), fresh_number()?);
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&address)?)?;
        listener.set_nonblocking(true)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = Arc::new(State {
            secret: Secret(secret),
            guards: Mutex::default(),
            networks: Mutex::default(),
            bell,
            doorbell,
            release: aid.release,
            burials: aid.ask.map(Burials::start).transpose()?,
        });
        let listener = Listener::new(Arc::clone(&state), listener);
        thread::Builder::new().name("offshoot control".to_owned()).spawn(move || listener.run())?;
        Ok(Self { address, state })
    }

    /// The process that listens there, and the descriptor of the file in which it keeps the secret, for
    /// a guard on the same host that has not inherited it.
    pub(crate) fn secret_place(address: &str) -> Option<(u32, RawFd)> {
        Some((Self::process_at(address)?, address.split('-').nth(2)?.parse().ok()?))
    }

    /// The process that listens there.
    pub(crate) fn process_at(address: &str) -> Option<u32> {
        address.split('-').nth(1)?.parse().ok()
    }

    /// Where guards on this host connect to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where guards on a host connect to that reaches this one at `ip`. From the first call on, it listens there.
    pub(crate) fn network_address(&self, own_name: &str, ip: IpAddr) -> std::io::Result<String> {
        let mut networks = self.state.networks();
        let known = networks.addresses.iter().find(|address| address.ip() == ip).copied();
        let address = match known {
            Some(address) => address,
            None => {
                let listener = TcpListener::bind((ip, 0))?;
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                networks.addresses.push(address);
                networks.fresh.push(listener);
                self.state.wake();
                address
            }
        };
        let name = self.address.clone();
        Ok(Address { name, network: Some((own_name.to_owned(), address)) }.to_string())
    }

    /// Whether workers may be on other hosts.
    pub(crate) fn is_on_network(&self) -> bool {
        !self.state.networks().addresses.is_empty()
    }

    /// Expects the guard of a spawn. Its worker is killed if it has not passed `MPI_Init` by the deadline.
    pub(crate) fn expect(&self, expectation: Expectation) -> Ticket {
        let Expectation { start, deadline, kill_grace, notices, voice } = expectation;
        let mut guards = self.state.guards();
        let ticket = Ticket(guards.next);
        guards.next += 1;
        let expected = Expected {
            start: Some(start),
            notices,
            awaited: None,
            stream: None,
            whereabouts: None,
            deadline: Some(deadline),
            is_overdue: false,
            jam: guards.jam_of_new(launch::jam_limit()),
            linger: None,
            kill_grace,
            is_killed: false,
            is_forgotten: false,
            is_over: false,
            voice: voice.map(Arc::new),
            under_way: 0,
            owed: 0,
        };
        guards.expected.insert(ticket, expected);
        drop(guards);
        self.state.wake();
        ticket
    }

    /// Whether a worker has died just now.
    pub(crate) fn has_death_within(&self, time: Duration) -> bool {
        self.state.guards().last_death.is_some_and(|death| death.elapsed() < time)
    }

    /// `MPI_Comm_spawn` has returned: with a worker, or with a guard in its place, or with an error.
    pub(crate) fn note_spawned(&self, ticket: Ticket, is_there: bool) {
        if let Some(expected) = self.state.guards().expected.get_mut(&ticket) {
            expected.deadline = None;
            expected.awaited = None;
            expected.jam = None;
            if is_there {
                expected.say(&ToGuard::Spawned);
            }
        }
    }

    /// Stops a worker from beginning another task.
    pub(crate) fn recall(&self, ticket: Ticket) {
        if let Some(expected) = self.state.guards().expected.get_mut(&ticket) {
            expected.say(&ToGuard::Recall);
        }
    }

    /// Ends a worker and its guard, of whom nothing more is to be heard.
    pub(crate) fn kill(&self, ticket: Ticket) {
        self.state.guards().let_go(ticket, |expected| match expected.linger {
            Some(_) => {}
            None => expected.end(),
        });
    }

    /// MPI is about to be finalized: nothing more is asked of it from here.
    pub(crate) fn ask_no_more(&self) {
        self.state.burials.iter().for_each(Burials::end);
    }

    /// What ends all workers, from any thread.
    pub(crate) fn killer(&self) -> Killer {
        Killer { state: Arc::clone(&self.state) }
    }

    /// Nothing more is to be heard of a worker that leaves in order, but for what it still writes.
    pub(crate) fn forget(&self, ticket: Ticket) {
        self.state.guards().let_go(ticket, |_| {});
    }
}

impl Guards {
    /// Does the last thing for a worker, whose end is nobody's business any more.
    fn let_go(&mut self, ticket: Ticket, act: impl FnOnce(&mut Expected)) {
        let Some(expected) = self.expected.get_mut(&ticket) else { return };
        act(expected);
        expected.is_forgotten = true;
        expected.deadline = None;
        if expected.is_over || expected.stream.is_none() {
            self.expected.remove(&ticket);
        }
    }

    /// A worker is gone, at which one that starts just now may be caught.
    fn note_death(&mut self, limit: Option<Duration>) {
        let until = limit.map(|limit| Instant::now() + limit);
        for expected in
            self.expected.values_mut().filter(|one| one.deadline.is_some() && one.stream.is_some())
        {
            expected.jam = expected.jam.or(until);
        }
        self.last_death = Some(Instant::now());
    }

    /// When a worker that is started now is killed, if it may be caught at a death.
    fn jam_of_new(&self, limit: Option<Duration>) -> Option<Instant> {
        let limit = limit?;
        self.last_death.filter(|death| death.elapsed() < limit).map(|_| Instant::now() + limit)
    }

    /// A guard has said all.
    fn end(&mut self, ticket: Ticket) {
        let Some(expected) = self.expected.get_mut(&ticket) else { return };
        expected.is_over = true;
        expected.voice = None;
        if expected.is_forgotten {
            self.expected.remove(&ticket);
        }
    }
}

/// What a piece of output counts for, until it is dropped: then its guard has room for more.
pub(crate) struct Credit {
    state: Arc<State>,
    ticket: Ticket,
    cost: usize,
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(expected) = self.state.guards().expected.get_mut(&self.ticket) {
            expected.under_way = expected.under_way.saturating_sub(self.cost);
            expected.owed += self.cost;
            if expected.owed >= TELL_ROOM {
                let cost = std::mem::take(&mut expected.owed) as u64;
                expected.say(&ToGuard::Taken { cost });
            }
        }
    }
}

/// Ends all workers of this process, whose MPI thread cannot do so any more.
#[derive(Clone)]
pub(crate) struct Killer {
    state: Arc<State>,
}

impl Killer {
    pub(crate) fn kill_all(&self) {
        self.state.guards().expected.values_mut().for_each(Expected::end);
    }

    /// Whether the worker of a spawn that has not returned is dead, and its guard gone.
    pub(crate) fn has_dead_spawn(&self) -> bool {
        let is_dead = |expected: &Expected| expected.deadline.is_some() && expected.is_over;
        self.state.guards().expected.values().any(is_dead)
    }
}

impl State {
    fn guards(&self) -> MutexGuard<'_, Guards> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn networks(&self) -> MutexGuard<'_, Networks> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It can only fail for want of room in the counter, and then the thread is being woken anyway.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Expected {
    /// The worker does not get through `MPI_Init`: the port at which its spawn can be released, if it can be.
    ///
    /// The worker stays for a while. As long as it holds its connection the next worker gets another one.
    fn give_up(&mut self, ticket: Ticket, until: Instant) -> Option<String> {
        let port = self.awaited.take()?;
        tracing::warn!("spawn {} does not get through MPI_Init, and is given up", ticket.0);
        self.deadline = None;
        self.linger = Some(until);
        // A transport that is gone has no use for it.
        let _ = self.notices.send((ticket, Notice::Ended(Ended::of(How::Jammed), self.whereabouts.clone())));
        Some(port)
    }

    /// Has the worker ended, and not started if it has not been.
    fn end(&mut self) {
        self.is_killed = true;
        self.say(&ToGuard::Kill { grace: self.kill_grace });
    }

    fn say(&mut self, message: &ToGuard) {
        // A guard reads as long as it lives.
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_patiently(&message.encode());
        }
    }
}

fn fresh_number() -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests;
