//! The control thread: it lets guards in that know the secret, and takes in what they say.
//!
//! It waits for news only: neither for those who take the lines of workers, nor for any single guard.

use std::io::{ErrorKind, Read};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::burial::Grave;
use super::{Credit, Notice, State, Whereabouts};
use crate::launch;
use crate::process as own;
use crate::transport::heartbeat::Heartbeat;
use crate::transport::stream::Stream;
use crate::wire::WireError;
use crate::wire::control::{
    Ended, FROM_GUARD_MAX, FromGuard, How, LINE_MAX, Output, REST_MAX, Splitter, Ticket, ToGuard, WINDOW,
};

/// Connections that have not said who they are. When there are more, the oldest has to go: a guard says so at
/// once.
pub(super) const STRANGERS_MAX: usize = 64;
/// Bytes that are kept of one that has not said who it is.
const STRANGER_BYTES_MAX: usize = 4 << 10;

/// A guard that has more output under way does not keep to the protocol.
pub(super) const UNDER_WAY_MAX: usize = WINDOW + REST_MAX + 2 * LINE_MAX;
/// Characters that are kept of a host's name.
const HOST_NAME_MAX: usize = 255;

/// How long a worker stays that does not get through `MPI_Init`, after it was given up.
const LINGER: Duration = Duration::from_secs(10);

/// How long nothing is done after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The control thread.
pub(super) struct Listener {
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
    /// What is held until its daemon may know that it is gone, where it is on this host.
    grave: Option<Grave>,
    /// Whether the guard has said all.
    over: bool,
}

impl Listener {
    pub(super) fn new(state: Arc<State>, socket: UnixListener) -> Self {
        Self { state, socket, networks: vec![], connections: vec![] }
    }

    pub(super) fn run(mut self) {
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
            self.bury();
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
        let overdue = self
            .state
            .guards()
            .expected
            .values()
            .flat_map(|one| [one.deadline, one.jam, one.linger])
            .flatten()
            .min();
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

    /// Parts from the guards that have said all, or are gone.
    fn bury(&mut self) {
        for mut gone in self.connections.extract_if(.., |connection| connection.over) {
            if let Some((burials, grave)) = self.state.burials.as_ref().zip(gone.grave.take()) {
                burials.bury(grave);
            }
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
            grave: None,
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
        let mut jammed = Vec::new();
        for (ticket, expected) in &mut self.state.guards().expected {
            if expected.linger.is_some_and(|linger| linger <= now) {
                expected.linger = None;
                expected.end();
            }
            if expected.jam.is_some_and(|jam| jam <= now) {
                expected.jam = None;
                jammed.extend(expected.give_up(*ticket, now + LINGER));
            }
            if expected.deadline.is_some_and(|deadline| deadline <= now) {
                tracing::warn!("spawn {} did not reach MPI_Init in time, and is ended", ticket.0);
                expected.deadline = None;
                expected.is_overdue = true;
                expected.end();
            }
        }
        jammed.iter().for_each(|port| (self.state.release)(port));
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
                self.grave.iter_mut().for_each(|grave| grave.note_worker(pid));
                if let Some(expected) = state.guards().expected.get_mut(&ticket) {
                    let host = host.chars().take(HOST_NAME_MAX).collect::<String>().into();
                    expected.whereabouts = Some(Whereabouts { pid, host });
                }
            }
            (Some(ticket), FromGuard::Awaited { port }) => {
                if let Some(expected) = state.guards().expected.get_mut(&ticket) {
                    expected.awaited = Some(port);
                }
            }
            (Some(_), FromGuard::Ready) => self.tell(state, Notice::Ready),
            (Some(_), FromGuard::Beat) => {}
            (Some(_), FromGuard::Recalled { begun }) => self.tell(state, Notice::Recalled { begun }),
            (Some(ticket), FromGuard::Leaving) => {
                let voice = state.guards().expected.get(&ticket).and_then(|expected| expected.voice.clone());
                if let Some(voice) = voice {
                    voice.note_leaving();
                }
            }
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
                self.grave = state.burials.as_ref().and_then(|_| Grave::of(self.stream.peer()?));
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
            voice.say(host, output, Some(Box::new(credit)));
        }
    }

    fn tell(&self, state: &State, notice: Notice) {
        let Some(ticket) = self.ticket else { return };
        let (mut awaited, mut is_death) = (None, false);
        if let Some(expected) = state.guards().expected.get_mut(&ticket).filter(|one| !one.is_forgotten) {
            let notice = match notice {
                Notice::Ended(ended, at) => {
                    awaited = expected.awaited.take();
                    is_death = true;
                    let how = if expected.is_overdue { How::Overdue } else { ended.how };
                    Notice::Ended(Ended { how, ..ended }, at)
                }
                Notice::Recalled { .. } => notice,
                Notice::Ready => {
                    (expected.deadline, expected.jam) = (None, None);
                    notice
                }
            };
            // A transport that is gone has no use for it.
            let _ = expected.notices.send((ticket, notice));
        }
        if is_death {
            state.guards().note_death(launch::jam_limit());
        }
        // After the reason, which is looked for when the spawn has failed.
        awaited.into_iter().for_each(|port| (state.release)(&port));
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
