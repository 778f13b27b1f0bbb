//! The parent's end of the control channel: one thread that listens to the guards of this process.
//!
//! It exists beside the MPI thread because that one is blocked while `MPI_Comm_spawn` runs, and whether a
//! spawn returns may depend on what is done meanwhile: a worker that does not reach `MPI_Init` in time must
//! be killed for it. The channel is a Unix socket in the abstract name space, which leaves no file behind;
//! who connects must be of the same user and know the secret. Only where workers are on other hosts it listens
//! on the network too, at the addresses that these hosts reach; there the secret alone decides.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Doorbell;
use super::stream::{Address, Stream};
use crate::process as own;
use crate::wire::WireError;
use crate::wire::control::{Ended, FromGuard, How, Secret, Splitter, Start, Ticket, ToGuard};

/// Connections that have not said who they are. When there are more, the oldest has to go: a guard says so at
/// once.
const STRANGERS_MAX: usize = 64;
/// Bytes that are kept of one that has not said who it is.
const STRANGER_BYTES_MAX: usize = 4 << 10;

/// How long nothing is done after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told of a guard's worker.
#[derive(Debug)]
pub(crate) enum Notice {
    /// It passed `MPI_Init`.
    Ready,
    /// It ended, or its guard did.
    Ended(Ended),
}

/// The parent's end of the control channel.
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
    /// Makes a spawn return that waits for what was to be published under this name.
    release: fn(&str),
}

#[derive(Default)]
struct Guards {
    next: u64,
    expected: FxHashMap<Ticket, Expected>,
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
    /// What `MPI_Comm_spawn` waits for, while it does and where that can be helped.
    awaited: Option<String>,
    /// The guard's connection, once it has proved who it is.
    stream: Option<Stream>,
    /// When the worker is killed, unless it has passed `MPI_Init`.
    deadline: Option<Instant>,
    is_overdue: bool,
    /// Its end was asked for, perhaps before there was anybody to ask.
    is_killed: bool,
}

impl Control {
    /// Starts to listen. `release` makes a spawn return that waits for what was to be published under a name.
    pub(crate) fn start(
        secret: [u8; 16],
        doorbell: Arc<Doorbell>,
        release: fn(&str),
    ) -> std::io::Result<Self> {
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
            release,
        });
        let listener =
            Listener { state: Arc::clone(&state), socket: listener, networks: vec![], connections: vec![] };
        thread::Builder::new().name("offshoot control".to_owned()).spawn(move || listener.run())?;
        Ok(Self { address, state })
    }

    /// The process that listens there, and the descriptor of the file in which it keeps the secret, for
    /// a guard on the same host that has not inherited it.
    pub(crate) fn secret_place(address: &str) -> Option<(u32, RawFd)> {
        let mut parts = address.split('-').skip(1);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
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

    /// Expects the guard of a spawn. Its worker is killed if it has not passed `MPI_Init` by `deadline`.
    pub(crate) fn expect(
        &self,
        start: Start,
        deadline: Instant,
        notices: Sender<(Ticket, Notice)>,
    ) -> Ticket {
        let mut guards = self.state.guards();
        let ticket = Ticket(guards.next);
        guards.next += 1;
        let expected = Expected {
            start: Some(start),
            notices,
            awaited: None,
            stream: None,
            deadline: Some(deadline),
            is_overdue: false,
            is_killed: false,
        };
        guards.expected.insert(ticket, expected);
        drop(guards);
        self.state.wake();
        ticket
    }

    /// `MPI_Comm_spawn` has returned, with a worker or with a guard in its place.
    pub(crate) fn note_spawned(&self, ticket: Ticket) {
        if let Some(expected) = self.state.guards().expected.get_mut(&ticket) {
            expected.deadline = None;
            expected.awaited = None;
            expected.say(&ToGuard::Spawned);
        }
    }

    /// Ends a worker and its guard, of whom nothing more is to be heard.
    pub(crate) fn kill(&self, ticket: Ticket) {
        if let Some(mut expected) = self.state.guards().expected.remove(&ticket) {
            expected.say(&ToGuard::Kill);
        }
    }

    /// What ends all workers, from any thread.
    pub(crate) fn killer(&self) -> Killer {
        Killer { state: Arc::clone(&self.state) }
    }

    /// Nothing more is to be heard of a worker that leaves in order.
    pub(crate) fn forget(&self, ticket: Ticket) {
        self.state.guards().expected.remove(&ticket);
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
    /// Has the worker ended, and not started if it has not been.
    fn end(&mut self) {
        self.is_killed = true;
        self.say(&ToGuard::Kill);
    }

    fn say(&mut self, message: &ToGuard) {
        // A guard reads as long as it lives.
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_patiently(&message.encode());
        }
    }
}

/// The control thread.
struct Listener {
    state: Arc<State>,
    socket: UnixListener,
    networks: Vec<TcpListener>,
    connections: Vec<Connection>,
}

struct Connection {
    stream: Stream,
    splitter: Splitter,
    /// Whose guard it is; unknown at first.
    ticket: Option<Ticket>,
    /// Whether the guard has said all.
    over: bool,
}

impl Listener {
    fn run(mut self) {
        loop {
            let woken = self.sleep();
            if woken.first() == Some(&true) {
                let _ = rustix::io::read(&self.state.bell, &mut [0_u8; 8]);
            }
            let sockets = 1 + self.networks.len();
            let connections = woken.iter().skip(1 + sockets);
            for (connection, _) in
                self.connections.iter_mut().zip(connections).filter(|(_, readable)| **readable)
            {
                connection.read(&self.state);
            }
            if woken.iter().skip(1).take(sockets).any(|readable| *readable) {
                self.accept();
            }
            self.connections.retain(|connection| !connection.over);
            self.networks.append(&mut self.state.networks().fresh);
            self.kill_overdue();
        }
    }

    /// Sleeps until something can be read or a deadline has come: the bell, the sockets, each connection.
    fn sleep(&self) -> Vec<bool> {
        let own: [BorrowedFd<'_>; 2] = [self.state.bell.as_fd(), self.socket.as_fd()];
        let networks = self.networks.iter().map(AsFd::as_fd);
        let connections = self.connections.iter().map(|connection| connection.stream.as_fd());
        let all = own.into_iter().chain(networks).chain(connections);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let until = self.state.guards().expected.values().filter_map(|expected| expected.deadline).min();
        let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn accept(&mut self) {
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => self.admit(Stream::Unix(stream)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    // Out of descriptors, as a rule: whoever knocks goes on knocking, and is not to be looked at
                    // again and again meanwhile.
                    tracing::warn!("a connection to the control channel cannot be accepted: {error}");
                    thread::sleep(ACCEPT_PAUSE);
                    break;
                }
            }
        }
        for listener in std::mem::take(&mut self.networks) {
            while let Ok((stream, _)) = listener.accept() {
                // One that cannot be set up is gone already.
                Stream::over_network(stream).into_iter().for_each(|stream| self.admit(stream));
            }
            self.networks.push(listener);
        }
    }

    /// Takes in one that has yet to say who it is.
    fn admit(&mut self, stream: Stream) {
        if !stream.may_be_of_this_user() || stream.set_nonblocking().is_err() {
            tracing::warn!("a connection to the control channel was refused");
            return;
        }
        let mut strangers = self.connections.iter().enumerate().filter(|(_, one)| one.ticket.is_none());
        let oldest = strangers.next().map(|(at, _)| at).filter(|_| strangers.count() + 1 >= STRANGERS_MAX);
        if let Some(oldest) = oldest {
            tracing::warn!("many connections to the control channel say nothing: the oldest was closed");
            self.connections.remove(oldest);
        }
        self.connections.push(Connection {
            stream,
            splitter: Splitter::default(),
            ticket: None,
            over: false,
        });
    }

    fn kill_overdue(&self) {
        let now = Instant::now();
        for (ticket, expected) in &mut self.state.guards().expected {
            if expected.deadline.is_some_and(|deadline| deadline <= now) {
                tracing::warn!("spawn {} did not reach MPI_Init in time, and is ended", ticket.0);
                expected.deadline = None;
                expected.is_overdue = true;
                expected.end();
            }
        }
    }
}

impl Connection {
    /// Reads what is there, once, and takes in what is whole.
    fn read(&mut self, state: &State) {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(length @ 1..) => self.splitter.feed(&bytes[..length]),
            Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => return,
            Ok(0) | Err(_) => return self.close(state),
        }
        loop {
            match self.splitter.next_frame().and_then(|frame| frame.map(FromGuard::decode).transpose()) {
                Ok(Some(message)) => self.hear(message, state),
                Ok(None) if self.ticket.is_none() && self.splitter.waiting() > STRANGER_BYTES_MAX => {
                    tracing::warn!("a connection to the control channel said much, and not who it is");
                    return self.close(state);
                }
                Ok(None) => return,
                Err(error) => return self.refuse(state, &error),
            }
            if self.over {
                return;
            }
        }
    }

    fn hear(&mut self, message: FromGuard, state: &State) {
        match (self.ticket, message) {
            (None, FromGuard::Here { ticket, secret }) if secret == state.secret => {
                self.welcome(ticket, state)
            }
            (Some(ticket), FromGuard::Started { pid }) => {
                tracing::debug!("spawn {} is process {pid}", ticket.0)
            }
            (Some(ticket), FromGuard::Awaited { name }) => {
                if let Some(expected) = state.guards().expected.get_mut(&ticket) {
                    expected.awaited = Some(name);
                }
            }
            (Some(_), FromGuard::Ready) => self.tell(state, Notice::Ready),
            (Some(_), FromGuard::Ended(ended)) => {
                self.tell(state, Notice::Ended(ended));
                self.over = true;
            }
            (None, _) | (Some(_), FromGuard::Here { .. }) => {
                tracing::warn!(
                    "a connection to the control channel did not know the secret, and was refused"
                );
                self.over = true;
            }
        }
    }

    /// The guard of an expected spawn gets its orders.
    fn welcome(&mut self, ticket: Ticket, state: &State) {
        let mut guards = state.guards();
        // There is something to start once only: a second guard for one spawn is a stranger.
        let start = guards
            .expected
            .get_mut(&ticket)
            .and_then(|expected| expected.start.take().map(|start| (expected, start)));
        match start {
            Some((expected, start)) => {
                self.ticket = Some(ticket);
                expected.stream = self.stream.try_clone().ok();
                if expected.is_killed {
                    expected.end();
                } else {
                    expected.say(&ToGuard::Start(start));
                }
            }
            // Given up before it came, or come before.
            None => self.over = true,
        }
    }

    fn tell(&self, state: &State, notice: Notice) {
        let Some(ticket) = self.ticket else { return };
        let mut awaited = None;
        if let Some(expected) = state.guards().expected.get_mut(&ticket) {
            let notice = match notice {
                Notice::Ended(ended) => {
                    awaited = expected.awaited.take();
                    let how = if expected.is_overdue { How::Overdue } else { ended.how };
                    Notice::Ended(Ended { how, ..ended })
                }
                Notice::Ready => {
                    expected.deadline = None;
                    notice
                }
            };
            // A transport that is gone has no use for it.
            let _ = expected.notices.send((ticket, notice));
        }
        // After the reason, which is looked for when the spawn has failed.
        awaited.into_iter().for_each(|name| (state.release)(&name));
        state.doorbell.ring();
    }

    /// The guard has gone without saying how its worker ended: killed itself, as a rule.
    fn close(&mut self, state: &State) {
        self.tell(state, Notice::Ended(Ended { how: How::GuardGone, stand_in: false, stderr: vec![] }));
        self.over = true;
    }

    fn refuse(&mut self, state: &State, error: &WireError) {
        tracing::warn!("what came over the control channel makes no sense: {error}");
        self.close(state);
    }
}

fn timespec(duration: Duration) -> Timespec {
    // A millisecond more, so that the deadline has passed when it wakes.
    let duration = duration + Duration::from_millis(1);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn fresh_number() -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests;
