//! What a worker writes: read from its two pipes, cut into lines, and the last lines of stderr kept.
//!
//! Lines go to the parent as long as that takes them. When it does not, the pipes are left alone, so that the
//! worker waits; and after a time they are emptied and what was in them is counted, so that it does not wait for
//! ever. Memory is bounded either way: one read and one line of each stream.

use std::collections::VecDeque;
use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::child::is_readable;
use crate::ids::TaskId;
use crate::process::Board;
use crate::wire::control::{Dropped, LINE_MAX, Output, REST_MAX, StreamName};
use crate::wire::marker::Marker;

/// Lines that are kept, and bytes of each.
const LINES_MAX: usize = 64;
const KEPT_LINE_MAX: usize = 1024;

/// How long a worker waits for somebody to take what it writes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of one read: all that a pipe holds by default, so that what one read gives is what was there.
const READ: usize = 64 << 10;

/// What takes a worker's lines.
pub(super) trait Taker {
    /// Whether there is room for more.
    fn has_room(&self) -> bool;
    /// Takes some, room or no room.
    fn take(&mut self, output: Output);
}

/// Both streams of a worker.
pub(super) struct Outlet {
    pipes: [Pipe; 2],
    tail: Tail,
    marker: Marker,
    board: Board,
    /// Whether anybody wants lines at all.
    is_wanted: bool,
    /// Since when there has been no room for more.
    full_since: Option<Instant>,
    buffer: Box<[u8]>,
}

struct Pipe {
    reader: Option<PipeReader>,
    lines: Lines,
}

impl Outlet {
    pub(super) fn new(
        stdout: PipeReader,
        stderr: PipeReader,
        board: Board,
        marker: Marker,
        is_wanted: bool,
    ) -> Self {
        let pipe = |reader, stream| Pipe { reader: Some(reader), lines: Lines::of(stream) };
        Self {
            pipes: [pipe(stdout, StreamName::Stdout), pipe(stderr, StreamName::Stderr)],
            tail: Tail::default(),
            marker,
            board,
            is_wanted,
            full_since: None,
            buffer: vec![0; READ].into(),
        }
    }

    /// The pipes to watch, if there is room for what is in them, or none is needed.
    pub(super) fn watched(&self, now: Instant) -> [Option<BorrowedFd<'_>>; 2] {
        let is_open = self.is_dropping(now) || self.full_since.is_none();
        self.pipes.each_ref().map(|pipe| pipe.reader.as_ref().filter(|_| is_open).map(AsFd::as_fd))
    }

    /// When to ask again which pipes to watch.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.full_since.map(|since| since + PATIENCE).filter(|deadline| *deadline > now)
    }

    /// Notes whether there is room. To be called before the others.
    pub(super) fn note_room(&mut self, taker: &impl Taker, now: Instant) {
        if !self.is_wanted || taker.has_room() {
            self.full_since = None;
        } else {
            self.full_since.get_or_insert(now);
        }
    }

    fn is_dropping(&self, now: Instant) -> bool {
        self.full_since.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE)
    }

    /// Reads once from a pipe that has something, or is closed. Returns how much there was.
    pub(super) fn read(&mut self, which: usize, taker: &mut impl Taker, now: Instant) -> usize {
        let is_dropped = self.is_dropping(now);
        self.read_once(which, taker, is_dropped)
    }

    fn read_once(&mut self, which: usize, taker: &mut impl Taker, is_dropped: bool) -> usize {
        let Self { pipes, tail, marker, board, is_wanted, buffer, .. } = self;
        let Pipe { reader, lines } = &mut pipes[which];
        // What has no mark behind it is of the task that runs when it is read: one that had ended before would have
        // found its words still there, and have left a mark. Tasks may end and begin while this reads, so the board
        // is looked at twice, and those that have left a mark are out of the question.
        let before = board.task();
        let length = reader.as_mut().map_or(0, |reader| read_some(reader, buffer));
        let after = board.task();
        let running =
            [before.1.then_some(before.0), (before != after).then_some(after.0)].map(|one| one.map(TaskId));
        if length == 0 {
            *reader = None;
            return 0;
        }
        board.count_read();
        let fate = match (*is_wanted, is_dropped) {
            (true, false) => Fate::Sent,
            (true, true) => Fate::Dropped,
            (false, _) => Fate::Unwanted,
        };
        let tail = (lines.stream == StreamName::Stderr).then_some(tail);
        lines.feed(&buffer[..length], running, marker, tail, fate, taker);
        length
    }

    /// The worker has ended: takes what is left in the pipes, and the last lines, which may have no end. What
    /// its descendants go on writing is not waited for.
    pub(super) fn finish(&mut self, taker: &mut impl Taker) {
        self.drain(taker, |_| true);
    }

    /// The worker is about to leave: takes what it has written, and lines that have no end yet. What still comes is
    /// from its libraries.
    pub(super) fn flush(&mut self, taker: &mut impl Taker) {
        self.drain(taker, Taker::has_room);
    }

    /// Takes what is in the pipes, and the lines that have no end, as long as `goes_on`. Where it does and there is no
    /// room, lines are dropped.
    fn drain<T: Taker>(&mut self, taker: &mut T, goes_on: impl Fn(&T) -> bool) {
        for which in 0..self.pipes.len() {
            let mut taken = 0;
            while taken < REST_MAX
                && goes_on(taker)
                && is_readable(self.pipes[which].reader.as_ref().map(AsFd::as_fd))
            {
                let is_dropped = !taker.has_room();
                taken += self.read_once(which, taker, is_dropped).max(1);
            }
            if self.is_wanted && goes_on(taker) {
                self.pipes[which].lines.finish(taker);
            }
        }
    }

    /// The last lines of stderr.
    pub(super) fn last_words(&mut self) -> Vec<String> {
        self.tail.take()
    }
}

/// One read; nothing is the end.
fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> usize {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read.unwrap_or(0),
        }
    }
}

/// What becomes of lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    /// They are counted.
    Dropped,
    Unwanted,
}

/// Cuts one stream into lines, and finds out whose they are.
struct Lines {
    stream: StreamName,
    /// What may be the beginning of a mark.
    held: Vec<u8>,
    /// The line that has no end yet, and whose it is.
    open: Vec<u8>,
    open_task: Option<TaskId>,
    dropped: Dropped,
}

impl Lines {
    fn of(stream: StreamName) -> Self {
        Self { stream, held: Vec::new(), open: Vec::new(), open_task: None, dropped: Dropped::default() }
    }

    fn feed(
        &mut self,
        bytes: &[u8],
        mut running: [Option<TaskId>; 2],
        marker: &Marker,
        mut tail: Option<&mut Tail>,
        fate: Fate,
        taker: &mut impl Taker,
    ) {
        let joined;
        let mut rest = bytes;
        if !self.held.is_empty() {
            joined = [&std::mem::take(&mut self.held)[..], bytes].concat();
            rest = &joined;
        }
        let mut take = |lines: &mut Self, bytes: &[u8], task| {
            if let Some(tail) = &mut tail {
                tail.add(bytes);
            }
            match fate {
                Fate::Sent => lines.add(bytes, task, taker),
                Fate::Dropped => lines.drop(bytes),
                Fate::Unwanted => {}
            }
        };
        while let Some((at, task)) = marker.find(rest) {
            take(self, &rest[..at], Some(task));
            running.iter_mut().filter(|one| **one == Some(task)).for_each(|ended| *ended = None);
            rest = &rest[at + crate::wire::marker::MARK..];
        }
        let (whole, begun) = rest.split_at(rest.len() - marker.begun(rest));
        take(self, whole, running.into_iter().flatten().next());
        self.held.extend_from_slice(begun);
    }

    /// Hands on all lines that have an end, and of a long one pieces.
    fn add(&mut self, bytes: &[u8], task: Option<TaskId>, taker: &mut impl Taker) {
        if bytes.is_empty() {
            return;
        }
        self.open_task = task;
        let (whole, begun) = bytes.split_at(memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1));
        if !whole.is_empty() {
            self.open.extend_from_slice(whole);
            let lines = std::mem::take(&mut self.open);
            let mut rest = &lines[..];
            while !rest.is_empty() {
                let piece = &rest[..rest.len().min(LINE_MAX)];
                let end = memchr::memrchr(b'\n', piece).map_or(piece.len(), |at| at + 1);
                self.send(&rest[..end], task, taker);
                rest = &rest[end..];
            }
        }
        for piece in begun.chunks(LINE_MAX) {
            self.open.extend_from_slice(piece);
            if self.open.len() >= LINE_MAX {
                let line = std::mem::take(&mut self.open);
                let (piece, rest) = line.split_at(LINE_MAX);
                self.send(piece, task, taker);
                self.open.extend_from_slice(rest);
            }
        }
    }

    fn send(&mut self, bytes: &[u8], task: Option<TaskId>, taker: &mut impl Taker) {
        let dropped = std::mem::take(&mut self.dropped);
        taker.take(Output { stream: self.stream, task, dropped, bytes: Bytes::copy_from_slice(bytes) });
    }

    fn drop(&mut self, bytes: &[u8]) {
        // A line whose beginning is kept is dropped as a whole.
        let begun = std::mem::take(&mut self.open);
        self.dropped.bytes += (begun.len() + bytes.len()) as u64;
        self.dropped.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
    }

    fn finish(&mut self, taker: &mut impl Taker) {
        // What might have been a mark is none.
        let held = std::mem::take(&mut self.held);
        self.open.extend_from_slice(&held);
        let line = std::mem::take(&mut self.open);
        if !line.is_empty() || self.dropped != Dropped::default() {
            let (piece, _) = line.split_at(line.len().min(LINE_MAX));
            self.send(piece, self.open_task, taker);
        }
    }
}

/// The last lines of a stream.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    /// The line that has no end yet.
    open: Vec<u8>,
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = KEPT_LINE_MAX.saturating_sub(self.open.len());
            self.open.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.close_line();
            }
        }
    }

    fn close_line(&mut self) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(String::from_utf8_lossy(&self.open).trim_end().to_owned());
        self.open.clear();
    }

    /// The last lines, oldest first.
    fn take(&mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.close_line();
        }
        std::mem::take(&mut self.lines).into()
    }
}

/// What must hold of what a worker writes (`fuzzing.rs`). Of each two bytes the first says how much of what follows comes
/// at once, and whether it is taken.
#[cfg(any(test, fuzzing))]
pub(crate) fn output_property(bytes: &[u8]) {
    struct Paper(Vec<Output>);
    impl Taker for Paper {
        fn has_room(&self) -> bool {
            true
        }
        fn take(&mut self, output: Output) {
            assert!(output.bytes.len() <= LINE_MAX);
            self.0.push(output);
        }
    }
    let marker = Marker::new([5, 6]);
    let mark = marker.mark(TaskId(7));
    let (mut lines, mut tail, mut paper) =
        (Lines::of(StreamName::Stderr), Tail::default(), Paper(Vec::new()));
    let (mut rest, mut expected) = (bytes, 0);
    while let Some((&what, following)) = rest.split_first() {
        let (piece, following) = following.split_at((usize::from(what) * 3).min(following.len()));
        rest = following;
        let is_marked = what % 4 == 0;
        let written = if is_marked { [piece, &mark[..]].concat() } else { piece.to_vec() };
        let fate = if what % 8 == 7 { Fate::Dropped } else { Fate::Sent };
        lines.feed(&written, [Some(TaskId(7)), Some(TaskId(8))], &marker, Some(&mut tail), fate, &mut paper);
        expected += piece.len();
        assert!(lines.held.len() < crate::wire::marker::MARK && lines.open.len() < 2 * LINE_MAX);
    }
    lines.finish(&mut paper);
    let sent: usize = paper.0.iter().map(|output| output.bytes.len()).sum();
    let dropped: u64 = paper.0.iter().map(|output| output.dropped.bytes).sum();
    // What looks like a mark of its own is one, and its bytes are gone.
    assert!(sent as u64 + dropped <= expected as u64);
    let is_whole = !bytes.contains(&0) || memchr::memmem::find(bytes, &mark[..8]).is_none();
    assert!(!is_whole || sent as u64 + dropped == expected as u64, "no byte is lost, and none doubled");
    assert!(tail.take().len() <= LINES_MAX);
}

#[cfg(test)]
mod tests;
