//! The thread that is the process manager: it speaks with the host's MPI and with whatever that has spawned, starts
//! processes and buries them. It waits for nobody: neither for a process that does not read, nor for one that does not
//! end; and it waits for the ends of its own children only, so that the host may have others.

use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags};

use super::jobs::{Jobs, Member, OrderId, Start, Step};
use super::orders::{Inbox, Order, Tell};
use super::protocol::Splitter;
use super::{FD_VARIABLE, RANK_VARIABLE, SIZE_VARIABLE, SPAWNED_VARIABLE};
use crate::launch::hosts::own_name;
use crate::launch::record::is_guard;
use crate::launch::segments::unlink_segments_of;
use crate::launch::transport::host_only_variables;
use crate::process;

pub(super) struct Server {
    jobs: Jobs,
    peers: BTreeMap<Member, Peer>,
    /// What this process wants, beside what its MPI does.
    inbox: Inbox,
    orders_ever: u64,
    /// Who is to be told of what was ordered.
    listeners: BTreeMap<OrderId, Tell>,
    /// Whether the host's MPI has said anything.
    is_heard: Arc<AtomicBool>,
}

/// A process that is spoken with.
struct Peer {
    /// None when it has closed its end, or has said nonsense.
    socket: Option<UnixStream>,
    splitter: Splitter,
    /// None of the host, whose end nobody here sees.
    process: Option<Running>,
}

/// A process that was started here.
struct Running {
    child: Child,
    /// Readable when it has ended.
    end: OwnedFd,
}

impl Server {
    /// A manager of a host that has the other end of this socket.
    pub(super) fn new(host: UnixStream, inbox: Inbox, is_heard: Arc<AtomicBool>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let (jobs, member) = Jobs::new(std::process::id(), u32::try_from(cores).unwrap_or(1));
        let peer = Peer { socket: Some(host), splitter: Splitter::default(), process: None };
        let (peers, listeners) = (BTreeMap::from([(member, peer)]), BTreeMap::new());
        Self { jobs, peers, inbox, orders_ever: 0, listeners, is_heard }
    }

    pub(super) fn run(mut self) {
        loop {
            let (spoken, ended) = self.sleep();
            for member in spoken {
                self.read(member);
            }
            // What they said before they ended has been heard.
            for member in ended {
                self.bury(member);
            }
            for order in self.inbox.take() {
                self.accept(order);
            }
        }
    }

    fn accept(&mut self, order: Order) {
        let id = OrderId(self.orders_ever);
        self.orders_ever += 1;
        self.listeners.insert(id, order.tell);
        let mut steps = Vec::new();
        self.jobs.order(id, order.spawn, &mut steps);
        self.perform(steps);
    }

    /// Sleeps until somebody says something or has ended. Who that is, of both kinds.
    fn sleep(&self) -> (Vec<Member>, Vec<Member>) {
        let sockets =
            self.peers.iter().filter_map(|(member, peer)| Some((*member, peer.socket.as_ref()?.as_fd())));
        let sockets: Vec<(Member, BorrowedFd<'_>)> = sockets.collect();
        let ends = self
            .peers
            .iter()
            .filter_map(|(member, peer)| Some((*member, peer.process.as_ref()?.end.as_fd())));
        let all: Vec<(Member, BorrowedFd<'_>)> = sockets.iter().copied().chain(ends).collect();
        let bell = std::iter::once(self.inbox.bell());
        let mut fds: Vec<PollFd<'_>> = all
            .iter()
            .map(|(_, fd)| *fd)
            .chain(bell)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        if poll(&mut fds, None).is_err() {
            // A signal, as a rule.
            return (vec![], vec![]);
        }
        let woken = |(fd, (member, _)): (&PollFd<'_>, &(Member, BorrowedFd<'_>))| {
            (!fd.revents().is_empty()).then_some(*member)
        };
        let (spoken, ended) = (&fds[..sockets.len()], &fds[sockets.len()..]);
        (
            spoken.iter().zip(&all).filter_map(woken).collect(),
            ended.iter().zip(&all[sockets.len()..]).filter_map(woken).collect(),
        )
    }

    /// Reads what a process says, once, and does what it asks for.
    fn read(&mut self, member: Member) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let Some(socket) = &mut peer.socket else { return };
        let mut bytes = [0; 16 << 10];
        match socket.read(&mut bytes) {
            Ok(length @ 1..) => peer.splitter.feed(&bytes[..length]),
            Err(error) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&error.kind()) => return,
            Ok(0) | Err(_) => {
                peer.socket = None;
                return;
            }
        }
        self.is_heard.store(true, Ordering::Relaxed);
        loop {
            let Some(peer) = self.peers.get_mut(&member) else { return };
            match peer.splitter.next_request() {
                Ok(Some(request)) => {
                    let mut steps = Vec::new();
                    self.jobs.hear(member, request, &mut steps);
                    self.perform(steps);
                }
                Ok(None) => return,
                Err(nonsense) => {
                    tracing::warn!("what a process told its process manager makes no sense: {nonsense}");
                    peer.socket = None;
                    return;
                }
            }
        }
    }

    /// A process has ended.
    fn bury(&mut self, member: Member) {
        // What it said last may still lie there; its worker, if it is a guard, may speak no more either.
        self.read(member);
        let Some(mut peer) = self.peers.remove(&member) else { return };
        if let Some(running) = &mut peer.process {
            // Somebody else in this process may have waited for it: then it has ended all the same.
            let _ = running.child.try_wait();
        }
        if let Some(job) = self.jobs.name_of_unfinished(member) {
            // A guard that was killed has seen to nothing.
            unlink_segments_of(&job);
        }
        let mut steps = Vec::new();
        self.jobs.note_end(member, &mut steps);
        self.perform(steps);
    }

    fn perform(&mut self, steps: Vec<Step>) {
        let mut waiting = VecDeque::from(steps);
        while let Some(step) = waiting.pop_front() {
            match step {
                Step::Say(member, answer) => self.say(member, &answer),
                Step::Tell(order, is_there) => {
                    if let Some(tell) = self.listeners.remove(&order) {
                        tell(is_there);
                    }
                }
                Step::Learn(name) => self.inbox.learn(name),
                Step::Kill(member) => {
                    let process = self.peers.get_mut(&member).and_then(|peer| peer.process.as_mut());
                    if let Some(running) = process {
                        // It may have ended by itself. It has not been waited for, so the number is its own.
                        let _ = running.child.kill();
                    }
                }
                Step::Start(start) if self.jobs.knows(start.member) => {
                    let member = start.member;
                    match Peer::start(&start) {
                        Ok(peer) => drop(self.peers.insert(member, peer)),
                        Err(error) => {
                            let name = String::from_utf8_lossy(&start.command.executable).into_owned();
                            tracing::warn!("`{name}` could not be started: {error}");
                            let mut more = Vec::new();
                            self.jobs.note_end(member, &mut more);
                            waiting.extend(more);
                        }
                    }
                }
                Step::Start(_) => {}
            }
        }
    }

    fn say(&mut self, member: Member, answer: &[u8]) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let Some(socket) = &mut peer.socket else { return };
        // Whoever asks waits for the answer, so that there is room for it, or it does not read what it asked for.
        if socket.write_all(answer).is_err() {
            peer.socket = None;
        }
    }
}

impl Peer {
    /// Starts a process.
    fn start(start: &Start) -> std::io::Result<Self> {
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let wanted = &start.command;
        if let Some(host) = ["host", "hosts"].into_iter().find_map(|key| wanted.hint(key))
            && host != own_name().as_bytes()
        {
            return Err(std::io::Error::other(format!(
                "on host {}: this process manager starts them on its own only",
                String::from_utf8_lossy(host)
            )));
        }
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let arguments: Vec<OsString> = wanted.arguments.iter().map(|argument| text(argument)).collect();
        let executable = find(&text(&wanted.executable), wanted.hint("path").map(text));
        let mut command = Command::new(executable);
        for name in process::PassingVariables::hidden() {
            command.env_remove(name);
        }
        command
            .args(&arguments)
            .env(RANK_VARIABLE, start.rank.to_string())
            .env(SIZE_VARIABLE, start.size.to_string())
            .env(SPAWNED_VARIABLE, "1");
        if let Some(directory) = wanted.hint("wdir") {
            command.current_dir(text(directory));
        }
        let child = if is_guard(&arguments) {
            // A guard takes the socket from there. So nothing is to be done between fork and exec, which makes the
            // start quick, however much memory this process has.
            command.env(FD_VARIABLE, "0").stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
            // What the terminal sends to this process is not for it.
            command.process_group(0);
            command.spawn()?
        } else {
            command.env(FD_VARIABLE, theirs.as_raw_fd().to_string()).stdin(Stdio::null());
            // A guard takes these out itself.
            for name in host_only_variables() {
                command.env_remove(name);
            }
            process::hand_over(&mut command, theirs.as_fd());
            // This thread ends with the process, and there is no guard to see to it.
            process::die_with_this_one(&mut command);
            command.spawn()?
        };
        let pid = Pid::from_child(&child);
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(end) => {
                let process = Some(Running { child, end });
                Ok(Self { socket: Some(ours), splitter: Splitter::default(), process })
            }
            Err(error) => {
                let mut child = child;
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }
}

/// Where an executable lies: as its name says, or in one of the folders of `path`, or in `PATH`, where the system looks.
fn find(name: &OsString, path: Option<OsString>) -> PathBuf {
    let plain = PathBuf::from(name);
    if plain.components().count() > 1 {
        return plain;
    }
    let folders =
        path.iter().flat_map(env::split_paths).map(|folder| folder.join(&plain)).collect::<Vec<_>>();
    folders.into_iter().find(|candidate| candidate.is_file()).unwrap_or(plain)
}
