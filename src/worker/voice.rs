//! How a worker lets its guard know whose lines are whose: which task runs stands on the page that the two share,
//! and where a task ends whose words the guard has not read yet, a mark is put behind them.
//!
//! To look for unread words takes two system calls, which would be felt by the shortest tasks. So it is done only
//! now and then at the ends of tasks of a kind that has written nothing a thousand times, and always at others.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::ids::TaskId;
use crate::process::Board;
use crate::transport::claim::Word;
use crate::wire::marker::Marker;
use crate::wire::message::WireKind;

/// Words are looked for so often at least, while tasks end.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// How long the end of a task waits for room for a mark.
const ROOM_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Tasks of a kind that have written nothing, one after the other, until the next is not expected to.
const SILENT_AFTER: u32 = 1000;

pub(crate) struct Voice {
    board: Board,
    marker: Marker,
    /// The pipes to the guard, whatever became of this process's own streams.
    pipes: Vec<OwnedFd>,
    looked: Instant,
    /// How often the guard had read something then.
    reads: u64,
    /// How many tasks of each kind have written nothing since one did.
    silent: Vec<u32>,
}

impl Voice {
    /// Takes over the page under this number.
    pub(crate) fn inherited(board: RawFd, kinds: usize) -> io::Result<Self> {
        let (board, [name, other_name, stdout, stderr]) = Board::inherited(board)?;
        let mut pipes = Vec::new();
        // A wrapper may have sent its streams somewhere else. Nothing of ours is to turn up there.
        for (fd, inode) in [(io::stdout().as_fd(), stdout), (io::stderr().as_fd(), stderr)] {
            if rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == inode) {
                pipes.push(rustix::io::fcntl_dupfd_cloexec(fd, 3)?);
            }
        }
        let (marker, silent) = (Marker::new([name, other_name]), vec![0; kinds]);
        Ok(Self { board, marker, pipes, looked: Instant::now(), reads: 0, silent })
    }

    /// Where on that page this worker says what it has begun.
    pub(crate) fn word(&self) -> Word {
        Word::Shared(self.board.claim())
    }

    /// A task begins.
    pub(super) fn begin(&self, task: TaskId) {
        self.board.begin(task.0);
    }

    /// It has ended, now.
    pub(super) fn end(&mut self, task: TaskId, kind: WireKind, now: Instant) {
        let is_silent = self.silent.get(kind.0 as usize).is_some_and(|silent| *silent >= SILENT_AFTER);
        let is_read = self.board.reads() != self.reads;
        if !is_silent || is_read || now.saturating_duration_since(self.looked) >= LOOK_EVERY {
            self.looked = now;
            let mut any = is_read;
            for pipe in &self.pipes {
                any |= leave_mark(pipe, &self.marker, task);
            }
            self.reads = self.board.reads();
            if let Some(silent) = self.silent.get_mut(kind.0 as usize) {
                *silent = if any { 0 } else { silent.saturating_add(1) };
            }
        }
        self.board.end(task.0);
    }
}

/// Puts a mark behind what the guard has not read yet, if there is something. Whether there is.
fn leave_mark(pipe: &OwnedFd, marker: &Marker, task: TaskId) -> bool {
    if !rustix::io::ioctl_fionread(pipe).is_ok_and(|unread| unread > 0) {
        return false;
    }
    // A full pipe is one that is not emptied fast enough. The end of a task waits for that as its own words would
    // have to, but not for long.
    let has_room = poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&ROOM_PATIENCE));
    if has_room.is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(pipe, &marker.mark(task));
    }
    true
}
