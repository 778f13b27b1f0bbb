//! The guard's end of the control channel. A guard whose parent is gone still sees to its worker's end.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, pidfd_open};

use super::output::Taker;
use crate::launch;
use crate::process;
use crate::transport::control::Control;
use crate::transport::heartbeat::Heartbeat;
use crate::transport::stream::{Address, Stream};
use crate::wire::control::{
    FromGuard, Output, REST_MAX, Secret, Splitter, Start, TO_GUARD_MAX, Ticket, ToGuard, WINDOW,
};

pub(super) struct Parent {
    /// None when the parent is gone.
    stream: Option<Stream>,
    /// Readable when the parent's process has ended, where that is on this host: a child that it has forked has the other end
    /// of the stream too, and keeps it open.
    end: Option<OwnedFd>,
    splitter: Splitter,
    /// Whether it can bring its own spawn to return.
    helps_itself: bool,
    /// How much more output it takes, by its cost. The last piece may make it negative.
    room: i64,
    /// Where it is on this host.
    process: Option<u32>,
    /// Where the parent is on another host.
    heartbeat: Option<Heartbeat>,
}

impl Parent {
    /// Connects, and says who this is. The secret came through the environment, where it ends, or lies with
    /// the parent.
    pub(super) fn connect(address: &str, ticket: Ticket) -> Self {
        let own = launch::own_name();
        let address = address.parse::<Address>().ok();
        let here = address.as_ref().filter(|address| address.is_on(&own));
        let secret = launch::take_secret().or_else(|| read_secret(&here?.name));
        let process = here.and_then(|here| Control::process_at(&here.name));
        let stream = address.and_then(|address| Stream::connect(&address, &own).ok());
        let peer = stream.as_ref().and_then(Stream::peer);
        let end = peer.and_then(|peer| pidfd_open(peer, PidfdFlags::empty()).ok());
        let (splitter, awaited) = (Splitter::new(TO_GUARD_MAX), launch::awaited_port());
        let mut parent = Self {
            stream,
            end,
            splitter,
            helps_itself: awaited.is_some(),
            room: WINDOW as i64,
            process,
            heartbeat: None,
        };
        match secret {
            Some(secret) => {
                parent.say(&FromGuard::Here { ticket, secret: Secret(secret) });
                awaited.into_iter().for_each(|port| parent.say(&FromGuard::Awaited { port }));
            }
            None => parent.stream = None,
        }
        parent
    }

    /// Whether the parent brings its own `MPI_Comm_spawn` to return when the worker has died.
    pub(super) fn helps_itself(&self) -> bool {
        self.helps_itself
    }

    /// Its process, where that is on this host.
    pub(super) fn process(&self) -> Option<u32> {
        self.process
    }

    /// Whether its process, on this host, has ended.
    pub(super) fn is_dead(&self) -> bool {
        self.process.is_some_and(process::has_ended)
    }

    /// What to start; `None` if the parent is gone or changes its mind.
    pub(super) fn await_start(&mut self) -> Option<Start> {
        loop {
            self.await_news();
            match self.receive() {
                Received::Message(ToGuard::Start(start)) => {
                    self.agree(start.watch.heartbeat_timeout);
                    return Some(start);
                }
                Received::Message(ToGuard::Kill { .. }) | Received::Gone => return None,
                Received::Message(
                    ToGuard::Spawned | ToGuard::Taken { .. } | ToGuard::Beat | ToGuard::Recall,
                )
                | Received::Nothing => {}
            }
        }
    }

    /// Waits until the parent has said something, or is gone.
    fn await_news(&mut self) {
        let Some(stream) = self.stream.as_ref().filter(|_| !self.splitter.has_frame()) else { return };
        let watched = [Some(stream.as_fd()), self.end.as_ref().map(AsFd::as_fd)];
        let [is_said, has_ended] = super::sleep(watched, None);
        if has_ended && !is_said {
            self.note_end();
        }
    }

    /// From now on both sides say now and then that they are there.
    fn agree(&mut self, timeout: Option<Duration>) {
        self.heartbeat = timeout.map(|timeout| Heartbeat::new(timeout, Instant::now()));
        if let Some(stream) = &self.stream {
            stream.set_patience(timeout);
        }
    }

    /// Says that this guard is there, if it is time, and gives up a parent that has been silent for too long.
    pub(super) fn tend(&mut self, now: Instant) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        if heartbeat.is_silent(now) {
            self.stream = None;
        } else if heartbeat.is_due(now) {
            self.say(&FromGuard::Beat);
        }
    }

    /// When to tend to it again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.heartbeat.as_ref().filter(|_| self.stream.is_some()).map(Heartbeat::deadline)
    }

    /// Readable when its process, on this host, has ended.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.end.as_ref().filter(|_| self.stream.is_some()).map(AsFd::as_fd)
    }

    /// Its process has ended, whoever has its stream.
    pub(super) fn note_end(&mut self) {
        self.stream = None;
    }

    pub(super) fn is_gone(&self) -> bool {
        self.stream.is_none()
    }

    /// The worker has ended: what it still had to say may be more than there is room for.
    pub(super) fn make_room_for_the_rest(&mut self) {
        self.room += REST_MAX as i64;
    }

    /// What the parent wants of a worker that runs: all that it has said. A parent that is gone wants its end.
    pub(super) fn listen(&mut self) -> Vec<Wish> {
        let mut wishes = vec![self.hear()];
        while self.splitter.has_frame() {
            wishes.push(self.hear());
        }
        wishes
    }

    fn hear(&mut self) -> Wish {
        match self.receive() {
            // Nobody is there who could benefit from a grace.
            Received::Gone => Wish::Kill { grace: Duration::ZERO },
            Received::Message(ToGuard::Kill { grace }) => Wish::Kill { grace },
            Received::Message(ToGuard::Spawned) => Wish::CountAsReady,
            Received::Message(ToGuard::Recall) => Wish::Recall,
            Received::Message(ToGuard::Taken { cost }) => {
                let room = self.room.saturating_add(i64::try_from(cost).unwrap_or(i64::MAX));
                self.room = room.min(WINDOW as i64);
                Wish::None
            }
            Received::Message(ToGuard::Start(_) | ToGuard::Beat) | Received::Nothing => Wish::None,
        }
    }

    /// Whether the parent says within this time that `MPI_Comm_spawn` has returned.
    pub(super) fn is_spawned_within(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(stream) = self.stream.as_ref().filter(|_| !left.is_zero()) else { return false };
            if stream.set_read_timeout(left).is_err() {
                return false;
            }
            match self.receive() {
                Received::Message(ToGuard::Spawned) => return true,
                Received::Message(
                    ToGuard::Kill { .. }
                    | ToGuard::Start(_)
                    | ToGuard::Taken { .. }
                    | ToGuard::Beat
                    | ToGuard::Recall,
                )
                | Received::Nothing => {}
                Received::Gone => return false,
            }
        }
    }

    /// Waits until the parent has gone, or for so long.
    pub(super) fn await_end(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(stream) = self.stream.as_ref().filter(|_| !left.is_zero()) else { return };
            if stream.set_read_timeout(left).is_err() {
                return;
            }
            match self.receive() {
                Received::Message(_) | Received::Nothing => {}
                Received::Gone => return,
            }
        }
    }

    pub(super) fn say(&mut self, message: &FromGuard) {
        if let Some(stream) = &mut self.stream
            && stream.write_patiently(&message.encode()).is_err()
        {
            self.stream = None;
        }
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Takes one message: one that has been read already, or, after one read, which waits if nothing is there, the
    /// next.
    fn receive(&mut self) -> Received {
        match self.splitter.next_frame().and_then(|frame| frame.map(ToGuard::decode).transpose()) {
            Ok(Some(message)) => return Received::Message(message),
            Ok(None) => {}
            Err(_) => self.stream = None,
        }
        let Some(stream) = &mut self.stream else { return Received::Gone };
        let mut bytes = [0; 16 << 10];
        match stream.read(&mut bytes) {
            Ok(0) => {}
            Ok(length) => {
                if let Some(heartbeat) = &mut self.heartbeat {
                    heartbeat.note_heard(Instant::now());
                }
                self.splitter.feed(&bytes[..length]);
                match self.splitter.next_frame().and_then(|frame| frame.map(ToGuard::decode).transpose()) {
                    Ok(Some(message)) => return Received::Message(message),
                    Ok(None) => return Received::Nothing,
                    // Whoever that is, it is not our parent.
                    Err(_) => {}
                }
            }
            Err(error) if PATIENCE.contains(&error.kind()) => return Received::Nothing,
            Err(_) => {}
        }
        self.stream = None;
        Received::Gone
    }
}

impl Taker for Parent {
    fn has_room(&self) -> bool {
        // One that is gone takes whatever comes.
        self.room > 0 || self.is_gone()
    }

    fn take(&mut self, output: Output) {
        self.room -= output.cost() as i64;
        self.say(&FromGuard::Output(output));
    }
}

/// What a read says that has nothing yet.
const PATIENCE: [ErrorKind; 3] = [ErrorKind::Interrupted, ErrorKind::WouldBlock, ErrorKind::TimedOut];

/// The secret of a parent on this host, whose address says where it lies.
fn read_secret(address: &str) -> Option<[u8; 16]> {
    let (process, file) = Control::secret_place(address)?;
    process::read_secret(process, file)
}

pub(super) enum Wish {
    None,
    Kill { grace: Duration },
    CountAsReady,
    Recall,
}

enum Received {
    Message(ToGuard),
    Nothing,
    Gone,
}
