//! What a worker does with a line: a shell, or a program where that needs none, its output, its end.
//!
//! The output comes through pipes and not through files, because `echo ... > /dev/stderr`, which many
//! scripts do, cuts a file to length 0 and leaves a pipe alone. One `poll` waits for the shell's end and
//! for output, so that no pipe stays full. Processes that live on in the background keep the write ends;
//! a thread goes on reading for them, to nowhere, so that they do not stall or die of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use offshoot::Context;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_bytes::ByteBuf;

use super::family::Family;
use super::order::{Captured, End, Report, Setting, Try};
use super::plain::{Plain, plain};

/// How often it is asked whether the line is still wanted.
const STEP: Duration = Duration::from_millis(25);
/// Of each stream so many bytes are kept.
const KEEP: usize = 256 << 20;
/// Bytes that are read in one go: as many as have come before, because most lines write little; and at most as many
/// as a pipe holds.
const READ_MIN: usize = 512;
const READ_MAX: usize = 64 << 10;
/// After a line's end so many are taken from a pipe at most: as many as one can hold that a user made
/// larger. Who writes more is a process that lives on.
const LEFT_IN_PIPE: usize = 1 << 20;
/// The kernel takes no argument longer than 128 KiB. Longer lines are given to the shell as a file.
const ARGUMENT_MAX: usize = 100 << 10;

offshoot::tasks! {
    in "offshoot run";

    /// Prepares a worker, once.
    pub(crate) fn prepare(context: &mut Context, setting: Setting) {
        *context.state::<Arc<Setting>>() = Arc::new(setting);
        *context.state::<Family>() = Family::gather();
        Ok(())
    }

    /// Runs a line, and again as long as it fails and may be tried.
    pub(crate) fn run_line(context: &mut Context, command: ByteBuf) -> Report {
        Ok(run(context, &command))
    }
}

fn run(context: &mut Context, command: &[u8]) -> Report {
    let setting = Arc::clone(context.state::<Arc<Setting>>());
    let mut report = Report {
        worker: context.worker().number(),
        host: context.host().to_owned(),
        tries: Vec::new(),
        stdout: Captured::default(),
        stderr: Captured::default(),
    };
    loop {
        let (start, begun) = (SystemTime::now(), Instant::now());
        let mut family = std::mem::take(context.state::<Family>());
        let (end, [stdout, stderr]) = run_once(&setting, command, &family, || context.cancelled());
        family.part();
        *context.state() = family;
        (report.stdout, report.stderr) = (stdout, stderr);
        let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let over = matches!(end, End::Exited(0) | End::Cancelled(_));
        report.tries.push(Try { start, took: begun.elapsed(), end });
        if over || report.tries.len() >= setting.tries_max as usize || context.cancelled() {
            return report;
        }
    }
}

fn run_once(
    setting: &Setting,
    command: &[u8],
    family: &Family,
    cancelled: impl FnMut() -> bool,
) -> (End, [Captured; 2]) {
    match Line::start(setting, command) {
        Ok(mut line) => {
            let end = line.run(setting.timeout, family, cancelled);
            (end, [line.stdout.finish(), line.stderr.finish()])
        }
        Err(error) => (End::NotStarted(error.to_string()), Default::default()),
    }
}

/// A line that runs.
struct Line {
    shell: Child,
    id: Pid,
    /// Readable when the shell has ended.
    watch: OwnedFd,
    ended: bool,
    stdout: Pipe,
    stderr: Pipe,
    /// What the shell reads a long line from, as long as it runs.
    _script: Option<File>,
}

impl Line {
    fn start(setting: &Setting, command: &[u8]) -> io::Result<Self> {
        if command.contains(&0) {
            return Err(io::Error::other("it has a zero byte in it, which no shell takes"));
        }
        let start = |command: &mut Command| {
            let environment = setting.environment.iter();
            command
                .env_clear()
                .envs(environment.map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))))
                .current_dir(OsStr::from_bytes(&setting.directory))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .process_group(0)
                .spawn()
        };
        let plain = plain(command, &setting.environment).and_then(|Plain { program, name, arguments }| {
            // What cannot be started so is the shell's to explain.
            start(Command::new(program).arg0(name).args(arguments)).ok()
        });
        let (mut shell, script) = match plain {
            Some(program) => (program, None),
            None => {
                let (mut shell, script) = shell(command)?;
                let started = start(&mut shell);
                let failed = |error| io::Error::other(format!("/bin/sh cannot be started: {error}"));
                (started.map_err(failed)?, script)
            }
        };
        let id = Pid::from_child(&shell);
        let watch = pidfd_open(id, PidfdFlags::empty()).inspect_err(|_| {
            let _ = shell.kill();
            let _ = shell.wait();
        })?;
        let stdout = Pipe::new(shell.stdout.take().map(OwnedFd::from))?;
        let stderr = Pipe::new(shell.stderr.take().map(OwnedFd::from))?;
        Ok(Self { shell, id, watch, ended: false, stdout, stderr, _script: script })
    }

    /// Stays with the line until it has ended, by itself or not, and then reaps it.
    fn run(
        &mut self,
        timeout: Option<Duration>,
        family: &Family,
        mut cancelled: impl FnMut() -> bool,
    ) -> End {
        let begun = Instant::now();
        let mut asked = begun;
        let by_force = loop {
            let left = timeout.map_or(STEP, |timeout| timeout.saturating_sub(begun.elapsed()));
            self.wait(left.min(STEP));
            if self.ended {
                break None;
            }
            if left.is_zero() {
                break Some(End::TimedOut as fn(Option<i32>) -> End);
            }
            if asked.elapsed() >= STEP {
                asked = Instant::now();
                if cancelled() {
                    break Some(End::Cancelled as fn(Option<i32>) -> End);
                }
            }
        };
        if by_force.is_some() {
            family.end(self.id, |time| self.wait(time));
        }
        let status = self.shell.try_wait().ok().flatten();
        match by_force {
            Some(end) => end(status.and_then(|status| status.signal())),
            None => status.map_or(End::NotStarted("its end was not seen".to_owned()), natural_end),
        }
    }

    /// Waits for the shell's end or for output, and takes what there is.
    fn wait(&mut self, time: Duration) {
        let mut watched = Vec::with_capacity(3);
        if !self.ended {
            watched.push(PollFd::new(&self.watch, PollFlags::IN));
        }
        for pipe in [&self.stdout, &self.stderr].into_iter().filter_map(|pipe| pipe.file.as_ref()) {
            watched.push(PollFd::new(pipe, PollFlags::IN));
        }
        let time = Timespec { tv_sec: 0, tv_nsec: time.min(STEP).subsec_nanos().into() };
        // Interrupted or not, what counts is what there is to read.
        let _ = poll(&mut watched, Some(&time));
        let ended = !self.ended && watched.first().is_some_and(|shell| !shell.revents().is_empty());
        self.ended |= ended;
        self.stdout.take(READ_MAX);
        self.stderr.take(READ_MAX);
    }
}

fn natural_end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or_default()),
    }
}

/// A shell for a command, and the file that the command is in if it is long. Standard input stays what
/// the caller makes it.
fn shell(command: &[u8]) -> io::Result<(Command, Option<File>)> {
    let mut shell = Command::new("/bin/sh");
    if command.len() <= ARGUMENT_MAX {
        // A line may begin with a dash.
        shell.args(["-c", "--"]).arg(OsStr::from_bytes(command));
        return Ok((shell, None));
    }
    let mut script = File::from(memfd_create("line", MemfdFlags::CLOEXEC)?);
    script.write_all(command)?;
    script.write_all(b"\n")?;
    // By the worker's name for it, so that the line's processes do not inherit it.
    let path = format!("/proc/{}/fd/{}", std::process::id(), script.as_raw_fd());
    shell.args(["-c", "--"]).arg(format!(". {path}"));
    Ok((shell, Some(script)))
}

/// The read end of a line's output, and what came out of it.
struct Pipe {
    /// Gone when all writers are.
    file: Option<File>,
    kept: Vec<u8>,
    dropped: u64,
}

impl Pipe {
    fn new(end: Option<OwnedFd>) -> io::Result<Self> {
        let file = end.map(File::from);
        if let Some(file) = &file {
            rustix::io::ioctl_fionbio(file, true)?;
        }
        Ok(Self { file, kept: Vec::new(), dropped: 0 })
    }

    /// Takes what there is, up to `most` bytes and a bit.
    fn take(&mut self, most: usize) {
        let mut taken = 0;
        while let Some(file) = &self.file
            && taken < most
        {
            self.kept.reserve(self.kept.len().clamp(READ_MIN, READ_MAX));
            match rustix::io::read(file, spare_capacity(&mut self.kept)) {
                Ok(0) => self.file = None,
                Ok(length) => taken += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.file = None,
            }
            self.dropped += self.kept.len().saturating_sub(KEEP) as u64;
            self.kept.truncate(KEEP);
        }
    }

    /// The line has ended: takes what is left, and leaves the rest to a thread.
    fn finish(&mut self) -> Captured {
        self.take(LEFT_IN_PIPE);
        if let Some(mut file) = self.file.take() {
            let _ = rustix::io::ioctl_fionbio(file.as_fd(), false);
            let body = move || io::copy(&mut file, &mut io::sink());
            // Without a thread the background processes lose their reader; nothing else happens.
            let _ = thread::Builder::new().name("drain".to_owned()).spawn(body);
        }
        let bytes = ByteBuf::from(std::mem::take(&mut self.kept));
        Captured { bytes, dropped: self.dropped }
    }
}
