//! The worker as a process: started, listened to, killed with all its descendants, buried.

use std::ffi::OsString;
use std::fs;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::output::Tail;
use crate::launch::{self, NEWS_VARIABLE, PEER_VARIABLE, ROLE_VARIABLE, ROLE_WORKER};
use crate::process;
use crate::wire::control::{How, Start};

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
    stderr: Option<ChildStderr>,
    tail: Tail,
    news: Option<PipeReader>,
    passed: Passed,
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
        let mut command = Command::new(&executable);
        if let Some(path) = launch::plain_path() {
            command.env("PATH", path);
        }
        command
            .args(start.arguments.iter().map(text))
            .envs(start.variables.iter().map(|(name, value)| (text(name), text(value))))
            .env(ROLE_VARIABLE, ROLE_WORKER)
            .env(NEWS_VARIABLE, told.as_raw_fd().to_string())
            .env(PEER_VARIABLE, launch::peer())
            .current_dir(text(&start.directory))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        process::die_with_this_one(&mut command);
        let mut process = command.spawn().map_err(|error| failed("could not be started", &error))?;
        let pid = Pid::from_child(&process);
        let end = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| failed("was started but cannot be watched", &error))?;
        let stderr = process.stderr.take();
        Ok(Self {
            process,
            pid,
            end,
            stderr,
            tail: Tail::default(),
            news: Some(news),
            passed: Passed::Nothing,
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

    pub(super) fn stderr(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().map(AsFd::as_fd)
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
        before < Passed::Init && self.passed >= Passed::Init
    }

    /// Passes on what is there of stderr, and keeps the last lines.
    pub(super) fn pass_stderr_on(&mut self) {
        let mut bytes = [0; 16 << 10];
        let read = self.stderr.as_mut().map_or(0, |stderr| stderr.read(&mut bytes).unwrap_or(0));
        if read == 0 {
            self.stderr = None;
        }
        self.tail.pass_on(&bytes[..read]);
    }

    /// Ends the worker and all that it started.
    pub(super) fn kill(&mut self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        // It may have left its group, or not have one yet.
        let _ = self.process.kill();
    }

    /// Waits for the ended worker, ends what it left behind unless it left in order, and says how it ended and what it said last.
    pub(super) fn bury(&mut self) -> (How, Vec<String>) {
        while self.news.is_some() && is_readable(self.news()) {
            self.read_news();
        }
        while is_readable(self.stderr()) {
            self.pass_stderr_on();
        }
        let how = match self.process.wait() {
            Ok(_) if self.is_stranger => How::NoWorker,
            Ok(_) if self.is_unfit => How::Unfit,
            Ok(status) => how(status),
            Err(error) => How::NotStarted { reason: format!("its end could not be learned: {error}") },
        };
        // A worker that left in order may leave something behind on purpose.
        if self.passed < Passed::Bye {
            self.kill_descendants();
        }
        (how, self.tail.take())
    }

    /// What the worker left behind has become this process's child, because it adopts orphans.
    fn kill_descendants(&self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        // Killing one may orphan its own children to this process: again, until none is left.
        for _ in 0..100 {
            let children = children_of_this_process();
            if children.is_empty() {
                return;
            }
            for child in children {
                let _ = rustix::process::kill_process(child, Signal::KILL);
                let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
            }
        }
    }
}

fn how(status: ExitStatus) -> How {
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited { code },
        (None, signal) => How::Signalled { signal: signal.unwrap_or(0), core: status.core_dumped() },
    }
}

fn is_readable(fd: Option<BorrowedFd<'_>>) -> bool {
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
