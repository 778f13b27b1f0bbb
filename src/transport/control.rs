//! The parent's end of the control channel: one thread that listens to the guards of this process.
//!
//! It exists beside the MPI thread because that one is blocked while `MPI_Comm_spawn` runs, and whether a
//! spawn returns may depend on what is done meanwhile: a worker that does not reach `MPI_Init` in time must
//! be killed for it. The channel is a Unix socket in the abstract name space, which leaves no file behind;
//! who connects must be of the same user and know the secret. Only where workers are on other hosts it listens
//! on the network too, at the addresses that these hosts reach; there the secret alone decides, and both sides
//! say now and then that they are there, because nobody else tells when a host is gone.
//!
//! What workers write passes through here to `output.rs`, and the thread never waits for those who take it.

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
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::Doorbell;
use super::heartbeat::Heartbeat;
use super::output::Voice;
use super::stream::{Address, Stream};
use crate::process as own;
use crate::wire::WireError;
use crate::wire::control::{
    Ended, FROM_GUARD_MAX, FromGuard, How, LINE_MAX, Output, REST_MAX, Secret, Splitter, Start, Ticket,
    ToGuard, WINDOW,
};

/// Connections that have not said who they are. When there are more, the oldest has to go: a guard says so at
/// once.
const STRANGERS_MAX: usize = 64;
/// Bytes that are kept of one that has not said who it is.
const STRANGER_BYTES_MAX: usize = 4 << 10;

/// A guard that has more output under way does not keep to the protocol.
const UNDER_WAY_MAX: usize = WINDOW + REST_MAX + 2 * LINE_MAX;
/// A guard is told that it has room when it is so much.
const TELL_ROOM: usize = WINDOW / 4;

/// Characters that are kept of a host's name.
const HOST_NAME_MAX: usize = 255;

/// How long nothing is done after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told of a guard's worker.
#[derive(Debug)]
pub(crate) enum Notice {
    /// It passed `MPI_Init`.
    Ready,
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
    /// The guard's connection, once it has proved who it is.
    stream: Option<Stream>,
    whereabouts: Option<Whereabouts>,
    /// When the worker is killed, unless it has passed `MPI_Init`.
    deadline: Option<Instant>,
    is_overdue: bool,
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
    pub(crate) fn start(secret: [u8; 16], doorbell: Arc<Doorbell>) -> std::io::Result<Self> {
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

    /// Expects the guard of a spawn. Its worker is killed if it has not passed `MPI_Init` by the deadline.
    pub(crate) fn expect(&self, expectation: Expectation) -> Ticket {
        let Expectation { start, deadline, kill_grace, notices, voice } = expectation;
        let mut guards = self.state.guards();
        let ticket = Ticket(guards.next);
        guards.next += 1;
        let expected = Expected {
            start: Some(start),
            notices,
            stream: None,
            whereabouts: None,
            deadline: Some(deadline),
            is_overdue: false,
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

    /// `MPI_Comm_spawn` has returned, with a worker or with a guard in its place.
    pub(crate) fn note_spawned(&self, ticket: Ticket) {
        if let Some(expected) = self.state.guards().expected.get_mut(&ticket) {
            expected.deadline = None;
            expected.say(&ToGuard::Spawned);
        }
    }

    /// Ends a worker and its guard, of whom nothing more is to be heard.
    pub(crate) fn kill(&self, ticket: Ticket) {
        self.state.guards().let_go(ticket, Expected::end);
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
        self.say(&ToGuard::Kill { grace: self.kill_grace });
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
    /// Where the guard is on another host.
    heartbeat: Option<Heartbeat>,
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
            self.tend_hearts();
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
        let overdue = self.state.guards().expected.values().filter_map(|expected| expected.deadline).min();
        let hearts = self.connections.iter().filter_map(|connection| connection.heartbeat.as_ref());
        let until = hearts.map(Heartbeat::deadline).chain(overdue).min();
        let timeout = until.map(own::timespec_until);
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
            splitter: Splitter::new(FROM_GUARD_MAX),
            ticket: None,
            heartbeat: None,
            over: false,
        });
    }

    /// Says on each connection to another host that this one is there, and gives up who has been silent too long.
    fn tend_hearts(&mut self) {
        let now = Instant::now();
        for connection in self.connections.iter_mut().filter(|connection| !connection.over) {
            let (Some(heartbeat), Some(ticket)) = (&mut connection.heartbeat, connection.ticket) else {
                continue;
            };
            if heartbeat.is_silent(now) {
                let how = How::Silent { after: heartbeat.timeout() };
                connection.give_up(&self.state, how);
            } else if heartbeat.is_due(now)
                && let Some(expected) = self.state.guards().expected.get_mut(&ticket)
            {
                expected.say(&ToGuard::Beat);
            }
        }
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
    fn read(&mut self, state: &Arc<State>) {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(length @ 1..) => {
                self.splitter.feed(&bytes[..length]);
                self.heartbeat.iter_mut().for_each(|heartbeat| heartbeat.note_heard(Instant::now()));
            }
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

    fn hear(&mut self, message: FromGuard, state: &Arc<State>) {
        match (self.ticket, message) {
            (None, FromGuard::Here { ticket, secret }) if secret == state.secret => {
                self.welcome(ticket, state)
            }
            (Some(ticket), FromGuard::Started { pid, host }) => {
                tracing::debug!("spawn {} is process {pid} at {host}", ticket.0);
                if let Some(expected) = state.guards().expected.get_mut(&ticket) {
                    let host = host.chars().take(HOST_NAME_MAX).collect::<String>().into();
                    expected.whereabouts = Some(Whereabouts { pid, host });
                }
            }
            (Some(_), FromGuard::Ready) => self.tell(state, Notice::Ready),
            (Some(_), FromGuard::Beat) => {}
            (Some(ticket), FromGuard::Output(output)) => self.pass_on(ticket, output, state),
            (Some(_), FromGuard::Ended(ended)) => self.finish(state, ended),
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
            Some((expected, mut start)) => {
                self.ticket = Some(ticket);
                self.stream.set_patience(start.watch.heartbeat_timeout);
                start.watch.heartbeat_timeout =
                    start.watch.heartbeat_timeout.filter(|_| self.stream.is_over_network());
                let now = Instant::now();
                self.heartbeat = start.watch.heartbeat_timeout.map(|timeout| Heartbeat::new(timeout, now));
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

    /// Hands on what the worker wrote.
    fn pass_on(&mut self, ticket: Ticket, output: Output, state: &Arc<State>) {
        let mut guards = state.guards();
        let Some(expected) = guards.expected.get_mut(&ticket) else { return };
        let cost = output.cost();
        expected.under_way += cost;
        let is_too_much = expected.under_way > UNDER_WAY_MAX;
        let host = expected.whereabouts.as_ref().map_or_else(|| "unknown".into(), |at| Arc::clone(&at.host));
        let voice = expected.voice.clone();
        drop(guards);
        // The lock is free again: where nobody takes it, the credit goes back at once.
        let credit = Credit { state: Arc::clone(state), ticket, cost };
        if is_too_much {
            tracing::warn!("a guard sends more output than there is room for");
            drop(credit);
            return self.close(state);
        }
        if let Some(voice) = voice {
            voice.say(host, output, Some(credit));
        }
    }

    fn tell(&self, state: &State, notice: Notice) {
        let Some(ticket) = self.ticket else { return };
        if let Some(expected) = state.guards().expected.get_mut(&ticket).filter(|one| !one.is_forgotten) {
            let notice = match notice {
                Notice::Ended(ended, at) if expected.is_overdue => {
                    Notice::Ended(Ended { how: How::Overdue, ..ended }, at)
                }
                Notice::Ended(..) => notice,
                Notice::Ready => {
                    expected.deadline = None;
                    notice
                }
            };
            // A transport that is gone has no use for it.
            let _ = expected.notices.send((ticket, notice));
        }
        state.doorbell.ring();
    }

    /// Nothing more comes of this guard.
    fn finish(&mut self, state: &State, ended: Ended) {
        self.over = true;
        let Some(ticket) = self.ticket else { return };
        let at = state.guards().expected.get(&ticket).and_then(|expected| expected.whereabouts.clone());
        self.tell(state, Notice::Ended(ended, at));
        state.guards().end(ticket);
    }

    /// The guard has gone without saying how its worker ended: killed itself, as a rule.
    fn close(&mut self, state: &State) {
        self.give_up(state, How::GuardGone);
    }

    /// Nothing more is expected of this guard, which ends its worker if it is still there and finds itself alone.
    fn give_up(&mut self, state: &State, how: How) {
        self.finish(state, Ended::of(how));
        if let Some(ticket) = self.ticket
            && let Some(expected) = state.guards().expected.get_mut(&ticket)
        {
            expected.stream = None;
        }
    }

    fn refuse(&mut self, state: &State, error: &WireError) {
        tracing::warn!("what came over the control channel makes no sense: {error}");
        self.close(state);
    }
}

fn fresh_number() -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests;
