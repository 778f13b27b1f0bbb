//! The parent's end of the control channel: one thread that listens to the guards of this process.
//!
//! It exists beside the MPI thread because that one is blocked while `MPI_Comm_spawn` runs, and whether a
//! spawn returns may depend on what is done meanwhile: a worker that does not reach `MPI_Init` in time must
//! be killed for it. The channel is a Unix socket in the abstract name space, which leaves no file behind;
//! who connects must be of the same user and know the secret.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Doorbell;
use crate::process as own;
use crate::wire::WireError;
use crate::wire::control::{Ended, FromGuard, How, Secret, Splitter, Start, Ticket, ToGuard};

/// Connections that have not said who they are. More are refused.
const STRANGERS_MAX: usize = 64;

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
    /// Wakes the thread.
    bell: OwnedFd,
    doorbell: Arc<Doorbell>,
}

#[derive(Default)]
struct Guards {
    next: u64,
    expected: FxHashMap<Ticket, Expected>,
}

/// A spawn that was asked for, from before it to the end of its worker.
struct Expected {
    start: Option<Start>,
    notices: Sender<(Ticket, Notice)>,
    /// The guard's connection, once it has proved who it is.
    stream: Option<UnixStream>,
    /// When the worker is killed, unless it has passed `MPI_Init`.
    deadline: Option<Instant>,
    is_overdue: bool,
}

impl Control {
    /// Starts to listen.
    pub(crate) fn start(secret: [u8; 16], doorbell: Arc<Doorbell>) -> std::io::Result<Self> {
        let file = own::secret_file().map_or("none".to_owned(), |file| file.to_string());
        let address = format!("offshoot-{}-{file}-{:08x}", process::id(), fresh_number()?);
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&address)?)?;
        listener.set_nonblocking(true)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = Arc::new(State { secret: Secret(secret), guards: Mutex::default(), bell, doorbell });
        let listening = Arc::clone(&state);
        thread::Builder::new()
            .name("offshoot control".to_owned())
            .spawn(move || Listener { state: listening, socket: listener, connections: Vec::new() }.run())?;
        Ok(Self { address, state })
    }

    /// The process that listens there, and the descriptor of the file in which it keeps the secret, for
    /// a guard on the same host that has not inherited it.
    pub(crate) fn secret_place(address: &str) -> Option<(u32, RawFd)> {
        let mut parts = address.split('-').skip(1);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// Where guards connect to.
    pub(crate) fn address(&self) -> &str {
        &self.address
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
            stream: None,
            deadline: Some(deadline),
            is_overdue: false,
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
        self.state.guards().expected.values_mut().for_each(|expected| expected.say(&ToGuard::Kill));
    }
}

impl State {
    fn guards(&self) -> MutexGuard<'_, Guards> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It can only fail for want of room in the counter, and then the thread is being woken anyway.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Expected {
    fn say(&mut self, message: &ToGuard) {
        // A guard reads as long as it lives; the few bytes of a message fit its buffer.
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(&message.encode());
        }
    }
}

/// The control thread.
struct Listener {
    state: Arc<State>,
    socket: UnixListener,
    connections: Vec<Connection>,
}

struct Connection {
    stream: UnixStream,
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
            if woken.get(1) == Some(&true) {
                self.accept();
            }
            for (connection, _) in
                self.connections.iter_mut().zip(woken.iter().skip(2)).filter(|(_, readable)| **readable)
            {
                connection.read(&self.state);
            }
            self.connections.retain(|connection| !connection.over);
            self.kill_overdue();
        }
    }

    /// Sleeps until something can be read or a deadline has come: the bell, the socket, each connection.
    fn sleep(&self) -> Vec<bool> {
        let own: [BorrowedFd<'_>; 2] = [self.state.bell.as_fd(), self.socket.as_fd()];
        let all = own.into_iter().chain(self.connections.iter().map(|connection| connection.stream.as_fd()));
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let until = self.state.guards().expected.values().filter_map(|expected| expected.deadline).min();
        let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.socket.accept() {
            let strangers = self.connections.iter().filter(|connection| connection.ticket.is_none()).count();
            let own_user = rustix::net::sockopt::socket_peercred(&stream)
                .is_ok_and(|peer| peer.uid == rustix::process::geteuid());
            if strangers >= STRANGERS_MAX || !own_user || stream.set_nonblocking(true).is_err() {
                tracing::warn!("a connection to the control channel was refused");
                continue;
            }
            self.connections.push(Connection {
                stream,
                splitter: Splitter::default(),
                ticket: None,
                over: false,
            });
        }
    }

    fn kill_overdue(&self) {
        let now = Instant::now();
        for (ticket, expected) in &mut self.state.guards().expected {
            if expected.deadline.is_some_and(|deadline| deadline <= now) {
                tracing::warn!("spawn {} did not reach MPI_Init in time, and is ended", ticket.0);
                expected.deadline = None;
                expected.is_overdue = true;
                expected.say(&ToGuard::Kill);
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
                expected.say(&ToGuard::Start(start));
            }
            // Given up before it came, or come before.
            None => self.over = true,
        }
    }

    fn tell(&self, state: &State, notice: Notice) {
        let Some(ticket) = self.ticket else { return };
        if let Some(expected) = state.guards().expected.get_mut(&ticket) {
            let notice = match notice {
                Notice::Ended(ended) if expected.is_overdue => {
                    Notice::Ended(Ended { how: How::Overdue, ..ended })
                }
                Notice::Ended(_) => notice,
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
mod tests {
    //! Who connects, who is believed, and what becomes of a guard that is late.

    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;

    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    const SECRET: [u8; 16] = [7; 16];

    fn control() -> Control {
        Control::start(SECRET, Arc::default()).expect("a socket can be made")
    }

    fn start() -> Start {
        Start {
            executable: b"/bin/true".to_vec(),
            arguments: vec![],
            variables: vec![],
            directory: b"/".to_vec(),
        }
    }

    fn expect(control: &Control, within: Duration) -> (Ticket, Receiver<(Ticket, Notice)>) {
        let (notify, notices) = unbounded();
        (control.expect(start(), Instant::now() + within, notify), notices)
    }

    fn connect(control: &Control) -> UnixStream {
        let address = SocketAddr::from_abstract_name(control.address()).expect("the name is short");
        let stream = UnixStream::connect_addr(&address).expect("somebody listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is not zero");
        stream
    }

    fn say(stream: &mut UnixStream, message: &FromGuard) {
        stream.write_all(&message.encode()).expect("the other side reads");
    }

    /// What the parent says next; `None` if it closes the connection.
    fn hear(stream: &mut UnixStream) -> Option<ToGuard> {
        let mut splitter = Splitter::default();
        loop {
            let mut bytes = [0; 1];
            match stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(length) => splitter.feed(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing was said: {error}"),
            }
            if let Some(frame) = splitter.next_frame().expect("the parent speaks well") {
                return Some(ToGuard::decode(frame).expect("the parent speaks well"));
            }
        }
    }

    #[test]
    fn a_guard_that_knows_the_secret_is_told_what_to_start() {
        let control = control();
        let (ticket, notices) = expect(&control, Duration::from_secs(20));
        let mut guard = connect(&control);
        say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
        assert_eq!(hear(&mut guard), Some(ToGuard::Start(start())));
        say(&mut guard, &FromGuard::Ready);
        let (whose, notice) = notices.recv().expect("it is passed on");
        assert!(whose == ticket && matches!(notice, Notice::Ready));
        control.kill(ticket);
        assert_eq!(hear(&mut guard), Some(ToGuard::Kill));
    }

    #[test]
    fn whoever_does_not_know_the_secret_is_sent_away_and_costs_nothing() {
        let control = control();
        let (ticket, notices) = expect(&control, Duration::from_secs(20));
        let mut stranger = connect(&control);
        say(&mut stranger, &FromGuard::Here { ticket, secret: Secret([0; 16]) });
        assert_eq!(hear(&mut stranger), None);
        let mut babbler = connect(&control);
        babbler.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("the other side reads");
        assert_eq!(hear(&mut babbler), None);
        // The guard that comes after them is as welcome as ever.
        let mut guard = connect(&control);
        say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
        assert_eq!(hear(&mut guard), Some(ToGuard::Start(start())));
        assert!(notices.is_empty(), "strangers are nobody's business");
    }

    #[test]
    fn a_second_guard_for_one_spawn_is_sent_away() {
        let control = control();
        let (ticket, _notices) = expect(&control, Duration::from_secs(20));
        let mut first = connect(&control);
        say(&mut first, &FromGuard::Here { ticket, secret: Secret(SECRET) });
        assert!(hear(&mut first).is_some());
        let mut second = connect(&control);
        say(&mut second, &FromGuard::Here { ticket, secret: Secret(SECRET) });
        assert_eq!(hear(&mut second), None);
        control.kill(ticket);
        assert_eq!(hear(&mut first), Some(ToGuard::Kill), "the first one is still the guard");
    }

    #[test]
    fn a_worker_that_is_late_is_killed_and_said_to_be_overdue() {
        let control = control();
        let (ticket, notices) = expect(&control, Duration::from_millis(50));
        let mut guard = connect(&control);
        say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
        assert!(hear(&mut guard).is_some());
        assert_eq!(hear(&mut guard), Some(ToGuard::Kill));
        let how = How::Signalled { signal: 9, core: false };
        say(&mut guard, &FromGuard::Ended(Ended { how, stand_in: true, stderr: vec![] }));
        let (_, notice) = notices.recv().expect("it is passed on");
        assert!(
            matches!(notice, Notice::Ended(Ended { how: How::Overdue, stand_in: true, .. })),
            "{notice:?}"
        );
    }

    #[test]
    fn a_guard_that_vanishes_is_reported() {
        let control = control();
        let (ticket, notices) = expect(&control, Duration::from_secs(20));
        let mut guard = connect(&control);
        say(&mut guard, &FromGuard::Here { ticket, secret: Secret(SECRET) });
        assert!(hear(&mut guard).is_some());
        drop(guard);
        let (_, notice) = notices.recv().expect("it is reported");
        assert!(matches!(notice, Notice::Ended(Ended { how: How::GuardGone, .. })), "{notice:?}");
    }
}
