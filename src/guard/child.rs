//! The worker as a process: started, listened to, killed with all its descendants, buried.

use std::ffi::OsString;
use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::output::{Outlet, Taker};
use super::sockets::{GLANCE_EVERY, HELD_WHILE_CONNECTING, LOOK_EVERY, Sockets};
use crate::ids::TaskId;
use crate::launch::{
    self, BELL_VARIABLE, BOARD_VARIABLE, NEWS_VARIABLE, PEER_VARIABLE, ROLE_VARIABLE, ROLE_WORKER,
};
use crate::process::{self, Board};
use crate::transport::bells::{self, Inheritance};
use crate::transport::claim::Word;
use crate::wire::control::{BellPlace, Ended, How, Start};
use crate::wire::marker::Marker;

/// How far a worker came, as far as it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Passed {
    Nothing,
    /// It is a worker of ours.
    Begun,
    Init,
    /// It was told to leave, and is about to.
    Bye,
    Finalize,
}

/// A worker writes these into the pipe that it inherits.
pub(crate) const NEWS_BEGUN: u8 = b'o';
pub(crate) const NEWS_UNFIT: u8 = b'u';
pub(crate) const NEWS_INIT: u8 = b'i';
pub(crate) const NEWS_BYE: u8 = b'b';
pub(crate) const NEWS_FINALIZE: u8 = b'f';

pub(super) struct Child {
    process: std::process::Child,
    pid: Pid,
    /// Readable when the process has ended.
    end: OwnedFd,
    pub(super) outlet: Outlet,
    /// Where it says what it has begun.
    word: Word,
    /// When it is to be killed that was asked to end.
    kill_at: Option<Instant>,
    news: Option<PipeReader>,
    passed: Passed,
    /// Its connections, where they are to outlive it.
    sockets: Option<Sockets>,
    is_killed: bool,
    /// It has been waited for, and its number may be somebody else's.
    is_buried: bool,
    /// It said that it cannot work for this host.
    is_unfit: bool,
    /// It initialized MPI and never said that it is a worker of ours.
    is_stranger: bool,
}

impl Child {
    /// Starts a worker, or says why that cannot be.
    pub(super) fn start(start: &Start) -> Result<Self, String> {
        let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let executable = text(&start.executable);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            format!("`{}` {what}: {error}", executable.to_string_lossy())
        };
        let (news, told) = std::io::pipe().map_err(|error| failed("cannot be given a pipe", &error))?;
        // The worker inherits this end; everything else that is open here closes itself.
        rustix::io::fcntl_setfd(&told, rustix::io::FdFlags::empty())
            .map_err(|error| failed("cannot be given a pipe", &error))?;
        let no_pipe = |error: std::io::Error| failed("cannot be given a pipe", &error);
        let ((stdout, its_stdout), (stderr, its_stderr)) =
            (std::io::pipe().map_err(no_pipe)?, std::io::pipe().map_err(no_pipe)?);
        let (board, marker, page) = board([stdout.as_fd(), stderr.as_fd()])
            .map_err(|error| failed("cannot be given a page of memory", &error))?;
        // Without it the worker looks now and then whether there is something for it.
        let bell = start.watch.bell.and_then(|place| inherit_bell(place).ok());
        let mut command = Command::new(&executable);
        if let Some(path) = launch::plain_path() {
            command.env("PATH", path);
        }
        command
            .args(start.arguments.iter().map(text))
            .envs(start.variables.iter().map(|(name, value)| (text(name), text(value))))
            .env(ROLE_VARIABLE, ROLE_WORKER)
            .env(NEWS_VARIABLE, told.as_raw_fd().to_string())
            .env(BOARD_VARIABLE, page.as_raw_fd().to_string())
            .env(PEER_VARIABLE, launch::peer())
            .envs(bell.as_ref().map(|(_, bell)| (BELL_VARIABLE, bell.to_string())))
            .current_dir(text(&start.directory))
            .stdin(Stdio::null())
            .stdout(its_stdout)
            .stderr(its_stderr)
            .process_group(0);
        process::die_with_this_one(&mut command);
        let process = command.spawn().map_err(|error| failed("could not be started", &error))?;
        let pid = Pid::from_child(&process);
        let end = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| failed("was started but cannot be watched", &error))?;
        let word = Word::Shared(board.claim());
        let outlet = Outlet::new(stdout, stderr, board, marker, start.watch.is_output_wanted);
        Ok(Self {
            process,
            pid,
            end,
            outlet,
            word,
            kill_at: None,
            news: Some(news),
            passed: Passed::Nothing,
            sockets: launch::breaks_with_connections().then(Sockets::default),
            is_killed: false,
            is_buried: false,
            is_unfit: false,
            is_stranger: false,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn passed(&self) -> Passed {
        self.passed
    }

    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    pub(super) fn news(&self) -> Option<BorrowedFd<'_>> {
        self.news.as_ref().map(AsFd::as_fd)
    }

    /// The parent has seen it initialize MPI, whether it told or not. A worker of ours has told before that
    /// that it is one; any other program is of no use, and is ended.
    pub(super) fn count_as_ready(&mut self) {
        if self.passed == Passed::Nothing {
            self.is_stranger = true;
            self.kill();
        }
        self.passed = self.passed.max(Passed::Init);
    }

    /// Keeps the connections that the worker has made since the last time, while it makes some. When to look again, if at all.
    pub(super) fn keep_connections(&mut self, now: Instant) -> Option<Instant> {
        let sockets = self.sockets.as_mut().filter(|_| self.passed < Passed::Init)?;
        let is_on_network = sockets.look(self.pid, self.end.as_fd());
        // One that has told nothing, and has nothing to do with a network yet, may never come to that.
        let is_close = is_on_network || self.passed == Passed::Begun;
        Some(now + if is_close { LOOK_EVERY } else { GLANCE_EVERY })
    }

    /// Lets go of the connections of a worker that has died while it made them.
    pub(super) fn let_go_of_connections(&mut self) {
        if let Some(sockets) = self.sockets.as_mut().filter(|_| self.passed < Passed::Init) {
            thread::sleep(HELD_WHILE_CONNECTING);
            sockets.let_go();
        }
    }

    /// Takes in what the worker told about itself. Whether it has just passed `MPI_Init`.
    pub(super) fn read_news(&mut self) -> bool {
        let before = self.passed;
        let mut bytes = [0; 16];
        let read = self.news.as_mut().map_or(0, |news| news.read(&mut bytes).unwrap_or(0));
        for byte in &bytes[..read] {
            let passed = match *byte {
                NEWS_UNFIT => {
                    self.is_unfit = true;
                    Passed::Begun
                }
                NEWS_BEGUN => Passed::Begun,
                NEWS_INIT => Passed::Init,
                NEWS_BYE => Passed::Bye,
                NEWS_FINALIZE => Passed::Finalize,
                _ => Passed::Nothing,
            };
            self.passed = self.passed.max(passed);
        }
        if read == 0 {
            self.news = None;
        }
        if before == Passed::Begun
            && self.passed > before
            && let Some(sockets) = &mut self.sockets
        {
            // The last ones.
            sockets.look(self.pid, self.end.as_fd());
        }
        before < Passed::Init && self.passed >= Passed::Init
    }

    /// Stops the worker from beginning another task. Returns the last that it has begun; nothing, if it cannot be
    /// stopped.
    pub(super) fn recall(&self) -> Option<Option<TaskId>> {
        self.word.recall()
    }

    /// Asks the worker, and what is in its process group, to end; after this time it is ordered.
    pub(super) fn ask_to_end(&mut self, grace: Duration) {
        // A time that no clock can show never comes.
        let kill_at = Instant::now().checked_add(grace);
        self.kill_at = [self.kill_at, kill_at].into_iter().flatten().min();
        if grace.is_zero() {
            return self.kill();
        }
        for signal in [Signal::TERM, Signal::CONT] {
            let _ = rustix::process::kill_process_group(self.pid, signal);
            // It may have left its group, or not have one yet.
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// When to kill it, if that is still to be done.
    pub(super) fn kill_at(&self) -> Option<Instant> {
        self.kill_at.filter(|_| !self.is_killed)
    }

    pub(super) fn is_killed(&self) -> bool {
        self.is_killed
    }

    /// Ends the worker and its process group. What has left the group is ended when the worker has.
    pub(super) fn kill(&mut self) {
        self.is_killed = true;
        self.signal_group(Signal::KILL);
        // It may have left its group, or not have one yet. It has not been waited for, so the number is its own.
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    fn signal_group(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Takes what the ended worker still had to say, waits for it, ends what it left behind, unless that has some
    /// time left or it left in order, and says how it ended.
    pub(super) fn bury(&mut self, taker: &mut impl Taker) -> Ended {
        while self.news.is_some() && is_readable(self.news()) {
            self.read_news();
        }
        self.outlet.finish(taker);
        let spares_orphans = self.spares_orphans() || self.kill_at().is_some();
        if !spares_orphans {
            // Before it is waited for: then the number of its group is its own.
            self.signal_group(Signal::KILL);
        }
        let (how, peak_kib) = match process::wait_for(self.pid) {
            Ok((status, peak_kib)) => (self.how(status), peak_kib),
            Err(error) => (How::NotStarted { reason: format!("its end could not be learned: {error}") }, 0),
        };
        self.is_buried = true;
        if !spares_orphans {
            kill_orphans();
        }
        Ended { how, stand_in: false, peak_kib, stderr: self.outlet.last_words() }
    }

    fn how(&self, status: ExitStatus) -> How {
        match status {
            _ if self.is_stranger => How::NoWorker,
            _ if self.is_unfit => How::Unfit,
            status => how(status),
        }
    }

    /// A worker that left in order, without being told to end, may leave something behind on purpose.
    fn spares_orphans(&self) -> bool {
        self.passed >= Passed::Bye && self.kill_at.is_none()
    }

    /// Ends all that the ended worker has left behind, when its time to end by itself is over.
    pub(super) fn end_orphans(&self) {
        if self.spares_orphans() {
            return;
        }
        let asked_until = self.kill_at().unwrap_or_else(Instant::now);
        while Instant::now() < asked_until && await_orphans(asked_until) {}
        // Killing one may orphan its own children to this process: again, until none is left. One that the kernel
        // holds is not waited for.
        let until = Instant::now() + KILL_PATIENCE;
        while Instant::now() < until {
            kill_orphans();
            if !await_orphans(until) {
                return;
            }
        }
    }
}

impl Drop for Child {
    /// A guard that comes to an unforeseen end leaves nobody behind either.
    fn drop(&mut self) {
        self.sockets.iter_mut().for_each(Sockets::let_go);
        if !self.is_buried {
            self.kill();
            kill_orphans();
        }
    }
}

/// How long processes that were killed may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Kills what the ended worker has left behind, as far as it is seen at once, and waits for nothing. It has become
/// this process's child, because that adopts orphans.
fn kill_orphans() {
    for child in children_of_this_process() {
        let _ = rustix::process::kill_process(child, Signal::KILL);
    }
}

/// Waits until one of the children of this process has ended, and buries it. Whether there was any.
fn await_orphans(until: Instant) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let children = children_of_this_process();
    if children.is_empty() {
        return false;
    }
    let open = |child: &Pid| rustix::process::pidfd_open(*child, PidfdFlags::empty()).ok();
    let ends: Vec<OwnedFd> = children.iter().filter_map(open).collect();
    let mut fds: Vec<_> = ends.iter().map(|end| PollFd::new(end, PollFlags::IN)).collect();
    let _ = poll(&mut fds, Some(&process::timespec_until(until)));
    for child in &children {
        let _ = rustix::process::waitpid(Some(*child), rustix::process::WaitOptions::NOHANG);
    }
    true
}

/// Makes the worker inherit its doorbell, and that of its host.
fn inherit_bell(place: BellPlace) -> std::io::Result<(OwnedFd, Inheritance)> {
    let file = bells::open(place)?;
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    let inheritance = Inheritance { file: file.as_raw_fd(), at: place.at };
    Ok((file, inheritance))
}

/// A page for the worker to say there which task runs, and the mark that it leaves in its output where one ends,
/// which is for these pipes only.
fn board(pipes: [BorrowedFd<'_>; 2]) -> std::io::Result<(Board, Marker, OwnedFd)> {
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let random = u128::from_ne_bytes(random);
    let random = [random as u64, (random >> 64) as u64];
    let inode = |pipe| rustix::fs::fstat(pipe).map(|stat| stat.st_ino);
    let (board, page) = Board::create([random[0], random[1], inode(pipes[0])?, inode(pipes[1])?])?;
    // The worker inherits it.
    rustix::io::fcntl_setfd(&page, rustix::io::FdFlags::empty())?;
    Ok((board, Marker::new(random), page))
}

fn how(status: ExitStatus) -> How {
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited { code },
        (None, signal) => How::Signalled { signal: signal.unwrap_or(0), core: status.core_dumped() },
    }
}

pub(super) fn is_readable(fd: Option<BorrowedFd<'_>>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(fd) = fd else { return false };
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

fn children_of_this_process() -> Vec<Pid> {
    let own = std::process::id();
    let listed = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
